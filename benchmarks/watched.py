"""The real daemon, with a note of the moment at each station of its line: for bench_latency.

``python -m benchmarks.watched CONFIG NOTES``; the notes are written as JSON when the daemon ends. Each is
[station, stamp, moment, detail]: the kernel's stamp of the record that it is about and CLOCK_MONOTONIC, both
in microseconds.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from oomwatchd.daemon.watch import Watch
from oomwatchd.daemon.worker import Worker
from oomwatchd.records.capture import OomCapture
from oomwatchd.reports.assemble import ReportBegan, VictimChosen
from oomwatchd.store import Store

Note = tuple[str, int, int, str]


def kill_lines(capture: OomCapture) -> list[tuple[int, str]]:
    """Stamp and text of the capture's kill lines."""
    return [
        (record.usec, record.text[:120])
        for record in capture.records
        if record.usec is not None and "Killed process" in record.text
    ]


class Notes:
    """Wraps the stations; nothing is changed in what they do."""

    def __init__(self) -> None:
        self.taken: list[Note] = []

    def install(self) -> None:
        watch: Any = Watch
        look_around, look_at_victim, foresee = watch._look_around, watch._look_at_victim, watch.foresee
        looked_at: dict[int, int] = {}
        submit, put = Worker.submit, Store.put

        def around(watch: Watch, *args: Any) -> None:
            look_around(watch, *args)
            self._note("snapshot", *_record_of(args[0]))

        def ahead(watch: Watch, pid: int, comm: str | None) -> None:
            looked_at[pid] = time.monotonic_ns() // 1000
            foresee(watch, pid, comm)

        def at_victim(watch: Watch, victim: VictimChosen) -> None:
            moment = looked_at.pop(victim.pid, time.monotonic_ns() // 1000)
            self.taken.append(("victim", victim.record.usec or 0, moment, victim.comm))
            look_at_victim(watch, victim)

        def submitted(worker: Worker, capture: OomCapture, *args: Any) -> None:
            submit(worker, capture, *args)
            self._note_kills("queued", capture)

        def stored(store: Store, capture: OomCapture, *args: Any) -> str:
            outcome = put(store, capture, *args)
            self._note_kills("stored", capture)
            return outcome

        watch._look_around, watch._look_at_victim, watch.foresee = around, at_victim, ahead
        for owner, name, wrapped in ((Worker, "submit", submitted), (Store, "put", stored)):
            setattr(owner, name, wrapped)

    def _note(self, station: str, stamp: int, detail: str) -> None:
        self.taken.append((station, stamp, time.monotonic_ns() // 1000, detail))

    def _note_kills(self, station: str, capture: OomCapture) -> None:
        moment = time.monotonic_ns() // 1000
        self.taken += [(station, usec, moment, text) for usec, text in kill_lines(capture)]


def _record_of(signal: Any) -> tuple[int, str]:
    record = signal.record if isinstance(signal, ReportBegan) else signal
    return record.usec or 0, record.text[:120]


def main(config: Path, notes: Path, run: Callable[[Path], int]) -> int:
    """Run the daemon, then write the notes."""
    taken = Notes()
    taken.install()
    status = run(config)
    notes.write_text(json.dumps(taken.taken))
    return status


def _run(config: Path) -> int:
    from oomwatchd.cli import main as cli

    return cli(["run", "--config", str(config)])


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2]), _run))
