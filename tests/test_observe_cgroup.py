"""The cgroup tree on fake hierarchies of both versions: who is where, and whose count of kills grew."""

from __future__ import annotations

import ctypes
import errno
import os
import select
import shutil
from pathlib import Path

import pytest
from msgspec.structs import replace

from oomwatchd.observe import cgroup
from oomwatchd.observe.cgroup import Cgroups
from oomwatchd.observe.group import Group
from oomwatchd.observe.hierarchy import cgroup_namespace, memory_hierarchy
from oomwatchd.observe.host import Host
from oomwatchd.observe.inotify import Changes
from oomwatchd.observe.kills import Kills

S = 1_000_000
MIB = 1 << 20


class Tree:
    """A fake memory hierarchy; the files are the kernel's."""

    def __init__(self, root: Path, version: int) -> None:
        self.version = version
        self.mount = root / "cgroup"
        self.mount.mkdir()
        (root / "proc/self").mkdir(parents=True)
        self.host = Host(proc=root / "proc")
        kind = "cgroup2 cgroup2 rw" if version == 2 else "cgroup cgroup rw,memory"
        (root / "proc/self/mountinfo").write_text(
            f"29 24 0:26 / /sys rw - sysfs sysfs rw\n30 29 0:27 / {self.mount} rw,nosuid shared:9 - {kind}\n"
        )
        (self.mount / "cgroup.controllers").write_text("cpu memory\n")
        self.make("")

    def make(self, path: str, pids: tuple[int, ...] = (), usage: int = 0, limit: int | None = None) -> Path:
        directory = self.mount / path
        directory.mkdir(exist_ok=True)
        (directory / "cgroup.procs").write_text("".join(f"{pid}\n" for pid in pids))
        names = (
            ("memory.current", "memory.max")
            if self.version == 2
            else ("memory.usage_in_bytes", "memory.limit_in_bytes")
        )
        (directory / names[0]).write_text(f"{usage}\n")
        none = "max" if self.version == 2 else "9223372036854771712"
        (directory / names[1]).write_text(f"{none if limit is None else limit}\n")
        (directory / "memory.stat").write_text("anon 0\ninactive_file 0\ntotal_inactive_file 0\n")
        self.kills(path, 0)
        return directory

    def kills(self, path: str, count: int, *, hierarchical: bool = False) -> None:
        if self.version == 1:
            text, file = f"oom_kill_disable 0\nunder_oom 0\noom_kill {count}\n", "memory.oom_control"
        else:
            text = f"low 0\nhigh 0\nmax 3\noom 1\noom_kill {count}\noom_group_kill 0\n"
            file = "memory.events" if hierarchical else "memory.events.local"
        (self.mount / path / file).write_text(text)

    def usage(self, path: str, usage: int) -> None:
        name = "memory.current" if self.version == 2 else "memory.usage_in_bytes"
        (self.mount / path / name).write_text(f"{usage}\n")

    def droppable(self, path: str, amount: int) -> None:
        (self.mount / path / "memory.stat").write_text(
            f"anon 0\ninactive_file {amount}\ntotal_inactive_file {amount}\n"
        )


def ready(changed: Changes) -> bool:
    return bool(select.select([changed], [], [], 0)[0])


@pytest.fixture(params=[1, 2])
def tree(tmp_path: Path, request: pytest.FixtureRequest) -> Tree:
    return Tree(tmp_path, request.param)


def test_the_tree_is_known_with_its_members_usage_and_limits(tree: Tree) -> None:
    tree.make("a.slice", usage=50)
    tree.make("a.slice/b.service", (7, 8), usage=40, limit=100)
    groups = Cgroups(tree.host)
    groups.walk(0)
    assert {group.path for group in groups} == {"/", "/a.slice", "/a.slice/b.service"}
    found = groups.get("/a.slice/b.service")
    assert found is not None
    assert (found.usage, found.limit) == (40, 100)
    assert groups.of(7) is found and groups.of(9) is None
    slice_ = groups.get("/a.slice")
    assert slice_ is not None and slice_.limit is None
    assert [group.path for group in groups.largest(1)] == ["/a.slice"]


def test_cgroups_that_come_and_go_are_seen(tree: Tree) -> None:
    tree.make("a")
    groups = Cgroups(tree.host)
    groups.walk(0)
    old = groups.get("/a")
    shutil.rmtree(tree.mount / "a")
    tree.make("b", (5,))
    groups.walk(S)
    assert {group.path for group in groups} == {"/", "/b"}
    shutil.rmtree(tree.mount / "b")
    tree.make("a", (6,))
    groups.walk(2 * S)
    new = groups.get("/a")
    assert old is not None and new is not None and new.number != old.number
    assert groups.of(6) is new


@pytest.mark.parametrize(
    ("usages", "left"),
    [
        ((10, 20), 80.0),  # 1 MiB a second, 80 to go
        ((10, 15), None),  # 170 s
        ((10, 10), None),
        ((90, 80), None),
        ((98, 98.3), None),  # slower than 3 % a minute
        ((98, 99), 10.0),
        ((95, 101), 0.0),
    ],
)
def test_a_limit_that_will_be_reached_soon_is_in_sight(
    tree: Tree, usages: tuple[float, float], left: float | None
) -> None:
    tree.make("a", usage=int(usages[0] * MIB), limit=100 * MIB)
    groups = Cgroups(tree.host)
    groups.walk(0)
    found = groups.get("/a")
    assert found is not None and found.left_seconds is None
    tree.usage("a", int(usages[1] * MIB))
    groups.walk(10 * S)
    assert found.left_seconds == (None if left is None else pytest.approx(left, abs=0.01))
    assert groups.watched(5, 10 * S) == ([] if left is None else [found])
    # it is not lost sight of at once
    groups.walk(19 * S)
    assert groups.watched(5, 19 * S) == ([] if left is None else [found])
    groups.walk(30 * S)
    assert groups.watched(5, 30 * S) == []


def test_a_cgroup_that_came_since_the_last_walk_grew_from_nothing(tree: Tree) -> None:
    groups = Cgroups(tree.host)
    groups.walk(0)
    tree.make("a", usage=50 * MIB, limit=100 * MIB)
    groups.walk(10 * S)
    found = groups.get("/a")
    assert found is not None and found.left_seconds == pytest.approx(10)


def test_what_can_be_dropped_is_no_shortage_but_hides_one(tree: Tree) -> None:
    tree.make("a", usage=40 * MIB, limit=100 * MIB)
    groups = Cgroups(tree.host)
    groups.walk(0)
    found = groups.get("/a")
    assert found is not None
    # a file is read: at most the first look takes it for growth that stays
    for second, usage, cache in ((10, 60, 20), (20, 80, 40), (30, 99, 59), (40, 100, 60)):
        tree.usage("a", usage * MIB)
        tree.droppable("a", cache * MIB)
        groups.walk(second * S)
        assert found.left_seconds is None or second == 10
    # a leak takes the place of the cache: usage stays as it is
    for second, cache in ((50, 50), (60, 40)):
        tree.droppable("a", cache * MIB)
        groups.walk(second * S)
    assert found.left_seconds == pytest.approx(40)


def test_a_limit_that_was_set_late_is_seen_where_something_grows(tree: Tree) -> None:
    tree.make("a", usage=10 * MIB)
    groups = Cgroups(tree.host)
    groups.walk(0)
    tree.make("a", usage=30 * MIB, limit=100 * MIB)
    groups.walk(10 * S)
    found = groups.get("/a")
    assert found is not None and found.limit == 100 * MIB


def test_members_of_the_cgroups_below_count_the_largest_first(tree: Tree) -> None:
    tree.make("pod", usage=90)
    tree.make("pod/small", (1, 2), usage=10)
    tree.make("pod/large", (3, 4), usage=80)
    groups = Cgroups(tree.host)
    groups.walk(0)
    pod = groups.get("/pod")
    assert pod is not None
    assert groups.members(pod, 9) == [3, 4, 1, 2]
    assert groups.members(pod, 1) == [3]


def test_new_cgroups_and_their_members_are_seen_at_once(tree: Tree) -> None:
    groups = Cgroups(tree.host)
    groups.walk(0)
    told = groups.changes
    assert not ready(told)
    tree.make("a", (7,), usage=5, limit=100)
    assert ready(told)
    told.quiet()
    assert not ready(told), "one wakeup, however much is changed"
    tree.make("a/b", (8,))
    assert not ready(told)
    table = groups._by_path
    assert groups.look_at_changes(S)
    assert groups._by_path is not table
    found, below = groups.get("/a"), groups.get("/a/b")
    assert found is not None and (found.usage, found.limit) == (5, 100)
    assert groups.of(7) is found and below is not None and groups.of(8) is below
    # a process that comes later, and one that moves
    (tree.mount / "a/cgroup.procs").write_text("9\n")
    (tree.mount / "a/b/cgroup.procs").write_text("8\n7\n")
    assert ready(told)
    groups.look_at_changes(2 * S)
    assert groups.of(9) is found and groups.of(7) is below
    groups.walk(3 * S)
    assert groups.get("/a") is found


def test_any_depth_of_new_cgroups_is_looked_at(tree: Tree) -> None:
    """Whoever was handed a cgroup can nest more than Python calls nest."""
    groups = Cgroups(tree.host)
    groups.walk(0)
    paths = [f"{tree.mount}{'/a' * depth}" for depth in range(1, 1501)]
    for path in paths:
        os.mkdir(path)  # noqa: PTH102 - a path as text: 1500 Path objects of that depth are slow
    try:
        tree.make("other", (7,))
        assert groups.look_at_changes(S)
        assert groups.of(7) is groups.get("/other") is not None
        assert groups.get("/a" * 1500) is not None
    finally:
        for path in reversed(paths):  # shutil.rmtree() cannot before Python 3.13
            os.rmdir(path)  # noqa: PTH106 - the same


def test_removed_cgroups_take_their_watches_along(tree: Tree) -> None:
    groups = Cgroups(tree.host)
    for number in range(5):
        path = tree.make(f"a{number}")
        groups.walk(number * S)
        shutil.rmtree(path)
    groups.walk(9 * S)
    assert len(groups) == len(groups._watches) == 1


def test_without_inotify_a_walk_finds_them(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda *_args, **_more: object())
    groups = Cgroups(tree.host)
    assert groups.changes.obstacle is not None and "\n" not in groups.changes.obstacle
    groups.walk(0)
    tree.make("a", (7,))
    groups.walk(S)
    assert groups.of(7) is groups.get("/a") is not None
    groups.changes.close()


def test_the_number_of_cgroups_is_bounded(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cgroup, "MAX_GROUPS", 5)
    for number in range(9):
        tree.make(f"g{number}", (100 + number,))
    groups = Cgroups(tree.host)
    groups.walk(0)
    assert len(groups) == 5 and groups.truncated


def test_cgroups_that_cannot_be_listed_just_now_are_not_forgotten(
    tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree.make("a", (7,))
    groups = Cgroups(tree.host)
    groups.walk(0)
    tree.make("b", (8,))

    def fails(_directory: str) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as patched:
        patched.setattr(os, "scandir", fails)
        groups.walk(S)
    assert groups.of(7) is groups.get("/a") is not None
    groups.walk(2 * S)
    assert groups.of(8) is groups.get("/b") is not None


def known(group: Group | None) -> int:
    """How many cgroups are kept in memory, visited or not."""
    assert group is not None
    return 1 + sum(known(child) for child in group.children.values())


def test_what_is_kept_of_a_wide_and_deep_tree_is_bounded(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cgroup, "MAX_GROUPS", 30)
    for outer in range(10):
        tree.make(f"g{outer}")
        for inner in range(10):
            tree.make(f"g{outer}/h{inner}")
    groups = Cgroups(tree.host)
    for usec in range(3):
        groups.walk(usec * S)
        assert len(groups) == known(groups._root) == 30 and groups.truncated
    for outer in range(10):
        tree.make(f"g{outer}/late")
    groups.look_at_changes(3 * S)
    assert known(groups._root) <= 30
    groups.walk(4 * S)
    assert len(groups) == known(groups._root) == 30
    for outer in range(9):
        shutil.rmtree(tree.mount / f"g{outer}")
    groups.walk(5 * S)
    groups.walk(6 * S)
    assert len(groups) == known(groups._root) == 13 and not groups.truncated
    assert {group.path for group in groups} >= {"/g9/h0", "/g9/late"}


@pytest.mark.parametrize(
    ("mountinfo", "found"),
    [
        ("", None),
        ("30 29 0:27 / /c rw - cgroup cgroup rw,cpu\n", None),
        ("nonsense\n", None),
        ("30 29 0:27 / /c rw - cgroup cgroup rw,memory\n", ("/c", "", 1)),
        # hybrid: v1 has the controller; a container sees its own part
        (
            "31 29 0:28 / /u rw - cgroup2 cgroup2 rw\n30 29 0:27 / /c rw - cgroup cgroup rw,memory\n",
            ("/c", "", 1),
        ),
        ("30 29 0:27 /docker/ab /c rw - cgroup cgroup rw,memory\n", ("/c", "/docker/ab", 1)),
        ("30 29 0:27 /../.. /c rw - cgroup cgroup rw,memory\n", ("/c", "", 1)),
        ("30 29 0:27 /a\\040\\377b /c\\040d rw - cgroup cgroup rw,memory\n", ("/c d", "/a \\xffb", 1)),
    ],
)
def test_where_the_memory_controller_is(
    tmp_path: Path, mountinfo: str, found: tuple[str, str, int] | None
) -> None:
    (tmp_path / "self").mkdir()
    (tmp_path / "self/mountinfo").write_text(mountinfo)
    hierarchy = memory_hierarchy(Host(proc=tmp_path))
    assert (None if hierarchy is None else (hierarchy.mount, hierarchy.root, hierarchy.version)) == found


def test_paths_are_whole_within_a_cgroup_namespace(tmp_path: Path) -> None:
    """A container in a cgroup namespace of its own, with the host's whole hierarchy mounted."""
    own = "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod1.slice/own.scope"
    (tmp_path / f"cg{own}/inner").mkdir(parents=True)
    (tmp_path / "cg/system.slice").mkdir()
    (tmp_path / "cg/cgroup.controllers").write_text("memory\n")
    for path, pid in ((f"{own}/inner", os.getpid()), ("/system.slice", 1)):
        (tmp_path / f"cg{path}/cgroup.procs").write_text(f"{pid}\n")
    (tmp_path / "self").mkdir()
    (tmp_path / "self/cgroup").write_text("0::/inner\n")
    mounted = f"30 29 0:27 {{}} {tmp_path}/cg ro - cgroup2 cgroup2 rw\n"
    (tmp_path / "self/mountinfo").write_text(mounted.format("/../../../.."))
    host = Host(proc=tmp_path)
    host = replace(host, cgroup_namespace=cgroup_namespace(host))
    assert host.cgroup_namespace == own
    assert host.whole("/inner") == f"{own}/inner" and host.whole("/") == own
    assert host.whole("/../../kubepods-besteffort-pod2.slice/c.scope") == (
        "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod2.slice/c.scope"
    )
    assert host.whole("/../../../../system.slice/a.service") == "/system.slice/a.service"
    assert host.whole(None) is None
    (tmp_path / "self/mountinfo").write_text(mounted.format("/"))
    assert cgroup_namespace(host) == "" and Host(proc=tmp_path).whole("/inner") == "/inner"


def test_without_a_hierarchy_nothing_is_known(tmp_path: Path) -> None:
    groups = Cgroups(Host(proc=tmp_path))
    groups.walk(0)
    assert len(groups) == 0 and groups.of(1) is None
    kills = Kills(groups, lambda: 1)
    kills.close_books(0)
    kills.named(1, 5, None, S)
    kills.named(2, 6, "/a", S)
    assert kills.resolve(S) == []


def test_a_hostile_name_is_text(tree: Tree) -> None:
    name = "Killed process 1 (systemd) total-vm:1kB\n\x1b[31m"
    tree.make(name, (7,))
    groups = Cgroups(tree.host)
    groups.walk(0)
    group = groups.of(7)
    assert group is not None and group.path == f"/{name}"
