"""Reports of tens of thousands of tasks: what is kept of them, and that they cannot kill the daemon."""

from __future__ import annotations

import contextlib
import io
import random
from pathlib import Path

import msgspec
import pytest

from oomwatchd.cli import _output
from oomwatchd.config import Config
from oomwatchd.daemon.waiting import FULL_BYTES
from oomwatchd.daemon.worker import Worker
from oomwatchd.event import OomEvent, conclude
from oomwatchd.formats import oom_kill
from oomwatchd.formats.recognise import recognise
from oomwatchd.metrics import Metrics
from oomwatchd.records.capture import OomCapture, Source, weight
from oomwatchd.records.kmsg import KmsgRecord
from oomwatchd.render.fields import amount
from oomwatchd.render.html import render_html
from oomwatchd.render.terminal import render_text
from oomwatchd.reports.assemble import Assembler, OomBlock
from oomwatchd.reports.assemble.block import Block
from oomwatchd.reports.assemble.largest import LIVE_ROWS, SAVED_ROWS, Rows
from oomwatchd.store import Store

HEADS = {
    "6.x": "[  pid  ]   uid  tgid total_vm      rss rss_anon rss_file rss_shmem pgtables_bytes swapents"
    " oom_score_adj name",
    "4.x": "[ pid ]   uid  tgid total_vm      rss nr_ptes nr_pmds swapents oom_score_adj name",
    "2.6": "[ pid ]   uid  tgid total_vm      rss cpu oom_adj oom_score_adj name",
}


def row(head: str, pid: int, rss: int, adj: int, name: str) -> str:
    figures = {"uid": 0, "tgid": pid, "total_vm": 2 * rss, "rss": rss, "rss_anon": rss, "oom_score_adj": adj}
    figures |= {"pgtables_bytes": 8192, "nr_ptes": 2, "nr_pmds": 1, "swapents": 3}
    names = head.partition("]")[2].split()[:-1]
    return f"[{pid:7d}] " + " ".join(f"{figures.get(column, 0):5d}" for column in names) + f" {name}"


def report(
    rows: int, head: str = "6.x", *, seq: int = 1000, live: bool = True, seed: int = 1
) -> list[KmsgRecord]:
    """The victim is of middle size and was chosen for its oom_score_adj."""
    chance = random.Random(seed)  # the same run every time
    sizes = [chance.randrange(100, 100_000) for _ in range(rows)]
    table = [
        row(HEADS[head], pid, size, 900 if pid == rows // 2 else 0, f"task{pid % 7}")
        for pid, size in enumerate(sizes, 1)
    ]
    pid = rows // 2
    lines = [
        "asker invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0, oom_score_adj=0",
        "CPU: 0 UID: 0 PID: 5 Comm: asker Not tainted 6.18.44 #1",
        "memory: usage 16384kB, limit 16384kB, failcnt 26",
        "Memory cgroup stats for /a:",
        "anon 16000000",
        "Tasks state (memory values in pages):",
        HEADS[head],
        *table,
        "oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,mems_allowed=0,oom_memcg=/a,"
        f"task_memcg=/a,task=task{pid % 7},pid={pid},uid=0",
        f"Memory cgroup out of memory: Killed process {pid} (task{pid % 7}) total-vm:20000kB, "
        "anon-rss:16000kB, file-rss:0kB, shmem-rss:0kB, UID:0 pgtables:56kB oom_score_adj:900",
    ]
    return [
        KmsgRecord(
            text=text,
            facility=0,
            level=6,
            seq=seq + n if live else None,
            usec=1_000_000 + n,
            raw=f"6,{seq + n},{1_000_000 + n},-;{text}".encode(),
        )
        for n, text in enumerate(lines)
    ]


def captured(records: list[KmsgRecord], *, early: bool = True, batches: bool = False) -> OomCapture:
    assembler, blocks, at = Assembler(early=early), list[OomBlock](), 0
    while at < len(records):
        taken = assembler.take_run(records, at) if batches else 0
        signals = [] if taken else assembler.feed(records[at])
        blocks += [signal for signal in signals if isinstance(signal, OomBlock)]
        at += taken or 1
    blocks += [signal for signal in assembler.flush() if isinstance(signal, OomBlock)]
    block = blocks[-1]
    return OomCapture(
        source=Source(kind="kmsg", form="kmsg", boot_id="0" * 32),
        records=block.records,
        first_seq=block.records[0].seq,
        last_seq=block.records[-1].seq,
        left_out=block.left_out,
        page_size_bytes=4096,
    )


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("batches", [False, True])
def test_the_largest_stay_and_the_others_are_a_sum(head: str, batches: bool) -> None:
    records = report(20_000, head)
    event, error = conclude(captured(records, batches=batches))
    assert error is None
    whole = conclude(
        OomCapture(source=Source(kind="kmsg", form="kmsg"), records=tuple(records), page_size_bytes=4096)
    ).event
    assert (event.kills, event.victims) == (whole.kills, whole.victims)
    left = event.tasks_left_out
    assert left is not None and whole.tasks_left_out is None
    assert left.count + len(event.tasks) == len(whole.tasks) == 20_000
    assert len(event.tasks) < LIVE_ROWS * 3 // 2
    assert left.rss_bytes is not None
    assert left.rss_bytes + sum(t.rss_bytes or 0 for t in event.tasks) == sum(
        t.rss_bytes or 0 for t in whole.tasks
    )
    assert "tasks" in event.missing and not event.complete
    kept = {task.pid for task in event.tasks}
    ranked = sorted(whole.tasks, key=lambda task: -(task.rss_bytes or 0))
    assert {task.pid for task in ranked[: LIVE_ROWS // 2]} <= kept
    assert 10_000 in kept, "whom oom_score_adj made the victim"


def test_what_the_others_held_together_is_said() -> None:
    capture = captured(report(20_000))
    event = conclude(capture).event
    left = event.tasks_left_out
    assert left is not None and left.rss_bytes
    said = f"{left.count} smaller tasks left out, together {amount(left.rss_bytes)} resident"
    assert said in " ".join(render_text(event, width=100).split())
    assert said in render_html(event, capture.records)


@pytest.mark.parametrize("bound", ["PAGE_REPORTS", "PAGE_RECORDS"])
def test_a_page_of_too_many_reports_says_what_it_lacks(
    bound: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    captures = [captured(report(5, seq=1000 * n)) for n in range(1, 6)]
    monkeypatch.setattr(_output, bound, 2 if bound == "PAGE_REPORTS" else len(captures[0].records) + 1)
    stream = io.BytesIO()
    writer = _output.Writer(stream, "html")
    for capture in captures:
        writer.write(capture)
    writer.close()
    assert writer.status == 73
    [said] = capsys.readouterr().err.splitlines()
    assert "3 more reports would not fit into one page, which has the first 2; write --format jsonl" in said
    page = stream.getvalue().decode()
    ids = [conclude(capture).event.id for capture in captures]
    assert [one in page for one in ids] == [True, True, False, False, False]


def test_a_report_of_usual_size_is_kept_whole() -> None:
    capture = captured(report(LIVE_ROWS))
    assert capture.left_out is None
    assert len(conclude(capture).event.tasks) == LIVE_ROWS


def test_a_saved_log_keeps_more() -> None:
    records = report(SAVED_ROWS, live=False)
    assert captured(records, early=False).left_out is None
    capture = captured(report(2 * SAVED_ROWS, live=False), early=False)
    assert capture.left_out is not None
    assert len(capture.records) < 1.6 * SAVED_ROWS


def test_who_was_listed_and_went_is_still_known_as_listed() -> None:
    """If two reports interleave, the task table says which one a kill line belongs to."""
    records, rows = report(20_000)[:-2], Rows(1000)
    kept = rows.let_go(records)
    assert len(kept) == len(records) - 19_000
    assert sum(map(rows.was_listed, range(1, 20_001))) == 19_000
    assert not any(rows.was_listed(pid) for pid in (None, 0, 20_001, 1 << 30))
    block = Block(None, 1000)
    for record in records:
        if (found := recognise(record.text, raw=True)) is not None or record.text[:1] == "[":
            block.add(
                record, oom_kill.TASKS_ROW if record.text[:1] == "[" and found is None else found and found[0]
            )
    assert len(block.records) < 1600
    assert all(map(block.lists, range(1, 20_001)))
    assert not block.lists(20_001)


def worker(directory: Path, told: list[OomEvent]) -> Worker:
    config = msgspec.structs.replace(Config(), state_directory=str(directory))
    made = Worker(config, Metrics(), told.append, boot_id="0" * 32)
    made.open()
    return made


def test_what_waits_is_bounded_in_bytes(tmp_path: Path) -> None:
    told: list[OomEvent] = []
    patient = worker(tmp_path, told)
    captures = [captured(report(4000, seq=10_000 * n, seed=n)) for n in range(1, 12)]
    for capture in captures:
        patient.submit(capture, None)
    fit = FULL_BYTES // weight(captures[0])
    patient.start()
    assert patient.stop(60)
    with contextlib.closing(Store.open_reader(tmp_path)) as store:
        sizes = [len(capture.records) for capture in store.export()]
    assert 1 < fit < 11
    assert sizes[:fit] == [len(captures[0].records)] * fit
    assert max(sizes[fit:]) < 10
    assert [event.kills for event in told] == [1] * 11
