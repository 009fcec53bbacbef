"""Attribution of lone kill lines: kill lines are balanced against the kernel's counts, on fake hierarchies of
both versions. The result is never a wrong cgroup."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest

from oomwatchd.observe.cgroup import Cgroups
from oomwatchd.observe.kills import QUIET_USEC, STEADY_USEC, Found, Kills
from tests.test_observe_cgroup import S, Tree, tree

__all__ = ["tree"]


class Machine:
    """A tree in which kills are counted as the kernel does, and the books of them."""

    def __init__(self, tree: Tree) -> None:
        self.tree = tree
        self.total = 100
        self.counts: dict[str, int] = {}
        self.groups = Cgroups(tree.host)
        self.books = Kills(self.groups, lambda: self.total, cpu=lambda: 0.0)
        self.usec = 0
        self.numbers = 0

    def walk(self, usec: int = 0) -> None:
        self.groups.walk(usec)
        self.books.close_books(usec)
        self.usec = max(self.usec, usec)

    def kill(self, path: str | None) -> None:
        """One in this cgroup; None: in one that is gone before anybody looks."""
        self.total += 1
        if path is not None:
            self.counts[path] = self.counts.get(path, 0) + 1
            self.tree.kills(path, self.counts[path])

    def line(self, pid: int, path: str | None = None) -> int:
        """Its kill line is read, ``path`` printed with it."""
        self.numbers += 1
        self.usec += 1000
        self.books.named(self.numbers, pid, path, self.usec)
        return self.numbers

    def found(self) -> list[tuple[int, str, str]]:
        """As after a bite of the log, and again when the report is handed over."""
        return [*self.look(), *self.look(STEADY_USEC)]

    def look(self, wait_usec: int = 0) -> list[tuple[int, str, str]]:
        self.usec += wait_usec
        return [(one.number, one.path, one.learnt) for one in self.books.resolve(self.usec)]


@pytest.fixture
def machine(tree: Tree) -> Machine:
    for path in ("a", "b"):
        tree.make(path)
    made = Machine(tree)
    made.walk()
    return made


def test_a_victim_that_was_seen_there_belongs_there(machine: Machine) -> None:
    for path, pid in (("a", 7), ("b", 8)):
        (machine.tree.mount / path / "cgroup.procs").write_text(f"{pid}\n")
    machine.walk(S)
    for path in ("a", "b"):
        (machine.tree.mount / path / "cgroup.procs").write_text("")
        machine.kill(path)
    machine.line(8)
    machine.line(7)
    assert machine.found() == [(1, "/b", "recorder"), (2, "/a", "recorder")]
    assert machine.found() == []


def test_a_victim_that_is_still_there_is_seen_after_its_line(machine: Machine) -> None:
    machine.kill("a")
    machine.kill("b")
    machine.tree.make("a", (7,))
    machine.tree.kills("a", 1)
    machine.line(7)
    machine.line(8)
    assert machine.found() == [(1, "/a", "recorder"), (2, "/b", "events")]


def test_victims_that_nobody_saw_belong_where_alone_the_count_grew_by_as_many(machine: Machine) -> None:
    for pid in (98, 99):
        machine.kill("b")
        machine.line(pid)
    assert machine.found() == [(1, "/b", "events"), (2, "/b", "events")]
    # those are used up
    machine.kill(None)
    machine.line(97)
    assert machine.found() == []


def test_two_counts_that_grew_name_nobody_until_one_is_claimed(machine: Machine) -> None:
    machine.kill("a")
    machine.kill("b")
    machine.line(99)
    assert machine.found() == []
    machine.line(98, "/a")
    assert machine.found() == [(1, "/b", "events")]


def test_a_neighbours_kill_of_which_the_line_was_not_read_is_not_taken(machine: Machine) -> None:
    """The victim's own cgroup is gone; another's count grew already, its line comes later."""
    machine.kill(None)
    machine.kill("b")
    machine.line(99)
    assert machine.found() == []
    machine.line(98)
    assert machine.found() == []


def test_a_kill_of_which_the_cgroup_was_printed_is_not_used_for_another(machine: Machine) -> None:
    machine.tree.make("new")
    machine.kill("a")
    machine.kill("new")
    machine.kill(None)
    machine.line(1, "/a")
    machine.line(2, "/new")
    machine.line(99)
    assert machine.found() == []


def test_a_cgroup_made_again_under_its_name_starts_from_nothing(machine: Machine, tmp_path: Path) -> None:
    machine.kill("a")
    machine.line(1, "/a")
    (machine.tree.mount / "a").rename(tmp_path / "gone")  # real hierarchies use no inode again
    machine.tree.make("a")
    machine.counts["a"] = 0
    machine.kill("a")
    machine.line(2, "/a")
    machine.kill(None)
    machine.line(99)
    assert machine.found() == []


def test_a_kill_of_which_the_line_comes_after_the_walk_is_not_settled_by_it(machine: Machine) -> None:
    machine.kill("a")
    machine.walk(20 * S)
    machine.line(99)
    assert machine.found() == [(1, "/a", "events")]


def test_a_new_cgroup_is_found_when_its_first_kill_is_told(machine: Machine) -> None:
    machine.tree.make("new")
    machine.kill("new")
    machine.line(99)
    assert machine.found() == [(1, "/new", "events")]


def test_what_was_counted_long_ago_is_no_answer(machine: Machine) -> None:
    machine.kill("a")  # its line was lost
    machine.walk(10 * S)
    machine.walk(20 * S)
    machine.kill("b")
    machine.line(99)
    assert machine.found() == [(1, "/b", "events")]


def test_lost_lines_leave_victims_unknown_until_it_was_quiet(machine: Machine) -> None:
    machine.kill("a")  # its line is lost
    machine.kill("b")
    machine.line(99)
    assert machine.found() == []
    for _ in range(2):
        machine.walk(machine.usec + QUIET_USEC)
    machine.kill("b")
    machine.line(98)
    assert machine.found() == [(2, "/b", "events")]


def test_a_pid_that_was_used_again_elsewhere_is_not_believed(machine: Machine) -> None:
    (machine.tree.mount / "a/cgroup.procs").write_text("7\n")
    machine.walk(S)
    machine.kill("b")  # the count of /a did not grow
    machine.line(7)
    assert machine.found() == [(1, "/b", "events")]


def test_where_a_removed_cgroup_cannot_tell_the_memory_counts(machine: Machine) -> None:
    (machine.tree.mount / "a/cgroup.procs").write_text("7\n")
    machine.walk(S)
    shutil.rmtree(machine.tree.mount / "a")
    machine.kill(None)
    machine.line(7)
    assert machine.found() == [(1, "/a", "recorder")]


def test_the_cgroup_above_counts_where_the_controller_is_not_handed_down(tmp_path: Path) -> None:
    tree = Tree(tmp_path, 2)
    tree.make("a")
    (tree.make("a/b", (7,)) / "memory.events.local").unlink()
    machine = Machine(tree)
    machine.walk()
    machine.kill("a")
    machine.kill(None)
    machine.line(1, "/a/b")
    machine.line(99)
    assert machine.found() == []
    machine.kill("a")
    machine.line(7)
    assert machine.found() == [(3, "/a/b", "recorder")]


def test_hierarchical_counts_of_old_kernels_name_the_leaf(tmp_path: Path) -> None:
    tree = Tree(tmp_path, 2)
    paths = ("", "a", "a/b", "a/c")
    for path in paths:
        tree.make(path)
        (tree.mount / path / "memory.events.local").unlink()
        tree.kills(path, 0, hierarchical=True)
    machine = Machine(tree)
    machine.walk()
    for path in ("", "a", "a/c"):
        tree.kills(path, 1, hierarchical=True)
    machine.total += 1
    machine.line(99)
    assert machine.found() == [(1, "/a/c", "events")]
    # nor is who was seen in the parent before it moved
    (tree.mount / "a/cgroup.procs").write_text("97\n")
    machine.groups.walk(S)
    for path in ("", "a"):
        tree.kills(path, 2, hierarchical=True)
    machine.total += 1
    machine.line(97)
    assert machine.found() == []
    # a child that is gone is not told from its parent
    for path in ("", "a"):
        tree.kills(path, 3, hierarchical=True)
    machine.total += 1
    machine.line(98)
    assert machine.found() == []


def test_a_kernel_that_counts_nothing_leaves_what_was_seen(tmp_path: Path) -> None:
    tree = Tree(tmp_path, 1)
    for path in (tree.mount, tree.make("a", (7,))):
        (path / "memory.oom_control").write_text("oom_kill_disable 0\nunder_oom 0\n")
    groups = Cgroups(tree.host)
    books = Kills(groups, lambda: None)
    groups.walk(0)
    books.close_books(0)
    books.named(1, 7, None, S)
    books.named(2, 99, None, S)
    assert books.resolve(S) == [Found(1, "/a", "recorder")]


@pytest.mark.parametrize("seed", range(15))
def test_no_storm_names_a_wrong_cgroup(tmp_path: Path, seed: int) -> None:
    """Kills in cgroups that come and go, a few printed; looks and lines come late, lines in the kernel's
    order."""
    dice = random.Random(seed)
    tree = Tree(tmp_path, dice.choice((1, 2)))
    machine = Machine(tree)
    trash = tmp_path / "trash"
    trash.mkdir()
    alive: dict[int, str] = {}
    truth: dict[int, str] = {}
    unread: list[int] = []
    found: dict[int, str] = {}
    numbers: dict[int, int] = {}

    def write(name: str) -> None:
        pids = "".join(f"{pid}\n" for pid, where in alive.items() if where == name)
        (tree.mount / name / "cgroup.procs").write_text(pids)

    machine.walk()
    for turn in range(200):
        roll, name = dice.random(), f"g{dice.randrange(6)}"
        there = (tree.mount / name).exists()
        if roll < 0.15 and not there:
            tree.make(name)
        elif roll < 0.4 and there:
            alive[100 + turn] = name
            write(name)
        elif roll < 0.45:
            machine.walk(machine.usec + (0 if unread else dice.choice((S, 2 * QUIET_USEC))))
        elif roll < 0.5 and there:
            (tree.mount / name).rename(trash / f"{turn}")  # inodes are not used again
            alive = {pid: where for pid, where in alive.items() if where != name}
            machine.counts.pop(name, None)
        elif roll < 0.75 and alive:
            pid = dice.choice(list(alive))
            machine.kill(alive[pid])
            unread.append(pid)
            name = alive.pop(pid)
            truth[pid] = f"/{name}"
            if dice.random() < 0.5:
                write(name)
        elif unread:
            pid = unread.pop(0)
            numbers[machine.line(pid, truth[pid] if dice.random() < 0.3 else None)] = pid
        # lines are read soon after they are printed
        for number, path, _ in machine.look(0 if unread else STEADY_USEC) if dice.random() < 0.5 else ():
            found[numbers[number]] = path
    assert found.items() <= truth.items()
    assert found
