"""The corpus's recordings and logs as concluded events, for tests of everything behind the decoder."""

from __future__ import annotations

import gzip
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

from oomwatchd.event import OomEvent, conclude
from oomwatchd.records.capture import OomCapture, Source
from oomwatchd.records.kmsg import KmsgRecord, parse_record
from oomwatchd.records.report import OomReport
from oomwatchd.reports.assemble import Assembler, OomBlock
from oomwatchd.reports.decode import decode
from oomwatchd.sources.text import TextReader


def kernel_recordings(corpus: Path) -> list[Path]:
    """Raw /dev/kmsg records of real kernels."""
    return sorted(
        [
            *corpus.glob("kernel/*.kmsg.gz"),
            *corpus.glob("samples/*.kmsg.gz"),
            *corpus.glob("recordings/*.kmsg"),
        ]
    )


def logs(corpus: Path) -> list[Path]:
    """Logs as people pasted them."""
    return sorted([*corpus.glob("field/*.log"), *corpus.glob("seed/*.log")])


def whole_corpus(corpus: Path) -> list[Path]:
    """All that holds reports: pasted logs, recordings, and memory that was made to run out in a known way."""
    return sorted(
        [
            *logs(corpus),
            *corpus.glob("field2/*.log"),
            *kernel_recordings(corpus),
            *corpus.glob("advice/*.kmsg.gz"),
        ]
    )


def _records(path: Path) -> Iterator[KmsgRecord]:
    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    if path.suffix == ".log":
        reader = TextReader()
        yield from reader.feed(data)
        yield from reader.flush()
        return
    for line in data.split(b"\n"):
        # a line that begins with a blank belongs to the record's dictionary
        record = None if line.startswith(b" ") else parse_record(line)
        if record is not None:
            yield record


def blocks(records: Iterable[KmsgRecord]) -> list[OomBlock]:
    """All blocks of a stream, whole."""
    assembler = Assembler(early=False)
    signals = [signal for record in records for signal in assembler.feed(record)]
    return [s for s in (*signals, *assembler.flush()) if isinstance(s, OomBlock)]


@cache
def captures(path: Path) -> tuple[OomCapture, ...]:
    """A file's blocks as captures."""
    source = Source(kind="file", form="dmesg" if path.suffix == ".log" else "kmsg", name=path.name)
    return tuple(
        OomCapture(
            source=source,
            records=b.records,
            first_seq=b.records[0].seq,
            last_seq=b.records[-1].seq,
            lost_records=b.lost_records,
        )
        for b in blocks(_records(path))
    )


@cache
def kinds(path: Path) -> tuple[OomEvent, ...]:
    """A file's blocks as events, one of each kind: the recordings repeat one report hundreds of times."""
    one_of_each = {(c.records[0].text[:40], len(c.records)): c for c in captures(path)}
    return tuple(conclude(capture).event for capture in one_of_each.values())


@cache
def reports(path: Path) -> tuple[OomReport, ...]:
    """A file's blocks, decoded."""
    return tuple(decode(c.records, lost_records=c.lost_records) for c in captures(path))
