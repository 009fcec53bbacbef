"""Who holds kernel memory: caches, mappings, segments, and what /proc says of one process.

Sources: slabinfo(5), ``vmallocinfo_show()``, ``sysvipc_{shm,msg}_proc_show()``, proc_pid_status(5),
``bpf_map_show_fdinfo()``, ``io_uring_show_fdinfo()``, ``dma_buf_show_fdinfo()``, ``packet_seq_show()``.

Core: no clock, no file, no socket.
"""

from __future__ import annotations

import heapq
import re
from collections.abc import Iterable, Iterator

import msgspec

from oomwatchd.records.kmsg import to_text
from oomwatchd.words.deferred import deferred
from oomwatchd.words.escape import harmless

#: Lines of a list.
MOST = 8
#: where str.splitlines() ends a line
_BREAK = deferred(r"[\n-\r\x1c-\x1e\x85\u2028\u2029]")
_VMALLOC = deferred(rb"^0x\S+ +\d+ (.+?) pages=(\d+)\b", re.MULTILINE)
_MEMLOCK = deferred(rb"^memlock:\s+(\d+)$", re.MULTILINE)
_DMABUF = deferred(rb"^size:\s+(\d+)$", re.MULTILINE)
_URING = deferred(rb"^(Sq|Cq)Mask:\s+0x([0-9a-f]{1,8})$", re.MULTILINE)
#: of a ring of io_uring: an entry of the submission queue with its place in the array, one of completions
_SQE_BYTES, _CQE_BYTES = 64 + 4, 16


def slab_caches(slabinfo: bytes, page_size: int) -> Iterator[tuple[int, str]]:
    """Bytes and name of each slab cache of /proc/slabinfo (memory.kmem.slabinfo has the same form): all pages
    that it has, used or not."""
    for line in slabinfo.split(b"\n"):
        head, _, data = line.partition(b" : slabdata ")
        objects, slabs = head.split(), data.split()
        if len(objects) > 5 and len(slabs) > 1 and objects[5].isdigit() and slabs[1].isdigit():
            yield int(slabs[1]) * int(objects[5]) * page_size, to_text(objects[0])


def vmalloc_callers(vmallocinfo: bytes, page_size: int) -> Iterator[tuple[int, str]]:
    """Bytes and caller of each mapping of /proc/vmallocinfo that has pages of its own (``vmalloc``; what is
    mapped by ``ioremap`` and ``vmap`` belongs to others)."""
    for m in _VMALLOC.finditer(vmallocinfo):
        yield int(m[2]) * page_size, to_text(m[1])


class Segment(msgspec.Struct, frozen=True):
    """A System V shared memory segment as /proc/sysvipc/shm has it: ``ipcrm -m ID`` removes it."""

    id: int
    creator_pid: int
    attached: int
    resident_bytes: int


def shm_segments(text: bytes) -> Iterator[Segment]:
    """The segments of /proc/sysvipc/shm."""
    for wanted in _columns(text, b"shmid", b"cpid", b"nattch", b"rss"):
        yield Segment(*wanted)


def message_queues(text: bytes) -> Iterator[list[int]]:
    """Bytes in each queue of /proc/sysvipc/msg, and the process that sent to it last (0: none)."""
    return _columns(text, b"cbytes", b"lspid")


def _columns(text: bytes, *wanted: bytes) -> Iterator[list[int]]:
    names, *rows = (line.split() for line in text.split(b"\n"))
    for row in rows:
        field = dict(zip(names, row, strict=False))
        words = [field.get(name, b"") for name in wanted]
        if all(word.isdigit() for word in words):
            yield list(map(int, words))


class Status(msgspec.Struct, frozen=True):
    """What /proc/PID/status says of a process: amounts in bytes, 0 where it says none."""

    name: str = ""
    threads: int = 0
    #: resident, at most: VmLck also counts what was locked and never touched (MLOCK_ONFAULT)
    locked_bytes: int = 0
    pinned_bytes: int = 0
    #: resident pages of files and of shared memory, which may be charged to another's cgroup
    file_bytes: int = 0
    shmem_bytes: int = 0
    huge_bytes: int = 0
    #: places in its table of descriptors, a power of two: no more are open
    descriptors: int = 0


def status(text: bytes) -> Status:
    """The fields that say what a process holds."""
    found = dict(line.split(b":\t", 1) for line in text.split(b"\n") if b":\t" in line)

    def number(name: bytes) -> int:
        word = found.get(name, b"").split(b" kB")[0].strip()
        return int(word) if word.isdigit() else 0

    return Status(
        name=to_text(found.get(b"Name", b"")),
        threads=number(b"Threads"),
        locked_bytes=min(number(b"VmLck"), number(b"VmRSS")) * 1024,
        pinned_bytes=number(b"VmPin") * 1024,
        file_bytes=number(b"RssFile") * 1024,
        shmem_bytes=number(b"RssShmem") * 1024,
        huge_bytes=number(b"HugetlbPages") * 1024,
        descriptors=number(b"FDSize"),
    )


def memlock_bytes(fdinfo: bytes) -> int:
    """The memory of a BPF map or program, as its /proc/PID/fdinfo says."""
    found = _MEMLOCK.search(fdinfo)
    return int(found[1]) if found else 0


def dmabuf_bytes(fdinfo: bytes) -> int:
    """The size of a DMA-BUF, as its /proc/PID/fdinfo says (5.3+)."""
    found = _DMABUF.search(fdinfo)
    return int(found[1]) if found else 0


def mount_number(fdinfo: bytes) -> bytes:
    """The mount that an open file is on, as its /proc/PID/fdinfo says (3.15+): ``Mount.number``."""
    return fdinfo.partition(b"mnt_id:\t")[2].partition(b"\n")[0]


def io_uring_bytes(fdinfo: bytes) -> int:
    """The least that both queues of an io_uring take, as its /proc/PID/fdinfo says (5.17+)."""
    masks = {name: int(mask, 16) + 1 for name, mask in _URING.findall(fdinfo)}
    return masks.get(b"Sq", 0) * _SQE_BYTES + masks.get(b"Cq", 0) * _CQE_BYTES


def packet_inodes(packet: bytes) -> frozenset[int]:
    """The sockets of /proc/net/packet, by inode: their rings are in no file and in no counter."""
    _, *rows = packet.splitlines() or (b"",)
    last = (row.split()[-1:] for row in rows)
    return frozenset(int(word[0]) for word in last if word and word[0].isdigit())


#: how the links of /proc/PID/fd begin, and the kind of descriptor
_KINDS = (
    (b"pipe:", "pipe"),
    (b"socket:", "socket"),
    (b"/memfd:", "memfd"),
    (b"anon_inode:bpf", "bpf"),
    (b"anon_inode:[io_uring]", "io_uring"),
    (b"anon_inode:[eventpoll]", "eventpoll"),
    (b"anon_inode:[perf_event]", "perf"),
    (b"/dmabuf:", "dmabuf"),
    (b"net:[", "netns"),
    (b"anon_inode:", "anon"),
    (b"/", "file"),
)


def descriptor_kind(link: bytes) -> str:
    """``pipe``, ``socket``, ``file``, ``memfd``, ``bpf`` (a map, a program), ``io_uring``, ``eventpoll``,
    ``perf``, ``dmabuf``, ``netns`` (a network namespace kept), ``anon`` (another of the kernel's own) or
    ``other``, by what /proc/PID/fd/N points to."""
    return next((kind for start, kind in _KINDS if link.startswith(start)), "other")


def largest(found: Iterable[tuple[int, str]]) -> str:
    """``AMOUNT NAME`` lines, the largest first; amounts of one name are added up, zeros left out."""
    sums: dict[str, int] = {}
    for count, name in found:
        sums[name] = sums.get(name, 0) + count
    most = heapq.nlargest(MOST, ((count, name) for name, count in sums.items() if count > 0))
    return "\n".join(f"{count} {one_line(name)}" for count, name in most)


def one_line(name: str) -> str:
    """A name without line breaks, because it may hold any character."""
    return _BREAK.sub(lambda m: harmless(m[0]), name)
