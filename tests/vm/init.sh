#!/bin/busybox sh
# PID 1 of a small machine: every way to run out of memory, one after another. On the console: for each
# the last sequence number before it and by how much the kernel's own counter grew; then the whole raw
# /dev/kmsg; then the text of a panic.
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t tmpfs tmp /tmp
echo 1 > /proc/sys/kernel/sysrq
dmesg -n 1
CG=/sys/fs/cgroup
mount -t cgroup2 cgroup $CG
echo '+memory +cpuset' > $CG/cgroup.subtree_control 2>/dev/null || echo +memory > $CG/cgroup.subtree_control

oom_kills() { awk '/^oom_kill /{print $2}' /proc/vmstat; }
begin() {
    KILLS=$(oom_kills)
    # a line that begins with a blank belongs to the record before it
    SEQ=$(labbox kmsg | grep -E '^[0-9]+,' | tail -n 1 | cut -d, -f2)
}
end() {
    sleep 1
    echo "@@SCENARIO $1 after_seq=$SEQ kills=$(($(oom_kills) - KILLS))"
}
cgroup() { # NAME LIMIT
    mkdir -p "$CG/$1"
    echo "$2" > "$CG/$1/memory.max"
    echo 0 > "$CG/$1/memory.swap.max" 2>/dev/null
}
inside() { # CGROUP COMMAND...
    where=$CG/$1; shift
    sh -c 'echo $$ > "$0/cgroup.procs"; exec "$@"' "$where" "$@"
}

echo "@@BOOT $(uname -r) $(uname -m)"

begin; cgroup one 24M; inside one labbox hog; end memcg

begin; cgroup parent 24M; echo +memory > $CG/parent/cgroup.subtree_control; mkdir $CG/parent/kid.service
inside parent/kid.service labbox hog; end memcg_nested

begin; cgroup group 24M; echo 1 > $CG/group/memory.oom.group
inside group labbox hog 2 & inside group labbox hog 2 & sleep 1; inside group labbox hog; end oom_group

for i in 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14; do
    begin; cgroup hostile$i 8M; inside hostile$i labbox hostile $i; end hostile_$i
done

begin; cgroup threads 24M; inside threads labbox thog 4; end threads

# Short: it gives reports by the hundred, and the ring must hold them all.
begin; cgroup protected 12M
(sh -c "echo \$\$ > $CG/protected/cgroup.procs; echo -1000 > /proc/self/oom_score_adj; exec timeout 1 labbox hog 40")
end unkillable

begin; cgroup files 16M; mkdir /files; mount -t tmpfs files /files
inside files dd if=/dev/zero of=/files/f bs=1M count=100 2>/dev/null; umount /files; end tmpfs_fill

begin
i=0; while [ $i -lt 25 ]; do cgroup storm$i 3M; inside storm$i labbox hog & i=$((i + 1)); done
wait; end storm

begin; echo 0 > /proc/sys/vm/oom_dump_tasks; cgroup bare 8M; inside bare labbox hog
echo 1 > /proc/sys/vm/oom_dump_tasks; end no_dump_tasks

# Headers are limited to 10 in 5 s: the pauses give each of the following its own.
sleep 6
begin; echo f > /proc/sysrq-trigger; sleep 2; end sysrq
if [ -d /sys/devices/system/node/node1 ]; then
    begin; mkdir $CG/node1; echo 1 > $CG/node1/cpuset.mems; inside node1 labbox hog; end cpuset
    sleep 6
    begin; labbox mbind 1; end mempolicy
    sleep 6
fi
begin; labbox sleepers 200; labbox hog 0 'big hog'; end global_many
sleep 6
begin; echo 1 > /proc/sys/vm/oom_kill_allocating_task; labbox hog 0 allocator
echo 0 > /proc/sys/vm/oom_kill_allocating_task; end allocating_task

echo @@KMSG; labbox kmsg; echo @@END
dmesg -n 8
echo @@PANIC
echo 1 > /proc/sys/vm/panic_on_oom
labbox hog
