"""The page size of a report without its buddy lists: by amounts that are printed in pages and in kB."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from oomwatchd.cli import main
from oomwatchd.formats.parts import Parts
from oomwatchd.records.kmsg import KmsgRecord
from oomwatchd.records.report import Node
from oomwatchd.reports.decode import decode
from oomwatchd.reports.memory import page_size_of
from tests.recorded import captures, kernel_recordings, logs

_BUDDY = re.compile(r"\d\*\d+[kK]B\b")
#: what the machine is: with it most would be known
_MACHINE = re.compile(r"\b(?:CPU|Pid): |R[0-9A-Z]{2}: |^\[?<|\+0x")


def test_without_buddy_lists_the_same_size_is_found_or_none(corpus: Path) -> None:
    """Each report whose buddy lists tell it, without them, without its stack and its kernel's name."""
    found = unknown = 0
    for path in (*kernel_recordings(corpus), *logs(corpus)):
        for capture in captures(path):
            known = decode(capture.records).page_size_bytes
            if known is None or not any(_BUDDY.search(r.text) for r in capture.records):
                continue
            left = [r for r in capture.records if not _BUDDY.search(r.text) and not _MACHINE.search(r.text)]
            again = decode(left).page_size_bytes
            assert again in (known, None), (path.name, known, again)
            found += again is not None
            unknown += again is None
    assert found > 3 * unknown, (found, unknown)


def parts(node_kb: int, *, nodes: int = 1) -> Parts:
    said = Parts(raw=True)
    said.memory.totals = {"active_anon": 1000, "inactive_anon": 3000, "mapped": 700, "dirty": 3}
    amounts = {f"{name}_bytes": pages * node_kb << 10 for name, pages in said.memory.totals.items()}
    said.memory.nodes = {n: Node(node=n, amounts=amounts) for n in range(nodes)}
    return said


def test_totals_in_pages_against_nodes_in_kb() -> None:
    for kb in (4, 16, 64):
        assert page_size_of(parts(kb), None, None) == kb << 10
    assert page_size_of(parts(4, nodes=3), None, None) is None, "12 KiB is no page"
    # one that was left out is not a page of half the size
    assert page_size_of(parts(5), None, None) is None
    assert page_size_of(Parts(raw=True), None, "x86_64") == 4096
    assert page_size_of(Parts(raw=True), None, "aarch64") is None
    assert page_size_of(Parts(raw=True), 65536, "aarch64") == 65536


def test_a_kill_line_against_its_row() -> None:
    rows = (
        "[ pid ]   uid  tgid total_vm      rss pgtables_bytes swapents oom_score_adj name",
        "[   20]     0    20     9000     2000    45056        0             0 a",
    )
    kill = (
        "Out of memory: Killed process 20 (a) total-vm:576010kB, anon-rss:129000kB, file-rss:64kB, "
        "shmem-rss:0kB"
    )
    report = decode([KmsgRecord(text=text, usec=n) for n, text in enumerate((*rows, kill))])
    assert report.page_size_bytes == 65536
    assert report.tasks[0].rss_bytes == 2000 << 16


def test_whole_page_tables() -> None:
    """Of three processes at least; tables smaller than a page tell nothing."""
    head = "[ pid ]   uid  tgid total_vm      rss pgtables_bytes swapents oom_score_adj name"

    def size(*tables: int) -> int | None:
        rows = [f"[{pid}] 0 {pid} 9000 2000 {held} 0 0 a" for pid, held in enumerate(tables, 20)]
        return decode([KmsgRecord(text=text) for text in (head, *rows)]).page_size_bytes

    assert size(4096 * 7, 4096 * 18, 0, 4096 * 25) == 4096
    assert size(4096 * 7, 4096 * 18, 4096 * 7) is None
    assert size(4096 * 8, 4096 * 16, 4096 * 28) is None
    assert size(4096 * 7, 4096 * 18, 4096 * 25 + 256) is None


def test_another_report_of_the_same_log_tells_it(
    capfdbinary: pytest.CaptureFixture[bytes], tmp_path: Path
) -> None:
    table = (
        "[  2.1] [ pid ]   uid  tgid total_vm      rss pgtables_bytes swapents oom_score_adj name",
        "[  2.1] [   30]     0    30     9000     2000    45056        0             0 b",
        "[  2.1] [   31]     0    31     9000     2000    45056        0             0 c",
        "[  2.1] Out of memory: Killed process 30 (b), UID 0, total-vm:x",
    )
    buddy = "[  1.2] Node 0 DMA: 1*64kB (U) 0*128kB 0*256kB = 64kB"
    head = "[  1.1] a invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0, oom_score_adj=0"
    kill = (
        "[  1.3] Out of memory: Killed process 20 (a) total-vm:9kB, anon-rss:8kB, file-rss:0kB, shmem-rss:0kB"
    )
    second = "[  2.0] b invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0, oom_score_adj=0"
    (tmp_path / "log").write_text("\n".join((head, buddy, kill, second, *table)) + "\n")
    assert main(["analyze", "--format", "jsonl", str(tmp_path / "log")]) == 0
    events = [json.loads(line) for line in capfdbinary.readouterr().out.splitlines()]
    assert [event["page_size_bytes"] for event in events] == [65536, 65536]
    assert events[1]["tasks"][0]["rss_bytes"] == 2000 << 16
