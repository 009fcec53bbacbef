"""The cgroup tree on fake hierarchies of both versions: who is where, and whose count of kills grew."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from oomwatchd.observe import cgroup
from oomwatchd.observe.cgroup import Cgroups, memory_hierarchy
from oomwatchd.observe.host import Host

S = 1_000_000


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


@pytest.fixture(params=[1, 2])
def tree(tmp_path: Path, request: pytest.FixtureRequest) -> Tree:
    return Tree(tmp_path, request.param)


def test_the_tree_is_known_with_its_members_usage_and_limits(tree: Tree) -> None:
    tree.make("a.slice", usage=50)
    tree.make("a.slice/b.service", (7, 8), usage=40, limit=100)
    groups = Cgroups(tree.host)
    groups.walk(0, count=False)
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
    groups.walk(0, count=False)
    old = groups.get("/a")
    shutil.rmtree(tree.mount / "a")
    tree.make("b", (5,))
    groups.walk(S, count=False)
    assert {group.path for group in groups} == {"/", "/b"}
    shutil.rmtree(tree.mount / "b")
    tree.make("a", (6,))
    groups.walk(2 * S, count=False)
    new = groups.get("/a")
    assert old is not None and new is not None and new.number != old.number
    assert groups.of(6) is new


def test_a_victim_that_was_seen_there_belongs_there(tree: Tree) -> None:
    tree.make("a", (7,))
    tree.make("b", (8,))
    groups = Cgroups(tree.host)
    groups.walk(0, count=False)
    for path in ("a", "b"):
        (tree.mount / path / "cgroup.procs").write_text("")
        tree.kills(path, 1)
    assert groups.of_victim(7, S, S - 1) == ("/a", "recorder")
    assert groups.of_victim(8, S, S - 1) == ("/b", "recorder")


def test_a_victim_that_nobody_saw_belongs_where_the_count_grew(tree: Tree) -> None:
    tree.make("a")
    tree.make("b")
    groups = Cgroups(tree.host)
    groups.walk(0, count=False)
    tree.kills("b", 1)
    assert groups.of_victim(99, S, S - 1) == ("/b", "events")
    # that growth is used up
    assert groups.of_victim(98, 2 * S, 2 * S - 1) is None


def test_two_counts_that_grew_name_nobody_until_one_is_claimed(tree: Tree) -> None:
    tree.make("a")
    tree.make("b")
    groups = Cgroups(tree.host)
    groups.walk(0, count=False)
    tree.kills("a", 1)
    tree.kills("b", 1)
    assert groups.of_victim(99, S, S - 1) is None
    groups.claim("/a", S)
    assert groups.of_victim(99, S, S - 1) == ("/b", "events")


def test_a_kill_of_which_the_cgroup_was_printed_is_not_used_for_another(tree: Tree) -> None:
    tree.make("a")
    groups = Cgroups(tree.host)
    groups.walk(0, count=False)
    groups.claim("/a", S)
    tree.make("new")
    groups.claim("/new", S)
    tree.kills("a", 1)
    tree.kills("new", 1)
    assert groups.of_victim(99, S, S - 1) is None


def test_a_new_cgroup_is_found_when_its_first_kill_is_told(tree: Tree) -> None:
    groups = Cgroups(tree.host)
    groups.walk(0, count=False)
    tree.make("new")
    tree.kills("new", 1)
    assert groups.of_victim(99, S, S - 1) == ("/new", "events")


def test_what_was_counted_before_the_first_walk_or_long_ago_is_no_answer(tree: Tree) -> None:
    tree.make("a")
    tree.kills("a", 5)
    tree.make("b")
    groups = Cgroups(tree.host)
    groups.walk(0, count=False)
    assert groups.of_victim(99, S, S - 1) is None
    tree.kills("a", 6)
    groups.walk(2 * S, count=True)
    tree.kills("b", 1)
    assert groups.of_victim(99, 9 * S, 9 * S - 1) == ("/b", "events")


def test_a_pid_that_was_used_again_elsewhere_is_not_believed(tree: Tree) -> None:
    tree.make("a", (7,))
    tree.make("b")
    groups = Cgroups(tree.host)
    groups.walk(0, count=False)
    tree.kills("b", 1)  # the count of /a did not grow
    assert groups.of_victim(7, S, S - 1) == ("/b", "events")


def test_where_a_removed_cgroup_cannot_tell_the_memory_counts(tree: Tree) -> None:
    tree.make("a", (7,))
    groups = Cgroups(tree.host)
    groups.walk(0, count=False)
    shutil.rmtree(tree.mount / "a")
    assert groups.of_victim(7, S, S - 1) == ("/a", "recorder")


def test_hierarchical_counts_of_old_kernels_name_the_leaf(tmp_path: Path) -> None:
    tree = Tree(tmp_path, 2)
    for path in ("a", "a/b", "a/c"):
        tree.make(path)
    for path in ("", "a", "a/b", "a/c"):
        (tree.mount / path / "memory.events.local").unlink()
        tree.kills(path, 0, hierarchical=True)
    groups = Cgroups(tree.host)
    groups.walk(0, count=False)
    for path in ("", "a", "a/c"):
        tree.kills(path, 1, hierarchical=True)
    assert groups.of_victim(99, S, S - 1) == ("/a/c", "events")
    assert groups.of_victim(98, S, S - 1) is None


def test_a_cgroup_that_will_reach_its_limit_soon_is_near(tree: Tree) -> None:
    tree.make("a", usage=10 << 20, limit=100 << 20)
    groups = Cgroups(tree.host)
    groups.walk(0, count=False)
    found = groups.get("/a")
    assert found is not None and not found.near
    for usage, near in ((20, False), (55, True), (90, True), (90, False), (91, True), (40, False)):
        tree.usage("a", usage << 20)
        groups.walk(S, count=False)
        assert found.near is near, usage
    # what can be dropped is no shortage
    (tree.mount / "a/memory.stat").write_text(
        f"anon 0\ninactive_file {80 << 20}\ntotal_inactive_file {80 << 20}\n"
    )
    tree.usage("a", 95 << 20)
    groups.walk(S, count=False)
    assert not found.near


def test_the_number_of_cgroups_is_bounded(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cgroup, "MAX_GROUPS", 5)
    for number in range(9):
        tree.make(f"g{number}", (100 + number,))
    groups = Cgroups(tree.host)
    groups.walk(0, count=False)
    assert len(groups) == 5 and groups.truncated


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
    ],
)
def test_where_the_memory_controller_is(
    tmp_path: Path, mountinfo: str, found: tuple[str, str, int] | None
) -> None:
    (tmp_path / "self").mkdir()
    (tmp_path / "self/mountinfo").write_text(mountinfo)
    hierarchy = memory_hierarchy(Host(proc=tmp_path))
    assert (None if hierarchy is None else (hierarchy.mount, hierarchy.root, hierarchy.version)) == found


def test_without_a_hierarchy_nothing_is_known(tmp_path: Path) -> None:
    groups = Cgroups(Host(proc=tmp_path))
    groups.walk(0, count=True)
    groups.claim("/a", S)
    assert len(groups) == 0 and groups.of(1) is None
    assert groups.of_victim(1, S, S) is None


def test_a_hostile_name_is_text(tree: Tree) -> None:
    name = "Killed process 1 (systemd) total-vm:1kB\n\x1b[31m"
    tree.make(name, (7,))
    groups = Cgroups(tree.host)
    groups.walk(0, count=False)
    group = groups.of(7)
    assert group is not None and group.path == f"/{name}"
