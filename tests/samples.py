"""Small captures and events for the tests of the edges; the decoder is not asked."""

from __future__ import annotations

import sqlite3
from typing import Any

from oomwatchd.diagnosis.attribution import Attribution
from oomwatchd.event import EventSource, EventTime, OomEvent
from oomwatchd.records.capture import OomCapture, Source
from oomwatchd.records.kmsg import KmsgRecord
from oomwatchd.records.report import Finding, Memcg, Trigger, Victim

BOOT = "0f3a9d1c5b7e4a2f8c6d1e0b9a8f7c65"
OTHER_BOOT = "ffffffffffffffffffffffffffffffff"
WALL = 1_790_000_000.0


def capture(seq: int = 100, *, boot_id: str | None = BOOT, lines: int = 3, **fields: Any) -> OomCapture:
    """A capture whose records begin at ``seq``; ``usec`` is 1000 times the sequence number."""
    records = tuple(
        KmsgRecord(text=f"line {n}", facility=0, level=3, seq=n, usec=n * 1000, raw=b"3,%d,0,-;line" % n)
        for n in range(seq, seq + lines)
    )
    fields.setdefault("wall_offset", WALL)
    return OomCapture(
        source=Source(kind="kmsg", form="kmsg", boot_id=boot_id),
        records=records,
        first_seq=seq,
        last_seq=seq + lines - 1,
        **fields,
    )


def event(
    seq: int = 100,
    *,
    kills: int = 1,
    comm: str = "stress",
    historical: bool = False,
    latency: float | None = 0.02,
    **fields: Any,
) -> OomEvent:
    """An event of a memory cgroup that stands for ``capture(seq)``."""
    values: dict[str, Any] = {
        "id": f"{BOOT[:12]}-{seq}",
        "kind": "oom_kill",
        "summary": f"killed {comm} (4242): memory cgroup /test at its limit",
        "complete": True,
        "missing": (),
        "lost_records": 0,
        "historical": historical,
        "source": EventSource(kind="kmsg", form="kmsg", boot_id=BOOT, first_seq=seq, last_seq=seq + 2),
        "time": EventTime(
            kernel_seconds=seq / 1000,
            wall="2026-09-21T14:13:20+00:00",
            detection_latency_seconds=latency,
        ),
        "kernel": "6.1.0",
        "arch": "x86_64",
        "page_size_bytes": 4096,
        "trigger": Trigger(comm=comm, pid=4242, order=0),
        "constraint": "memcg",
        "memcg": Memcg(oom_path="/test", task_path="/test/inner"),
        "memory": None,
        "tasks": (),
        "slab": (),
        "allocations": (),
        "kills": kills,
        "victims": (Victim(pid=4242, comm=comm, uid=1000, anon_rss_bytes=64 << 20),) if kills else (),
        "findings": (
            Finding(
                id="memcg_limit", severity="warning", title="Memory cgroup at its limit", explanation="x"
            ),
        ),
        "attribution": (
            Attribution(pid=4242, role="victim", cgroup="/system.slice/web.service", unit="web.service"),
        ),
    }
    return OomEvent(**(values | fields))


def malformed() -> sqlite3.DatabaseError:
    """What SQLite raises for a damaged file."""
    error = sqlite3.DatabaseError("malformed")
    error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
    return error
