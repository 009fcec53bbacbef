"""The flight recorder: its ring, its bounds, its pace, its message about missing sources."""

from __future__ import annotations

import ctypes
import errno
import json
import mmap
import os
import select
import shutil
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from oomwatchd.cgroupfs import Hierarchy
from oomwatchd.config import RecorderSection
from oomwatchd.observe.hierarchy import memory_hierarchy
from oomwatchd.observe.host import Host, read_host
from oomwatchd.observe.hotplug import Devices, Swaps, Tmpfs
from oomwatchd.observe.inotify import Changes
from oomwatchd.observe.pressure import Exceptional, swap_changes
from oomwatchd.observe.recorder import Recorder
from oomwatchd.observe.samples import RING_BYTES
from oomwatchd.procfs import meminfo, zoneinfo
from tests.test_observe_cgroup import Tree

S = 1_000_000
MIB = 1 << 20
OPTIONS = RecorderSection()


class Fake:
    """A fake /proc; amounts in MiB."""

    def __init__(self, root: Path, host: Host | None = None) -> None:
        self.root = root
        self.host = host or Host(proc=root)
        (root / "pressure").mkdir()
        if host is None:
            (root / "self").mkdir()
            (root / "self/mountinfo").write_text("")
        (root / "swaps").write_text("Filename\tType\tSize\tUsed\tPriority\n")
        (root / "zoneinfo").write_text(
            "Node 0, zone   Normal\n  pages free     100\n        min      90\n        low      95\n"
            "        high     99\n        managed  9000\n  pagesets\n    cpu: 0\n              high: 5\n"
        )
        (root / "pressure/memory").write_text(
            "some avg10=1.50 avg60=0.00 avg300=0.00 total=9\nfull avg10=0.00\n"
        )
        self.memory()
        self.vmstat()

    def memory(self, available: int = 3000, total: int = 4096) -> None:
        (self.root / "meminfo").write_text(
            f"MemTotal:   {total << 10} kB\nMemFree:    100 kB\nMemAvailable:   {available << 10} kB\n"
            "DirectMap4k:    5 kB\n"
        )

    def vmstat(self, stalls: int = 0) -> None:
        (self.root / "vmstat").write_text(f"nr_free_pages 5\nallocstall_normal {stalls}\noom_kill 0\n")

    def process(self, pid: int, comm: str, pages: int) -> None:
        directory = self.root / str(pid)
        directory.mkdir(exist_ok=True)
        (directory / "comm").write_text(f"{comm}\n")
        (directory / "statm").write_text(f"{pages * 3} {pages} 0 0 0 0 0\n")
        (directory / "stat").write_text(f"{pid} ({comm}) S 1{' 0' * 17} {pid * 100} 0\n")
        (directory / "cgroup").write_text("0::/x.service\n")


@pytest.fixture
def fake(tmp_path: Path) -> Fake:
    return Fake(tmp_path)


@pytest.fixture
def recorder(fake: Fake) -> Iterator[Recorder]:
    made = Recorder(fake.host, OPTIONS, cpu=lambda: 0.0)
    yield made
    made.close()


def run(recorder: Recorder, start: int, seconds: int) -> int:
    """As the loop does: from sample to sample until the time is over; how many there were."""
    usec, taken = start, 0
    while usec < start + seconds * S:
        recorder.run(usec, usec / S)
        taken += 1
        usec += int(recorder.seconds_until_due(usec) * S)
    return taken


def run_until(recorder: Recorder, usec: int, end: int) -> int:
    """The same until then; when it goes on."""
    while usec < end:
        recorder.run(usec, usec / S)
        usec += max(1, int(recorder.seconds_until_due(usec) * S))
    return usec


def taken(recorder: Recorder, usec: int, end: int) -> int:
    """Wakeups until then."""
    count = 0
    while (usec := run_until(recorder, usec, usec + 1)) < end:
        count += 1
    return count


def test_a_sample_every_ten_seconds_for_fifteen_minutes(recorder: Recorder) -> None:
    assert run(recorder, 0, 3600) == 360
    before = recorder.history(3600 * S).before()
    assert 90 <= len(before.samples) <= 92
    assert before.samples[-1].usec == 3590 * S
    assert before.samples[0].usec >= 2680 * S


def test_what_a_sample_keeps_reads_like_the_kernels_files(fake: Fake, recorder: Recorder) -> None:
    (fake.root / "pressure/memory").write_text(
        "some avg10=1.50 avg60=0.00 avg300=0.00 total=9\nfull avg10=0.00\n"
    )
    recorder.run(0, 7.0)
    (sample,) = recorder.history(0).before().samples
    assert sample.wall == 7.0
    assert meminfo(sample) == {"MemTotal": 4096 << 20, "MemFree": 100 << 10, "MemAvailable": 3000 << 20}
    (zone,) = zoneinfo(sample)
    assert zone.pages == {"free": 100, "min": 90, "low": 95, "high": 99, "managed": 9000}
    assert sample.parts["vmstat"] == "allocstall_normal 0\noom_kill 0\n"
    assert sample.parts["pressure_memory"].startswith("some avg10=1.50 ")


def test_little_memory_hurries_it_and_shows_the_largest_processes(fake: Fake, recorder: Recorder) -> None:
    for number in range(1, 30):
        fake.process(number, f"p{number}", number * 100)
    run(recorder, 0, 60)
    assert [t for t in recorder.history(60 * S).before().tracks if t.kind == "process"] == []
    fake.memory(available=300)
    assert run(recorder, 60 * S, 30) >= 30
    tracks = recorder.history(95 * S).before({25}).tracks
    assert [t.pid for t in tracks] == [29, 28, 27, 26, 25, 24, 23]
    assert (tracks[0].name, tracks[0].cgroup) == ("p29", "/x.service")
    assert tracks[0].points[-1][1] == 2900 * 4096
    assert len(tracks[0].points) >= 29
    fake.memory()
    run(recorder, 95 * S, 40)
    assert run(recorder, 140 * S, 100) <= 11


def test_a_limit_in_sight_hurries_it_and_shows_that_cgroups_processes(tmp_path: Path) -> None:
    """A leak of 5 MiB/s under a limit of 96 MiB, wherever in the interval it begins."""
    for begin in range(10):
        root = tmp_path / str(begin)
        root.mkdir()
        tree = Tree(root, 1 + begin % 2)
        fake = Fake(root / "proc", tree.host)
        tree.make("a", (5, 6), usage=1 * MIB, limit=96 * MIB)
        for pid, comm in ((5, "leaky"), (6, "child"), (7, "other")):
            fake.process(pid, comm, 256)
        recorder = Recorder(fake.host, OPTIONS, cpu=lambda: 0.0)
        usec = run_until(recorder, 0, 60 * S)
        for tenth in range((60 + begin) * 10, (60 + begin + 19) * 10):
            usec = run_until(recorder, usec, tenth * S // 10)
            grown = MIB + (tenth - (60 + begin) * 10) * MIB // 2
            tree.usage("a", grown)
            fake.process(5, "leaky", grown // 4096)
        before = recorder.history(90 * S).before({5}, {"/a"})
        points = {track.name: track.points for track in before.tracks}
        assert "other" not in points
        # the finding takes five
        assert len([u for u, amount in points["leaky"] if amount > MIB]) >= 5, begin
        assert len(points["leaky"]) <= 20
        (first, low), (last, high) = points["leaky"][0], points["leaky"][-1]
        assert (high - low) / (last - first) * S == pytest.approx(5 * MIB, rel=0.05)
        assert len(points["/a"]) > len(points["leaky"])
        # it ends well: as calm as before
        fake.process(5, "leaky", 256)
        tree.usage("a", MIB)
        run_until(recorder, usec, 120 * S)
        assert taken(recorder, 120 * S, 300 * S) <= 18
        recorder.close()


def test_a_history_is_told_as_it_was(tmp_path: Path) -> None:
    """It is put into words later, when the victim's cgroup is gone and the machine another."""
    tree = Tree(tmp_path, 2)
    fake = Fake(tmp_path / "proc", tree.host)
    recorder = Recorder(fake.host, OPTIONS, cpu=lambda: 0.0)
    for name in ("gone", "stays"):
        tree.make(name, (), usage=20 * MIB, limit=48 * MIB)
    run_until(recorder, 0, 60 * S)
    history = recorder.history(60 * S)
    soon = recorder.history(60 * S + 1)
    assert soon is history
    shutil.rmtree(tmp_path / "cgroup/gone")
    (tmp_path / "cgroup/stays/memory.max").write_text(str(96 * MIB))
    fake.memory(available=7)
    run_until(recorder, 60 * S, 200 * S)
    before = history.before((), {"/gone", "/stays"}, most=3)
    assert {t.name: t.limit_bytes for t in before.tracks if t.name in ("/gone", "/stays")} == {
        "/gone": 48 * MIB,
        "/stays": 48 * MIB,
    }
    assert [meminfo(sample)["MemAvailable"] for sample in before.samples] == [3000 << 20] * 3
    # of another one nothing is left over
    after = recorder.history(200 * S)
    assert after is not history
    assert {t.name: t.limit_bytes for t in after.before().tracks}["/stays"] == 96 * MIB
    assert history.before((), (), most=3).samples == before.samples
    recorder.close()


def test_what_grows_in_a_new_cgroup_is_seen_from_its_first_seconds(tmp_path: Path) -> None:
    """5 MiB/s under 48 MiB: over before the next calm sample."""
    tree = Tree(tmp_path, 1)
    fake = Fake(tmp_path / "proc", tree.host)
    recorder = Recorder(fake.host, OPTIONS, cpu=lambda: 0.0)
    run_until(recorder, 0, S)
    told = dict(recorder.descriptors())[recorder.cgroups.changes.fileno()]
    usec = S + S // 2
    for pid, name in ((5, "leaky"), (6, "quiet")):
        tree.make(name, (pid,), usage=MIB, limit=48 * MIB)
        fake.process(pid, name, 256)
    told(usec, 0.0)
    for tenth in range(16, 105):
        usec = run_until(recorder, usec, tenth * S // 10)
        tree.usage("leaky", MIB + (tenth - 15) * MIB // 2)
    points = {
        track.name: len(track.points) for track in recorder.history(20 * S).before({5}, {"/leaky"}).tracks
    }
    assert points["/leaky"] >= 7 and points["leaky"] >= 7
    # nothing else grows: it slows down
    shutil.rmtree(tree.mount / "leaky")
    assert taken(recorder, usec, usec + 100 * S) <= 16
    recorder.close()


def test_falling_memavailable_hurries_it_before_it_is_low(fake: Fake, recorder: Recorder) -> None:
    fake.process(5, "leaky", 100)
    usec = run_until(recorder, 0, 60 * S)
    for second in range(60, 100):
        fake.memory(available=3000 - (second - 60) * 50)
        usec = run_until(recorder, usec, second * S)
    assert not recorder.under_pressure(usec)
    steps = [s.usec for s in recorder.history(100 * S).before().samples if s.usec >= 80 * S]
    assert len(steps) >= 4
    assert [t.name for t in recorder.history(102 * S).before().tracks] == ["leaky"]


def test_new_cgroups_wake_it_once_and_take_no_sample(tmp_path: Path) -> None:
    tree = Tree(tmp_path, 1)
    fake = Fake(tmp_path / "proc", tree.host)
    recorder = Recorder(fake.host, OPTIONS, cpu=lambda: 0.0)
    recorder.run(0, 0.0)
    changed = recorder.cgroups.changes.fileno()
    told = dict(recorder.descriptors())[changed]
    tree.make("a", (7,))
    assert select.select([changed], [], [], 0)[0]
    told(S, 1.0)
    assert not select.select([changed], [], [], 0)[0]
    assert 0 < recorder.seconds_until_due(S) <= 0.1
    recorder.run(S + S // 10, 1.1)
    assert recorder.samples == 1
    group = recorder.cgroups.of(7)
    assert group is not None and group.path == "/a"
    assert recorder.seconds_until_due(S) == 9.0, "it has no limit"
    recorder.close()


def test_reclaim_stands_for_pressure_where_the_kernel_has_none(fake: Fake, recorder: Recorder) -> None:
    # a plain file has no trigger to write into
    assert any("no pressure trigger" in line for line in recorder.obstacles)
    run(recorder, 0, 30)
    assert not recorder.under_pressure(30 * S)
    fake.vmstat(stalls=5)
    run(recorder, 30 * S, 1)
    assert recorder.under_pressure(31 * S)


def test_older_samples_are_thinned_and_all_stay_within_the_bound(fake: Fake, recorder: Recorder) -> None:
    fake.memory(available=100)
    for number in range(1, 30):
        fake.process(number, f"p{number}", number)
    (fake.root / "zoneinfo").write_text((fake.root / "zoneinfo").read_text() * 40)  # 4 nodes, many zones
    run(recorder, 0, 3000)
    assert recorder.size_bytes <= RING_BYTES
    before = recorder.history(3000 * S).before()
    assert len(before.samples) == recorder.samples
    steps = [b.usec - a.usec for a, b in zip(before.samples, before.samples[1:], strict=False)]
    assert set(steps[-55:]) == {S}
    assert all(step >= 9 * S for step in steps[:5])


def test_a_changed_memtotal_is_marked(fake: Fake, recorder: Recorder) -> None:
    run(recorder, 0, 20)
    fake.memory(total=2048)
    run(recorder, 20 * S, 20)
    (mark,) = recorder.history(40 * S).before().marks
    assert (mark.kind, mark.before_bytes, mark.after_bytes) == ("mem_total", 4096 << 20, 2048 << 20)


def test_a_dear_scan_is_repeated_less_often(fake: Fake) -> None:
    ticks = iter(range(10**6))
    # each question to the clock costs 50 ms: a walk and a scan take that long
    recorder = Recorder(fake.host, OPTIONS, cpu=lambda: next(ticks) * 0.05)
    fake.process(5, "first", 10)
    fake.memory(available=100)
    run(recorder, 0, 3)
    fake.process(6, "later", 99)
    run(recorder, 3 * S, 1)
    assert {t.pid for t in recorder.history(4 * S).before().tracks} == {5}
    run(recorder, 4 * S, 3)
    assert {t.pid for t in recorder.history(9 * S).before().tracks} == {5, 6}
    recorder.close()


def test_an_empty_host_costs_one_line_each(tmp_path: Path) -> None:
    recorder = Recorder(Host(proc=tmp_path), OPTIONS)
    recorder.run(0, 0.0)
    assert recorder.history(0).before().samples[0].parts == {}
    text = "\n".join(recorder.obstacles)
    for word in ("meminfo", "pressure trigger", "cgroup", "swap"):
        assert word in text
    assert all("\n" not in line for line in recorder.obstacles)
    recorder.close()


def test_a_process_under_an_old_number_is_another(fake: Fake, recorder: Recorder) -> None:
    fake.memory(available=100)
    fake.process(5, "old", 10)
    run(recorder, 0, 5)
    fake.process(5, "new", 10)
    run(recorder, 5 * S, 5)
    assert {t.name for t in recorder.history(20 * S).before().tracks} == {"old", "new"}
    assert recorder.facts(5, "old") is None
    found = recorder.facts(5, "new")
    assert found is not None and found.learnt == "recorder" and found.cgroup == "/x.service"


def test_a_process_not_seen_for_long_is_not_told_of(fake: Fake, recorder: Recorder) -> None:
    """Its number may be another's by now, of the same name (workers)."""
    fake.memory(available=100)
    fake.process(5, "worker", 10)
    run(recorder, 0, 5)
    assert recorder.facts(5, "worker") is not None
    shutil.rmtree(fake.root / "5")
    run(recorder, 5 * S, 30)
    assert recorder.facts(5, "worker") is not None
    run(recorder, 35 * S, 60)
    assert recorder.facts(5, "worker") is None


def test_hidden_processes_cost_the_list_only(fake: Fake, recorder: Recorder) -> None:
    """hidepid=2: other users' directories are not there; hidepid=1: there, and closed."""
    fake.memory(available=100)
    (fake.root / "77").mkdir()
    run(recorder, 0, 3)
    assert recorder.history(3 * S).before().tracks == ()


def test_hidden_processes_and_foreign_process_numbers_are_said(fake: Fake) -> None:
    hidden = Recorder(fake.host, OPTIONS)
    assert [line for line in hidden.obstacles if "hidepid" in line]
    hidden.close()
    fake.process(1, "init", 10)
    (fake.root / "self/ns").mkdir()
    (fake.root / "self/ns/pid").symlink_to("pid:[4026531999]")
    foreign = Recorder(fake.host, OPTIONS)
    assert [line for line in foreign.obstacles if "pid namespace" in line]
    fake.memory(available=100)
    foreign.run(0, 0.0)
    assert foreign.facts(1, "init") is None
    foreign.close()


V1 = "30 29 0:27 / {mount} rw - cgroup cgroup rw,memory\n"
V2 = "31 29 0:28 / {mount} rw - cgroup2 cgroup2 rw\n"


def test_without_further_inotify_watches_it_says_so_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = Tree(tmp_path, 2)
    recorder = Recorder(Fake(tree.host.proc, tree.host).host, OPTIONS)

    def none_left(*_: object) -> int:
        ctypes.set_errno(errno.ENOSPC)
        return -1

    monkeypatch.setattr(recorder.cgroups.changes, "_add_watch", none_left)
    before = list(recorder.obstacles)
    for number in range(3):
        tree.make(f"a{number}", (7 + number,))
        recorder.run(number * 10 * S, 0.0)
    (said,) = [line for line in recorder.obstacles if line not in before]
    assert "no more inotify watches: raise fs.inotify.max_user_watches" in said
    assert recorder.cgroups.of(9) is not None
    monkeypatch.undo()
    recorder.run(30 * S, 0.0)
    found = recorder.cgroups.get("/a0")
    assert found is not None and found.watch is not None
    recorder.close()


def test_an_inotify_instance_that_nobody_has_any_more_is_given_back() -> None:
    descriptors = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(200):
        Changes()
    assert len(list(Path("/proc/self/fd").iterdir())) <= descriptors


@pytest.mark.parametrize(
    ("mountinfo", "controllers", "version"),
    [("", "", None), (V1, "", 1), (V1 + V2, "", 1), (V2, "memory", 2), (V2, "cpu", None)],
    ids=["none", "v1", "hybrid", "v2", "v2 without the controller"],
)
def test_each_kind_of_hierarchy_works_or_is_said_to_be_missing(
    tmp_path: Path, mountinfo: str, controllers: str, version: int | None
) -> None:
    tree = Tree(tmp_path, version or 2)
    (tree.mount / "cgroup.controllers").write_text(f"{controllers}\n")
    (tree.host.proc / "self/mountinfo").write_text(mountinfo.replace("{mount}", str(tree.mount)))
    fake = Fake(tree.host.proc, tree.host)
    tree.make("a", (7,), usage=50)
    recorder = Recorder(fake.host, OPTIONS)
    recorder.run(0, 0.0)
    said = [line for line in recorder.obstacles if "cgroup" in line]
    tracks = {track.name for track in recorder.history(0).before().tracks if track.kind == "cgroup"}
    group = recorder.cgroups.of(7)
    if version is None:
        assert len(said) == 1 and "no cgroup hierarchy with the memory controller" in said[0]
        assert tracks == set() and group is None
    else:
        assert said == []
        assert "/a" in tracks and group is not None and group.path == "/a"
    recorder.close()


def test_without_pressure_files_it_works_and_says_so(fake: Fake) -> None:
    (fake.root / "pressure/memory").unlink()
    (fake.root / "pressure").rmdir()
    recorder = Recorder(fake.host, OPTIONS)
    recorder.run(0, 0.0)
    (said,) = [line for line in recorder.obstacles if "pressure trigger" in line]
    assert "pressure is seen at the next sample" in said
    assert set(recorder.history(0).before().samples[0].parts) == {"meminfo", "vmstat", "zoneinfo"}
    recorder.close()


# -- the real host -------------------------------------------------------------------------------------


def test_the_real_host_within_its_bounds() -> None:
    recorder = Recorder(read_host(), OPTIONS)
    recorder.pressure(0, 0.0)
    run(recorder, 0, 5)
    for second in range(5, 1000):
        recorder.pressure(second * S, 0.0)
        recorder.run(second * S, float(second))
    assert recorder.size_bytes <= RING_BYTES
    before = recorder.history(1000 * S).before()
    assert len(zlib.compress(msgspec.msgpack.encode(before))) <= 64 * 1024
    assert any(track.kind == "process" for track in before.tracks)
    recorder.close()


def test_a_real_leak_is_tracked() -> None:
    """The recorder sees this very process grow."""
    recorder = Recorder(read_host(), OPTIONS)
    kept = []
    for second in range(8):
        memory = mmap.mmap(-1, 64 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        memory.write(b"x" * (64 << 20))
        kept.append(memory)
        recorder.pressure(second * S, 0.0)
        recorder.run(second * S, 0.0)
    (track,) = [t for t in recorder.history(8 * S).before({os.getpid()}).tracks if t.pid == os.getpid()]
    amounts = [amount for _, amount in track.points]
    assert amounts == sorted(amounts)
    assert amounts[-1] - amounts[0] >= (len(amounts) - 1) * (60 << 20)
    recorder.close()


#: argument: what is done before; prints what is said to be missing, and the processes that are known
ELSEWHERE = """
import json, os, sys
from pathlib import Path
from oomwatchd.config import RecorderSection
from oomwatchd.observe.host import read_host
from oomwatchd.observe.recorder import Recorder
if sys.argv[2:]:
    os.setgroups([])
    os.setresgid(65534, 65534, 65534)
    os.setresuid(65534, 65534, 65534)
recorder = Recorder(read_host(Path(sys.argv[1])), RecorderSection())
recorder.pressure(0, 0.0)
recorder.run(0, 0.0)
before = recorder.history(0).before()
print(json.dumps([recorder.obstacles, [t.pid for t in before.tracks if t.pid], len(before.samples)]))
"""


def elsewhere(*command: str) -> tuple[list[str], list[int], int]:
    """The recorder behind ``command``: its obstacles, the processes it tracks, its samples."""
    done = subprocess.run([*command], capture_output=True, text=True, check=False)
    if os.getuid() != 0 or "Operation not permitted" in done.stderr:
        pytest.skip("needs the right to make namespaces")
    assert done.returncode == 0, done.stderr
    obstacles, pids, samples = json.loads(done.stdout)
    return obstacles, pids, samples


def test_behind_a_real_hidepid_it_works_and_says_so() -> None:
    python = f"{sys.executable} -c '{ELSEWHERE}' /proc 1"
    script = f"mount -t proc -o hidepid=2 proc /proc && exec {python}"
    obstacles, pids, samples = elsewhere("unshare", "--mount", "sh", "-c", script)
    (said,) = [line for line in obstacles if "hidepid" in line]
    assert said.count("\n") == 0 and "the largest are not known" in said
    assert not [line for line in obstacles if "works without" in line]
    assert samples == 1 and len(pids) <= 1  # itself


def test_in_a_real_pid_namespace_it_works_and_says_so() -> None:
    inside = ("unshare", "--mount", "--pid", "--fork", "--mount-proc")
    obstacles, pids, samples = elsewhere(*inside, sys.executable, "-c", ELSEWHERE, "/proc")
    (said,) = [line for line in obstacles if "pid namespace" in line]
    assert "by the log and by their cgroups' counts of kills only" in said
    assert samples == 1 and pids == [1]


def test_descriptors_are_quiet_until_something_happens() -> None:
    recorder = Recorder(read_host(), OPTIONS)
    descriptors = [descriptor for descriptor, _ in recorder.descriptors()]
    with select.epoll() as epoll:
        for descriptor in descriptors:
            epoll.register(descriptor, select.EPOLLIN)
        ready = [epoll.poll(0) for _ in range(3)]
    assert [] in ready  # what happened before was told once at most
    recorder.close()


def test_without_pyudev_it_works_and_says_so() -> None:
    code = (
        "import sys; sys.modules['pyudev'] = None\n"
        "from oomwatchd.observe.hotplug import Devices\n"
        "d = Devices(); print(d.obstacle); print(d.name_of('/dev/sda1'))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("pyudev: ")
    assert done.stdout.splitlines()[1] == "/dev/sda1"


def test_swap_areas_that_come_and_go(fake: Fake) -> None:
    swaps = Swaps(fake.host, Devices())
    head = "Filename\tType\tSize\tUsed\tPriority\n"
    (fake.root / "swaps").write_text(head + "/nonexistent/my\\040swap partition 1048576 0 -2\n")
    (mark,) = swaps.changes(5, 6.0)
    assert (mark.kind, mark.name, mark.after_bytes) == ("swap_on", "/nonexistent/my swap", 1 << 30)
    assert swaps.changes(5, 6.0) == []
    (fake.root / "swaps").write_text(head)
    (mark,) = swaps.changes(7, 8.0)
    assert (mark.kind, mark.before_bytes) == ("swap_off", 1 << 30)


def test_the_kernels_word_of_swap_areas_can_be_waited_for() -> None:
    waited = swap_changes(read_host())
    assert isinstance(waited, Exceptional)
    waited.close()


def test_tmpfs_behind_a_server_is_not_asked(fake: Fake) -> None:
    (fake.root / "self/mountinfo").write_text(
        "1 0 8:1 / / rw - ext4 /dev/sda1 rw\n"
        "2 1 0:5 / /srv rw - nfs4 server:/ rw\n"
        "3 2 0:6 / /srv/tmp rw - tmpfs tmpfs rw\n"
        "4 1 0:7 / /run/shm rw - tmpfs tmpfs rw\n"
        "5 1 0:7 / /also rw - tmpfs tmpfs rw\n"
        "6 1 0:8 / /mnt/a/tmp rw - tmpfs tmpfs rw\n"
        "7 1 0:9 / /mnt/a rw - fuse.sshfs server: rw\n"  # covers it
        "8 1 0:10 / /mnt/a\\040b rw - tmpfs tmpfs rw\n"
    )
    tmpfs = Tmpfs(fake.host)
    tmpfs.find()
    assert tmpfs.mounts == ["/run/shm", "/mnt/a b"]


def test_a_table_of_more_than_a_page_is_read_to_its_end(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel gives a page of it at most in one read (seq_file)."""
    read = os.read
    monkeypatch.setattr(os, "read", lambda descriptor, size: read(descriptor, min(size, 4096)))
    lines = [f"{n} 1 0:{n} / /run/netns/{n:064} rw - tmpfs tmpfs rw\n" for n in range(2, 60)]
    (fake.root / "self/mountinfo").write_text("1 0 8:1 / / rw - ext4 /dev/sda1 rw\n" + "".join(lines))
    tmpfs = Tmpfs(fake.host)
    tmpfs.find()
    assert len(tmpfs.mounts) == 58
    head = "Filename Type Size Used Priority\n"
    (fake.root / "swaps").write_text(head + "".join(f"/swap/{n:064} file 1024 0 -2\n" for n in range(70)))
    assert len(Swaps(fake.host, Devices())._areas) == 70
    (fake.root / "self/mountinfo").write_text(
        "".join(lines) + f"90 1 0:90 / {fake.root} rw - cgroup cgroup rw,memory\n"
    )
    assert memory_hierarchy(fake.host) == Hierarchy(str(fake.root), "", 1)
