# What every scenario may use. CGROUPS: where this run's memory cgroups are; VERSION: 1 or 2, theirs.
# shellcheck shell=sh
group() { # NAME [LIMIT]
    mkdir -p "$CGROUPS/$1"
    [ -z "$2" ] || limited "$1" "$2"
}
limited() { # NAME LIMIT
    if [ "$VERSION" = 1 ]; then echo "$2" > "$CGROUPS/$1/memory.limit_in_bytes"; else echo "$2" > "$CGROUPS/$1/memory.max"; fi
}
parent() { # NAME: what is below has limits of its own
    [ "$VERSION" = 1 ] || echo +memory > "$CGROUPS/$1/cgroup.subtree_control"
}
within() { # NAME COMMAND...
    _group=$CGROUPS/$1
    shift
    sh -c 'echo $$ > "$0/cgroup.procs"; exec "$@"' "$_group" "$@"
}
scored() { # OOM_SCORE_ADJ COMMAND...
    sh -c 'echo "$0" > /proc/self/oom_score_adj; exec "$@"' "$@"
}
within_scored() { # NAME OOM_SCORE_ADJ COMMAND...
    _group=$CGROUPS/$1
    _score=$2
    shift 2
    sh -c 'echo $$ > "$0/cgroup.procs"; echo "$1" > /proc/self/oom_score_adj; shift; exec "$@"' "$_group" "$_score" "$@"
}
# an innocent process of 30 MiB that has to be there when it is over
bystander() { causes anon 30 900 database & DATABASE=$!; sleep 1; }
unharmed() { [ "$(cat "/proc/$DATABASE/comm" 2> /dev/null)" = database ]; }
swap_on() { mkswap "$DISK" ${1:+"$1"} > /dev/null; swapon "$DISK"; }
disk_at() { # DIRECTORY: a file system on the slow disk
    mkdir -p "$1"; mke2fs "$DISK" > /dev/null 2>&1 || mkfs.ext2 "$DISK" > /dev/null 2>&1
    mount -t ext4 "$DISK" "$1" 2> /dev/null || mount -t ext2 "$DISK" "$1"
}
settled() { # PID: waits until it has what it wants and only holds it
    _quiet=0; _tries=0
    while [ $_quiet -lt 4 ] && [ $_tries -lt 240 ] && [ -e "/proc/$1/stat" ]; do
        sleep 0.25
        _tries=$((_tries + 1))
        case $(cut -d ' ' -f 3 "/proc/$1/stat" 2> /dev/null) in S) _quiet=$((_quiet + 1)) ;; *) _quiet=0 ;; esac
    done
}
