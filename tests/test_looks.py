"""What the warning is told of, on fake hosts of both cgroup versions."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oomwatchd.observe.cgroup import Cgroups
from oomwatchd.observe.heaps import most_held
from oomwatchd.observe.looks import MOST_FOLLOWED, Looks, candidates
from oomwatchd.warning.incidents import Reading
from tests.test_observe_cgroup import MIB, S, Tree


class Fake:
    """A tree whose one cgroup changes, and the readings that follow."""

    def __init__(self, root: Path, version: int) -> None:
        self.tree = Tree(root, version)
        self.cgroups = Cgroups(self.tree.host)
        self.looks = Looks(self.tree.host, self.cgroups)
        self.usec = 0
        self.meminfo = {"MemTotal": 4096, "MemAvailable": 3000}

    def stat(self, path: str, **amounts: int) -> None:
        prefix = "total_" if self.tree.version == 1 else ""
        text = "".join(f"{prefix}{name} {amount * MIB}\n" for name, amount in amounts.items())
        (self.tree.mount / path / "memory.stat").write_text(text)

    def look(self) -> dict[str | None, Reading]:
        """A walk, and what the sample of that moment brings."""
        self.usec += 10 * S
        self.cgroups.walk(self.usec)
        memory = "".join(f"{name}: {amount * 1024} kB\n" for name, amount in self.meminfo.items()).encode()
        parts = (memory, b"workingset_refault_file 7\n", b"", b"full avg10=12.50 avg60=0.00\n")
        return {one.cgroup: one for one in self.looks.readings(parts, self.usec)}


@pytest.fixture(params=[1, 2])
def fake(request: pytest.FixtureRequest, tmp_path: Path) -> Fake:
    return Fake(tmp_path, request.param)


def test_a_cgroup_is_looked_at_when_it_grows_and_page_cache_is_left_out(fake: Fake) -> None:
    fake.tree.make("a", usage=100 * MIB, limit=512 * MIB)
    fake.tree.make("calm", usage=100 * MIB, limit=512 * MIB)
    fake.tree.make("free", usage=100 * MIB)
    assert set(fake.look()) == {None}
    for path in ("a", "free"):
        fake.tree.usage(path, 150 * MIB)
    fake.stat("a", inactive_file=20, active_file=10, shmem=40, workingset_refault_file=3)
    found = fake.look()
    assert set(found) == {None, "/a"}
    assert (found["/a"].used_bytes, found["/a"].cache_bytes) == (120 * MIB, 30 * MIB)
    assert (found["/a"].capacity_bytes, found["/a"].refaults_bytes) == (512 * MIB, 3 * MIB * 4096)


def test_the_look_before_a_growth_is_its_first_point(fake: Fake) -> None:
    fake.tree.make("a", usage=100 * MIB, limit=512 * MIB)
    fake.look()
    fake.tree.usage("a", 150 * MIB)
    fake.stat("a", inactive_file=20)
    fake.usec += 10 * S
    fake.cgroups.walk(fake.usec)
    parts = (b"MemTotal: 4194304 kB\n", b"", b"", b"")
    told = [one for one in fake.looks.readings(parts, fake.usec) if one.cgroup == "/a"]
    assert [(one.usec, one.used_bytes) for one in told] == [(10 * S, 80 * MIB), (20 * S, 130 * MIB)]
    # only once
    assert len([one for one in fake.looks.readings(parts, fake.usec) if one.cgroup == "/a"]) == 1


def test_what_is_full_of_page_cache_has_room(fake: Fake) -> None:
    fake.tree.make("a", usage=512 * MIB, limit=512 * MIB)
    fake.stat("a", inactive_file=300, active_file=100)
    assert fake.look()["/a"].left_bytes == 400 * MIB


def test_reclaimable_slab_is_left_out_where_the_kernel_tells_it(tmp_path: Path) -> None:
    fake = Fake(tmp_path, 2)
    fake.tree.make("a", usage=500 * MIB, limit=512 * MIB)
    fake.stat("a", slab_reclaimable=200)
    assert fake.look()["/a"].used_bytes == 300 * MIB


@pytest.mark.parametrize(
    ("version", "files", "swapped", "helps"),
    [
        (2, {"memory.swap.current": "50", "memory.swap.max": "80"}, 50, 30),
        (2, {"memory.swap.current": "50", "memory.swap.max": "max"}, 50, 900),
        (2, {"memory.swap.current": "0", "memory.swap.max": "0"}, 0, 0),
        (1, {"memory.memsw.usage_in_bytes": "550", "memory.memsw.limit_in_bytes": "600"}, 50, 38),
        (1, {"memory.memsw.usage_in_bytes": "500", "memory.memsw.limit_in_bytes": "512"}, 0, 0),
        # no accounting of swap: the machine's is free to take
        (2, {}, 0, 900),
    ],
)
def test_swap_counts_as_far_as_the_cgroup_may_have_it(
    version: int, files: dict[str, str], swapped: int, helps: int, tmp_path: Path
) -> None:
    fake = Fake(tmp_path, version)
    fake.meminfo |= {"SwapTotal": 1000, "SwapFree": 900}
    directory = fake.tree.make("a", usage=500 * MIB, limit=512 * MIB)
    for name, value in files.items():
        (directory / name).write_text(f"{value if value == 'max' else int(value) * MIB}\n")
    found = fake.look()["/a"]
    assert found.used_bytes == (500 + swapped) * MIB
    assert found.left_bytes == (12 + helps) * MIB


@pytest.mark.parametrize(("device", "helps"), [("/dev/sda2", 200), ("/dev/zram0", 120)])
def test_swap_of_the_machine_counts_as_far_as_it_helps(device: str, helps: int, tmp_path: Path) -> None:
    fake = Fake(tmp_path, 2)
    (tmp_path / "proc/swaps").write_text(f"Filename Type Size Used Priority\n{device} partition 9 0 -2\n")
    # 500 MiB are free, but only 200 could go there
    fake.meminfo |= {"SwapTotal": 600, "SwapFree": 500, "AnonPages": 150, "Shmem": 50}
    machine = fake.look()[None]
    assert machine.left_bytes == (3000 + helps) * MIB
    assert machine.used_bytes == (1096 + 100) * MIB
    assert (machine.pressure_full_ratio, machine.refaults_bytes) == (0.125, 7 * 4096)


def process(fake: Fake, pid: int, resident: int, mapped: int) -> None:
    directory = fake.tree.host.proc / str(pid)
    directory.mkdir(exist_ok=True)
    pages = MIB // 4096
    (directory / "statm").write_text(f"{mapped * pages} {resident * pages} 0 1 0 {mapped * pages} 0\n")


@pytest.mark.parametrize(("grows", "bound"), [(False, 200), (True, None)])
def test_what_was_mapped_before_bounds_the_growth_of_who_fills_it(
    grows: bool, bound: int | None, fake: Fake
) -> None:
    fake.tree.make("a", (7,), usage=100 * MIB, limit=512 * MIB)
    fake.look()
    for step in range(1, 4):
        used = 100 + 50 * step
        process(fake, 7, used, used + 50 if grows else 450)
        fake.tree.usage("a", used * MIB)
        reading = fake.look()["/a"]
        fake.looks.look_deeper([(reading, 40.0)], reading.usec)
    found = fake.looks.bound(reading)
    assert found == (None if bound is None else bound * MIB)


@pytest.mark.parametrize(
    ("command", "most"),
    [
        ("java\0-Xms64m\0-Xmx300m\0-jar\0a.jar\0-Xmx9g\0", 364),
        ("java\0-Xmx1g\0-cp\0lib\0-Xmx300M\0Main\0", 364),
        ("/opt/jdk/bin/java\0-XX:MaxRAMPercentage=75.0\0Main\0", 448),
        ("java\0-XX:MaxHeapSize=314572800\0Main\0", 364),
        ("node\0--max-old-space-size=320\0server.js\0", 384),
        ("node\0--max_old_space_size=320\0server.js\0", 384),
        ("java\0Main\0-Xmx300m\0", None),  # what the program is told
        ("java\0-Xmx\0-Xmxm\0", None),
        ("java\0-Xmx\xb2m\0", None),
        ("java\0-XX:MaxRAMPercentage=.\0Main\0", None),
        ("-Xmx300m\0", None),
        ("", None),
    ],
)
def test_a_runtime_that_was_told_its_most_holds_no_more(command: str, most: int | None) -> None:
    assert most_held(command.encode(), 512 * MIB) == (None if most is None else most * MIB)


def test_a_large_heap_has_more_beside_it() -> None:
    assert most_held(b"java\0-Xmx8g\0", None) == 9 << 30
    assert most_held(b"java\0-XX:MaxRAMPercentage=50\0", None) is None


@settings(max_examples=300, deadline=None)
@given(st.lists(st.text(max_size=20).map(lambda text: f"-Xmx{text}"), max_size=5), st.binary(max_size=60))
def test_any_command_line_is_taken(words: list[str], more: bytes) -> None:
    for command in ("\0".join(["java", *words]).encode("utf-8", "replace"), more):
        found = most_held(command, 512 * MIB)
        assert found is None or found > 0


@pytest.mark.parametrize(("heap", "bound"), [(300, 114), (150, None), (None, None)])
def test_a_heap_that_has_a_bound_grows_no_further(heap: int | None, bound: int | None, fake: Fake) -> None:
    fake.tree.make("a", (7,), usage=100 * MIB, limit=512 * MIB)
    fake.look()
    for step in range(1, 4):
        used = 100 + 50 * step
        process(fake, 7, used, used + 50)
        options = "" if heap is None else f"-Xmx{heap}m\0"
        (fake.tree.host.proc / "7/cmdline").write_text(f"java\0{options}-jar\0a.jar\0")
        fake.tree.usage("a", used * MIB)
        reading = fake.look()["/a"]
        fake.looks.look_deeper([(reading, 40.0)], reading.usec)
    assert fake.looks.bound(reading) == (None if bound is None else bound * MIB)


def test_deeper_looks_take_turns_within_their_share_of_the_cpu(tmp_path: Path) -> None:
    spent = iter(range(10**6))
    fake = Fake(tmp_path, 2)
    fake.looks = Looks(fake.tree.host, fake.cgroups, cpu=lambda: next(spent) * 0.006)
    names = [str(number) for number in range(20)]
    for pid, name in enumerate(names, 100):
        fake.tree.make(name, (pid,), usage=420 * MIB, limit=512 * MIB)
    known = []
    for step in range(6):
        for pid, name in enumerate(names, 100):
            process(fake, pid, 400 + step, 500)
            fake.tree.usage(name, (420 + step) * MIB)
        found = [one for path, one in fake.look().items() if path is not None]
        known.append(sum(fake.looks.bound(one) is not None for one in found))
        fake.looks.look_deeper([(one, 40.0) for one in found], fake.usec)
    assert known == [0, 4, 8, 12, 16, 20]  # four looks take the 20 ms of one turn


@pytest.mark.parametrize(
    ("high", "used", "bound"),
    [("max", 200, None), (300, 200, 100), (300, 310, 0), (300, 400, None), (None, 200, None)],
)
def test_memory_high_bounds_a_growth(
    high: str | int | None, used: int, bound: int | None, tmp_path: Path
) -> None:
    fake = Fake(tmp_path, 2)
    fake.tree.make("a", usage=200 * MIB, limit=512 * MIB)
    if high is not None:
        text = high if isinstance(high, str) else str(high * MIB)
        (fake.tree.mount / "a/memory.high").write_text(text + "\n")
    reading = msgspec.structs.replace(fake.look()[None], cgroup="/a", used_bytes=used * MIB)
    assert fake.looks.bound(reading) == (None if bound is None else bound * MIB)


@pytest.mark.parametrize(
    ("age", "ticks", "schedstat", "job"),
    [
        (40, 3600, "1 1 1", True),  # all threads were on the processor for 36 s
        (40, 500, "15000000000 20000000000 9", True),  # waited for it, too
        (40, 500, "15000000000 10000000000 9", False),
        (400, 39000, "1 1 1", False),  # it was there long before the growth
        (40, 3600, None, True),
    ],
)
def test_a_new_process_that_computes_all_the_time_is_a_job(
    age: int, ticks: int, schedstat: str | None, job: bool, tmp_path: Path
) -> None:
    fake = Fake(tmp_path, 2)
    fake.tree.make("a", usage=200 * MIB, limit=512 * MIB)
    (fake.tree.mount / "a/cgroup.procs").write_text("7\n8\n")
    reading = fake.look()
    proc = fake.tree.host.proc
    (proc / "uptime").write_text("1000.00 1.00\n")
    (proc / "7").mkdir()
    per_second = os.sysconf("SC_CLK_TCK")
    (proc / "7/statm").write_text(f"90000 {160 * MIB // 4096} 0 0 0 90000 0\n")
    stat = ["S", *["0"] * 10, str(ticks * per_second // 100), "0", *["0"] * 6, str((1000 - age) * per_second)]
    (proc / "7/stat").write_text(f"7 (c) d) {' '.join(stat)} 0\n")
    if schedstat is not None:
        (proc / "7/schedstat").write_text(schedstat + "\n")
    told = msgspec.structs.replace(reading[None], cgroup="/a")
    assert fake.looks.is_job(told, told.usec - 40 * S, 200 * MIB) is job
    assert not fake.looks.is_job(told, told.usec - 40 * S, 400 * MIB)


def test_a_limit_is_read_anew_at_each_look(fake: Fake) -> None:
    directory = fake.tree.make("a", usage=480 * MIB, limit=512 * MIB)
    assert fake.look()["/a"].limit_bytes == 512 * MIB
    file = directory / ("memory.limit_in_bytes" if fake.tree.version == 1 else "memory.max")
    file.write_text(f"{1024 * MIB}\n")
    assert fake.look()["/a"].limit_bytes == 1024 * MIB
    file.write_text("max\n")
    assert "/a" not in fake.look()
    assert (fake.looks.lost("/a"), fake.looks.lost("/b")) == ("room", "gone")
    file.write_text(f"{512 * MIB}\n")
    for _ in range(6):  # not at each walk
        found = fake.look()
    assert found["/a"].limit_bytes == 512 * MIB


def test_who_is_warned_of_is_followed_though_it_rests(fake: Fake) -> None:
    fake.tree.make("a", usage=100 * MIB, limit=512 * MIB)
    assert "/a" not in fake.look()
    fake.looks.follow("/a", fake.usec)
    fake.looks.follow("/gone", fake.usec)
    assert "/a" in fake.look()
    for _ in range(40):
        found = fake.look()
    assert "/a" not in found
    assert fake.looks.lost("/a") == "stopped"


def test_how_many_are_followed_is_bounded(fake: Fake) -> None:
    for number in range(3 * MOST_FOLLOWED):
        fake.tree.make(str(number), usage=(500 - number) * MIB, limit=512 * MIB)
    found = fake.look()
    assert len(found) == 1 + MOST_FOLLOWED
    assert "/0" in found


def test_what_vanishes_in_between_is_left_out(fake: Fake) -> None:
    directory = fake.tree.make("a", usage=500 * MIB, limit=512 * MIB)
    assert "/a" in fake.look()
    (directory / "memory.stat").unlink()
    assert "/a" not in fake.look()
    assert fake.looks.bound(Reading(cgroup="/gone", usec=1, used_bytes=1, capacity_bytes=2)) is None


def test_a_host_that_shows_nothing_brings_nothing(tmp_path: Path) -> None:
    fake = Fake(tmp_path, 2)
    fake.meminfo = {}
    assert fake.look() == {}


def test_candidates_are_what_the_kernel_would_weigh(tmp_path: Path) -> None:
    fake = Fake(tmp_path, 2)
    for pid, name, adjusted in ((5, "a\nb", "-1000"), (6, "small", "0"), (9, "", "junk")):
        directory = tmp_path / "proc" / str(pid)
        directory.mkdir()
        (directory / "status").write_text(
            f"Name:\tx\nUid:\t{pid}\t0\t0\t0\nVmRSS:\t {pid * 100} kB\nVmPTE:\t 8 kB\nVmSwap:\t 4 kB\n"
        )
        (directory / "comm").write_text(f"{name}\n")
        (directory / "oom_score_adj").write_text(f"{adjusted}\n")
    (tmp_path / "proc/8").mkdir()
    (tmp_path / "proc/8/status").write_text("Name:\tkthread\n")
    found = candidates(fake.tree.host, [5, 6, 8, 9, 10])
    assert [(one.pid, one.comm, one.oom_score_adj, one.uid) for one in found] == [
        (9, "", 0, 9),
        (6, "small", 0, 6),
        (5, "a\nb", -1000, 5),
    ]
    assert (found[0].rss_bytes, found[0].pgtables_bytes, found[0].swap_bytes) == (900 << 10, 8 << 10, 4 << 10)
