"""The page size of a report without its buddy lists: by amounts that are printed in pages and in kB."""

from __future__ import annotations

import re
from pathlib import Path

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
