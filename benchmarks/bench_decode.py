"""How fast a report is decoded, and that memory stays flat: ``python -m benchmarks.bench_decode [--quick]``.

The report is a real one (6.12, a global OOM with 200 sleepers), its task table made 500 rows long.
"""

from __future__ import annotations

import gc
import gzip
import re
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from oomwatchd.diagnosis.findings import diagnose
from oomwatchd.event import OomEvent, conclude
from oomwatchd.records.capture import OomCapture, Source
from oomwatchd.records.kmsg import KmsgRecord, parse_record
from oomwatchd.render.json import encode
from oomwatchd.reports.assemble import Assembler, OomBlock
from oomwatchd.reports.decode import decode
from oomwatchd.sources.text import TextReader
from tests.conftest import corpus_directory

RECORDING = Path("kernel/6.12.94+deb13-cloud-amd64-amd64.kmsg.gz")
TASKS = 500
#: the best known other decoder, on text of the same kind and a machine like that of our first figures:
#: 39 to 44 thousand lines a second; the bound of the project is five times as many
OTHERS_LINES_PER_SECOND = 44_000
BOUND = 5.0
#: how much resident memory may grow from the first tenth of the reports to the last
FLAT_BYTES = 4 << 20

_ROW = re.compile(rb"\[ *(\d+)\] ")


def report_lines(tasks: int) -> list[bytes]:
    """A report as raw records of /dev/kmsg, with a table of so many rows."""
    raw = gzip.decompress((corpus_directory() / RECORDING).read_bytes()).split(b"\n")
    raw = [line for line in raw if not line.startswith(b" ")]
    tables = [n for n, line in enumerate(raw) if b"sleeper-199" in line]
    end = next(n for n in range(tables[-1], len(raw)) if b"Killed process" in raw[n])
    begin = max(n for n in range(tables[-1]) if b"invoked oom-killer" in raw[n])
    block = raw[begin : end + 1]
    rows = [line for line in block if _ROW.match(line.partition(b";")[2])]
    first = block.index(rows[0])
    more = [rows[n % len(rows)] for n in range(tasks)]
    block = [*block[:first], *more, *block[first + len(rows) :]]
    return [
        b"4,%d,%d,-;%s" % (n, 1_000_000 + n * 20, line.partition(b";")[2]) for n, line in enumerate(block)
    ]


def as_dmesg(lines: Iterable[bytes]) -> bytes:
    """The same as dmesg prints it: a record of several lines is several lines."""
    out = []
    for line in lines:
        record = parse_record(line)
        assert record is not None and record.usec is not None
        stamp = f"[{record.usec // 1_000_000:5}.{record.usec % 1_000_000:06}] "
        out += [stamp + part for part in record.text.split("\n")]
    return ("\n".join(out) + "\n").encode()


def read_raw(lines: Iterable[bytes]) -> list[KmsgRecord]:
    return [record for line in lines if (record := parse_record(line))]


def read_text(data: bytes) -> list[KmsgRecord]:
    reader = TextReader()
    return reader.feed(data) + reader.flush()


def cut(records: Iterable[KmsgRecord]) -> list[OomBlock]:
    assembler = Assembler(early=False)
    signals = [signal for record in records for signal in assembler.feed(record)] + assembler.flush()
    return [signal for signal in signals if isinstance(signal, OomBlock)]


def capture_of(block: OomBlock) -> OomCapture:
    return OomCapture(source=Source(kind="file", form="dmesg"), records=block.records)


def events(data: bytes) -> list[OomEvent]:
    """Text -> records -> blocks -> reports -> events."""
    return [conclude(capture_of(block)).event for block in cut(read_text(data))]


def rates(
    work: Callable[[], object], lines: int, *, rounds: int, repeats: int = 5
) -> tuple[float, float, float]:
    """Lines a second of processor time over some rounds: the least, the median, the most."""
    found = []
    for _ in range(rounds):
        gc.collect()
        began = time.process_time()
        for _ in range(repeats):
            work()
        found.append(lines * repeats / (time.process_time() - began))
    return min(found), statistics.median(found), max(found)


def resident_bytes() -> int:
    """What this process has in memory now (proc(5), statm)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def memory_growth(reports: int) -> int:
    """How many bytes memory grew from the first tenth of a log of so many reports to its end."""
    lines = as_dmesg(report_lines(30)).decode().splitlines()
    texts = [line.partition("] ")[2] for line in lines]
    reader, assembler = TextReader(), Assembler(early=False)
    at_tenth = found = 0
    for n in range(reports):
        stamp = f"[{n * 10:8}.000000] "
        data = "".join(f"{stamp}{text}\n" for text in texts).encode()
        for record in reader.feed(data):
            for signal in assembler.feed(record):
                if isinstance(signal, OomBlock):
                    encode(conclude(capture_of(signal)).event)
                    found += 1
        if n == reports // 10:
            at_tenth = resident_bytes()
    if found < reports * 9 // 10:
        raise RuntimeError(f"{found} reports of {reports} were found")
    return resident_bytes() - at_tenth


def main(*, quick: bool = False) -> int:
    """Print the table; 1 if a bound of the project is broken."""
    raw = report_lines(TASKS)
    text = as_dmesg(raw)
    lines = text.count(b"\n")
    records = read_text(text)
    (block,) = cut(records)
    capture = capture_of(block)
    report = decode(block.records)
    (event,) = events(text)
    if len(event.tasks) < TASKS or event.kills != 1:
        raise RuntimeError("the report is not decoded whole")
    works: dict[str, Callable[[], object]] = {
        # the bound's: decoded whole, as far as the other decoder goes; findings and JSON come on top
        "dmesg text -> report": lambda: [decode(block.records) for block in cut(read_text(text))],
        "dmesg text -> event": lambda: events(text),
        "/dev/kmsg -> event": lambda: [conclude(capture_of(block)).event for block in cut(read_raw(raw))],
        "  text -> records": lambda: read_text(text),
        "  /dev/kmsg -> records": lambda: read_raw(raw),
        "  records -> block": lambda: cut(records),
        "  block -> report": lambda: decode(block.records),
        "  report -> findings": lambda: diagnose(report, capture),
        "  event -> JSON": lambda: encode(event),
    }
    print(f"one report of {lines} lines with {len(event.tasks)} tasks; thousands of lines a second")
    print(f"{'':26}{'least':>9}{'median':>9}{'most':>9}{'ratio':>8}")
    ratio = 0.0
    for name, work in works.items():
        least, median, most = rates(work, lines, rounds=5 if quick else 15)
        shown = ""
        if not name.startswith(" "):
            shown = f"{median / OTHERS_LINES_PER_SECOND:7.1f}x"
            ratio = ratio or median / OTHERS_LINES_PER_SECOND
        print(f"{name:26}{least / 1000:9.0f}{median / 1000:9.0f}{most / 1000:9.0f}{shown:>8}")
    print(f"ratio: to {OTHERS_LINES_PER_SECOND} lines a second, the best other decoder; bound {BOUND:g}")
    reports = 2_000 if quick else 10_000
    growth = memory_growth(reports)
    bound = f"(bound {FLAT_BYTES >> 20} MiB)"
    print(f"memory over {reports} reports: {growth / 1024:+.0f} KiB from the first tenth on {bound}")
    return int(ratio < BOUND or growth > FLAT_BYTES)


if __name__ == "__main__":
    sys.exit(main(quick="--quick" in sys.argv[1:]))
