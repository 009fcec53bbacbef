"""More loads, on which the rules were not tuned: ``unseen.py KIND LIMIT_BYTES SECONDS SEED``, in its cgroup.

The seed changes sizes and paces. Those whose name begins with ``calm_`` end well.
"""

from __future__ import annotations

import ctypes
import math
import mmap
import os
import random
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))  # it runs alone

from tests.near.load import CHUNK, KEPT, begins, grow, paced, rest, take

DRAWN = random.Random(0)  # the same in each run


def files() -> Path:
    """A directory on disk of its own."""
    directory = Path(os.environ["LOAD_DIRECTORY"]) / f"unseen{os.getpid()}"
    directory.mkdir(exist_ok=True)
    return directory


def quietly(*words: str, cwd: Path | None = None) -> None:
    """A command to its end, whatever it says."""
    subprocess.run(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=cwd, check=False)


def follow(level: Callable[[float], float], limit: int, seconds: float, step: float = 0.2) -> None:
    """Hold ``level(t)`` of the limit at each moment; what is given back is given back."""
    held: list[tuple[int, mmap.mmap]] = []
    total, began = 0, time.monotonic()
    while (now := time.monotonic() - began) < seconds:
        wanted = int(level(now) * limit)
        while wanted - total >= CHUNK:
            size = min(wanted - total, 4 << 20)
            held.append((size, take(size)))
            total += size
        while held and total - wanted >= held[-1][0]:
            size, memory = held.pop()
            memory.close()
            total -= size
        rest(step)


# what ends in a kill


def exponential(limit: int, seconds: float) -> None:
    begins()
    base = DRAWN.uniform(15, 60)
    follow(lambda at: base ** (at / seconds - 1) * 1.02, limit, 2 * seconds)


def quadratic(limit: int, seconds: float) -> None:
    begins()
    follow(lambda at: 0.03 + (at / seconds) ** 2, limit, 2 * seconds)


def rest_between(limit: int, seconds: float) -> None:
    """A leak that pauses for half of the time in the middle."""
    level, pause = DRAWN.uniform(0.35, 0.6), DRAWN.uniform(0.3, 0.5)
    begins()
    moving = seconds * (1 - pause)

    def shape(at: float) -> float:
        first = moving * level
        if at < first:
            return at / moving
        return level if at < first + pause * seconds else (at - pause * seconds) / moving

    follow(shape, limit, 2 * seconds)


def two_in_turns(limit: int, seconds: float) -> None:
    """Two processes, of which now one grows and now the other."""
    begins()
    turn = DRAWN.uniform(2, 9)
    child = os.fork()
    began = time.monotonic()
    share = CHUNK / limit * seconds
    while time.monotonic() - began < 2 * seconds:
        mine = int((time.monotonic() - began) / turn) % 2 == (child == 0)
        if mine:
            KEPT.append(take(CHUNK))
        rest(share)


def short_children(limit: int, seconds: float) -> None:
    """Each of many short processes leaves a segment of shared memory behind."""
    begins()
    directory = Path("/dev/shm") / f"near{os.getpid()}"  # noqa: S108  # where shared memory is
    directory.mkdir()
    count = DRAWN.randint(60, 200)
    try:
        for number in range(2 * count):
            child = os.fork()
            if child == 0:
                some = take(limit // 50)
                (directory / str(number)).write_bytes(b"x" * (limit // count))
                some.close()
                os._exit(0)
            os.waitpid(child, 0)
            rest(seconds / count)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def mapped_tmpfs(limit: int, seconds: float) -> None:
    """A file of a RAM file system, mapped and written page by page."""
    begins()
    descriptor = os.memfd_create("unseen")
    os.ftruncate(descriptor, 2 * limit)
    memory = mmap.mmap(descriptor, 2 * limit)
    at = 0
    for _ in paced(2 * limit, 2 * seconds):
        for page in range(at, at + CHUNK, mmap.PAGESIZE):
            memory[page] = 1
        at += CHUNK


def threads(limit: int, seconds: float) -> None:
    """Ever more threads, each with a used stack."""
    begins()
    size = DRAWN.choice((256, 512, 1024)) * 1024
    threading.stack_size(size + 64 * 1024)
    count = limit // size
    libc = ctypes.CDLL(None)

    def live() -> None:
        memory = take(size)  # as deep a stack
        libc.pause()
        memory.close()

    for _ in range(2 * count):
        threading.Thread(target=live, daemon=True).start()
        rest(seconds / count)


def pipes(limit: int, seconds: float) -> None:
    """Pipes that nobody reads."""
    import fcntl
    import resource

    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    begins()
    for _ in paced(3 * limit, 3 * seconds):
        left, right = os.pipe()
        fcntl.fcntl(right, 1031, 1 << 18)  # F_SETPIPE_SZ
        os.set_blocking(right, False)
        os.write(right, b"x" * CHUNK)
        KEPT.append(left)


def slab(limit: int, seconds: float) -> None:
    """Inodes and names of empty files in a RAM file system."""
    begins()
    directory = Path("/dev/shm") / f"near{os.getpid()}"  # noqa: S108  # as above
    directory.mkdir()
    each = 1000  # bytes of an inode with its name, nearly
    count = limit // each
    try:
        began = time.monotonic()
        for number in range(2 * count):
            os.close(os.open(f"{directory}/{number}", os.O_CREAT | os.O_WRONLY))
            if number % 100 == 0:
                rest(max(0.0, began + seconds * number / count - time.monotonic()))
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def ratchet(limit: int, seconds: float) -> None:
    """A heap that a collector empties, each time a little less."""
    begins()
    period, swing = seconds / DRAWN.randint(8, 20), DRAWN.uniform(0.12, 0.25)

    def shape(at: float) -> float:
        return at / seconds * (1 - swing) + swing * (at % period) / period

    follow(shape, limit, 2 * seconds)


def hidden(limit: int, seconds: float) -> None:
    """A slow leak below a sawtooth that is larger than what leaks in one period."""
    begins()
    period, swing = DRAWN.uniform(5, 12), DRAWN.uniform(0.2, 0.35)

    def shape(at: float) -> float:
        return 0.1 + at / seconds * (0.9 - swing) + swing * (at % period) / period

    follow(shape, limit, 2 * seconds)


def log_buffer(limit: int, seconds: float) -> None:
    """Lines that wait for a receiver, written in bursts."""
    begins()
    began, held = time.monotonic(), 0
    waiting: list[bytes] = []
    while (now := time.monotonic() - began) < 2 * seconds:
        while held < limit * now / seconds:
            burst = os.urandom(1000)
            waiting += [burst[: 200 + n] + b"%d" % n for n in range(600)]
            held += 600 * (500 + 50)
        rest(DRAWN.expovariate(1.2))


def uneven(limit: int, seconds: float) -> None:
    """A leak whose pace changes all the time, by up to four times."""
    begins()
    held = 0.0
    while held < 2 * limit:
        pace = limit / seconds * DRAWN.choice((0.4, 0.7, 1.0, 1.6))
        for _ in range(DRAWN.randint(2, 8)):
            KEPT.append(take(int(pace / 2)))
            held += pace / 2
            rest(0.5)


def java(limit: int, seconds: float) -> None:
    """A real virtual machine whose heap may grow past the limit, with a list that only grows."""
    run_java(limit, seconds, heap=2 * limit, kept=2 * limit)


def requests(limit: int, seconds: float) -> None:
    """A server that takes memory for each request and gives back most, not all, of it."""
    begins()
    began = time.monotonic()
    kept = 0
    while (now := time.monotonic() - began) < 2 * seconds:
        some = [take(DRAWN.randint(64, 2048) * 1024) for _ in range(DRAWN.randint(1, 8))]
        rest(0.05)
        for one in some:
            one.close()
        while kept < limit * now / seconds:
            KEPT.append(take(CHUNK))
            kept += CHUNK
        rest(0.1)


def group(limit: int, seconds: float) -> None:
    """Two cgroups below, without limits of their own, of which each leaks."""
    pid = os.getpid()
    own = _own_cgroup()
    version2 = (own / "cgroup.controllers").exists()
    if version2:
        child = own / "first"
        child.mkdir()
        (child / "cgroup.procs").write_text(str(pid))
        (own / "cgroup.subtree_control").write_text("+memory")
    names = ["second", "third"]
    for name in names:
        (own / name).mkdir()
    begins()
    for name in names:
        if os.fork() == 0:
            (own / name / "cgroup.procs").write_text(str(os.getpid()))
            grow(limit, 2 * seconds)
            rest(seconds)
            os._exit(0)
    for _ in names:
        os.wait()


def _own_cgroup() -> Path:
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "" or "memory" in controllers.split(","):
            mount = "/sys/fs/cgroup/memory" if controllers else "/sys/fs/cgroup"
            if Path(f"{mount}{path}/cgroup.procs").exists():
                return Path(f"{mount}{path}")
    raise AssertionError("no memory controller")


# what does not


def calm_postgres(limit: int, seconds: float) -> None:
    """A database is made, started and filled."""
    directory = files()
    shutil.chown(directory, "postgres")
    binaries = sorted(Path("/usr/lib/postgresql").glob("*/bin"))[-1]
    become = ("setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups")
    begins()
    quietly(*become, str(binaries / "initdb"), "-D", str(directory / "d"), "-A", "trust", "-N", cwd=directory)
    options = f"-c shared_buffers={limit // 2 >> 20}MB -c listen_addresses= -c fsync=off"
    start = [*become, str(binaries / "postgres"), "-D", str(directory / "d"), "-k", str(directory)]
    server = subprocess.Popen(
        [*start, *options.split()], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=directory
    )
    rest(3)
    bench = (*become, str(binaries / "pgbench"), "-h", str(directory), "-U", "postgres")
    quietly(*bench, "-i", "-q", "-s", str(DRAWN.randint(8, 25)), "postgres", cwd=directory)
    quietly(*bench, "-R", "20", "-T", str(int(seconds)), "postgres", cwd=directory)
    server.terminate()
    server.wait()


def calm_java(limit: int, seconds: float) -> None:
    """A real virtual machine with a heap that fits, which makes garbage at once."""
    run_java(limit, seconds, heap=int(0.55 * limit), kept=int(0.2 * limit))


def calm_heap(limit: int, seconds: float) -> None:
    """A real virtual machine whose list fills the heap that it was told to have, steadily, and stays."""
    heap = int(DRAWN.uniform(0.48, 0.55) * limit)
    run_java(limit, seconds / 5, heap=heap, kept=int(0.85 * heap), stay=seconds)


def calm_node(limit: int, seconds: float) -> None:
    """A real build step of JavaScript, again and again: it takes much and ends."""
    heap = int(DRAWN.uniform(0.3, 0.5) * limit) >> 20
    code = (
        "const held=[];let n=0;const t=setInterval(()=>{"
        f"for(let i=0;i<2;i++)held.push(new Array(65536).fill(n++));if(n>{heap})"
        "{clearInterval(t);setTimeout(()=>{},500)}},50)"
    )
    begins()
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        quietly("node", f"--max-old-space-size={2 * heap}", "-e", code)
        rest(DRAWN.uniform(0.5, 4))


def calm_packages(limit: int, seconds: float) -> None:
    """As an upgrade of packages does: lists are read, archives made, unpacked and compressed."""
    directory = files()
    begins()
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        quietly("apt-cache", "dumpavail")
        archive = directory / "a.tar.xz"
        pack = f"tar -C /usr/lib/python3 -c . | xz -{DRAWN.choice('1234')} > {archive}"
        quietly("sh", "-c", pack)
        quietly("tar", "-C", str(directory), "-xf", str(archive))
        quietly("sync", "-f", str(directory))
        rest(2)


def calm_pytest(limit: int, seconds: float) -> None:
    """Real tests."""
    root = Path(__file__).parents[2]
    python = os.environ.get("LOAD_PYTHON", sys.executable)
    begins()
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        tests = ("tests/test_arithmetic.py",)
        quietly(python, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests, cwd=root)
        rest(3)


def calm_git(limit: int, seconds: float) -> None:
    """A repository is cloned and repacked."""
    directory = files()
    root = Path(__file__).parents[2]
    source = os.environ.get("LOAD_REPOSITORY", str(root))
    begins()
    until, number = time.monotonic() + seconds, 0
    while time.monotonic() < until:
        number += 1
        clone = directory / f"clone{number}"
        quietly("git", "clone", "-q", "--no-local", source, str(clone))
        quietly("git", "-C", str(clone), "gc", "-q", "--aggressive", "--prune=now")
        shutil.rmtree(clone, ignore_errors=True)
        rest(2)


def calm_copy(limit: int, seconds: float) -> None:
    """As rsync does: a list of files that grows, then files that are copied, more than fit."""
    directory = files()
    begins()
    listed = []
    for count, (at, _, names) in enumerate(os.walk("/usr/share")):
        listed += [os.path.join(at, name) for name in names]  # noqa: PTH118  # strings, as rsync has
        if count % 200 == 0:
            rest(0.1)
        if len(listed) > 150_000:
            break
    until, number = time.monotonic() + seconds, 0
    block = b"x" * (1 << 20)
    while time.monotonic() < until:
        number = (number + 1) % 40
        with (directory / str(number)).open("wb") as file:
            for _ in range(12):
                file.write(block)
        (directory / str(number)).read_bytes()
        rest(0.25)


def calm_frames(limit: int, seconds: float) -> None:
    """As a video encoder does: queues of frames that fill at the start and then go round."""
    begins()
    frame = DRAWN.choice((3, 6, 12)) << 20
    most = int(DRAWN.uniform(0.5, 0.8) * limit) // frame
    queue: list[mmap.mmap] = []
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        queue.append(take(frame))
        if len(queue) > most - DRAWN.randint(0, 4):
            queue.pop(0).close()
        rest(DRAWN.uniform(0.1, 0.5))


def calm_tabs(limit: int, seconds: float) -> None:
    """As a browser does: processes that are opened, grow a little, and are closed."""
    begins()
    tabs: list[int] = []
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if len(tabs) < 3 or (len(tabs) < 9 and DRAWN.random() < 0.5):
            size = int(DRAWN.uniform(0.03, 0.08) * limit)
            child = os.fork()
            if child == 0:
                grow(size, DRAWN.uniform(0.5, 6))
                rest(seconds)
                os._exit(0)
            tabs.append(child)
        else:
            child = tabs.pop(DRAWN.randrange(len(tabs)))
            os.kill(child, 9)
            os.waitpid(child, 0)
        rest(DRAWN.uniform(0.5, 4))
    for child in tabs:
        os.kill(child, 9)


def calm_nightly(limit: int, seconds: float) -> None:
    """A batch that reaches 90 % within seconds and ends; again and again."""
    begins()
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        child = os.fork()
        if child == 0:
            grow(int(DRAWN.uniform(0.85, 0.91) * limit), DRAWN.uniform(10, 17))
            rest(DRAWN.uniform(1, 10))
            os._exit(0)
        os.waitpid(child, 0)
        rest(DRAWN.uniform(3, 15))


def calm_snapshot(limit: int, seconds: float) -> None:
    """As a store in memory does: it forks, the child writes all out, the parent writes on (copy on write)."""
    size = int(DRAWN.uniform(0.4, 0.5) * limit)
    memory = take(size)
    directory = files()
    begins()
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        rest(DRAWN.uniform(4, 15))
        child = os.fork()
        if child == 0:
            with (directory / "dump").open("wb") as file:
                for at in range(0, size, CHUNK):
                    file.write(memory[at : at + CHUNK])
                    rest(10 * CHUNK / size)
            os._exit(0)
        while os.waitpid(child, os.WNOHANG)[0] == 0:
            for _ in range(int(size / mmap.PAGESIZE / 120)):
                memory[DRAWN.randrange(size // mmap.PAGESIZE) * mmap.PAGESIZE] = 2
            rest(0.1)


def calm_index(limit: int, seconds: float) -> None:
    """A start in two steps: code and a table at once, then an index that fills ever slower."""
    begins()
    level, quick = DRAWN.uniform(0.6, 0.85), DRAWN.uniform(6, 25)
    follow(lambda at: min(1, at / 2) * 0.2 + (level - 0.2) * (1 - math.exp(-at / quick)), limit, seconds)


def calm_day(limit: int, seconds: float) -> None:
    """Load that comes and goes in waves."""
    begins()
    middle, swing, period = DRAWN.uniform(0.4, 0.6), DRAWN.uniform(0.1, 0.25), DRAWN.uniform(60, 150)
    follow(lambda at: middle + swing * math.sin(6.283 * at / period), limit, seconds)


def calm_workers(limit: int, seconds: float) -> None:
    """Workers that each grow and are replaced after so many requests."""
    begins()
    count = 4
    children: dict[int, float] = {}
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        while len(children) < count:
            life, size = DRAWN.uniform(15, 40), int(0.2 * limit)
            child = os.fork()
            if child == 0:
                grow(size, life)
                os._exit(0)
            children[child] = life
            rest(3)
        done, _ = os.wait()
        children.pop(done, None)
    for child in children:
        os.kill(child, 9)


def calm_cc(limit: int, seconds: float) -> None:
    """A real compiler, two at a time."""
    directory = files()
    body = "int f{n}(int *a,int b){{for(int i=0;i<b;i++)a[i]+=a[(i*{n})%b]^{n};return *a;}}"
    unit = "\n".join(body.format(n=n) for n in range(700))
    (directory / "u.c").write_text(unit)
    begins()
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        running = [
            subprocess.Popen(["cc", "-O2", "-c", "-o", str(directory / f"{n}.o"), str(directory / "u.c")])
            for n in range(2)
        ]
        for one in running:
            one.wait()
        rest(1)


# parts


_JAVA = """
public class Load {
  public static void main(String[] a) throws Exception {
    long kept = Long.parseLong(a[0]); double seconds = Double.parseDouble(a[1]);
    double stay = Double.parseDouble(a[2]);
    java.util.ArrayList<byte[]> list = new java.util.ArrayList<>();
    long held = 0, began = System.nanoTime();
    while (true) {
      double now = (System.nanoTime() - began) / 1e9;
      if (now > 2.5 * seconds + stay) return;
      for (int i = 0; i < 20; i++) { byte[] garbage = new byte[20000]; garbage[now > 1 ? 1 : 0] = 1; }
      while (held < kept && held < now / (2 * seconds) * kept) { list.add(new byte[65536]); held += 65536; }
      Thread.sleep(20);
    }
  }
}
"""


def run_java(limit: int, seconds: float, *, heap: int, kept: int, stay: float = 0) -> None:
    directory = files()
    (directory / "Load.java").write_text(_JAVA)
    quietly("javac", "-J-Xmx64m", str(directory / "Load.java"))
    begins()
    options = [f"-Xmx{heap >> 20}m", "-XX:+UseSerialGC", "-XX:-UseContainerSupport", "-Xshare:auto"]
    options += ["-XX:TieredStopAtLevel=1", "-XX:ReservedCodeCacheSize=16m"]
    quietly("java", *options, "-cp", str(directory), "Load", str(kept), str(seconds), str(stay))


def main() -> None:
    kind, limit, seconds, seed = sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), sys.argv[4]
    DRAWN.seed(f"{kind} {seed}")
    sys.stdin.readline()  # until it is in its cgroup
    load: Callable[[int, float], None] = globals()[kind]
    partial(load, limit, seconds)()


if __name__ == "__main__":
    main()
