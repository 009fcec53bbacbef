"""The scenarios: the cause made, its names, and what following the advice means.

``work`` is shell (functions of common.sh, the causes of causes.c); it ends with 0 if everybody survived. What can
be changed is a variable with a default, ``${LIMIT:-40M}``. Names: ``cg-`` a memory cgroup, on this host and in a
machine; ``g-`` the whole machine of 512 MiB without swap, where a bystander of 30 MiB has to survive.
"""

# ruff: noqa: E501 -- a scenario is a line of shell

from __future__ import annotations

from collections.abc import Mapping

import msgspec

HOST, VM = "host", "vm"
LOOK = "look"


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """What is different the second time."""

    did: str
    #: ``{begin}`` becomes the KiB that CHANGE begins with
    env: dict[str, str] = {}
    memory: int | None = None
    append: str | None = None
    #: it survives because it does less
    less: bool = False


class Look(msgspec.Struct, frozen=True):
    """A place to look, and what it shows if it leads to the cause."""

    command: str
    shows: str


class Scenario(msgspec.Struct, frozen=True, kw_only=True):
    """One cause."""

    name: str
    cause: str
    #: the cause, were it named in WHY or the first finding
    named: str
    work: str
    where: tuple[str, ...] = (VM,)
    #: the same for the kind of memory alone
    near: str = r"(?!)"
    env: dict[str, str] = {}
    memory: int = 512
    append: str = ""
    devices: tuple[str, ...] = ()
    #: lever (judge.LEVERS) -> what is changed, or LOOK: wherever the advice says
    follow: Mapping[str, Change | str] = {}
    #: by the place (judge.PLACES)
    looks: dict[str, Look] = {}
    #: kills of those that are meant do not count: the work's own end says whether the innocent lived
    innocents: bool = False
    #: the machine's processor; the daemon runs on amd64 alone
    arch: str = "amd64"
    #: the Debian whose kernel it needs; empty: the command line's
    suite: str = ""
    seconds: int = 100
    #: no report of this kernel tells it: why, and what does
    beyond_log: str = ""
    #: part of the small run
    small: bool = False

    @property
    def whole(self) -> bool:
        """The machine ran out, not a cgroup."""
        return self.name.startswith("g-")


def _did(
    did: str, *, less: bool = False, memory: int | None = None, append: str | None = None, **env: object
) -> Change:
    return Change(did=did, less=less, memory=memory, append=append, env={k: str(v) for k, v in env.items()})


BOTH = (HOST, VM)
_DOUBLED = {"raise_limit": _did("limit doubled", LIMIT="80M")}
_SLAB = "awk 'NR>2{print $1, $3*$4}' /proc/slabinfo | sort -k2nr | head -n 6"
_KERNEL = r"kernel'?s? (own )?memory|kernel held"
_STAT = "cat $CGROUPS/a/memory.stat"
_FDS = "for p in /proc/[0-9]*; do echo $(ls $p/fd 2>/dev/null | wc -l) $(cat $p/comm); done | sort -nr | head -n 2"
_TMPFS = "d=/tmp/adv.$$; mkdir -p $d; mount -t tmpfs -o size=${SIZE:-200M} t $d; "
_NODES = (
    *("-object", "memory-backend-ram,id=m0,size=256M", "-numa", "node,nodeid=0,cpus=0,memdev=m0"),
    *("-object", "memory-backend-ram,id=m1,size=256M", "-numa", "node,nodeid=1,memdev=m1"),
)
#: whoever holds most has held it for some time; the second run need not wait
_AGED = '[ -z "$LOOKING" ] || sleep 20; '
_ROOM = {
    "swap": _did("as much swap as it says", SWAP="swap_on {begin}"),
    "more_ram": _did("twice the RAM", memory=1024),
}
_END = "causes anon ${MB:-200} 2 worker && unharmed"


def _bound(name: str, mb: int, *, less: bool = True, variable: str = "MB") -> dict[str, Change | str]:
    """The advice is to make this one smaller: it does less."""
    did = f"{name}: {mb} MiB by its own settings"
    return {"bound_process": Change(did=did, less=less, env={variable: str(mb)})}


CGROUPS = (
    Scenario(
        name="cg-limit",
        cause="limit 40 MiB, the process needs 60",
        named=r"at its (memory )?limit of 40",
        where=BOTH,
        small=True,
        work="group a ${LIMIT:-40M}; within a causes anon 60 2 worker",
        follow=_DOUBLED,
    ),
    Scenario(
        name="cg-leak",
        cause="a leak without end, 4 MiB/s, limit 60 MiB",
        named=r"\bleak(s|ing)?\b|gr[eo]ws? (steadily|without)|without end|[kM]i?B a (minute|second)|lasts",
        where=BOTH,
        small=True,
        work="group a ${LIMIT:-60M}; within a timeout ${SECONDS_OF:-40} causes leak 4 leaky; rc=$?; [ $rc = 143 ] || [ $rc = 124 ]",
        follow={
            "raise_limit": _did("limit doubled", LIMIT="120M"),
            "find_leak": _did("the leak mended: it ends at 40 MiB", SECONDS_OF=9),
        },
    ),
    Scenario(
        name="cg-tmpfs",
        cause="the process fills a tmpfs: 60 MiB into a cgroup of 40",
        named=r"tmpfs|shared memory",
        where=BOTH,
        work="group a ${LIMIT:-40M}; "
        + _TMPFS
        + "within a dd if=/dev/zero of=$d/f bs=1M count=60 2>/dev/null; rc=$?; umount $d; return $rc",
        follow={
            "raise_limit": _did("limit doubled", LIMIT="80M"),
            "tmpfs_size": _did("size=20M", SIZE="20M"),
        },
    ),
    Scenario(
        name="cg-tmpfs-left",
        cause="30 MiB in a tmpfs of a process that has ended; the worker needs 20 of 40",
        named=r"tmpfs|shared memory",
        where=BOTH,
        work="group a ${LIMIT:-40M}; "
        + _TMPFS
        + 'within a dd if=/dev/zero of=$d/f bs=1M count=30 2>/dev/null; [ -z "$CLEAN" ] || rm $d/f;'
        " within a causes anon 20 2 worker; rc=$?; umount $d; return $rc",
        follow={
            "raise_limit": _did("limit doubled", LIMIT="80M"),
            "tmpfs_remove": _did("files removed", CLEAN=1),
            "tmpfs_size": _did("size=8M", SIZE="8M"),
        },
    ),
    Scenario(
        name="cg-sysv",
        cause="30 MiB of a SysV segment that was left behind; the worker needs 20 of 40",
        named=r"SysV|shared memory",
        work='group a ${LIMIT:-40M}; within a causes sysv 30 0; [ -z "$CLEAN" ] || causes sysv-remove;'
        " within a causes anon 20 2 worker",
        follow={
            "raise_limit": _did("limit doubled", LIMIT="80M"),
            "tmpfs_remove": _did("ipcrm", CLEAN=1),
            "tmpfs_size": LOOK,
        },
        looks={"mounts": Look("df -t tmpfs", r"\b30\d\d\d\b")},
    ),
    Scenario(
        name="cg-shared",
        cause="60 MiB of MAP_SHARED memory, limit 40",
        named=r"shared memory|tmpfs",
        where=BOTH,
        work="group a ${LIMIT:-40M}; within a causes shared 60 2 sharer",
        follow=_DOUBLED,
    ),
    Scenario(
        name="cg-lock",
        cause="60 MiB locked, limit 40",
        named=r"locked",
        where=BOTH,
        work="group a ${LIMIT:-40M}; within a causes lock ${MB:-60} 2 pinner",
        follow={**_DOUBLED, "mlock": _did("locks 20 MiB", MB=20)},
    ),
    Scenario(
        name="cg-pipes",
        cause="1000 full pipes, limit 40 MiB",
        named=r"\bpipe",
        near=r"kernel'?s? (own )?memory|kernel held|in no",
        where=BOTH,
        small=True,
        work="group a ${LIMIT:-40M}; within a causes pipes ${N:-1000} 2 piper",
        follow={
            "raise_limit": _did("limit 120 MiB", LIMIT="120M"),
            "see_kernel": LOOK,
            "see_descriptors": LOOK,
        },
        looks={
            "memory.stat": Look(
                f"limited a 200M; within a causes pipes 1000 4 piper & sleep 2; {_STAT}; wait $!",
                r"(?m)^pipe",
            ),
            "descriptors": Look(
                f"limited a 200M; within a causes pipes 1000 4 piper & sleep 2; {_FDS}; wait $!",
                r"20\d\d piper",
            ),
        },
    ),
    Scenario(
        name="cg-unix",
        cause="unix sockets with 60 MiB queued, limit 40 MiB",
        named=r"\bunix|\bsocket|skb",
        near=r"kernel'?s? (own )?memory|kernel held|in no",
        work="group a ${LIMIT:-40M}; within a causes unix ${N:-45} 2 queuer",
        follow={
            "raise_limit": _did("limit 250 MiB", LIMIT="250M"),
            "see_kernel": LOOK,
            "see_descriptors": LOOK,
        },
        looks={
            "memory.stat": Look(
                f"limited a 300M; within a causes unix 45 4 queuer & sleep 2; {_STAT}; wait $!",
                r"(?m)^sock [1-9]\d{6,}",
            ),
            "descriptors": Look(
                f"limited a 300M; within a causes unix 45 4 queuer & sleep 2; {_FDS}; wait $!",
                r"9\d queuer",
            ),
        },
    ),
    Scenario(
        name="cg-udp",
        cause="datagrams that nobody reads hold 30 MiB; the worker needs 20 of 40",
        named=r"\bsocket|network",
        near=_KERNEL,
        work="group a ${LIMIT:-40M}; within a causes udp 13 20 deaf & sleep 3; within a causes anon 20 2 worker",
        follow=_DOUBLED,
        beyond_log="a charge for a socket is refused and the datagram dropped: another request has to fail",
    ),
    Scenario(
        name="cg-bpf",
        cause="BPF maps hold 30 MiB; the worker needs 20 of 40",
        named=r"\bBPF|\bbpf",
        near=_KERNEL + r"|vmalloc",
        work="group a ${LIMIT:-40M}; within a causes bpf 30 20 tracer & sleep 2; within a causes anon 20 2 worker",
        follow=_DOUBLED,
        beyond_log="a map that does not fit is refused (ENOMEM): another request has to fail",
    ),
    Scenario(
        name="cg-files",
        cause="60000 empty files in a tmpfs, limit 40 MiB",
        named=r"inode|\bfiles\b|slab",
        near=r"kernel'?s? (own )?memory",
        where=BOTH,
        work="group a ${LIMIT:-40M}; "
        "d=/tmp/adv.$$; mkdir -p $d; mount -t tmpfs -o nr_inodes=0 t $d;"
        " within a causes empty-files ${N:-60000} $d 1 maker; rc=$?; umount $d; return $rc",
        follow={
            "raise_limit": _did("limit 140 MiB", LIMIT="140M"),
            "see_kernel": LOOK,
            "slab": LOOK,
        },
        looks={
            "memory.stat": Look(
                "limited a 400M; mkdir -p /tmp/ino; mount -t tmpfs -o nr_inodes=0 t /tmp/ino; within a causes"
                f" empty-files 40000 /tmp/ino 3 maker & sleep 3; {_STAT} $CGROUPS/a/memory.kmem.slabinfo; wait $!;"
                " umount /tmp/ino",
                r"(?m)^(slab_unreclaimable [1-9]\d{6,}|shmem_inode)",
            ),
            "slabinfo": Look(_SLAB, r"inode"),
        },
    ),
    Scenario(
        name="cg-threads",
        cause="3000 kernel stacks, limit 30 MiB",
        named=r"kernel stacks|threads",
        near=r"kernel'?s? (own )?memory",
        where=BOTH,
        small=True,
        work="group a ${LIMIT:-30M}; ulimit -u unlimited 2>/dev/null;"
        " within a causes threads ${N:-3000} 2 threader",
        follow={
            "raise_limit": _did("limit 120 MiB", LIMIT="120M"),
            "threads": _did("500 threads", N=500),
            "see_kernel": LOOK,
        },
        looks={
            "memory.stat": Look(
                f"limited a 400M; within a causes threads 2500 4 threader & sleep 2; {_STAT}; wait $!",
                r"(?m)^kernel_stack [1-9]\d{6,}",
            )
        },
    ),
    Scenario(
        name="cg-tables",
        cause="60 MiB of page tables and no resident memory, limit 40",
        named=r"page tables|pagetables",
        work="group a ${LIMIT:-40M}; echo 1 > /proc/sys/vm/overcommit_memory; within a causes tables ${GIB:-30} 2 mapper",
        follow={**_DOUBLED, "page_tables": _did("maps 10 GiB", GIB=10, less=True)},
    ),
    Scenario(
        name="cg-above",
        cause="the limit of 40 MiB is the parent's: an idle sibling holds 25, the worker needs 20 and may have 100",
        named=r"/par\b.*limit of 40|cgroup above|whose limit",
        where=BOTH,
        work="group par ${LIMIT:-40M}; parent par; group par/kid 100M; group par/idle; within par/idle causes anon"
        " ${IDLE:-25} 6 idler & sleep 1; within par/kid causes anon 20 2 worker; rc=$?; wait; return $rc",
        follow={
            "raise_limit": _did("the parent's limit doubled", LIMIT="80M"),
            **_bound("idler", 5, variable="IDLE"),
        },
    ),
    Scenario(
        name="cg-memsw",
        cause="memory+swap is limited to 40 MiB, as memory is; the process needs 60",
        named=r"memory\+swap|memsw",
        where=(HOST,),
        work="group a 40M; echo ${MEMSW:-40M} > $CGROUPS/a/memory.memsw.limit_in_bytes;"
        ' [ -z "$LIMIT" ] || limited a $LIMIT || echo refused; within a causes anon 60 2 worker',
        follow={
            "raise_limit": _did("memory.limit_in_bytes alone", LIMIT="80M"),
            "raise_memsw": _did("memsw, then limit", LIMIT="80M", MEMSW="80M"),
        },
    ),
    Scenario(
        name="cg-noswap",
        cause="there is swap, but memory.swap.max=0; the process needs 60 of 40 MiB",
        named=r"swap",
        work="swap_on; group a ${LIMIT:-40M}; echo ${SWAP:-0} > $CGROUPS/a/memory.swap.max; within a causes anon 60 2 worker",
        follow={**_DOUBLED, "swap_max": _did("swap allowed", SWAP="max")},
    ),
    Scenario(
        name="cg-many",
        cause="30 processes of 2 MiB, limit 40",
        named=r"\b(2\d|30)\b.*processes|many (small )?processes",
        where=BOTH,
        work="group a ${LIMIT:-40M}; within a causes crowd ${N:-30} 2 3 w",
        follow={**_DOUBLED, "bound_count": _did("10 processes", N=10, less=True)},
    ),
    Scenario(
        name="cg-exempt-giant",
        cause="a giant of 33 MiB is exempt (-1000); innocents of 10 MiB die, limit 40",
        named=r"exempt|-1000",
        innocents=True,
        work="group a ${LIMIT:-40M}; within_scored a ${ADJ:--1000} causes anon ${GIANT:-33} 20 giant & sleep 1; within a causes anon 10 2 innocent",
        follow={**_DOUBLED, "exempt": _did("adj 0", ADJ=0), **_bound("giant", 10, variable="GIANT")},
    ),
    Scenario(
        name="cg-exempt-only",
        cause="the only process of the cgroup is exempt (-1000) and wants 60 of 40 MiB: nobody to kill",
        named=r"exempt|-1000|nobody|no process (that|left)",
        work="group a ${LIMIT:-40M}; within_scored a ${ADJ:--1000} timeout -s KILL 6 causes anon 60 2 lonely; rc=$?; return $rc",
        follow={**_DOUBLED, "exempt": _did("adj 0: it is killed", ADJ=0, less=True)},
    ),
    Scenario(
        name="cg-together",
        cause="memory.oom.group=1: a helper over the limit takes the main process with it",
        named=r"oom\.group|whole (c?group)|all of (it|them)|together",
        innocents=True,
        work="group a ${LIMIT:-40M}; echo ${GROUP:-1} > $CGROUPS/a/memory.oom.group; within a causes anon 4 900 mainproc &"
        " MAIN=$!; sleep 1; within a causes anon 60 2 helper; grep -q mainproc /proc/[0-9]*/comm",
        follow={**_DOUBLED, "oom_group": _did("oom.group=0: the helper dies alone", GROUP=0)},
    ),
    Scenario(
        name="cg-dirty",
        cause="writes to a slow disk (2 MB/s), limit 20 MiB, 15 MiB of anonymous memory beside it",
        named=r"dirty|writ",
        env={"THROTTLE": "2000000"},
        work="group a ${LIMIT:-20M}; disk_at /mnt; within a causes write /mnt/f 40 writer & W=$!;"
        " within a causes anon 15 3 worker; rc=$?; kill -9 $W; return $rc",
        follow={"raise_limit": _did("limit doubled", LIMIT="40M")},
    ),
    Scenario(
        name="cg-hugetlb",
        cause="hugetlb.2MB.max is 20 MiB; the process wants 60 MiB of huge pages",
        named=r"huge page",
        work="echo 40 > /proc/sys/vm/nr_hugepages; echo +hugetlb > $CGROUPS/cgroup.subtree_control; group a; echo ${MAX:-20M} > $CGROUPS/a/hugetlb.2MB.max;"
        " within a causes huge 60 2 huge-user",
        follow={"hugepages": _did("hugetlb.2MB.max 80M", MAX="80M")},
        beyond_log="the process gets SIGBUS, and the kernel writes nothing",
    ),
    Scenario(
        name="cg-steps",
        cause="a heap that doubles and copies (virtual machine), up to 48 MiB, limit 40",
        named=r"at its (memory )?limit of 40",
        where=BOTH,
        work="group a ${LIMIT:-40M}; within a causes steps ${MB:-48} 2 java",
        follow={"raise_limit": _did("limit 100 MiB: it needs old and new at once", LIMIT="100M")},
    ),
    Scenario(
        name="cg-sawtooth",
        cause="a collected heap: 30 MiB live, 60 between collections, limit 40",
        named=r"at its (memory )?limit of 40",
        where=BOTH,
        work="group a ${LIMIT:-40M}; within a causes sawtooth ${MB:-30} 2 goserver",
        follow=_DOUBLED,
    ),
    Scenario(
        name="cg-arenas",
        cause="small objects that keep their pages, 60 MiB, limit 40",
        named=r"at its (memory )?limit of 40",
        where=BOTH,
        work="group a ${LIMIT:-40M}; within a causes arenas ${MB:-55} 2 python3",
        follow={"raise_limit": _did("limit doubled", LIMIT="90M")},
    ),
    Scenario(
        name="cg-forked",
        cause="12 MiB shared after fork(); five children write to it, limit 40",
        named=r"at its (memory )?limit of 40",
        where=BOTH,
        work="group a ${LIMIT:-40M}; within a causes forked 12 5 3 preforked",
        follow={
            "raise_limit": _did("limit 100 MiB", LIMIT="100M"),
        },
    ),
    Scenario(
        name="cg-messages",
        cause="SysV message queues of 60 MiB that nobody reads, limit 40",
        named=r"message queues",
        near=_KERNEL,
        where=BOTH,
        work="group a ${LIMIT:-40M}; within a causes messages ${MB:-60} 2 sender",
        follow=_DOUBLED,
    ),
    Scenario(
        name="cg-attributes",
        cause="60 MiB in extended attributes of files in a tmpfs, limit 40",
        named=r"extended attributes",
        near=_KERNEL,
        where=(HOST,),  # 6.1, the kernel of the machines, charges them to nobody
        work="group a ${LIMIT:-40M}; "
        + _TMPFS
        + "within a causes attributes 60 $d 2 tagger; rc=$?; umount $d; return $rc",
        follow=_DOUBLED,
    ),
    Scenario(
        name="cg-polled",
        cause="80000 epoll entries, limit 12",
        named=r"epoll",
        near=_KERNEL,
        work="group a ${LIMIT:-12M}; within a causes polled 80000 2 poller",
        follow={"raise_limit": _did("limit 60 MiB", LIMIT="60M"), "see_descriptors": LOOK},
        looks={
            "descriptors": Look(
                f"limited a 300M; within a causes polled 80000 4 poller & sleep 2; {_FDS}; wait $!",
                r"\d{5} poller",
            )
        },
    ),
    Scenario(
        name="cg-mappings",
        cause="6 processes with 60000 mappings each, limit 40",
        named=r"mappings",
        near=_KERNEL,
        where=BOTH,
        work="group a ${LIMIT:-40M}; within a causes mappings 6 2 mapper",
        follow={"raise_limit": _did("limit 250 MiB", LIMIT="250M")},
    ),
    Scenario(
        name="cg-namespaces",
        cause="900 network namespaces kept by descriptors, limit 40",
        named=r"network namespaces",
        near=_KERNEL,
        where=BOTH,
        work="group a ${LIMIT:-40M}; within a causes namespaces ${N:-900} 2 spacer",
        follow={"raise_limit": _did("limit 600 MiB", LIMIT="600M")},
    ),
    Scenario(
        name="cg-watches",
        cause="inotify watches on 60000 files of its own, limit 40",
        named=r"inotify|inode|watch",
        near=_KERNEL,
        where=(HOST,),  # a small machine refuses so many watches
        work="group a ${LIMIT:-40M}; d=/tmp/adv.$$; mkdir -p $d; mount -t tmpfs -o nr_inodes=0 t $d;"
        " within a causes watches 50000 $d 2 watcher; rc=$?; umount $d; return $rc",
        follow={"raise_limit": _did("limit 140 MiB", LIMIT="140M")},
    ),
    Scenario(
        name="cg-memfd",
        cause="60 MiB in a memfd that is not mapped, limit 40",
        named=r"memfd|shared memory",
        where=BOTH,
        work="group a ${LIMIT:-40M}; within a causes memfd 60 2 keeper",
        follow=_DOUBLED,
    ),
    Scenario(
        name="cg-lock-cache",
        cause="50 MiB of a file locked in the page cache, limit 40",
        named=r"locked",
        work="group a ${LIMIT:-40M}; disk_at /mnt; dd if=/dev/zero of=/mnt/f bs=1M count=50 2>/dev/null; sync;"
        " echo 3 > /proc/sys/vm/drop_caches; within a causes lock-file /mnt/f 2 pinner",
        follow={**_DOUBLED},
    ),
    Scenario(
        name="cg-slow-leak",
        cause="a leak of 1 MiB/s, limit 30",
        named=r"\bleak(s|ing)?\b|gr[eo]ws? (steadily|without)|[kM]i?B a (minute|second)|lasts",
        where=BOTH,
        work="group a ${LIMIT:-30M}; within a timeout ${SECONDS_OF:-70} causes leak 1 leaky; rc=$?; [ $rc = 143 ] || [ $rc = 124 ]",
        follow={
            "raise_limit": _did("limit doubled", LIMIT="60M"),
            "find_leak": _did("the leak mended: it ends at 20 MiB", SECONDS_OF=18),
        },
        seconds=150,
    ),
    Scenario(
        name="cg-swapfull",
        cause="memory.swap.max is 20 MiB and full; the process needs 120 of 40 MiB and that",
        named=r"swap are full|swap is (full|used up)",
        work="swap_on; group a ${LIMIT:-40M}; echo ${SWAP:-20M} > $CGROUPS/a/memory.swap.max; within a causes noise 120 2 worker",
        follow={
            "raise_limit": _did("limit 160 MiB", LIMIT="160M"),
            "swap_max": _did("swap allowed", SWAP="max"),
        },
        seconds=150,
    ),
    Scenario(
        name="cg-passed",
        cause="a sealed memfd of 30 MiB, filled in the cgroup, is held by a process outside it; the worker needs 20 of 40",
        named=r"memfd|shared memory|tmpfs",
        where=BOTH,
        work="group a ${LIMIT:-40M}; group b; within b causes passed 30 ${SECONDS_OF:-20} $CGROUPS/a/cgroup.procs receiver & sleep 2;"
        " within a causes anon 20 2 worker",
        follow={
            "raise_limit": _did("limit doubled", LIMIT="80M"),
            "end_holder": _did("the receiver ended", SECONDS_OF=1),
        },
    ),
    Scenario(
        name="cg-orphan",
        cause="25 MiB in a tmpfs were charged to a cgroup that is removed; its sibling's worker needs 20 of the parent's 40",
        named=r"tmpfs|shared memory",
        where=BOTH,
        work="group par ${LIMIT:-40M}; parent par; group par/gone; group par/kid; "
        + _TMPFS
        + 'within par/gone dd if=/dev/zero of=$d/f bs=1M count=25 2>/dev/null; sleep 1; rmdir $CGROUPS/par/gone; [ -z "$CLEAN" ] || rm $d/f;'
        " within par/kid causes anon 20 2 worker; rc=$?; umount $d; return $rc",
        follow={
            "raise_limit": _did("the parent's limit doubled", LIMIT="80M"),
            "tmpfs_remove": _did("files removed", CLEAN=1),
        },
    ),
    Scenario(
        name="cg-empty-dir",
        cause="a helper fills a tmpfs of the pod (30 MiB, charged to it); the pod's limit of 40 then kills the app, which needs 20",
        named=r"tmpfs|shared memory",
        where=BOTH,
        work="group par ${LIMIT:-40M}; parent par; group par/app 100M; group par/helper; "
        + _TMPFS
        + 'within par/helper causes unlinked $d/f 30 ${SECONDS_OF:-9} helper & sleep 1; [ -z "$CLEAN" ] || sleep 9;'
        " within par/app causes anon 20 2 app; rc=$?; wait; umount $d; return $rc",
        follow={
            "raise_limit": _did("the pod's limit doubled", LIMIT="80M"),
            "end_holder": _did("the helper ended first", SECONDS_OF=1, CLEAN=1),
        },
    ),
    Scenario(
        name="cg-neighbour-lock",
        cause="30 MiB of page cache, charged to the cgroup that read it first, are locked by a process outside; the worker needs 20 of 40",
        named=r"locked",
        near=r"page cache",
        where=BOTH,
        work="group a ${LIMIT:-40M}; f=/var/tmp/adv.$$; [ $VERSION = 1 ] || { disk_at /mnt; f=/mnt/f; };"
        " within a dd if=/dev/zero of=$f bs=1M count=30 conv=fsync 2>/dev/null; causes lock-file $f ${SECONDS_OF:-9} pinner & sleep 1;"
        ' [ -z "$CLEAN" ] || sleep 1; within a causes anon 20 2 worker; rc=$?; wait; rm $f; return $rc',
        follow={
            "raise_limit": _did("limit doubled", LIMIT="80M"),
            "mlock": _did("the pinner ended first", SECONDS_OF=1, CLEAN=1),
        },
    ),
    Scenario(
        name="cg-above-leak",
        cause="the parent's limit of 60 MiB binds: a sibling that may have 50 grows to 45, the worker needs 20 of its own 30",
        named=r"/par\b.*limit of 60|cgroup above|whose limit",
        where=BOTH,
        work="group par ${LIMIT:-60M}; parent par; group par/busy 50M; group par/kid 30M; within par/kid causes anon 20 9 worker & W=$!;"
        " within par/busy causes anon ${MB:-45} 6 sibling & S=$!; wait $W; rc=$?; wait $S && return $rc",
        follow={
            "raise_limit": _did("the parent's limit doubled", LIMIT="120M"),
            **_bound("sibling", 20),
        },
    ),
    Scenario(
        name="cg-deep",
        cause="of five cgroups one in another only the second has a limit (40 MiB); the process in the last needs 60",
        named=r"/one/two\b.*limit of 40|\btwo at its limit of 40",
        where=BOTH,
        work="g=one; group $g; parent $g; for n in two three four five; do g=$g/$n; group $g; [ $n = five ] || parent $g; done;"
        " limited one/two ${LIMIT:-40M}; within $g causes anon 60 2 worker",
        follow=_DOUBLED,
    ),
    Scenario(
        name="cg-jobs",
        cause="jobs that hang pile up: one of 2 MiB each 50 ms, 30 in all, limit 40",
        named=r"\b(1\d|2\d|30)\b.*(processes|job)|many (small )?processes",
        where=BOTH,
        work="group a ${LIMIT:-40M}; n=0; while [ $n -lt ${N:-30} ]; do within a causes anon 2 8 job & n=$((n + 1)); sleep 0.05; done;"
        " sleep 2; lost=0; n=$(grep -c . $CGROUPS/a/cgroup.procs); wait; [ $n -ge ${N:-30} ]",
        follow={**_DOUBLED, "bound_count": _did("10 jobs", N=10, less=True)},
    ),
    Scenario(
        name="cg-bomb",
        cause="a fork bomb of processes of 1 MiB, limit 40",
        named=r"\d+ bomb processes|bomb processes|\d+ processes",
        where=(VM,),
        work="group a ${LIMIT:-40M}; echo ${PIDS:-max} > $CGROUPS/a/pids.max; within a timeout -s KILL 8 causes bomb bomb;"
        " sleep 1; for p in $(cat $CGROUPS/a/cgroup.procs); do kill -9 $p; done; return 0",
        follow={
            "bound_count": _did("pids.max 20", PIDS=20),
            "raise_limit": _did("limit doubled", LIMIT="80M"),
        },
    ),
    Scenario(
        name="cg-xmx",
        cause="a heap of 34 MiB (-Xmx) and 12 MiB of buffers beside it, limit 40",
        named=r"at its (memory )?limit of 40",
        where=BOTH,
        work="group a ${LIMIT:-40M}; within a causes anon ${MB:-46} 2 java",
        follow={**_DOUBLED, **_bound("java", 30)},
    ),
    Scenario(
        name="cg-python",
        cause="a list of a real Python program grows to 60 MiB, limit 40",
        named=r"at its (memory )?limit of 40|python3? grew",
        where=(HOST,),
        work="group a ${LIMIT:-40M}; within a $(command -v python3) -c 'import time; kept = []\nfor i in range(60 * 16): kept.append(bytes([i % 251]) * 65536)\ntime.sleep(2)'",
        follow={"raise_limit": _did("limit 100 MiB", LIMIT="100M")},
    ),
    Scenario(
        name="cg-fault",
        cause="a restored machine's memory, 60 MiB, filled by userfaultfd, limit 40",
        named=r"restorer held",
        near=r"at its limit of 40",
        where=BOTH,
        work="group a ${LIMIT:-40M}; within a causes fault 60 2 restorer",
        follow=_DOUBLED,
    ),
    Scenario(
        name="cg-urings",
        cause="7 io_uring rings of 32768 entries hold 30 MiB; the worker needs 20 of 40",
        named=r"io_uring",
        near=_KERNEL,
        where=BOTH,
        work="group a ${LIMIT:-40M}; within a causes urings 7 20 ringer & sleep 2; within a causes anon 20 2 worker",
        follow=_DOUBLED,
        beyond_log="a ring that does not fit is refused (ENOMEM): another request has to fail",
    ),
    Scenario(
        name="cg-registered",
        cause="60 MiB of buffers registered with an io_uring (pinned), limit 40",
        named=r"ringer held|io_uring|pinned",
        near=r"at its limit of 40",
        where=BOTH,
        work="group a ${LIMIT:-40M}; within a causes registered 60 2 ringer",
        follow=_DOUBLED,
    ),
    Scenario(
        name="cg-secret",
        cause="60 MiB of secret memory (memfd_secret), limit 40",
        named=r"secret|locked|unevictable",
        near=r"page cache|at its limit",
        where=(HOST,),  # 6.1 has it only with secretmem.enable=1
        work="group a ${LIMIT:-40M}; within a causes secret 60 2 vault",
        follow=_DOUBLED,
    ),
    Scenario(
        name="cg-timers",
        cause="60000 POSIX timers, limit 15",
        named=r"timer",
        near=_KERNEL,
        where=BOTH,
        work="group a ${LIMIT:-15M}; within a causes timers 60000 2 ticker",
        follow={"raise_limit": _did("limit 60 MiB", LIMIT="60M")},
    ),
    Scenario(
        name="cg-mounts",
        cause="400 mount namespaces with 100 mounts each, limit 10",
        named=r"\bmounts?\b",
        near=_KERNEL,
        where=(HOST,),
        work="group a ${LIMIT:-10M}; d=/tmp/adv.$$; mkdir -p $d; within a causes mounts 400 $d 2 mounter",
        follow={"raise_limit": _did("limit 100 MiB", LIMIT="100M")},
    ),
    Scenario(
        name="cg-tcp",
        cause="connections that nobody reads hold 30 MiB; the worker needs 20 of 40",
        named=r"\bsocket|network|connections",
        near=_KERNEL,
        work="group a ${LIMIT:-40M}; within a causes tcp 8 20 deaf & sleep 3; within a causes anon 20 2 worker",
        follow=_DOUBLED,
        beyond_log="a charge for a socket is refused and the sender waits: another request has to fail",
    ),
    Scenario(
        name="cg-map-write",
        cause="a file of 60 MiB is written by its mapping (2 MB/s), 15 MiB of anonymous memory beside it, limit 20",
        named=r"dirty|writ",
        env={"THROTTLE": "2000000"},
        work="group a ${LIMIT:-20M}; disk_at /mnt; within a causes map-write /mnt/f 60 1 mapper & W=$!;"
        " within a causes anon 15 3 worker; rc=$?; kill -9 $W; return $rc",
        follow={"raise_limit": _did("limit doubled", LIMIT="40M")},
    ),
    Scenario(
        name="cg-deleted",
        cause="a deleted file of 30 MiB in a tmpfs is held open; the worker needs 20 of 40",
        named=r"tmpfs|shared memory|deleted",
        where=BOTH,
        work="group a ${LIMIT:-40M}; "
        + _TMPFS
        + "within a causes unlinked $d/f 30 ${SECONDS_OF:-9} holder & sleep 1;"
        ' [ -z "$CLEAN" ] || sleep 2; within a causes anon 20 2 worker; rc=$?; wait; umount $d; return $rc',
        follow={
            "raise_limit": _did("limit doubled", LIMIT="80M"),
            "end_holder": _did("the holder ended first", SECONDS_OF=1, CLEAN=1),
        },
    ),
    Scenario(
        name="cg-together-exempt",
        cause="memory.oom.group=1 and an exempt member (-1000): the helper over the limit takes the main process, the exempt lives",
        named=r"oom\.group|whole (c?group)|all of (it|them)|together",
        innocents=True,
        work="group a ${LIMIT:-40M}; echo ${GROUP:-1} > $CGROUPS/a/memory.oom.group; within_scored a -1000 causes anon 4 30 exemptone &"
        " within a causes anon 4 900 mainproc & sleep 1; within a causes anon 60 2 helper; grep -q exemptone /proc/[0-9]*/comm && grep -q mainproc /proc/[0-9]*/comm",
        follow={**_DOUBLED, "oom_group": _did("oom.group=0: the helper dies alone", GROUP=0)},
    ),
    Scenario(
        name="cg-high",
        cause="memory.high of 30 MiB slows the process to a stop; its manager kills it (SIGKILL after 10 s): no kill of the kernel's",
        named=r"memory\.high",
        work="group a 60M; echo 30M > $CGROUPS/a/memory.high; within a timeout -s KILL 10 causes anon 45 2 worker",
        seconds=60,
    ),
)

WHOLE = (
    Scenario(
        name="g-leak",
        cause="one process leaks without end",
        named=r"leaky",
        small=True,
        innocents=True,
        work='bystander; if [ -n "$MAX" ]; then group l $MAX; within l timeout 15 causes leak 100 leaky; else timeout 15 causes leak 100 leaky; fi; unharmed',
        follow={
            "bound_process": _did("memory.max 200M", MAX="200M"),
            "find_leak": _did("memory.max 200M", MAX="200M"),
        },
    ),
    Scenario(
        name="g-toosmall",
        cause="ten different services of 45 MiB: RAM too small",
        named=r"processes hold \d+ % of RAM|no swap|together",
        work='bystander; ${SWAP:-:}; for i in 1 2 3 4 5 6 7 8 9 10; do causes anon 45 8 svc-$i & all="$all $!"; done; sleep 5;'
        " for p in $all; do kill -0 $p || return 1; done; unharmed",
        follow={
            "swap": _did("600 MiB of swap", SWAP="swap_on"),
            "more_ram": _did("twice the RAM", memory=1024),
        },
    ),
    Scenario(
        name="g-many",
        cause="90 workers of 6 MiB",
        named=r"\b\d+ worker processes|many (small )?processes",
        work="bystander; ${SWAP:-:}; for n in ${POOLS:-90}; do causes crowd $n 6 4 worker || return 1; killall worker 2>/dev/null; done; unharmed",
        follow={
            "bound_count": _did("the same 90, 20 at a time", POOLS="20 20 20 20 10"),
            "swap": _did("600 MiB of swap", SWAP="swap_on"),
            "more_ram": _did("twice the RAM", memory=1024),
        },
    ),
    Scenario(
        name="g-tmpfs",
        cause="a tmpfs holds 300 MiB, the worker needs 150",
        named=r"tmpfs|shared memory",
        small=True,
        work="bystander; mkdir -p /t; mount -t tmpfs -o size=${SIZE:-90%} t /t; dd if=/dev/zero of=/t/f bs=1M count=300 2>/dev/null;"
        ' [ -z "$CLEAN" ] || rm /t/f; causes anon 150 2 worker && unharmed',
        follow={
            "tmpfs_size": _did("size=100M", SIZE="100M"),
            "tmpfs_remove": _did("files removed", CLEAN=1),
        },
    ),
    Scenario(
        name="g-memfd",
        cause="one process holds 300 MiB in a memfd that is not mapped",
        named=r"memfd",
        near=r"shared memory|tmpfs",
        work="bystander; causes memfd ${HELD:-300} 90 memfd-user & settled $!; causes anon 150 2 worker && unharmed",
        follow={
            "tmpfs_size": LOOK,
            "tmpfs_remove": LOOK,
            "see_descriptors": LOOK,
            "bound_process": _did("memfd-user: 50 MiB by its own settings", HELD=50),
        },
        looks={
            "mounts": Look("df -t tmpfs; cat /proc/sysvipc/shm; ls /dev/shm", r"memfd-user|3072\d\d"),
            "descriptors": Look("ls -l /proc/[0-9]*/fd 2>/dev/null | grep memfd", r"memfd"),
        },
    ),
    Scenario(
        name="g-sysv",
        cause="a SysV segment of 300 MiB that was left behind; the worker needs 150",
        named=r"SysV",
        near=r"shared memory|tmpfs",
        work='bystander; causes sysv 300 0 segments; [ -z "$CLEAN" ] || causes sysv-remove; causes anon 150 2 worker && unharmed',
        follow={"tmpfs_size": LOOK, "tmpfs_remove": _did("ipcrm", CLEAN=1)},
        looks={"mounts": Look("df -t tmpfs; cat /proc/sysvipc/shm", r"3145728\d\d")},
    ),
    Scenario(
        name="g-hugepages",
        cause="vm.nr_hugepages sets 300 MiB aside, unused; the worker needs 150",
        named=r"huge page",
        small=True,
        work="echo ${NR:-150} > /proc/sys/vm/nr_hugepages; bystander; causes anon 150 2 worker && unharmed",
        follow={"hugepages": _did("nr_hugepages 0", NR=0)},
    ),
    Scenario(
        name="g-hugepages-boot",
        cause="hugepages=150 on the command line, unused; the worker needs 150",
        named=r"huge page",
        append="hugepages=150",
        work="bystander; causes anon 150 2 worker && unharmed",
        follow={"hugepages": _did("without", append="")},
    ),
    Scenario(
        name="g-hugepages-used",
        cause="300 MiB of huge pages, all used by one process; the worker needs 150",
        named=r"huge page",
        work="${SWAP:-:}; echo ${NR:-150} > /proc/sys/vm/nr_hugepages; bystander; causes huge ${HUGE:-298} 90 huge-user & settled $!;"
        " causes anon 150 2 worker && unharmed",
        follow={
            "hugepages": _did("nr_hugepages 20, its user has to do with less", NR=20, HUGE=38, less=True),
            **_ROOM,
        },
    ),
    Scenario(
        name="g-minfree",
        cause="vm.min_free_kbytes = 260000; the worker needs 150",
        named=r"min_free_kbytes|min watermarks",
        small=True,
        work="echo ${MINFREE:-260000} > /proc/sys/vm/min_free_kbytes; bystander; causes anon ${MB:-150} 2 worker && unharmed",
        follow={"min_free": _did("as by default", MINFREE=2700), **_bound("worker", 60)},
    ),
    Scenario(
        name="g-swapfull",
        cause="swap of 100 MiB is full; the process needs 600",
        named=r"swap (is|was) full|swap_exhausted|bighog",
        work="swap_on ${SWAPKB:-102400}; bystander; causes noise ${MB:-600} 2 bighog && unharmed",
        follow={
            **_bound("bighog", 200),
            "swap": _did("450 MiB more", SWAPKB=563000),
            "more_ram": _did("twice", memory=1024),
        },
    ),
    Scenario(
        name="g-swapoff",
        cause="swapoff while 250 MiB are in swap",
        named=r"swapoff",
        work="swap_on; bystander; causes noise ${MB:-450} 30 bighog & H=$!; settled $H; ${OFF:-swapoff} $DISK; unharmed && kill -0 $H",
        follow={"swapoff": _did("no swapoff", OFF="echo"), **_bound("bighog", 200)},
    ),
    Scenario(
        name="g-zram",
        cause="swap on zram of 400 MiB filled with what does not compress; the process needs 500",
        named=r"zram|compressed swap|zspages",
        near=r"no counter",
        work='if [ -n "$FLASH" ]; then swap_on; else for m in zsmalloc lzo lzo-rle zram; do insmod /modules/$m.ko; done; echo 400M > /sys/block/zram0/disksize; mkswap /dev/zram0 >/dev/null; swapon /dev/zram0; fi;'
        " bystander; causes noise ${MB:-500} 2 bighog && unharmed",
        follow={
            "zram": _did("swap on a disk instead", FLASH=1),
            **_bound("bighog", 150),
            "more_ram": _did("twice the RAM", memory=1024),
            "unaccounted": LOOK,
        },
        seconds=200,
        looks={"zram": Look("cat /sys/block/zram0/mm_stat", r"^ *\d{8,}")},
    ),
    Scenario(
        name="g-zswap",
        cause="zswap (pool 60 %) before a swap of 150 MiB; the process needs 650 that do not compress",
        named=r"zswap|swap (is|was) full|bighog",
        work="swap_on ${SWAPKB:-153600}; echo 60 > /sys/module/zswap/parameters/max_pool_percent; echo Y > /sys/module/zswap/parameters/enabled;"
        " bystander; causes noise ${MB:-650} 2 bighog && unharmed",
        follow={
            **_bound("bighog", 200),
            "more_ram": _did("twice the RAM", memory=1024),
            "swap": _did("450 MiB more", SWAPKB=614000),
        },
    ),
    *(
        Scenario(
            name=f"g-driver-{how}",
            cause=f"{cause}; the worker needs 200",
            named=named,
            near=near,
            small=how == "cache",
            work=f"bystander; insmod /modules/oomlab.ko how={how} mib=${{LEAK:-250}}; {_END}",
            follow={
                "slab": LOOK,
                "unaccounted": LOOK,
                "driver": _did("no leak", LEAK=0),
                **_bound("worker", 60),
            },
            looks={
                "slabinfo": Look(_SLAB, r"(?m)^(oomlab|kmalloc-4k)"),
                "vmallocinfo": Look("cat /proc/vmallocinfo", r"oomlab|pcpu_"),
            },
            beyond_log=beyond,
        )
        for how, cause, named, near, beyond in (
            ("cache", "a driver leaks 250 MiB of a slab cache of its own", r"oomlab_request", r"slab", ""),
            ("kmalloc", "a driver leaks 250 MiB of kmalloc", r"kmalloc", r"slab", ""),
            (
                "pages",
                "a driver leaks 250 MiB of pages",
                r"no counter|unaccounted|accounted to nobody|driver",
                r"(?!)",
                "",
            ),
            (
                "vmalloc",
                "a driver leaks 250 MiB of vmalloc",
                r"VmallocUsed|vmalloc (by|holds|has)|(of|in) vmalloc\b",
                r"no counter|unaccounted|accounted to nobody",
                "VmallocUsed is in /proc/meminfo alone",
            ),
            (
                "percpu",
                "a driver leaks 250 MiB of per-CPU memory",
                r"Percpu\b|pcpu_|per-?CPU (memory|data)? ?(holds|has)|most of it per-CPU|asked for per-CPU data",
                r"no counter|unaccounted|accounted to nobody",
                "Percpu is in /proc/meminfo alone",
            ),
        )
    ),
    Scenario(
        name="g-driver-little",
        cause="a driver leaks 60 MiB of pages (12 % of RAM); the worker needs 340",
        named=r"no counter|unaccounted|accounted to nobody|driver",
        work="bystander; insmod /modules/oomlab.ko how=pages mib=${LEAK:-60}; causes anon ${MB:-340} 2 worker && unharmed",
        follow={"unaccounted": LOOK, "driver": _did("no leak", LEAK=0), **_bound("worker", 200)},
        looks={"vmallocinfo": Look("cat /proc/vmallocinfo", r"oomlab")},
    ),
    Scenario(
        name="g-dma",
        cause="a driver wants 30 MiB of the DMA zone, which has 15",
        named=r"\bDMA\b",
        work="bystander; insmod /modules/oomlab.ko how=dma mib=${LEAK:-30} 2>/dev/null || return 1; unharmed",
        follow={
            "driver": _did("the driver asks for 4 MiB", LEAK=4),
            "fragment": _did("the driver asks for 4 MiB", LEAK=4),
        },
    ),
    Scenario(
        name="g-order3",
        cause="memory in single pages, requests of order 3",
        named=r"order.3|fragment|in a row|contiguous",
        work="bystander; insmod /modules/oomlab.ko how=holes order=${ORDER:-3} blocks=${BLOCKS:-4000}; unharmed",
        follow={
            "fragment": _did("asks for single pages", ORDER=0, BLOCKS=4000),
            "driver": _did("asks for single pages", ORDER=0),
        },
    ),
    Scenario(
        name="g-bpf",
        cause="BPF maps of 256 MiB; the worker needs 200",
        named=r"tracer|\bbpf|\bBPF|array_map_alloc",
        near=r"no counter|vmalloc|accounted to nobody",
        work="bystander; causes bpf ${HELD:-256} 90 tracer & settled $!; " + _END,
        follow={
            "unaccounted": LOOK,
            "see_descriptors": LOOK,
            "end_holder": _did("tracer: maps of 16 MiB", HELD=16),
        },
        looks={
            "vmallocinfo": Look("cat /proc/vmallocinfo", r"bpf"),
            "fdinfo": Look("cat /proc/[0-9]*/fdinfo/* 2>/dev/null | grep memlock | head -n 3", r"memlock"),
        },
        beyond_log="VmallocUsed is in /proc/meminfo alone",
    ),
    Scenario(
        name="g-rings",
        cause="packet rings of 250 MiB; the worker needs 200",
        named=r"ring|sniffer|packet",
        near=r"no counter|accounted to nobody",
        work="bystander; causes rings ${HELD:-250} 90 sniffer & settled $!; " + _END,
        follow={
            "unaccounted": LOOK,
            "see_descriptors": LOOK,
            "end_holder": _did("sniffer: rings of 32 MiB", HELD=32),
            **_bound("worker", 60),
        },
        looks={
            "vmallocinfo": Look("cat /proc/vmallocinfo", r"packet|af_packet"),
            "packet": Look("cat /proc/net/packet", r"(?m)^[0-9a-f]+ .*3"),
        },
        beyond_log="rings are in no counter; /proc/net/packet and descriptors show them",
    ),
    Scenario(
        name="g-urings",
        cause="io_uring rings of 250 MiB; the worker needs 200",
        named=r"io_uring|ringer",
        near=r"no counter|accounted to nobody",
        work="bystander; causes urings ${N:-75} 90 ringer & settled $!; " + _END,
        follow={
            "unaccounted": LOOK,
            "see_descriptors": LOOK,
            "end_holder": _did("ringer: 8 rings", N=8),
            **_bound("worker", 60),
        },
        looks={
            "vmallocinfo": Look("cat /proc/vmallocinfo", r"io_uring"),
            "descriptors": Look("ls -l /proc/[0-9]*/fd 2>/dev/null | grep io_uring", r"io_uring"),
        },
        beyond_log="rings are in no counter; descriptors show them",
    ),
    Scenario(
        name="g-perf",
        cause="buffers of 250 MiB for events of perf; the worker needs 200",
        named=r"\bperf\b|profiler",
        near=r"no counter|accounted to nobody|locked",
        work="bystander; causes perf ${HELD:-250} 90 profiler & settled $!; " + _END,
        follow={
            "see_descriptors": LOOK,
            "end_holder": _did("profiler: 16 MiB", HELD=16),
            **_bound("worker", 60),
        },
        looks={"descriptors": Look("ls -l /proc/[0-9]*/fd 2>/dev/null | grep perf", r"perf_event")},
        beyond_log="buffers are in no counter; descriptors and VmPin show them",
    ),
    Scenario(
        name="g-dmabuf",
        cause="DMA-BUFs of 250 MiB of the system heap; the worker needs 200",
        named=r"DMA-BUF|dma.?heap|camera",
        near=r"no counter|accounted to nobody",
        suite="trixie",
        work="bystander; causes dmabufs ${HELD:-250} 90 camera & settled $!; " + _END,
        follow={
            "see_descriptors": LOOK,
            "end_holder": _did("camera: 16 MiB", HELD=16),
            **_bound("worker", 60),
        },
        looks={"descriptors": Look("ls -l /proc/[0-9]*/fd 2>/dev/null | grep dmabuf", r"dmabuf")},
        beyond_log="buffers of a heap are in no counter; fdinfo shows their size",
    ),
    Scenario(
        name="g-unix",
        cause="unix sockets with 250 MiB queued; the worker needs 200",
        named=r"queuer|unix sockets?\b|skb|socket (buffers|memory) (of|hold)",
        near=r"no counter|accounted to nobody",
        work="bystander; causes unix ${N:-700} 90 queuer & settled $!; " + _END,
        follow={
            "unaccounted": LOOK,
            "slab": LOOK,
            "see_descriptors": LOOK,
            "end_holder": _did("queuer: 40 pairs", N=40),
            **_bound("worker", 60),
        },
        looks={
            "vmallocinfo": Look("cat /proc/vmallocinfo", r"unix|sock"),
            "slabinfo": Look(_SLAB, r"skb"),
            "descriptors": Look(_FDS, r"queuer"),
        },
        beyond_log="socket buffers are in no counter; descriptors show who has them",
    ),
    Scenario(
        name="g-pipes",
        cause="4000 full pipes (250 MiB); the worker needs 200",
        named=r"\bpipe",
        near=r"no counter|accounted to nobody",
        work="bystander; echo 0 > /proc/sys/fs/pipe-user-pages-soft; causes pipes ${N:-4000} 90 piper & settled $!; "
        + _END,
        follow={
            "unaccounted": LOOK,
            "see_descriptors": LOOK,
            "end_holder": _did("piper: 200 pipes", N=200),
            **_bound("worker", 60),
        },
        looks={"vmallocinfo": Look("cat /proc/vmallocinfo", r"pipe"), "descriptors": Look(_FDS, r"piper")},
        beyond_log="pipe buffers are in no counter; descriptors show who has them",
    ),
    Scenario(
        name="g-opens",
        cause="one process holds 500000 open files; the worker needs 230",
        named=r"open(ed)? files|filp|descriptor|opener",
        near=r"slab",
        work="bystander; echo 1000000 > /proc/sys/fs/file-max; causes opens ${N:-500000} 90 opener & settled $!; causes anon 230 2 worker && unharmed",
        follow={
            "slab": LOOK,
            "see_descriptors": LOOK,
            "objects": _did("opener: 1000 files", N=1000),
            "end_holder": _did("opener: 1000 files", N=1000),
        },
        looks={
            "slabinfo": Look(_SLAB, r"filp|seq_file"),
            "descriptors": Look("cat /proc/sys/fs/file-nr", r"\d{6}"),
        },
    ),
    Scenario(
        name="g-threads",
        cause="11000 threads; the worker needs 150",
        named=r"stack|thread",
        work="bystander; for f in kernel/threads-max kernel/pid_max; do echo 100000 > /proc/sys/$f; done; echo 1000000 > /proc/sys/vm/max_map_count;"
        " ulimit -u unlimited 2>/dev/null; causes threads ${N:-11000} 90 threader & settled $!; causes anon 150 2 worker && unharmed",
        follow={"threads": _did("1000 threads", N=1000), "slab": LOOK},
        looks={"slabinfo": Look(_SLAB, r"task_struct|stack")},
    ),
    Scenario(
        name="g-watches",
        cause="inotify watches on 120000 files; the worker needs 250",
        named=r"inotify|inode|dentry|watch",
        near=r"slab",
        work="bystander; echo 1000000 > /proc/sys/fs/inotify/max_user_watches; mkdir -p /w; mount -t tmpfs -o nr_inodes=0 t /w;"
        " causes watches ${N:-120000} /w 90 watcher & settled $!; causes anon 250 2 worker && unharmed",
        follow={"slab": LOOK, "tmpfs_remove": _did("5000 files", N=5000)},
        looks={"slabinfo": Look(_SLAB, r"inode|inotify|dentry")},
    ),
    Scenario(
        name="g-routes",
        cause="a routing table of 700000 routes; the worker needs 320",
        named=r"fib_|route|ip_fib",
        near=r"slab",
        work="bystander; causes routes ${N:-700000} 90 router & settled $!; causes anon 320 2 worker && unharmed",
        follow={"slab": LOOK, "objects": _did("20000 routes", N=20000)},
        looks={"slabinfo": Look(_SLAB, r"fib|kmalloc")},
        seconds=150,
    ),
    Scenario(
        name="g-namespaces",
        cause="1200 network namespaces kept by descriptors; the worker needs 250",
        named=r"namespace|net_namespace|\bnetns|\bnet_",
        near=r"slab|no counter|per-?CPU",
        work="bystander; causes namespaces ${N:-1200} 90 spacer & settled $!; causes anon 250 2 worker && unharmed",
        follow={
            "slab": LOOK,
            "objects": _did("50 namespaces", N=50),
            "end_holder": _did("50 namespaces", N=50),
        },
        looks={"slabinfo": Look(_SLAB, r"net_namespace|kmalloc|dentry")},
        seconds=150,
    ),
    Scenario(
        name="g-lock",
        cause="280 MiB locked by one process; the worker needs 180",
        named=r"lock",
        work="bystander; scored -500 causes lock ${HELD:-280} 90 pinner & settled $!; causes anon 180 2 worker && unharmed",
        follow={"mlock": _did("locks 50 MiB", HELD=50), **_bound("pinner", 50, variable="HELD")},
    ),
    Scenario(
        name="g-lock-cache",
        cause="250 MiB of a file locked in the page cache; the worker needs 200",
        named=r"lock",
        work="bystander; disk_at /mnt; dd if=/dev/zero of=/mnt/f bs=1M count=${HELD:-250} 2>/dev/null; sync; causes lock-file /mnt/f 90 mapper & settled $!; "
        + _END,
        follow={"mlock": _did("locks 50 MiB", HELD=50)},
    ),
    Scenario(
        name="g-ramfs",
        cause="a ramfs holds 250 MiB; the worker needs 200",
        named=r"ramfs",
        near=r"unevictable|locked",
        work="bystander; mkdir -p /r; mount -t ramfs r /r; dd if=/dev/zero of=/r/f bs=1M count=${HELD:-250} 2>/dev/null; "
        + _END,
        follow={"mlock": LOOK, "ramfs": _did("files removed", HELD=5)},
        looks={"mounts": Look("grep ramfs /proc/mounts; grep VmLck /proc/[0-9]*/status", r"ramfs /r")},
    ),
    Scenario(
        name="g-bind",
        cause="a memory policy binds to node 1 (256 MiB); 280 needed",
        named=r"memory policy",
        devices=_NODES,
        work='bystander; if [ -n "$FREE" ]; then causes anon 280 2 bound; else causes bind 1 ${MB:-280} 2 bound; fi && unharmed',
        follow={"binding": _did("not bound", FREE=1), **_bound("bound", 100)},
    ),
    Scenario(
        name="g-cpuset",
        cause="a cpuset confines to node 1 (256 MiB); 280 needed",
        named=r"cpuset",
        devices=_NODES,
        work="bystander; group c; echo ${MEMS:-1} > $CGROUPS/c/cpuset.mems; within c causes anon 280 2 confined && unharmed",
        follow={"binding": _did("both nodes", MEMS="0-1")},
    ),
    Scenario(
        name="g-movable",
        cause="kernelcore=160M: the kernel's zones are full of slab while Movable is free",
        named=r"kernelcore|Movable",
        append="kernelcore=160M",
        work="bystander; insmod /modules/oomlab.ko how=cache mib=${LEAK:-150}; unharmed",
        follow={"slab": LOOK, "kernelcore": _did("without", append="")},
        looks={"slabinfo": Look(_SLAB, r"oomlab")},
    ),
    Scenario(
        name="g-allocating",
        cause="vm.oom_kill_allocating_task=1: whoever asks dies, not the giant of 320 MiB",
        named=r"oom_kill_allocating_task",
        innocents=True,
        work="bystander; echo ${ASKING:-1} > /proc/sys/vm/oom_kill_allocating_task; causes anon ${GIANT:-320} 90 giant & settled $!; causes anon 140 2 innocent && unharmed",
        follow={"allocating": _did("0: the giant dies", ASKING=0), **_bound("giant", 100, variable="GIANT")},
    ),
    Scenario(
        name="g-balloon",
        cause="the hypervisor's balloon takes 260 MiB; the worker needs 250",
        named=r"balloon|hypervisor|RAM (was|went|shrank|is smaller)",
        near=r"no counter",
        devices=("-device", "virtio-balloon-pci,id=balloon"),
        env={"BALLOON": "252"},
        work="bystander; insmod /modules/virtio_balloon.ko; echo @@BALLOON; sleep 8; causes anon 250 2 worker && unharmed",
        follow={"balloon": _did("deflated", BALLOON="512"), "unaccounted": _did("deflated", BALLOON="512")},
    ),
    Scenario(
        name="g-crashkernel",
        cause="crashkernel=200M of 512; the worker needs 220",
        named=r"set aside|reserved|crashkernel",
        append="crashkernel=200M",
        work="bystander; causes anon ${MB:-220} 2 worker && unharmed",
        follow={"reserved": _did("without", append=""), **_bound("worker", 100)},
    ),
    Scenario(
        name="g-mem",
        cause="mem=256M of 512; the worker needs 220",
        named=r"\bmem=|command line",
        append="mem=256M",
        work="bystander; causes anon ${MB:-220} 2 worker && unharmed",
        follow={
            "reserved": _did("without", append=""),
            "more_ram": _did("without", append=""),
            **_bound("worker", 100),
        },
        beyond_log="a report does not print the command line; the boot log and /proc/cmdline do",
    ),
    Scenario(
        name="g-dots",
        cause="one byte in each 2 MiB of 300, resident by transparent huge pages; the worker needs 150",
        named=r"huge",
        work="echo ${THP:-always} > /sys/kernel/mm/transparent_hugepage/enabled; ${SWAP:-:}; bystander; scored -300 causes dots ${HELD:-300} 90 sparse & settled $!; "
        + _AGED
        + "causes anon 150 2 worker && unharmed",
        follow={"thp": _did("never", THP="never"), **_ROOM, **_bound("sparse", 100, variable="HELD")},
    ),
    Scenario(
        name="g-bomb",
        cause="a fork bomb",
        named=r"bomb",
        innocents=True,
        work='bystander; group f; [ -z "$PIDS" ] || echo $PIDS > $CGROUPS/f/pids.max; within f timeout -s KILL 8 causes bomb bomb & sleep 9;'
        " for k in 1 2 3; do for p in $(cat $CGROUPS/f/cgroup.procs); do kill -9 $p 2>/dev/null; done; done; unharmed",
        follow={"bound_count": _did("pids.max 50", PIDS=50)},
        seconds=60,  # nobody else gets a turn
    ),
    Scenario(
        name="g-protected",
        cause="memory.min keeps 280 MiB of page cache of an idle cgroup; the worker needs 200",
        named=r"memory\.min|protect",
        work="bystander; disk_at /mnt; group keep; echo ${MIN:-400M} > $CGROUPS/keep/memory.min;"
        " within keep dd if=/dev/zero of=/mnt/f bs=1M count=${CACHE:-280} 2>/dev/null; sync; " + _END,
        follow={"protection": _did("memory.min 0", MIN=0)},
    ),
    Scenario(
        name="g-overcommit",
        cause="vm.overcommit_memory=2 promises 100 % of RAM: nothing is left for the kernel; the worker needs 420",
        named=r"overcommit",
        near=r"worker",
        work="echo 2 > /proc/sys/vm/overcommit_memory; echo ${RATIO:-120} > /proc/sys/vm/overcommit_ratio; bystander; causes anon ${MB:-440} 2 worker; [ $? -le 3 ] && unharmed",
        follow={
            "overcommit": _did("overcommit_ratio 70: the worker is refused", RATIO=70),
            **_bound("worker", 200),
        },
    ),
    Scenario(
        name="g-fault",
        cause="one process has 300 MiB filled by userfaultfd (a restored machine); another needs 150",
        named=r"restorer",
        work="${SWAP:-:}; bystander; echo 1 > /proc/sys/vm/unprivileged_userfaultfd; causes fault ${HELD:-300} 90 restorer & settled $!; "
        + _AGED
        + "causes anon 150 2 worker && unharmed",
        follow={**_ROOM, **_bound("restorer", 100, variable="HELD")},
    ),
    Scenario(
        name="g-steps",
        cause="a heap that doubles and copies (virtual machine), up to 300 MiB",
        named=r"java",
        work="bystander; causes steps ${MB:-300} 2 java && unharmed",
        follow={**_bound("java", 150), "more_ram": _did("twice the RAM", memory=1024)},
    ),
    Scenario(
        name="g-lowmem",
        cause="32 bit: sockets' buffers fill the 200 MiB of low memory while 800 MiB of HighMem are free",
        named=r"low memory|HighMem|32.bit|lowmem",
        arch="i386",
        memory=1024,
        append="highmem=800M",
        work="bystander; causes unix ${N:-900} 60 queuer & settled $!; causes unix ${N:-900} 1 queuer && unharmed",
        follow={"low_memory": _did("20 pairs of sockets", N=20)},
        seconds=200,
    ),
    Scenario(
        name="g-services",
        cause="60 services of different names, 7 MiB each: RAM too small",
        named=r"processes hold \d+ % of RAM|together",
        work='bystander; ${SWAP:-:}; for i in $(seq 60); do causes anon 7 25 svc-$i & all="$all $!"; done; sleep 12;'
        " for p in $all; do kill -0 $p || return 1; done; unharmed",
        follow={
            "swap": _did("600 MiB of swap", SWAP="swap_on"),
            "more_ram": _did("twice the RAM", memory=1024),
        },
    ),
    Scenario(
        name="g-leak-swap",
        cause="one process leaks 12 MiB/s, and has filled 150 MiB of swap, too",
        named=r"leaky grew",
        near=r"leaky",
        innocents=True,
        work='swap_on ${SWAPKB:-153600}; bystander; if [ -n "$MAX" ]; then group l $MAX; within l timeout 80 causes leak 12 leaky; else timeout 80 causes leak 12 leaky; fi; unharmed',
        follow={
            "bound_process": _did("memory.max 100M", MAX="100M"),
            "find_leak": _did("memory.max 100M", MAX="100M"),
            "swap": _did("500 MiB of swap", SWAPKB=500000),
        },
        seconds=150,
    ),
    Scenario(
        name="g-leak-quick",
        cause="one process leaks 100 MiB/s, and has filled 100 MiB of swap, too",
        named=r"leaky",
        innocents=True,
        work='swap_on ${SWAPKB:-102400}; bystander; if [ -n "$MAX" ]; then group l $MAX; within l timeout 60 causes leak 100 leaky; else timeout 60 causes leak 100 leaky; fi; rc=$?; [ $rc = 143 ] || [ -n "$MAX" ] && unharmed',
        follow={
            "bound_process": _did("memory.max 100M", MAX="100M"),
            "find_leak": _did("memory.max 100M", MAX="100M"),
            "swap": _did("450 MiB more", SWAPKB=563000),
        },
        beyond_log="in seconds a leak and a load that is read in grow alike",
        seconds=150,
    ),
    Scenario(
        name="g-run",
        cause="logs of 280 MiB fill a tmpfs on /run; the worker needs 150",
        named=r"/run\b",
        near=r"tmpfs|shared memory",
        work="bystander; mkdir -p /run /small; mount -t tmpfs -o size=${SIZE:-90%} run /run; mount -t tmpfs s /small; echo x > /small/f; mkdir -p /run/log;"
        ' for i in 1 2 3 4; do causes write /run/log/journal.$i 70 logger; done; [ -z "$CLEAN" ] || rm /run/log/*; causes anon 150 2 worker && unharmed',
        follow={
            "tmpfs_size": _did("size=100M", SIZE="100M"),
            "tmpfs_remove": _did("files removed", CLEAN=1),
        },
    ),
    Scenario(
        name="g-deleted",
        cause="a deleted file of 300 MiB in a tmpfs is held open; the worker needs 150",
        named=r"\bholder\b|deleted",
        near=r"tmpfs|shared memory",
        work="bystander; mkdir -p /t; mount -t tmpfs -o size=90% t /t; causes unlinked /t/f ${HELD:-300} 90 holder & settled $!; causes anon 150 2 worker && unharmed",
        follow={
            "tmpfs_size": LOOK,
            "tmpfs_remove": LOOK,
            "see_descriptors": LOOK,
            "end_holder": _did("holder: 20 MiB", HELD=20),
            "bound_process": _did("holder: 20 MiB", HELD=20),
        },
        looks={
            "mounts": Look("ls -lR /t", r"\bf$"),
            "descriptors": Look("ls -l /proc/[0-9]*/fd 2>/dev/null | grep deleted", r"/t/f"),
        },
        beyond_log="a report has all shared memory in one number",
    ),
    Scenario(
        name="g-exempt",
        cause="a giant of 300 MiB is exempt (-1000); innocents of 150 die",
        named=r"giant.*exempt|exempt.*giant|-1000",
        near=r"giant",
        innocents=True,
        work="${SWAP:-:}; bystander; scored ${ADJ:--1000} causes anon ${GIANT:-320} 90 giant & settled $!; "
        + _AGED
        + "causes anon 150 2 innocent; rc=$?; unharmed && return $rc",
        follow={
            **_ROOM,
            "exempt": _did("adj 0: the giant dies", ADJ=0),
            **_bound("giant", 100, variable="GIANT"),
        },
    ),
    Scenario(
        name="g-tables",
        cause="240 MiB of page tables over the zero page; the worker needs 200",
        named=r"page tables",
        work="echo 1 > /proc/sys/vm/overcommit_memory; bystander; causes tables ${GIB:-120} 90 mapper & settled $!; "
        + _END,
        follow={"page_tables": _did("maps 10 GiB", GIB=10)},
    ),
    Scenario(
        name="g-mappings",
        cause="20 processes with 60000 mappings each; the worker needs 200",
        named=r"mappings|vm_area_struct",
        near=r"slab",
        work="bystander; causes mappings ${N:-20} 60 mapper & settled $!; " + _END,
        follow={"objects": _did("one process", N=1), "slab": LOOK, "end_holder": _did("one process", N=1)},
        looks={"slabinfo": Look(_SLAB, r"vm_area_struct")},
        seconds=150,
    ),
    Scenario(
        name="g-messages",
        cause="SysV message queues of 240 MiB that nobody reads; the worker needs 200",
        named=r"message queues|sender",
        near=r"slab|kmalloc",
        work="bystander; causes messages ${HELD:-240} 90 sender here & settled $!; " + _END,
        follow={
            "slab": LOOK,
            "objects": _did("sender: 10 MiB", HELD=10),
            "end_holder": _did("sender: 10 MiB", HELD=10),
            "driver": LOOK,
        },
        looks={"slabinfo": Look(_SLAB, r"kmalloc-")},
    ),
    Scenario(
        name="g-flows",
        cause="700000 tracked connections; the worker needs 280",
        named=r"conntrack|tracked connections",
        near=r"slab",
        work="bystander; for m in libcrc32c nf_defrag_ipv4 nf_defrag_ipv6; do insmod /modules/$m.ko; done; insmod /modules/nf_conntrack.ko enable_hooks=1 hashsize=262144;"
        " echo ${MOST:-2000000} > /proc/sys/net/netfilter/nf_conntrack_max; echo 600 > /proc/sys/net/netfilter/nf_conntrack_udp_timeout;"
        " causes flows 700000 90 scanner & settled $!; causes anon 280 2 worker && unharmed",
        follow={"objects": _did("nf_conntrack_max 30000", MOST=30000), "slab": LOOK},
        looks={"slabinfo": Look(_SLAB, r"nf_conntrack")},
        seconds=200,
    ),
    Scenario(
        name="g-hash",
        cause="nf_conntrack hashsize=33554432 takes 256 MiB; the worker needs 200",
        named=r"nf_conntrack|conntrack",
        near=r"no counter|vmalloc",
        work="bystander; for m in libcrc32c nf_defrag_ipv4 nf_defrag_ipv6; do insmod /modules/$m.ko; done; insmod /modules/nf_conntrack.ko hashsize=${SLOTS:-33554432}; "
        + _END,
        follow={
            "objects": _did("hashsize 16384", SLOTS=16384),
            "driver": _did("hashsize 16384", SLOTS=16384),
            "unaccounted": LOOK,
        },
        looks={"vmallocinfo": Look("cat /proc/vmallocinfo", r"nf_ct")},
        beyond_log="VmallocUsed is in /proc/meminfo alone",
    ),
    Scenario(
        name="g-nft",
        cause="3200000 addresses in an nftables set; the worker needs 220",
        named=r"nf_tables|nftables|nft_|firewall\.service",
        near=r"slab|kmalloc",
        work="bystander; for m in libcrc32c nfnetlink nf_tables; do insmod /modules/$m.ko; done; group firewall.service; within firewall.service causes elements ${N:-3200000} 90 firewall & sleep 1; settled $(pidof firewall); causes anon 220 2 worker && unharmed",
        follow={
            "objects": _did("20000 addresses", N=20000),
            "end_holder": _did("20000 addresses", N=20000),
            "slab": LOOK,
            "driver": LOOK,
        },
        looks={"slabinfo": Look(_SLAB, r"kmalloc-(cg-)?(64|96|128)|nft_")},
        seconds=200,
    ),
    Scenario(
        name="g-cgroups",
        cause="5000 cgroups; the worker needs 290",
        named=r"\d cgroups|memory cgroups",
        near=r"slab|no counter|per-CPU",
        work="bystander; i=0; while [ $i -lt ${N:-5000} ]; do mkdir $CGROUPS/x$i || break; i=$((i+1)); done; causes anon ${MB:-290} 2 worker && unharmed",
        follow={"objects": _did("50 cgroups", N=50), "slab": LOOK},
        looks={"slabinfo": Look(_SLAB, r"kmalloc|cgroup|kernfs")},
        seconds=200,
    ),
    Scenario(
        name="g-ramdisk",
        cause="a RAM disk (brd) holds 250 MiB; the worker needs 200",
        named=r"RAM disk|\bbrd\b|/dev/ram|\bram0\b",
        near=r"no counter",
        work="bystander; mount -t debugfs d /py/sys/kernel/debug 2>/dev/null; insmod /modules/brd.ko rd_nr=1 rd_size=${KIB:-256000}; dd if=/dev/zero of=/dev/ram0 bs=1M 2>/dev/null; sync; echo 1 > /proc/sys/vm/drop_caches; "
        + _END,
        follow={
            "ramfs": _did("rd_size 8 MiB", KIB=8192),
            "driver": _did("rd_size 8 MiB", KIB=8192),
            "unaccounted": LOOK,
        },
        looks={"vmallocinfo": Look("cat /proc/vmallocinfo", r"brd")},
        beyond_log="its pages are in no counter; /proc/diskstats and /sys/block show the disk",
    ),
    Scenario(
        name="g-tracing",
        cause="ftrace's ring buffers of 250 MiB (buffer_size_kb); the worker needs 200",
        named=r"trac(ing|e|efs)|ftrace",
        near=r"no counter",
        work="bystander; mount -t tracefs t /sys/kernel/tracing; mount -t tracefs t /py/sys/kernel/tracing 2>/dev/null; echo ${KIB:-256000} > /sys/kernel/tracing/buffer_size_kb; "
        + _END,
        follow={"tracing": _did("1408 KiB, as by default", KIB=1408), "unaccounted": LOOK},
        looks={"vmallocinfo": Look("cat /proc/vmallocinfo", r"trace|ring_buffer")},
        beyond_log="its pages are in no counter; tracefs shows the size",
    ),
    Scenario(
        name="g-swiotlb",
        cause="swiotlb=131072,force keeps 256 MiB of 512 for bounce buffers; the worker needs 170",
        named=r"swiotlb|reserved",
        append="swiotlb=131072,force",
        work="bystander; causes anon ${MB:-170} 2 worker && unharmed",
        follow={"reserved": _did("without", append=""), **_bound("worker", 60)},
    ),
    Scenario(
        name="g-offline",
        cause="a memory block of 128 MiB is taken offline, and another; the worker needs 330",
        named=r"offline|hotplug|RAM (was|went|shrank)",
        work='bystander; for b in /sys/devices/system/memory/memory[0-9]*; do [ -n "$KEEP" ] || { [ ${gone:-0} -lt 2 ] && echo offline > $b/state 2>/dev/null && gone=$((${gone:-0} + 1)); }; done; echo gone $gone; sleep 3; causes anon ${MB:-330} 2 worker && unharmed',
        follow={"balloon": _did("none offline", KEEP=1), **_bound("worker", 60)},
    ),
    Scenario(
        name="g-sysrq",
        cause="asked for by hand (SysRq f); nothing is short",
        named=r"SysRq|by hand|manual",
        work='bystander; echo 1 > /proc/sys/kernel/sysrq; [ -n "$QUIET" ] || echo f > /proc/sysrq-trigger; sleep 1; unharmed',
        follow={"none": _did("nobody asks", QUIET=1)},
    ),
)

SCENARIOS = (*CGROUPS, *WHOLE)
