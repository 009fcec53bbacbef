#!/bin/sh
# The profile without a process of ours, or the resident daemon in the same machine (lab.phase=): the same kills for
# both.
. /lab/common.sh
examples=/usr/share/doc/oomwatchd/examples
unit=oomwatchd-ondemand.service
prom=/var/lib/oomwatchd/metrics/oomwatchd.prom
ended() { [ "$(systemctl show --property=ActiveState --value $unit)" = inactive ]; }
running() { cat /proc/[0-9]*/cmdline 2> /dev/null | tr '\0' ' ' | grep -c '[o]omwatchd run'; }
told() { awk '$1 ~ /^oomwatchd_oom_kills_total/ {n += $NF} END {print n + 0}' $prom; }
figure() { awk -v name="$1:" '$1 == name {print $2}' /proc/meminfo; }
# what nothing can be dropped of any more: free memory, and what the kernel and processes hold, in KiB
held() {
    sync; echo 3 > /proc/sys/vm/drop_caches; sleep 1
    echo "MemFree $(figure MemFree), Slab $(figure Slab), Percpu $(figure Percpu), AnonPages $(figure AnonPages)"
}
switches() { awk '/^voluntary/{n += $2} END {print n + 0}' /proc/1/status; }
quiet_for() { # what the service manager wakes up for in so many seconds
    before=$(switches); sleep "$1"; echo "seconds $1, manager $(($(switches) - before))"
}
killed() { # how many the kernel must count
    until_within 90 sh -c "[ \"\$(awk '/^oom_kill /{print \$2}' /proc/vmstat)\" -ge $1 ]"
    [ "$who" = resident ] || { sleep 3; until_within 120 ended; }
}
kills() { # the same for both
    first=$(oom_kills)
    for n in 1 2; do
        cgroup $who$n 16M; inside $who$n labbox hog 0 $who$n
        killed $((first + n)); sleep 2
    done
    part ${who}_one_by_one; counted_by
    first=$(oom_kills)
    for n in 1 2 3 4 5 6 7 8 9 10; do cgroup ${who}storm$n 3M; inside ${who}storm$n labbox hog 0 ${who}storm & done
    wait
    killed $((first + 10))
    part ${who}_storm; counted_by
    first=$(oom_kills)
    ordinary labbox hog 0 ${who}big
    killed $((first + 1)); sleep 5
    part ${who}_global; counted_by
}
counted_by() {
    now
    case $who in
    resident) echo "kernel $(oom_kills), told $(metric oomwatchd_oom_kills_total)" ;;
    *) echo "kernel $(oom_kills), told $(told)" ;;
    esac
}

now() { echo "uptime $(cut -d" " -f1 /proc/uptime)"; }
who=$(sed -n 's/.*lab\.phase=\([a-z]*\).*/\1/p' /proc/cmdline)
part kernel; uname -r; cat /proc/meminfo
part active; active
if [ "$who" = resident ]; then
    part resident_memory; memory
    part resident_held; held
    kills
    until_within 60 sh -c '[ "$(curl --silent --max-time 10 http://127.0.0.1:10053/metrics | awk "/^oomwatchd_oom_kills_total/{n += \$NF} END {print n + 0}")" -ge 13 ]'
    part resident_told; counted_by
    part resident_memory_after; memory
    systemctl stop oomwatchd.service oomwatchd.socket oomwatchd-kmsg.socket oomwatchd-names.socket
    part without_held; held
    part export; ordinary oomwatchd events --state-directory /var/lib/private/oomwatchd export
    part end
    sync
    systemctl poweroff --force --force
fi
# the manager wants 16 MiB free there to read its units again
mount -o remount,size=40M /run
systemctl disable --now oomwatchd.service oomwatchd.socket oomwatchd-kmsg.socket oomwatchd-names.socket
rm -rf /var/lib/private/oomwatchd /var/lib/oomwatchd
mkdir -p /etc/oomwatchd
cp $examples/oomwatchd-ondemand.service $examples/oomwatchd-ondemand.socket /etc/systemd/system/
cp $examples/ondemand.toml /etc/oomwatchd/
mount -t tracefs tracefs /sys/kernel/tracing 2> /dev/null
systemctl daemon-reload
part before_held; held
part enabled; systemctl enable --now oomwatchd-ondemand.socket $unit
sleep 3; until_within 120 ended
part at_boot; counted_by
part idle; running; systemctl is-active oomwatchd-ondemand.socket
part idle_held; held
part quiet; quiet_for 20
begun=$(oom_kills)
kills
sleep 15; until_within 60 ended
part before_the_end; counted_by; echo "processes $(running), killed $(($(oom_kills) - begun))"
part prom; cat $prom
part export; ordinary oomwatchd events --state-directory /var/lib/oomwatchd export
part log; journalctl --quiet --no-pager --output=short-monotonic --unit=$unit | tail -n 200
part end
sync
systemctl poweroff --force --force
