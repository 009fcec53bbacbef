#!/bin/sh
# One boot: loads as units of their own, with the daemon, systemd-oomd and earlyoom watching (the last two told to
# kill nobody), and the hook of warnings at work. near.loads=NAME,... of the kernel's command line chooses.
. /lab/common.sh
part active; active
mkdir -p /etc/oomwatchd /etc/systemd/system/oomwatchd-near@.service.d /run/systemd/system/systemd-oomd.service.d
mkdir -p /run/systemd/system/-.slice.d /run/systemd/system/loads.slice.d /run/hooked
printf '[warning]\nhook_directory = "/run/oomwatchd/near"\n' > /etc/oomwatchd/config.toml
cat > /etc/systemd/system/oomwatchd-near@.service.d/lab.conf << 'END'
[Service]
ExecStart=/bin/sh -c 'oomwatchd events show %i --format json > /run/hooked/%i'
END
printf '[Service]\nExecStart=\nExecStart=/usr/lib/systemd/systemd-oomd --dry-run\n' \
    > /run/systemd/system/systemd-oomd.service.d/dry.conf
printf '[Slice]\nManagedOOMSwap=kill\n' > /run/systemd/system/-.slice.d/oomd.conf
printf '[Slice]\nManagedOOMMemoryPressure=kill\n' > /run/systemd/system/loads.slice.d/oomd.conf
systemctl daemon-reload
systemctl restart oomwatchd.service
part again; active
part path; systemctl enable --now oomwatchd-near.path; systemctl is-active oomwatchd-near.path
systemctl start systemd-oomd.service
part oomd; systemctl is-active systemd-oomd.service
systemd-run --quiet --unit=earlyoom --property=OOMScoreAdjust=-900 /lab/earlyoom --dryrun -r 0
sleep 2
part earlyoom; systemctl is-active earlyoom.service
swap() { # MIB
    dd if=/dev/zero of=/swap bs=1M count="$1" 2> /dev/null
    mkswap /swap > /dev/null && swapon /swap
}
noswap() { swapoff /swap && rm -f /swap; }
# what the kernel counts meanwhile: the cgroup's events, and reclaim by whoever asks for memory
counts() { # NAME
    while sleep 2; do
        events=$(tr '\n' ' ' < "/sys/fs/cgroup/loads.slice/load-$1.service/memory.events" 2> /dev/null)
        stalls=$(awk '/^allocstall/ {n += $2} /^pgscan_direct / {s = $2} /^pgsteal_direct / {t = $2}
            END {print "allocstall", n, "scanned", s, "stolen", t}' /proc/vmstat)
        echo "count $(cut -d ' ' -f 1 /proc/uptime) $stalls ${events:-gone}"
    done
}
load() { # NAME SECONDS KIND LIMIT_MIB PROPERTY...
    name=$1 seconds=$2 kind=$3 limit=$4
    shift 4
    echo "@@load_$name"
    for property in "$@"; do set -- "$@" "--property=$property"; shift; done
    cut -d ' ' -f 1 /proc/uptime
    counts "$name" &
    counter=$!
    timeout -s KILL $((4 * seconds + 60)) systemd-run --quiet --wait --unit="load-$name" --slice=loads.slice --property=OOMScoreAdjust=800 \
        --property=OOMPolicy=continue --setenv=LOAD_DIRECTORY=/var/tmp "$@" /usr/bin/python3 -I -S /lab/load.py "$kind" $((limit << 20)) "$seconds"
    cut -d ' ' -f 1 /proc/uptime
    kill $counter
    systemctl stop "load-$name.service" 2> /dev/null
    sleep 12
}
# Files in a RAM file system, which no kill takes away. What answers then, and how fast?
pile() {
    mkdir -p /run/big
    mount -t tmpfs -o size=2g big /run/big
    echo "@@load_pile"
    cut -d ' ' -f 1 /proc/uptime
    systemd-run --quiet --unit=load-pile --slice=loads.slice --property=OOMScoreAdjust=900 --property=OOMPolicy=kill \
        sh -c 'i=0; while [ $i -lt 150 ]; do dd if=/dev/zero of=/run/big/$i bs=1M count=6 2> /dev/null; sleep 1; i=$((i + 1)); done'
    full() { [ "$(oom_kills)" -gt "$1" ]; }
    until_within 240 full "$(oom_kills)"
    cut -d ' ' -f 1 /proc/uptime
    for _ in 1 2 3 4 5; do
        echo "answer $(cut -d ' ' -f 1 /proc/uptime): $(metric oomwatchd_oom_kills_total) kills told of $(oom_kills); $(awk '/^Mem(Free|Available)|^Shmem:/ {printf "%s %s ", $1, $2}' /proc/meminfo) $(sed -n 2p /proc/pressure/memory)"
        sleep 5
    done
    grep -E '^Vm(RSS|Lck|Swap)' "/proc/$(pid)/status"
    systemctl stop load-pile.service
    umount /run/big
    counted pile
}
for name in $(sed -n 's/.*near.loads=\([^ ]*\).*/\1/p' /proc/cmdline | tr , ' '); do
    case $name in
        leak) load leak 75 leak 128 MemoryMax=128M MemorySwapMax=0 ;;
        swap) swap 256; load swap 90 leak 192 MemoryMax=112M MemorySwapMax=96M; noswap ;;
        high) load high 60 plateau 128 MemoryHigh=80M MemoryMax=128M MemorySwapMax=0 RuntimeMaxSec=90 ;;
        cache) load cache 70 database 96 MemoryMax=96M MemorySwapMax=0 ;;
        machine) load machine 90 leak 480 ;;
        machineswap) swap 200; load machineswap 100 leak 700; noswap ;;
        pile) pile ;;
    esac
done
part events; small() { false; }; ordinary oomwatchd events export
part kernel; journalctl -k -o short-monotonic --no-pager | grep -i 'out of memory'
part peers; journalctl -o short-monotonic --no-pager -u systemd-oomd.service -u earlyoom.service
part hook; journalctl -o short-monotonic --no-pager -u 'oomwatchd-near@*' -u oomwatchd-near.service | tail -40
part hooked; for file in /run/hooked/*; do echo "${file##*/} $(head -c 300 "$file" | tr '\n' ' ')"; done
part log; log | tail -40
part daemon; memory; spent
part end
sync
systemctl poweroff --force --force
