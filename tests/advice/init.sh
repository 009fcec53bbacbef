#!/bin/busybox sh
# PID 1 of a scenario's machine. ttyS0: what happens, ttyS1: the raw kernel log, ttyS2: the daemon's events.
# When the daemon is ready the machine waits for its scenario on /dev/vdd: there its state is saved, and every
# scenario begins with that state.
/bin/busybox --install -s /bin
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev
mkdir -p /tmp /py /mnt; mount -t tmpfs -o size=24m tmp /tmp
for module in $(cat /modules/first); do insmod "/modules/$module.ko"; done
dmesg -n 1
ifconfig lo 127.0.0.1 up
CGROUPS=/sys/fs/cgroup; VERSION=2; DISK=/dev/vdc
mount -t cgroup2 cgroup $CGROUPS
echo '+memory +pids +cpuset' > $CGROUPS/cgroup.subtree_control
echo 100000 > /proc/sys/kernel/threads-max; echo 100000 > /proc/sys/kernel/pid_max
stty -F /dev/ttyS1 raw; stty -F /dev/ttyS2 raw
causes kmsg > /dev/ttyS1 &
. /common.sh
daemon() { chroot /py env PYTHONPATH=/mnt PYTHONDONTWRITEBYTECODE=1 python3 -m oomwatchd "$@"; }
if [ -e /program ]; then
    mount -t ext4 -o ro,noload /dev/vda /py; mount -t ext4 -o ro,noload /dev/vdb /py/mnt
    # with what is mounted below: the cgroups are
    for directory in proc sys dev tmp; do mount -o rbind /$directory /py/$directory; done
    echo 'state_directory = "/tmp/state"' > /tmp/oomwatchd.toml
    mkdir -p /tmp/state
    # as the unit has it
    while :; do
        scored -900 chroot /py env PYTHONPATH=/mnt PYTHONDONTWRITEBYTECODE=1 python3 -m oomwatchd run \
            --config /tmp/oomwatchd.toml > /tmp/daemon.log 2>&1
        sleep 1
    done &
    tries=0
    while [ $tries -lt 200 ] && ! wget -q -O /dev/null http://127.0.0.1:10053/-/ready; do sleep 0.25; tries=$((tries + 1)); done
    wget -q -O /dev/null http://127.0.0.1:10053/-/ready || { echo "@@NO DAEMON"; tail -n 5 /tmp/daemon.log; }
fi
echo "@@READY"
causes receive /dev/vdd > /tmp/scenario
kills() { awk '/^oom_kill /{print $2}' /proc/vmstat; }
before=$(kills)
echo "@@START $(awk '/^Mem(Total|Free|Available)/{printf "%s%s ", $1, $2}' /proc/meminfo)"
( . /tmp/scenario; work ); rc=$?
sleep 0.5
echo "@@RESULT rc=$rc kills=$(($(kills) - before))"
( . /tmp/scenario; echo "@@LOOKS"; looks; echo "@@LOOKED" ) 2>&1
if [ -e /program ] && ( . /tmp/scenario; [ -n "$LOOKING" ] ); then
    sleep 6
    daemon events export --config /tmp/oomwatchd.toml > /tmp/events 2> /tmp/said
    cat /tmp/events > /dev/ttyS2
    echo "@@LIVE $(wc -l < /tmp/events) $(tail -n 1 /tmp/said) $(tail -n 2 /tmp/daemon.log)"
fi
echo "@@DONE"
sleep 0.3
poweroff -f
