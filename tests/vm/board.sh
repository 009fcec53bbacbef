#!/bin/busybox sh
# PID 1 of a board with BusyBox alone: its serial console and netconsole tell what its ring buffer holds, while
# the machine and a cgroup run out of memory. On the second serial line: the raw /dev/kmsg, then the kernel's count.
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
stty -F /dev/@SECOND@ raw 115200 2>/dev/null
for module in $(cat /modules); do insmod "/lib/$module"; done
ifconfig eth0 10.0.2.15 up
insmod /lib/netconsole.ko "netconsole=@PLUS@6665@10.0.2.15/eth0,@PORT@@10.0.2.2/52:55:0a:00:02:02"
sleep 2
CG=/cg
mkdir $CG
mount -t cgroup2 cgroup $CG
echo +memory > $CG/cgroup.subtree_control
# whose memory grows without end: a line that never ends
mkdir $CG/small
echo 8M > $CG/small/memory.max
echo 0 > $CG/small/memory.swap.max 2>/dev/null
sh -c 'echo $$ > /cg/small/cgroup.procs; exec tail /dev/zero'
sleep 1
tail /dev/zero
sleep 1
echo f > /proc/sysrq-trigger
sleep 2
timeout 5 cat /dev/kmsg > /dev/@SECOND@
echo "@@KILLS $(grep '^oom_kill ' /proc/vmstat)" > /dev/@SECOND@
sleep 1
poweroff -f
