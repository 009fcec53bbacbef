# What the scripts of the full system share; each begins with `. /lab/common.sh`. What is found goes to the
# second serial line, each part behind a line @@NAME. What commands complain of goes to the console, as does
# what the shell says of jobs that were killed, whenever it comes: it is no finding.
# shellcheck shell=sh
exec > /dev/ttyS1 2> /dev/console
stty raw < /dev/ttyS1
PATH=/lab:$PATH
cgroups=/sys/fs/cgroup/lab

part() { echo "@@$1"; }
pid() { systemctl show --property=MainPID --value oomwatchd.service; }
oom_kills() { awk '/^oom_kill /{print $2}' /proc/vmstat; }
metrics() { ordinary curl --silent --max-time 10 http://127.0.0.1:10053/metrics; }
metric() { metrics | awk -v name="$1" '{split($1, key, "{")} key[1] == name {n += $NF} END {print n + 0}'; }
active() {
    tries=0
    until systemctl --quiet is-active oomwatchd.service || [ $((tries += 1)) -gt 120 ]; do sleep 1; done
    systemctl is-active oomwatchd.service
}
memory() {
    grep -E '^Vm(HWM|RSS|Lck|Swap):' "/proc/$(pid)/status"
    echo "cgroup: $(cat "/sys/fs/cgroup$(cut -d: -f3 "/proc/$(pid)/cgroup")/memory.peak")"
}
# what the daemon has done so far, as the kernel counts it
spent() {
    echo "uptime: $(cut -d. -f1 /proc/uptime)"
    grep -h _ctxt_switches /proc/"$(pid)"/task/*/status
    cat "/proc/$(pid)/io"
}
# until_within SECONDS COMMAND...: wait for it to succeed; a part that waits in vain goes on, and the claims say so
until_within() {
    deadline=$(($(cut -d. -f1 /proc/uptime) + $1))
    shift
    until "$@"; do
        [ "$(cut -d. -f1 /proc/uptime)" -lt $deadline ] || return 1
        sleep 1
    done
}
# until all kills that the kernel counted are in the metrics, two minutes at most
counted() {
    part "counting_$1"
    tries=0
    while [ $((tries += 1)) -le 40 ]; do
        found=$(metric oomwatchd_oom_kills_total)
        echo "$(cut -d' ' -f1 /proc/uptime) s: the kernel $(oom_kills), /metrics $found"
        [ "$found" -lt "$(oom_kills)" ] || return 0
        sleep 3
    done
}
# What is looked at is looked at by ordinary processes: the lab's own are protected from the kernel's choice,
# and would have others killed for them.
ordinary() { sh -c 'echo 0 > /proc/self/oom_score_adj; exec "$@"' sh "$@"; }
# A second Python beside the daemon's is too much for a small machine; dpkg, too.
small() { [ "$(awk '/^MemTotal:/{print $2}' /proc/meminfo)" -lt 200000 ]; }
events() { small || ordinary oomwatchd events list --limit 1000 --json; }
journal() { ordinary journalctl --quiet --no-pager --output=json "$@"; }
log() { journalctl --quiet --no-pager --boot --output=cat --unit=oomwatchd.service; }

# cgroup NAME LIMIT: one of its own, below $cgroups
cgroup() {
    [ -d $cgroups ] || { mkdir $cgroups; echo +memory > $cgroups/cgroup.subtree_control; }
    mkdir -p "$cgroups/$1"
    echo "$2" > "$cgroups/$1/memory.max"
    echo 0 > "$cgroups/$1/memory.swap.max" 2> /dev/null
}
# inside CGROUP COMMAND...: an ordinary process in it
inside() {
    where=$cgroups/$1
    shift
    sh -c 'echo 0 > /proc/self/oom_score_adj; echo $$ > "$0/cgroup.procs"; exec "$@"' "$where" "$@"
}
