"""One load, run inside its cgroup: ``load.py KIND LIMIT_BYTES SECONDS``; says ``begins`` when its growth
does.

Each uses memory like a program of that kind: the kernel really charges it, only the pace is ours.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import random
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial

CHUNK = 256 * 1024
KEPT: list[object] = []


def begins() -> None:
    print("begins", flush=True)  # for whoever runs it


def take(size: int) -> mmap.mmap:
    """Private memory, every page of it written."""
    memory = mmap.mmap(-1, max(size, mmap.PAGESIZE), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    for at in range(0, size, mmap.PAGESIZE):
        memory[at] = 1
    return memory


def paced(size: int, seconds: float) -> Iterator[None]:
    """So many chunks in so many seconds."""
    count = max(1, size // CHUNK)
    began = time.monotonic()
    for number in range(count):
        yield
        time.sleep(max(0.0, began + seconds * (number + 1) / count - time.monotonic()))


def grow(size: int, seconds: float) -> None:
    for _ in paced(size, seconds):
        KEPT.append(take(CHUNK))


def rest(seconds: float) -> None:
    time.sleep(seconds)


# what ends in a kill


def leak(limit: int, seconds: float) -> None:
    begins()
    grow(2 * limit, 2 * seconds)


def late_leak(limit: int, seconds: float) -> None:
    """Half of it at once, calm, then a leak."""
    KEPT.append(take(limit // 2))
    rest(45)
    begins()
    grow(limit, 2 * seconds)


def stairs(limit: int, seconds: float) -> None:
    begins()
    for _ in range(40):
        KEPT.append(take(limit // 20))
        rest(seconds / 20)


def leak_in_noise(limit: int, seconds: float) -> None:
    """A leak in a program that takes and gives back all the time."""
    begins()
    drawn = random.Random(1)  # the same in each run
    for _ in paced(2 * limit, 2 * seconds):
        KEPT.append(take(CHUNK))
        some = take(int(drawn.random() * limit * 0.05))
        some.close()


def fork_bomb(limit: int, seconds: float) -> None:
    """Ever more processes, each with a little."""
    begins()
    each = limit // 60
    for _ in range(120):
        if os.fork() == 0:
            signal.alarm(int(3 * seconds) + 5)
            KEPT.append(take(each))
            signal.pause()
            os._exit(0)
        rest(seconds / 60)


def tmpfs(limit: int, seconds: float) -> None:
    """Files in a RAM file system that nobody bounds."""
    begins()
    descriptor = os.memfd_create("load")
    for _ in paced(2 * limit, 2 * seconds):
        os.write(descriptor, b"x" * CHUNK)


def kernel_memory(limit: int, seconds: float) -> None:
    """Socket buffers that nobody reads: the kernel's own memory."""
    import resource

    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    begins()
    for _ in paced(2 * limit, 2 * seconds):
        held = 0
        while held < CHUNK:
            left, right = socket.socketpair()
            left.setblocking(False)
            KEPT.append((left, right))
            with contextlib.suppress(BlockingIOError):
                while True:
                    held += 3 * left.send(b"x" * 2048) // 2


def cache_then_leak(limit: int, seconds: float) -> None:
    """A leak beside page cache that fills the rest of the limit."""
    name = _file(limit)
    begins()
    for number, _ in enumerate(paced(2 * limit, 2 * seconds)):
        KEPT.append(take(CHUNK))
        if number % 8 == 0:
            _read(name)


# what does not


def plateau(limit: int, seconds: float, share: float = 0.7) -> None:
    """A virtual machine's start: straight up to its heap, then work in it."""
    begins()
    grow(int(share * limit), seconds)
    rest(120)


def short_start(limit: int, seconds: float) -> None:
    """The same, looked at for a moment only."""
    begins()
    grow(int(0.7 * limit), seconds)
    rest(25)


def settling(limit: int, seconds: float) -> None:
    """Caches of a program fill up, ever slower."""
    begins()
    level = 0.85 * limit
    held, began = 0.0, time.monotonic()
    while (now := time.monotonic() - began) < 5 * seconds:
        wanted = level * (1 - 2.718281828 ** (-now / seconds))
        if wanted - held > CHUNK:
            KEPT.append(take(int(wanted - held)))
            held = wanted
        rest(0.2)
    rest(60)


def heap_mapped(limit: int, seconds: float) -> None:
    """The same with the whole heap mapped first and used bit by bit."""
    size = int(0.8 * limit)
    heap = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    begins()
    at = 0
    for _ in paced(size, seconds):
        for page in range(at, min(at + CHUNK, size), mmap.PAGESIZE):
            heap[page] = 1
        at += CHUNK
    rest(120)


def collector(limit: int, seconds: float) -> None:
    """Garbage grows and is collected."""
    begins()
    for _ in range(int(200 / seconds)):
        some = [take(CHUNK) for _ in paced(int(0.5 * limit), seconds)]
        for one in some:
            one.close()


def batch(limit: int, seconds: float) -> None:
    """A job that reads its input and ends."""
    begins()
    grow(int(0.6 * limit), seconds)
    rest(10)


def database(limit: int, seconds: float) -> None:
    """Buffers of its own and page cache up to the limit."""
    KEPT.append(take(int(0.55 * limit)))
    name = _file(2 * limit)
    begins()
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        _read(name)
        rest(0.3)


def build(limit: int, seconds: float) -> None:
    """Short processes, and more files than fit."""
    begins()
    drawn = random.Random(2)  # the same in each run
    until, number = time.monotonic() + seconds, 0
    while time.monotonic() < until:
        number = (number + 1) % 40
        _short(partial(_file, limit // 16, number), partial(take, int(drawn.random() * limit * 0.15)))
    rest(1)


def compile_storm(limit: int, seconds: float) -> None:
    """Four processes at once, each of another size and life."""
    begins()
    drawn = random.Random(3)  # the same in each run
    until = time.monotonic() + seconds
    running = 0
    while time.monotonic() < until:
        size, life = int(limit * (0.03 + 0.17 * drawn.random())), 0.3 + 4 * drawn.random()
        if running >= 4:
            os.wait()
            running -= 1
        if os.fork() == 0:
            for _ in paced(size, life):
                KEPT.append(take(CHUNK))
            os._exit(0)
        running += 1
        rest(0.2)


def tmpfs_build(limit: int, seconds: float) -> None:
    """A build tree in RAM, taken down in the end and made again."""
    begins()
    for _ in range(int(180 / seconds)):
        descriptor = os.memfd_create("tree")
        for _ in paced(int(0.4 * limit), seconds):
            os.write(descriptor, b"x" * CHUNK)
        os.close(descriptor)


def full(limit: int, seconds: float) -> None:
    """Nearly all of it, for good."""
    KEPT.append(take(int(0.9 * limit)))
    begins()
    rest(seconds)


# parts


def _file(size: int, number: int = 0) -> str:
    name = f"{os.environ['LOAD_DIRECTORY']}/file{os.getppid()}-{number}"
    with open(name, "wb") as file:  # no more imports than needed
        for _ in range(0, size, CHUNK):
            file.write(b"x" * CHUNK)
    return name


def _read(name: str) -> None:
    with open(name, "rb") as file:
        while file.read(CHUNK):
            pass


def _short(*steps: Callable[[], object]) -> None:
    """In a process of its own, which ends."""
    child = os.fork()
    if child == 0:
        for step in steps:
            step()
        time.sleep(0.5)
        os._exit(0)
    os.waitpid(child, 0)


def main() -> None:
    kind, limit, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
    sys.stdin.readline()  # until it is in its cgroup
    globals()[kind](limit, seconds)


if __name__ == "__main__":
    main()
