#!/bin/busybox sh
# PID 1 of a small board with BusyBox, Python and the real daemon: no systemd, a root that is read-only, a log on tmpfs,
# a store of 256 KiB on flash, and a clock that begins in 1970. Results on a serial line.
/bin/busybox --install -s /run/bin
export PATH=/run/bin:/usr/bin:/bin LC_ALL=C MALLOC_ARENA_MAX=1
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t tracefs tracefs /sys/kernel/tracing
mount -t cgroup2 cgroup /sys/fs/cgroup
exec > /dev/@OUTPUT@ 2>&1
stty raw < /dev/@OUTPUT@
# not 0: the kernel takes no time before its own boot
date -s @3600 > /dev/null
CG=/sys/fs/cgroup
echo +memory > $CG/cgroup.subtree_control
mkdir /run/oomwatchd /run/etc
read -r flash < /run/flash
mount -t ext4 -o noatime "$flash" /data
part() { echo "@@$1"; }
kills() { awk '/^oom_kill /{print $2}' /proc/vmstat; }
up() { cut -d' ' -f1 /proc/uptime; }
written() { awk '{print $7 * 512}' "/sys/block/${flash##*/}/stat"; }
figure() { awk -v name="$1:" '$1 == name {print $2}' /proc/meminfo; }
held() {
    sync; echo 3 > /proc/sys/vm/drop_caches; sleep 1
    echo "free $(figure MemFree) slab $(figure Slab) anon $(figure AnonPages)"
}
hog() { # CGROUP LIMIT: a line that never ends
    mkdir -p "$CG/$1"; echo "$2" > "$CG/$1/memory.max"; echo 0 > "$CG/$1/memory.swap.max" 2> /dev/null
    sh -c 'echo 0 > /proc/self/oom_score_adj; echo $$ > "$0/cgroup.procs"; exec tail /dev/zero' "$CG/$1"
}
all_of_memory() { sh -c 'echo 0 > /proc/self/oom_score_adj; exec tail /dev/zero'; }
lines() { wc -l < /run/events.jsonl; }
until_lines() { # HOW MANY, SECONDS
    tries=0
    until [ "$(lines)" -ge "$1" ] || [ $((tries += 1)) -gt "$2" ]; do sleep 1; done
}
echo -1000 > /proc/self/oom_score_adj
touch /run/events.jsonl
cat > /run/etc/config.toml << 'END'
@CONFIG@END
{ cat /run/etc/config.toml; printf '[metrics]\ntextfile = "/run/oomwatchd.prom"\n'; } > /run/etc/ondemand.toml
sed -i '1i exit_after_idle_seconds = 5' /run/etc/ondemand.toml

part kernel; uname -rm; python3 --version; head -3 /proc/meminfo; touch /etc/no 2>&1
part clock; date
part before; held
log=/run/log
oomwatchd run --config /run/etc/config.toml > $log 2>&1 &
daemon=$!
tries=0
until grep -q 'watching since' $log || [ $((tries += 1)) -gt 120 ]; do sleep 1; done
part ready; up; grep -E '^Vm(HWM|RSS):' /proc/$daemon/status; grep -E '^(Anonymous|Private_)' /proc/$daemon/smaps_rollup
part resident_held; held
echo -900 > /proc/$daemon/oom_score_adj
hog one 8M; until_lines 1 60
part first; date; lines
date -s '2026-11-30 12:00:00' > /dev/null
hog two 8M; until_lines 2 60
part stepped; date; lines
for n in 1 2 3 4 5 6 7 8 9 10; do hog storm$n 1M & done
until_lines 12 60
all_of_memory
until_lines 13 60
part resident_told; echo "kernel $(kills) lines $(lines)"; grep -E '^Vm(HWM|RSS):' /proc/$daemon/status
kill $daemon; wait $daemon; echo "status $?"
cp /run/events.jsonl /run/first.jsonl
oomwatchd run --config /run/etc/config.toml >> $log 2>&1 &
daemon=$!
tries=0
until [ "$(grep -c 'watching since' $log)" -ge 2 ] || [ $((tries += 1)) -gt 120 ]; do sleep 1; done
sleep 3
part restarted; echo "lines $(lines)"; kill $daemon; wait $daemon
part store; du -sk /data/oomwatchd; ls -l /data/oomwatchd
# what a kill writes to the flash
sync; one=$(written)
oomwatchd run --config /run/etc/config.toml >> $log 2>&1 &
daemon=$!
tries=0
until [ "$(grep -c 'watching since' $log)" -ge 3 ] || [ $((tries += 1)) -gt 120 ]; do sleep 1; done
sleep 2; sync; two=$(written)
first=$(lines)
for n in 1 2 3 4; do hog written$n 4M; until_lines $((first + n)) 60; sleep 3; sync; done
three=$(written)
sleep 20; sync
part written; echo "start $((two - one)) kills 4 bytes $((three - two)) idle $(($(written) - three))"
kill $daemon; wait $daemon
part resident_log; cat $log
part resident_events; cat /run/events.jsonl
rm -rf /run/events.jsonl /data/oomwatchd; touch /run/events.jsonl

part none; held
OOMWATCHD='oomwatchd run --config /run/etc/ondemand.toml' sh /usr/libexec/oomwatchd-ondemand > /run/waiter 2>&1 &
waiter=$!
tries=0
until [ -e /run/oomwatchd.prom ] || [ $((tries += 1)) -gt 120 ]; do sleep 1; done
idle() { ! ps | grep -q '[o]omwatchd run'; }
until_idle() { tries=0; until idle || [ $((tries += 1)) -gt 120 ]; do sleep 1; done; }
told() { awk '$1 ~ /^oomwatchd_oom_kills_total/ {n += $NF} END {print n + 0}' /run/oomwatchd.prom; }
until_idle
part waiting; held; echo "lines $(lines)"
rm -f /run/events.jsonl; touch /run/events.jsonl
base=$(told)
for n in 1 2; do
    hog later$n 8M; sleep 2; until_lines $n 90; until_idle
done
part singles; echo "kernel $(kills) told $(told) lines $(lines)"
for n in 1 2 3 4 5 6 7 8 9 10; do hog laters$n 1M & done
sleep 10; until_lines 12 90; until_idle
part storm; echo "kernel $(kills) told $(told) lines $(lines)"
all_of_memory
sleep 3; until_lines 13 90; until_idle
part all_told; echo "kernel $(kills) told $(told) lines $(lines)"
part waiter; cat /run/waiter
part events; cat /run/events.jsonl
part end
sync
poweroff -f
