"""Who holds what: the parsers on the kernel's own text, the look on real processes and on fake hosts."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from msgspec.structs import replace

from oomwatchd.cgroupfs import Hierarchy
from oomwatchd.daemon.live_facts import EARLY_KEPT_USEC, EARLY_USEC, LATE_USEC, SHARED_USEC, LiveFacts
from oomwatchd.observe.charge import contents_of
from oomwatchd.observe.descriptors import Descriptors
from oomwatchd.observe.group import Group
from oomwatchd.observe.holders import Holders
from oomwatchd.observe.host import Host, read_host
from oomwatchd.procfs import holders
from oomwatchd.procfs.holders import MOST, Segment, largest
from oomwatchd.procfs.mounts import mounts
from oomwatchd.records.capture import OomCapture, ProcessFacts, Snapshot
from tests.samples import capture

SLABINFO = b"""\
slabinfo - version: 2.1
# name            <active_objs> <num_objs> <objsize> <objperslab> <pagesperslab> : tunables <limit> ...
leaky_obj          262000 262144   1024   16    4 : tunables    0    0    0 : slabdata  16384  16384      0
dentry              1200   1260    192   21    1 : tunables    0    0    0 : slabdata     60     60      0
empty                  0      0    312   13    1 : tunables    0    0    0 : slabdata      0      0      0
"""
VMALLOCINFO = b"""\
0x00000000caffd836-0x00000000e83dd12f   20480 irq_init_percpu_irqstack+0xca/0x100 vmap
0x00000000e83dd12f-0x00000000c2156b19    8192 acpi_os_map_iomem+0x1bc/0x1e0 phys=0x00000000000a0000 ioremap
0x00000000034fbecd-0x000000008b9850e4   20480 kernel_clone+0x94/0x3e0 pages=4 vmalloc N0=4
0x00000000034fbece-0x000000008b9850e5   20480 kernel_clone+0x94/0x3e0 pages=4 vmalloc N0=4
0x00000000034fbecf-0x000000008b9850e6 4198400 load_it+0x5/0x9 [leaky] pages=1024 vmalloc vpages N0=1024
"""
#: the kernel's columns are wider
SHM = (
    b" key shmid perms size cpid lpid nattch uid gid cuid cgid atime dtime ctime rss swap\n"
    b" 0 3 1600 33554432 999 1000 0 0 0 0 0 0 0 1700000000 31457280 0\n"
)
MSG = (
    b" key msqid perms cbytes qnum lspid lrpid uid gid cuid cgid stime rtime ctime\n"
    b" 0 0 600 16000 2 77 0 0 0 0 0 1 0 1\n"
    b" 0 1 600 384 1 77 0 0 0 0 0 1 0 1\n 0 2 600 8 1 0 0 0 0 0 0 1 0 1\n"
)


PACKET = b"""\
sk               RefCnt Type Proto  Iface R Rmem   User   Inode
ffff8ca1c5a7e800 3      3    0003   2     1 0      0      41001
ffff8ca1c5a7e000 3      3    88cc   0     1 213504 0      41002
"""
URING = b"pos:\t0\nflags:\t02000002\nSqMask:\t0x7fff\nSqHead:\t0\nCqMask:\t0xffff\nCqHead:\t0\n"
DMABUF = b"pos:\t0\nflags:\t02000002\nsize:\t4194304\ncount:\t1\nexp_name:\tsystem\n"


def test_sizes_that_descriptors_tell_of_themselves() -> None:
    assert holders.io_uring_bytes(URING) == 32768 * 68 + 65536 * 16
    assert holders.dmabuf_bytes(DMABUF) == 4 << 20
    assert holders.packet_inodes(PACKET) == {41001, 41002}
    assert holders.descriptor_kind(b"/dmabuf:heap") == "dmabuf"
    assert holders.descriptor_kind(b"anon_inode:[perf_event]") == "perf"
    for nothing in (b"", b"\n", b"SqMask:\t0xzz\nsize: x\n"):
        assert holders.io_uring_bytes(nothing) == holders.dmabuf_bytes(nothing) == 0
        assert not holders.packet_inodes(nothing)


def test_tables_of_the_kernel_are_added_up() -> None:
    assert largest(holders.slab_caches(SLABINFO, 4096)) == "268435456 leaky_obj\n245760 dentry"
    callers = largest(holders.vmalloc_callers(VMALLOCINFO, 4096))
    assert callers == "4194304 load_it+0x5/0x9 [leaky]\n32768 kernel_clone+0x94/0x3e0"
    assert list(holders.shm_segments(SHM)) == [Segment(3, 999, 0, 31457280)]
    assert list(holders.message_queues(MSG)) == [[16000, 77], [384, 77], [8, 0]]
    assert holders.mount_number(b"pos:\t0\nflags:\t02\nmnt_id:\t37\n") == b"37"
    assert holders.mount_number(b"") == b""
    for nothing in (b"", b"nonsense\n", b"a b c d e f : slabdata x y\n"):
        assert not largest(holders.slab_caches(nothing, 4096))
        assert list(holders.shm_segments(nothing)) == []
    assert largest((n, str(n)) for n in range(100)).count("\n") == MOST - 1


def test_a_status_is_read_field_by_field() -> None:
    said = holders.status(
        b"Name:\tVmLck:\nFDSize:\t64\nThreads:\t3\nVmLck:\t      12 kB\nVmPin:\t       1 kB\nVmRSS:\t 99 kB\n"
    )
    assert (said.name, said.threads, said.locked_bytes, said.pinned_bytes) == ("VmLck:", 3, 12288, 1024)
    assert said.descriptors == 64
    # locked on fault, and never touched
    assert holders.status(b"VmLck:\t    9000 kB\nVmRSS:\t     100 kB\n").locked_bytes == 102400
    shared = holders.status(b"RssFile:\t    8 kB\nRssShmem:\t     4 kB\n")
    assert (shared.file_bytes, shared.shmem_bytes) == (8192, 4096)
    assert holders.status(b"") == holders.Status()


def write(root: Path, name: str, text: str) -> None:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(text)


@pytest.fixture
def host(tmp_path: Path) -> Host:
    write(tmp_path, "proc/cmdline", "quiet crashkernel=200M\n")
    write(tmp_path, "proc/1/comm", "systemd\n")
    write(tmp_path, "proc/1/status", "Name:\tsystemd\nThreads:\t1\nVmLck:\t0 kB\n")
    write(tmp_path, "proc/2/status", "Name:\tkthreadd\nThreads:\t700\n")  # no exe: the kernel's own
    for pid in (1, 77, 78):
        (tmp_path / f"proc/{pid}").mkdir(exist_ok=True)
        (tmp_path / f"proc/{pid}/exe").symlink_to("/sbin/init")
    write(tmp_path, "proc/1/net/packet", PACKET.decode())
    write(tmp_path, "proc/1/net/sockstat", "TCP: inuse 5 orphan 0 tw 0 alloc 5 mem 216\n")
    write(
        tmp_path,
        "proc/modules",
        "ext4 1 0 - Live 0x0\nlab 16384 0 - Live 0x0000000000000000 (OE)\nunsigned 1 0 - Live 0x0 (E)\n"
        "staged 1 0 - Live 0x0 (C)\n",
    )
    table = "30 25 0:26 / /mnt/ram rw - ramfs none rw\n31 25 1:3 / /disk rw - ext4 /dev/ram3 rw\n"
    write(tmp_path, "proc/1/mountinfo", f"{table}32 25 0:27 / /logs rw - tmpfs none rw\n")
    write(tmp_path, "sys/block/ram3/size", "2048\n")
    write(tmp_path, "sys/kernel/tracing/buffer_total_size_kb", "7 (expanded: 1408)\n")
    write(tmp_path, "proc/sysvipc/msg", MSG.decode())
    write(
        tmp_path, "proc/cgroups", "#subsys_name hierarchy num_cgroups enabled\ncpu 1 9 1\nmemory 0 5003 1\n"
    )
    write(tmp_path, "proc/77/comm", "pin\x1b[1m\n")
    write(tmp_path, "proc/sys/vm/min_free_kbytes", "260000\n")
    write(tmp_path, "proc/sys/vm/lowmem_reserve_ratio", "256\t256\t32\n")
    write(tmp_path, "proc/sysvipc/shm", SHM.decode())
    write(
        tmp_path,
        "proc/77/status",
        "Name:\tpin\x1b[1m\nThreads:\t900\nVmLck:\t286720 kB\nVmRSS:\t290000 kB\n"
        "RssFile:\t4 kB\nHugetlbPages:\t4096 kB\n",
    )
    write(tmp_path, "sys/kernel/mm/transparent_hugepage/enabled", "[always] madvise never\n")
    for name, count in (("nr", 150), ("free", 150), ("resv", 2), ("surplus", 0)):
        write(tmp_path, f"sys/kernel/mm/hugepages/hugepages-2048kB/{name}_hugepages", f"{count}\n")
    write(tmp_path, "sys/block/zram0/mm_stat", "  4096   8   9 0 9 0 0 0 0\n")
    write(tmp_path, "sys/block/sda/mm_stat", "1\n")
    return Host(proc=tmp_path / "proc", sys=tmp_path / "sys")


def test_a_host_of_files(host: Host, tmp_path: Path) -> None:
    group = Group(str(tmp_path / "cg"), "/kept", 1)
    write(tmp_path, "cg/memory.min", "104857600\n")
    write(tmp_path, "cg/memory.low", "max\n")
    write(tmp_path, "cg/memory.stat", "anon 4096\nkernel 209715200\nslab 209000000\n")
    (tmp_path / "slab").write_bytes(SLABINFO)
    opened = os.open(tmp_path / "slab", os.O_RDONLY)
    try:
        looked = Holders(host, {"slabinfo": opened}, lambda: [group])
        parts = looked.look()
        assert looked.look() == parts, "a passed descriptor is read from its beginning each time"
    finally:
        os.close(opened)
    assert parts == {
        "cmdline": "quiet crashkernel=200M",
        "init": "systemd",
        "sysctl": "vm.lowmem_reserve_ratio = 256\t256\t32\nvm.min_free_kbytes = 260000",
        "sockstat": "TCP: inuse 5 orphan 0 tw 0 alloc 5 mem 216",
        "thp": "[always] madvise never",
        "hugepages": "2097152 150 150 2 0",
        "zram": "zram0 4096 8 9 0 9 0 0 0 0",
        "slabinfo": "268435456 leaky_obj\n245760 dentry",
        "sysv": "31457280 3 999",
        "messages": "16384 77 pin\x1b[1m\n8 0 ?",
        "ramfs": "/mnt/ram",
        "ramdisk": "1048576 ram3",
        "tracing": "7168",
        "modules": "lab\nunsigned",
        "cgroups": "5003",
        "packet_sockets": "2",
        "kernel_charged": "209715200 /kept",
        "protected": "104857600 /kept",
        "locked": "293601280 77 pin\x1b[1m",
        "locked_shared": "4096 77 pin\x1b[1m",
        "huge": "4194304 77 pin\x1b[1m",
        "threads": "900 77 pin\x1b[1m",
    }


def test_a_host_that_shows_nothing_has_no_parts(tmp_path: Path) -> None:
    assert Holders(Host(proc=tmp_path / "proc", sys=tmp_path / "sys")).look() == {}


def test_the_scan_of_processes_ends(host: Host) -> None:
    """By its own CPU time, and by the clock where it gets none."""
    late, used = iter(range(0, 100000, 5)), iter(range(0, 100000, 5))
    assert "threads" not in Holders(host, clock=lambda: float(next(late))).look()
    assert "threads" not in Holders(host, cpu=lambda: float(next(used))).look()


PROGRAM = """
import os, resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (1024, 1024))
memfd = os.memfd_create("hidden")
for _ in range(4): os.write(memfd, bytes(1 << 20))
again = os.dup(memfd)
pipes = [os.pipe() for _ in range(100)]
if os.geteuid() == 0:
    import socket
    packet = [socket.socket(socket.AF_PACKET, socket.SOCK_RAW) for _ in range(3)]
import ctypes
call, room = ctypes.CDLL(None).syscall, ctypes.create_string_buffer(120)
rings = [call(425, 256, room) for _ in range(2)]  # io_uring_setup()
print("ready", flush=True)
sys.stdin.read()
"""


@contextmanager
def holder() -> Iterator[int]:
    with subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None and process.stdout.readline() == b"ready\n"
        yield process.pid
        process.kill()


def test_a_real_process_with_pipes_and_a_memfd() -> None:
    with holder() as pid:
        began = time.thread_time()
        parts = Holders(read_host()).look()
        cost = time.thread_time() - began
    kinds = [line.split() for line in parts["descriptors"].splitlines()]
    # its standard input and output, too
    assert ["202", "pipe", str(pid)] in [words[:3] for words in kinds]
    if os.geteuid() == 0:
        assert ["3", "packet", str(pid)] in [words[:3] for words in kinds]
    if any(words[1:3] == ["io_uring", str(pid)] for words in kinds):  # a kernel may refuse them
        queues = {words[1]: int(words[0]) for words in map(str.split, parts["io_uring"].splitlines())}
        assert queues[str(pid)] >= 2 * (256 * 68 + 512 * 16)
    sizes = {words[1]: int(words[0]) for words in map(str.split, parts["memfd"].splitlines())}
    assert sizes[str(pid)] == 4 << 20, "held by two descriptors, counted once"
    assert "vm.min_free_kbytes = " in parts["sysctl"]
    assert cost < 2.0
    assert sum(map(len, parts.values())) < 16 * 1024


def test_a_deleted_file_of_a_tmpfs_is_memory(tmp_path: Path) -> None:
    shm = Path("/dev/shm")  # noqa: S108 -- a tmpfs wherever there is one
    if not any(m.point == b"/dev/shm" and m.kind == b"tmpfs" for m in mounts(read_mounts())):
        pytest.skip("no tmpfs")
    with tempfile.TemporaryFile(dir=shm) as held, tempfile.TemporaryFile(dir=tmp_path) as other:
        held.write(bytes(1 << 20))
        held.flush()
        other.write(bytes(1 << 20))
        other.flush()
        again = os.dup(held.fileno())
        _, amounts = Descriptors(Path("/proc")).of(os.getpid(), 64)
        os.close(again)
    on_disk = not any(
        m.kind == b"tmpfs" and tmp_path.is_relative_to(os.fsdecode(m.point)) for m in mounts(read_mounts())
    )
    if on_disk:
        assert amounts["deleted"] == 1 << 20, "held by two descriptors, counted once"


def read_mounts() -> bytes:
    return Path("/proc/self/mountinfo").read_bytes()


def test_a_tmpfs_of_the_host_is_told_by_its_mount_point(host: Host, tmp_path: Path) -> None:
    write(tmp_path, "proc/1/root/logs/file", "")
    used, point = Holders(host).look()["tmpfs"].split()  # of the file system that the test has
    assert (int(used) > 0, point) == (True, "/logs")


def test_ram_disks_hold_what_debugfs_says(host: Host, tmp_path: Path) -> None:
    write(tmp_path, "sys/kernel/debug/ramdisk_pages/ram0", "256\n")
    assert Holders(host).look()["ramdisk"] == "1048576 ram0"


def test_of_very_many_descriptors_some_are_looked_at() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 6000:
        pytest.skip("so many files may not be open")
    resource.setrlimit(resource.RLIMIT_NOFILE, (6000, hard))
    opened = [os.open("/dev/null", os.O_RDONLY)]
    try:
        while len(opened) < 5000:
            opened.append(os.dup(opened[0]))
        kinds, _ = Descriptors(Path("/proc")).of(os.getpid(), 8192)
        # before 6.2 the size of the table
        assert kinds["file"] == pytest.approx(5000, rel=0.02) or kinds["file"] == pytest.approx(
            8192, rel=0.02
        )
    finally:
        for descriptor in opened:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.skipif(os.geteuid() != 0, reason="another user's process is to be looked at")
def test_without_privilege_the_number_of_descriptors_is_known() -> None:
    """What the packaged unit may: its user, no capability that opens files."""
    if tuple(map(int, os.uname().release.split(".")[:2])) < (6, 2):
        pytest.skip("the kernel does not tell")
    program = "from oomwatchd.observe.holders import *; print(Holders(read_host()).look()['descriptors'])"
    program = f"from oomwatchd.observe.host import read_host; {program}"
    unprivileged = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    environ = {"PYTHONPATH": ":".join(path for path in sys.path if path)}
    with holder() as pid:
        done = subprocess.run(
            [*unprivileged, os.path.realpath(sys.executable), "-c", program],
            capture_output=True,
            text=True,
            check=False,
            env=environ,
        )
        opened = len(list(Path(f"/proc/{pid}/fd").iterdir()))
    assert f"{opened} all {pid} " in done.stdout, done.stdout + done.stderr


# -- in a capture --------------------------------------------------------------------------------------


class Counted(Holders):
    looks = 0

    def look(self) -> dict[str, str]:
        self.looks += 1
        return {"sysctl": str(self.looks), "meminfo": "not this one"}


def at(usec: int) -> OomCapture:
    return capture(at=Snapshot(usec=usec, wall=0.0, parts={"meminfo": "MemFree: 1 kB\n"}))


def test_reports_of_one_moment_share_a_look() -> None:
    counted = Counted(Host())
    facts = LiveFacts(counted, None, 4096)
    second = SHARED_USEC + 100
    for usec in (0, 100, SHARED_USEC - 1, SHARED_USEC, second):
        if facts.due(usec):
            facts.look(usec, usec + 5)
    assert counted.looks == 2
    seen = [facts.added_to(at(usec)).at for usec in (100, SHARED_USEC, second, 3 * SHARED_USEC)]
    assert [one.parts.get("sysctl") for one in seen if one is not None] == ["1", "2", "2", None]
    assert seen[0] is not None and seen[0].parts["meminfo"] == "MemFree: 1 kB\n"
    assert facts.added_to(capture(at=None)).at is None


def test_of_a_victim_is_known_what_it_held_before() -> None:
    class Changing(Holders):
        early: dict[str, str] = {"descriptors": "9000 pipe 7 victim\n100 socket 8 other", "memfd": "5 7 a b"}
        late: dict[str, str] = {"descriptors": "500 file 8 other\n90 pipe 9 x", "init": "systemd"}

        def processes(self) -> dict[str, str]:
            return self.early

        ended: frozenset[str] = frozenset()

        def look(self) -> dict[str, str]:
            return self.late

        def gone(self, pids: Iterable[str]) -> set[str]:
            return set(pids) & self.ended

    cpu = iter([0.0, 1.0, 5.0, 5.0])
    facts = LiveFacts(Changing(Host()), None, 4096, cpu=lambda: next(cpu))
    assert facts.early_due(0) and not facts.early_due(EARLY_USEC - 1)
    facts.look_early(0)
    assert not facts.early_due(EARLY_USEC), "it took a second of CPU"
    began = 10_000_000
    assert facts.due(began)
    facts.look(began, began)
    seen = facts.added_to(replace(at(began), processes=(ProcessFacts(pid=7),)))
    assert seen.at is not None
    assert seen.at.parts["descriptors"] == "9000 pipe 7 victim\n500 file 8 other\n90 pipe 9 x"
    assert seen.at.parts["memfd"] == "5 7 a b"
    other = facts.added_to(replace(at(began), processes=(ProcessFacts(pid=8),)))
    assert other.at is not None and other.at.parts["descriptors"] == Changing.late["descriptors"]
    # a victim of a later report, which is gone by now
    Changing.ended = frozenset({"7"})
    other = facts.added_to(replace(at(began), processes=(ProcessFacts(pid=8),)))
    assert other.at is not None and other.at.parts["descriptors"].startswith("9000 pipe 7 victim")
    late = facts.added_to(replace(at(EARLY_KEPT_USEC + 1), processes=(ProcessFacts(pid=7),)))
    assert late.at is not None and "memfd" not in late.at.parts


@pytest.mark.parametrize("name", ["a\rb", "a\vb", "a\x1cb", "a\x85b", "a\u2028b"])
def test_a_name_with_line_breaks_is_one_line(host: Host, tmp_path: Path, name: str) -> None:
    """The kernel spells out only \\n of a name; anybody may put others into his."""
    (tmp_path / "proc/77/status").write_text(
        f"Name:\t{name}\nThreads:\t900\nVmLck:\t280 kB\nVmRSS:\t280 kB\n", newline=""
    )
    write(tmp_path, "proc/78/status", "Name:\tother\nThreads:\t800\n")
    looks = Holders(host)
    assert [len(line.split(" ")) for line in looks.processes()["threads"].splitlines()] == [3, 3]
    facts = LiveFacts(looks, None, 4096)
    facts.look_early(0)
    (tmp_path / "proc/78/status").unlink()
    facts.look(1, 1)
    seen = facts.added_to(replace(at(1), processes=(ProcessFacts(pid=78),)))
    assert seen.at is not None
    assert [line.split(" ")[:2] for line in seen.at.parts["threads"].splitlines()] == [
        ["900", "77"],
        ["800", "78"],
    ]


def test_a_look_that_comes_too_late_is_none() -> None:
    facts = LiveFacts(Counted(Host()), None, 4096)
    assert facts.due(0)
    facts.look(0, LATE_USEC + 1)
    assert facts.added_to(at(0)) == at(0)


@pytest.mark.parametrize(
    ("version", "files", "swap"),
    [
        (2, {"memory.swap.max": "0\n", "memory.swap.current": "0\n"}, "0 0"),
        (
            1,
            {
                "memory.memsw.limit_in_bytes": "9223372036854771712\n",
                "memory.memsw.usage_in_bytes": "7\n",
                "memory.kmem.slabinfo": SLABINFO.decode(),
            },
            "max 7",
        ),
    ],
)
def test_what_is_in_the_cgroup_at_its_limit(
    tmp_path: Path, version: int, files: dict[str, str], swap: str
) -> None:
    for name, text in {**files, "memory.stat": "anon 5\nkernel 9\n"}.items():
        write(tmp_path, f"a/{name}", text)
    hierarchy = Hierarchy(str(tmp_path), "", version)
    parts = contents_of(hierarchy, "/a", 4096)
    assert (parts["memcg_stat"], parts["memcg_swap"]) == ("anon 5\nkernel 9", swap)
    assert ("memcg_slabinfo" in parts) == (version == 1)
    assert contents_of(hierarchy, "/gone", 4096) == contents_of(hierarchy, "/../a", 4096) == {}

    facts = LiveFacts(Holders(Host(proc=tmp_path)), hierarchy, 4096)
    seen = facts.look_into(at(0), "/a")
    assert seen.at is not None and seen.at.parts["memcg_swap"] == swap
    write(tmp_path, "a/memory.stat", "later 1\n")
    assert facts.added_to(at(0)) == seen, "a later revision has it, too"
    assert facts.look_into(seen, "/a") == seen
