#!/bin/sh
# One boot of what a machine goes through, one after another: a storm of cgroups, a cgroup of which nobody may
# be killed, a clock that jumps, a unit that comes back, systemd-oomd, swap and memory that go, and all of
# memory used up while files are read.
. /lab/common.sh
part active; active

# Each waits at the gate, in a cgroup of its own.
part storm
mkfifo /run/gate
i=0
while [ $i -lt 40 ]; do
    cgroup storm$i 3M
    # shellcheck disable=SC2016 # the inner shell expands
    inside storm$i sh -c ': < /run/gate; exec labbox hog 0 "$0"' storm$i &
    i=$((i + 1))
done
in_place() { [ "$(cat $cgroups/storm*/cgroup.procs | wc -l)" -ge 40 ]; }
until_within 180 in_place
exec 9> /run/gate
wait
exec 9>&-
counted storm
# Without the wait: a process lives for some milliseconds.
i=0
while [ $i -lt 40 ]; do
    cgroup burst$i 3M
    inside burst$i labbox hog 0 burst$i &
    i=$((i + 1))
done
wait
counted burst

# The kernel reports without end while nobody may be killed; the time is bounded.
part unkillable
before=$(metric oomwatchd_oom_events_total)
cgroup protected 12M
# timeout itself stays outside: in there it would not get the memory that it needs to end this
# shellcheck disable=SC2016
timeout -s KILL 2 sh -c 'echo -1000 > /proc/self/oom_score_adj; echo $$ > "$0/cgroup.procs"; exec labbox hog 40' \
    $cgroups/protected
cat $cgroups/protected/memory.events
# as many as the kernel counted, or no more for 10 s: the last may have been cut off by the end of the process
asked=$(awk '/^oom /{print $2}' $cgroups/protected/memory.events)
all_told() {
    earlier=${now-}
    now=$(($(metric oomwatchd_oom_events_total) - before))
    echo "reports $now"
    [ "$now" -lt "$asked" ] || return 0
    sleep 10
    [ "$now" = "$earlier" ]
}
until_within 240 all_told
sleep 12 # a run of repeats ends when 10 s of the log brought none
echo "told $(($(metric oomwatchd_oom_events_total) - before))"
echo "lost $(metric oomwatchd_kmsg_lost_records_total)"

# NAME START END: when a process was killed, by the clock of that moment
timed() {
    cgroup "$1" 8M
    begun=$(date +%s)
    inside "$1" labbox hog 0 "$1"
    echo "killed $1 $begun $(($(date +%s) + 1))"
    counted "$1"
}
part clock
timed right
date --set='-1 hour' > /dev/null
timed hour-less
date --set='+2 hours' > /dev/null
timed hour-more
systemctl restart oomwatchd.service
part clock_restart; active
part clock_right_again
date --set='-1 hour' > /dev/null
timed right-again
part clock_flips; begun=$(date +%s)
(while [ ! -e /run/flipped ]; do date --set='-1 hour'; date --set='+1 hour'; done > /dev/null) &
for i in 0 1 2 3 4 5 6 7 8 9; do cgroup flip$i 4M; inside flip$i labbox hog 0 flip$i; done
touch /run/flipped
wait
echo "flipped $begun $(($(date +%s) + 1))"
counted flips

# Killed at its first start, well at its second.
part phoenix
# shellcheck disable=SC2016
systemd-run --quiet --unit=phoenix --property=Restart=always --property=RestartSec=1 --property=MemoryMax=24M \
    --property=MemorySwapMax=0 sh -c '[ ! -e /run/ashes ] || exec sleep 600; touch /run/ashes; exec /lab/labbox hog 0 phoenix'
risen() { [ "$(systemctl show --property=NRestarts --value phoenix.service)" = 1 ]; }
until_within 180 risen
systemctl show --property=NRestarts --property=ActiveState phoenix.service
counted phoenix

# Swap comes, systemd-oomd uses it to find someone, and it goes.
part swap
head -c 64M /dev/zero > /lab/swap
chmod 600 /lab/swap
mkswap /lab/swap > /dev/null
swapon /lab/swap && echo on
if ! small; then
    part oomd
    mkdir -p /etc/systemd/oomd.conf.d
    printf '[OOM]\nDefaultMemoryPressureDurationSec=2s\n' > /etc/systemd/oomd.conf.d/lab.conf
    systemctl start systemd-oomd.service
    systemd-run --quiet --unit=pressed --property=MemoryHigh=16M --property=ManagedOOMMemoryPressure=kill \
        --property=ManagedOOMMemoryPressureLimit=1% labbox churn 48
    killed() { ! systemctl --quiet is-active pressed.service; }
    until_within 180 killed
    systemctl show --property=Result --property=ActiveState pressed.service
    cat /sys/fs/cgroup/system.slice/pressed.service/memory.pressure 2> /dev/null
    systemctl stop pressed.service systemd-oomd.service systemd-oomd.socket
    part log_of_oomd; journalctl --quiet --no-pager --output=cat --unit=systemd-oomd.service
    part journal_of_oomd; journal MESSAGE_ID=d989611b15e44c9dbf31e3c81256e4ed
fi
part swapoff
sleep 3 # both marks in one look would be none
swapoff /lab/swap && echo off

part memory_block
# With movablecore= on the command line the kernel keeps out of these what cannot be moved; what is in use just
# now can be in the way all the same.
block_offline() {
    sync
    echo 3 > /proc/sys/vm/drop_caches
    for block in /sys/devices/system/memory/memory*; do
        grep -q Movable "$block/valid_zones" 2> /dev/null || continue
        # in a shell of its own: a failed write of this one's would be tried again with the next
        sh -c 'echo offline > "$0/state"' "$block" 2> /dev/null
        [ "$(cat "$block/state")" = online ] || { echo "offline $(basename "$block")"; return 0; }
    done
    return 1
}
until_within 60 block_offline

# The last: all of memory, while a file is read over and over that does not fit beside it.
part thrash
head -c "$(awk '/^MemTotal:/{print int($2 / 2)}' /proc/meminfo)K" /dev/zero > /lab/file
sync
ordinary labbox thrash /lab/file 300 &
thrasher=$!
sleep 5
cat /proc/pressure/memory
systemd-run --quiet --unit=bereft --wait labbox hog 0 bereft
cat /proc/pressure/memory
kill $thrasher
wait
counted global

part oom_kills; oom_kills
part metrics; metrics
part journal_by_id; journal MESSAGE_ID=e73579b0647c4e32913e05953b325c1b
part journal_without_victim; journal MESSAGE_ID=82f0bbf688964820ad29f23c35b2147c
part memory_after; memory
part restarts; systemctl show --property=NRestarts --value oomwatchd.service
sleep 65 # a unit is watched for a minute after its kill
part log; log
part end
systemctl stop oomwatchd.socket oomwatchd-kmsg.socket oomwatchd.service
sync
systemctl --force poweroff
