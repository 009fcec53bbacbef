"""How time grows: ``python -m benchmarks.bench_growth [--quick]``.

A report with 10 to 30 000 tasks, and with 3 to 3000 zones: microseconds a line must not grow. A store with a
million events (100 000 with --quick): one page of the list, and one event more.
"""

from __future__ import annotations

import gc
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from benchmarks.bench_decode import capture_of, cut, read_raw, report_lines
from oomwatchd.event import conclude
from oomwatchd.store import FILE_NAME, Limits, Store

#: a line of a long report may cost so many times one of a report with 1000
LINEAR = 2.0
PAGE_MS = 50.0
INSERT_MS = 5.0


def spent(work: Callable[[], object], rounds: int) -> tuple[float, float, float]:
    """Milliseconds of processor time: the least, the median, the most."""
    found = []
    for _ in range(rounds):
        gc.collect()
        began = time.process_time()
        work()
        found.append((time.process_time() - began) * 1e3)
    return min(found), statistics.median(found), max(found)


def with_zones(zones: int) -> list[bytes]:
    """The report with its zone lines repeated for so many nodes."""
    lines = [line.partition(b";")[2] for line in report_lines(10)]
    at = next(n for n, line in enumerate(lines) if line.startswith(b"Node ") and b" free:" in line)
    more = [b"Node %d DMA32 " % n + lines[at].split(b" ", 3)[3] for n in range(2, zones + 2)]
    lines[at:at] = more
    return [b"4,%d,%d,-;%s" % (n, 1_000_000 + n * 20, line) for n, line in enumerate(lines)]


def _series(what: str, sizes: tuple[int, ...], make: Callable[[int], list[bytes]], rounds: int) -> int:
    costs = {}
    for size in sizes:
        lines = make(size)
        records = read_raw(lines)

        def work(lines: list[bytes] = lines) -> None:
            (block,) = cut(read_raw(lines))
            conclude(capture_of(block))

        assert records
        least, median, most = spent(work, rounds if size < 10_000 else 3)
        costs[size] = least * 1000 / len(lines)
        name = f"{what} {size}"
        print(f"{name:24}{least:9.2f}{median:9.2f}{most:9.2f} ms  {costs[size]:6.2f} us a line")
    return int(costs[sizes[-1]] > LINEAR * costs[1000])


def store(events: int, rounds: int = 50) -> int:
    """One page and one insert, in a store with so many events, on the disk of the temporary directory."""
    (block,) = cut(read_raw(report_lines(30)))
    capture = capture_of(block)
    source = msgspec.structs.replace(capture.source, kind="kmsg", boot_id="b" * 32)
    limits = Limits(max_events=None, max_bytes=None, max_age_seconds=None)
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)

        def one(n: int) -> float:
            records = (msgspec.structs.replace(capture.records[0], usec=n), *capture.records[1:])
            mine = msgspec.structs.replace(
                capture,
                records=records,
                source=source,
                first_seq=n * 1000,
                last_seq=n * 1000 + 99,
                detected=1.7e9 + n,
            )
            event = conclude(mine).event
            began = time.perf_counter()
            made.put(mine, event)
            return (time.perf_counter() - began) * 1e3

        made = Store.open(directory, limits=limits)
        one(0)
        made.close()
        with sqlite3.connect(directory / FILE_NAME) as connection:
            columns = [row[1] for row in connection.execute("PRAGMA table_info(event)")]
            changed = {"number": "n + 1", "id": "printf('%020x', n)", "first_seq": "n * 1000"}
            changed |= {"wall": "1.7e9 + n", "first_usec": "n"}
            kept = ", ".join(changed.get(column, f"event.{column}") for column in columns)
            connection.execute(
                "WITH RECURSIVE count(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM count WHERE n < ?)"  # noqa: S608
                f" INSERT INTO event SELECT {kept} FROM count, event WHERE event.number = 1",
                (events,),
            )
        connection.close()
        made = Store.open(directory, limits=limits)
        inserts = [one(events + 1 + n) for n in range(rounds)]
        pages = []
        for _ in range(rounds):
            began = time.perf_counter()
            rows = made.list(limit=50)
            pages.append((time.perf_counter() - began) * 1e3)
            assert len(rows) == 50
        made.close()
    for what, values in (("list page", pages), ("insert, with fsync", inserts)):
        row = "".join(f"{value:9.2f}" for value in (min(values), statistics.median(values), max(values)))
        print(f"{what:24}{row} ms, {events} events stored")
    return int(statistics.median(pages) > PAGE_MS or statistics.median(inserts) > INSERT_MS)


def main(*, quick: bool = False) -> int:
    """Print the table; 1 if a bound is broken."""
    rounds = 5 if quick else 15
    print(f"{'':24}{'least':>9}{'median':>9}{'most':>9}")
    broken = _series("tasks", (10, 100, 1000, 30_000), report_lines, rounds)
    broken |= _series("zones", (3, 100, 1000, 3000), with_zones, rounds)
    return broken | store(100_000 if quick else 1_000_000)


if __name__ == "__main__":
    sys.exit(main(quick="--quick" in sys.argv[1:]))
