"""Task tables of vendors: the head names the columns, and uncertain figures are not shown."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from oomwatchd.records.kmsg import KmsgRecord
from oomwatchd.records.report import OomReport
from oomwatchd.reports.decode import decode

PAGE = 4096
KNOWN = ("total_vm", "rss", "nr_ptes", "swapents", "oom_score_adj")
#: pid -> uid, then the known columns; the last but one is the victim
TASKS = {
    131: (0, 1850, 240, 4, 0, -1000, "systemd-udevd"),
    467: (0, 4120, 611, 7, 3, -900, "vd-net-config"),
    743: (5001, 120412, 80211, 180, 10, 0, "a.out"),
    800: (5001, 5000, 100, 9, 0, 300, "7z 16.02"),
}
KILL = (
    "Killed process 743 (a.out) total-vm:481648kB, anon-rss:320000kB, file-rss:844kB",
    "Out of memory: Kill process 743 (a.out) score 612 or sacrifice child",
)
HEADER = "a.out invoked oom-killer: gfp_mask=0x201da, order=0, oom_score_adj=0"
VENDOR = ("ppid", "cpu", "zswap", "nr_pmds", "lmk_adj", "state_ms", "wss")


def report(columns: list[str], *, head: bool = True, kill: bool = True) -> OomReport:
    """A report whose table has these columns between tgid and name; unknown ones hold odd figures."""
    lines = [HEADER]
    if head:
        lines.append(f"[ pid ]   uid  tgid {' '.join(columns)} name")
    for pid, (uid, *figures, name) in TASKS.items():
        known = dict(zip(KNOWN, figures, strict=True))
        row = [str(known.get(column, pid % 7 + n)) for n, column in enumerate(columns)]
        lines.append(f"[{pid:5}] {uid:5} {pid:5} {' '.join(row)} {name}")
    lines += [*reversed(KILL)] if kill else []
    return decode([KmsgRecord(text=line) for line in lines], page_size_bytes=PAGE)


@given(st.lists(st.tuples(st.integers(0, 5), st.sampled_from(VENDOR)), max_size=4, unique_by=lambda t: t[1]))
def test_unknown_columns_shift_nothing(inserted: list[tuple[int, str]]) -> None:
    columns = list(KNOWN)
    for at, name in inserted:
        columns.insert(at, name)
    read = report(columns)
    assert not read.undecoded
    assert "tasks" not in read.missing
    assert len(read.tasks) == len(TASKS)
    for task in read.tasks:
        uid, total_vm, rss, ptes, swap, adj, name = TASKS[task.pid]
        assert (task.uid, task.tgid, task.comm) == (uid, task.pid, name)
        assert (task.total_vm_bytes, task.rss_bytes) == (total_vm * PAGE, rss * PAGE)
        assert (task.page_tables, task.swap_bytes, task.oom_score_adj) == (ptes, swap * PAGE, adj)
        assert set(task.extra or {}) == {name for _, name in inserted}


def test_a_table_without_its_head_is_read_by_its_count() -> None:
    whole = report(list(KNOWN))
    headless = report(list(KNOWN), head=False)
    assert headless.tasks == whole.tasks
    assert "tasks" in headless.missing


def test_a_column_that_only_the_lost_head_names_shifts_nothing() -> None:
    for inserted in (["ppid"], ["ppid", "cpu"]):
        for kill in (True, False):
            read = report([*inserted, *KNOWN], head=False, kill=kill)
            for task in read.tasks:
                _, total_vm, rss, *_, adj, name = TASKS[task.pid]
                assert (task.total_vm_bytes, task.rss_bytes) == (total_vm * PAGE, rss * PAGE)
                assert (task.oom_score_adj, task.comm) == (adj, name)


def test_where_the_columns_are_not_sure_no_figure_is_told() -> None:
    # between the known columns no count tells which one is new
    read = report(["total_vm", "cpu", "rss", "wss", "zswap", *KNOWN[2:]], head=False)
    assert [task.pid for task in read.tasks] == list(TASKS)
    assert [task.comm for task in read.tasks] == [task[-1] for task in TASKS.values()]
    assert {task.rss_bytes for task in read.tasks} == {None}
    assert "tasks" in read.missing
    # the head lost a column's name on its way here
    cut = report(list(KNOWN))
    lines = [HEADER, "[ pid ]   uid  tgid total_vm rss swapents oom_score_adj name"]
    for pid, (uid, *figures, name) in TASKS.items():
        lines.append(f"[{pid:5}] {uid:5} {pid:5} {' '.join(map(str, figures))} {name}")
    read = decode([KmsgRecord(text=line) for line in [*lines, *reversed(KILL)]], page_size_bytes=PAGE)
    assert [task.comm for task in read.tasks] == [task.comm for task in cut.tasks]
    assert {task.oom_score_adj for task in read.tasks} == {None}
    assert "tasks" in read.missing


def test_the_kill_line_is_believed_and_not_a_head_that_lies() -> None:
    lines = [HEADER, "[ pid ]   uid  tgid rss total_vm nr_ptes swapents oom_score_adj name"]
    for pid, (uid, *figures, name) in TASKS.items():
        lines.append(f"[{pid:5}] {uid:5} {pid:5} {' '.join(map(str, figures))} {name}")
    read = decode([KmsgRecord(text=line) for line in [*lines, *reversed(KILL)]], page_size_bytes=PAGE)
    victim = next(task for task in read.tasks if task.pid == 743)
    assert victim.total_vm_bytes in (None, 120412 * PAGE)


def test_a_last_row_that_was_cut_shifts_nothing() -> None:
    """Its figures are fewer than the columns, and no name follows them."""
    lines = [HEADER]
    for pid, (uid, *figures, name) in TASKS.items():
        lines.append(f"[{pid:5}] {uid:5} {pid:5} {' '.join(map(str, figures))} {name}")
    cut = f"[  812] {0:5} {812:5} 630 25 4 0"
    whole = report(list(KNOWN), kill=False).tasks
    for rows in (lines, lines[:2]):
        for end in (cut, cut[:-2]):
            read = decode([KmsgRecord(text=line) for line in [*rows, end]], page_size_bytes=PAGE)
            assert read.tasks == whole[: len(rows) - 1], end


def test_a_thread_tells_of_its_process() -> None:
    """If the first thread has exited, the row has the pid of another, and the process's own as its tgid."""
    row = "[  751]     0   748   120412    80211     180       10             0 python"
    kill = "Killed process 748 (python) total-vm:481648kB, anon-rss:320000kB, file-rss:844kB"
    (task,) = decode([KmsgRecord(text=text) for text in (row, kill)]).tasks
    assert (task.pid, task.tgid, task.rss_bytes) == (751, 748, 80211 * PAGE)
