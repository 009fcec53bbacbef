#!/bin/busybox sh
# PID 1 of a small machine without systemd: the script that waits for kills, on a real kernel. What stands for the
# daemon says that it ran, and leaves what the trigger holds: each victim is one start. Results on the second serial line.
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t tracefs tracefs /sys/kernel/tracing
exec > /dev/@SECOND@ 2>&1
CG=/cg
mkdir $CG
mount -t cgroup2 cgroup $CG
echo +memory > $CG/cgroup.subtree_control
cat > /bin/stub << 'END'
#!/bin/sh
echo "$(cut -d' ' -f1 /proc/uptime) $(grep '^oom_kill ' /proc/vmstat)" >> /runs
END
chmod 755 /bin/stub
slab() { sync; echo 3 > /proc/sys/vm/drop_caches; sleep 1; awk '/^MemFree:/{print $2}' /proc/meminfo; }
kills() { awk '/^oom_kill /{print $2}' /proc/vmstat; }
hog() { # CGROUP: a line that never ends
    mkdir -p $CG/$1; echo ${2:-6M} > $CG/$1/memory.max; echo 0 > $CG/$1/memory.swap.max 2> /dev/null
    sh -c 'echo $$ > /cg/'$1'/cgroup.procs; exec tail /dev/zero'
}
starts() { wc -l < /runs; }
touch /runs
before=$(slab)
INSTANCE=${INSTANCE-oomwatchd-ondemand} OOMWATCHD=/bin/stub START_KIB=4096 sh /bin/oomwatchd-ondemand &
waiter=$!
sleep 5
echo "@@TRACING $([ -e /sys/kernel/tracing/instances/oomwatchd-ondemand/trace_pipe ] && echo yes || echo no)"
echo "@@COST_KIB $((before - $(slab)))"
echo "@@GREP $(grep -h -E '^(Rss|Anonymous):' /proc/$(cat /proc/$waiter/task/$waiter/children | cut -d' ' -f1)/smaps_rollup | tr -s ' \n' ' ')"
echo "@@SHELL $(grep -h -E '^(Rss|Anonymous):' /proc/$waiter/smaps_rollup | tr -s ' \n' ' ')"
one=$(grep -h ^voluntary /proc/$waiter/status); sleep 10; two=$(grep -h ^voluntary /proc/$waiter/status)
echo "@@IDLE $one $two"
echo "@@BOOT starts=$(starts) kills=$(kills)"
for n in 1 2 3; do
    hog one$n; echo "@@KILLED $(cut -d' ' -f1 /proc/uptime)"; sleep 6
done
echo "@@SINGLE starts=$(starts) kills=$(kills)"
for n in 1 2 3 4 5 6 7 8 9 10; do hog storm$n 1M & done
sleep 15
echo "@@STORM starts=$(starts) kills=$(kills)"
tail /dev/zero
sleep 8
echo "@@GLOBAL starts=$(starts) kills=$(kills)"
echo "@@RUNS"; cat /runs
echo "@@END"
sleep 1
poweroff -f
