#!/bin/sh
# The profile without a process of ours: kills start the daemon, which tells of them and ends.
. /lab/common.sh
examples=/usr/share/doc/oomwatchd/examples
unit=oomwatchd-ondemand.service
prom=/var/lib/oomwatchd/metrics/oomwatchd.prom
ended() { [ "$(systemctl show --property=ActiveState --value $unit)" = inactive ]; }
starts() { journalctl --quiet --no-pager --output=cat --unit=$unit | grep -c 'watching since'; }
running() { cat /proc/[0-9]*/cmdline 2> /dev/null | tr '\0' ' ' | grep -c 'oomwatchd run'; }
told() { awk '$1 ~ /^oomwatchd_oom_kills_total/ {n += $NF} END {print n + 0}' $prom; }
free_kib() { sync; echo 3 > /proc/sys/vm/drop_caches; sleep 1; awk '/^MemFree:/{print $2}' /proc/meminfo; }

active > /dev/null
part resident; memory
# the manager wants 16 MiB free there to read its units again
mount -o remount,size=40M /run
systemctl disable --now oomwatchd.service oomwatchd.socket oomwatchd-kmsg.socket oomwatchd-names.socket
rm -rf /var/lib/private/oomwatchd /var/lib/oomwatchd
mkdir -p /etc/oomwatchd
cp $examples/oomwatchd-ondemand.service $examples/oomwatchd-ondemand.socket /etc/systemd/system/
cp $examples/ondemand.toml /etc/oomwatchd/
mount -t tracefs tracefs /sys/kernel/tracing 2> /dev/null
# what one tracing instance costs: eight more of them
before=$(free_kib)
for n in 1 2 3 4 5 6 7 8; do
    instance=/sys/kernel/tracing/instances/cost$n
    mkdir $instance && echo 4 > $instance/buffer_size_kb && echo 1 > $instance/events/oom/mark_victim/enable
done
after=$(free_kib)
part instance_kib; echo $(((before - after) / 8))
for n in 1 2 3 4 5 6 7 8; do
    echo 0 > /sys/kernel/tracing/instances/cost$n/events/oom/mark_victim/enable; rmdir /sys/kernel/tracing/instances/cost$n
done
systemctl daemon-reload
part enabled; systemctl enable --now oomwatchd-ondemand.socket $unit
until_within 60 ended
part at_boot; echo "starts $(starts), told $(told), kernel $(oom_kills)"
part idle; running; systemctl is-active oomwatchd-ondemand.socket
killed() { # how many
    until_within 90 sh -c "[ \"\$(awk '/^oom_kill /{print \$2}' /proc/vmstat)\" -ge $1 ]"
    sleep 3
    until_within 120 ended
}
first=$(oom_kills)
for n in 1 2 3; do
    cgroup one$n 24M; inside one$n labbox hog
    killed $((first + n))
done
part one_by_one; echo "starts $(starts), told $(told), kernel $(oom_kills)"
first=$(oom_kills); begun=$(starts)
for n in 1 2 3 4 5 6 7 8 9 10; do cgroup storm$n 3M; inside storm$n labbox hog & done
wait
killed $((first + 10))
part storm; echo "starts $(($(starts) - begun)), told $(told), kernel $(oom_kills)"
first=$(oom_kills); begun=$(starts)
ordinary labbox hog 0 'big hog'
killed $((first + 1))
part global; echo "starts $(($(starts) - begun)), told $(told), kernel $(oom_kills)"
sleep 15; ended
part before_the_end; echo "starts $(starts), told $(told), kernel $(oom_kills), processes $(running)"
part peak; journalctl --quiet --no-pager --output=cat --unit=$unit | grep -o 'Consumed.*' | tail -n 3
part prom; cat $prom
part export; ordinary oomwatchd events --state-directory /var/lib/oomwatchd export
part log; journalctl --quiet --no-pager --output=cat --unit=$unit | tail -n 60
part end
sync
systemctl poweroff --force --force
