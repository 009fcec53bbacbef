"""What is fuzzed, and what must hold for any input. A target raises when it does not."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from oomwatchd.assemble import Assembler, OomBlock
from oomwatchd.capture import OomCapture, Source
from oomwatchd.event import OomEvent, conclude
from oomwatchd.kmsg import KmsgGap, KmsgRecord, parse_record
from oomwatchd.render.json import encode
from oomwatchd.sources.text import TextReader


def conclude_all(items: Iterable[KmsgRecord | KmsgGap], *, early: bool = False) -> list[OomEvent]:
    """Records -> events; with ``early`` as the daemon does it, every revision."""
    assembler = Assembler(early=early)
    signals = []
    for item in items:
        signals += assembler.feed(item)
        if early and isinstance(item, KmsgRecord) and item.usec is not None:
            signals += assembler.tick(item.usec + 10_000)
    signals += assembler.flush()
    return [
        conclude(
            OomCapture(
                source=Source(kind="file", form="other", boot_id="b" * 32),
                records=block.records,
                first_seq=block.records[0].seq,
                last_seq=block.records[-1].seq,
                lost_records=block.lost_records,
                revision=block.revision,
                settled=block.settled,
            )
        )
        for block in signals
        if isinstance(block, OomBlock)
    ]


def read_text(data: bytes, cuts: Iterable[int] = ()) -> list[KmsgRecord]:
    """A log's records, fed in pieces that end at ``cuts``."""
    reader = TextReader()
    records = []
    at = 0
    for cut in (*sorted(cuts), len(data)):
        records += reader.feed(data[at:cut])
        at = cut
    return records + reader.flush()


def fuzz_record(data: bytes) -> None:
    """One read of /dev/kmsg."""
    record = parse_record(data)
    if record is not None:
        assert record.seq is not None and record.seq >= 0
        assert record.usec is not None and record.usec >= 0
        assert record.level is not None and 0 <= record.level <= 7
        record.text.encode("utf-8")  # no lone surrogates: any medium takes it


def fuzz_blocks(data: bytes) -> None:
    """Records of /dev/kmsg, one a line: offline, live, and again."""
    records = [record for line in data.split(b"\n") if (record := parse_record(line))]
    events = conclude_all(records)
    for event in events:
        encode(event)
    assert [event.id for event in conclude_all(records)] == [event.id for event in events]
    conclude_all(records, early=True)


def fuzz_lines(data: bytes) -> None:
    """Lines without any frame, as whole records and as text."""
    lines = [line.decode("utf-8", "backslashreplace") for line in data.split(b"\n")]
    for event in conclude_all(
        KmsgRecord(text=line, facility=0, seq=n, usec=n) for n, line in enumerate(lines)
    ):
        encode(event)
    for event in conclude_all(KmsgRecord(text=line) for line in lines):
        encode(event)


def fuzz_text(data: bytes) -> None:
    """A log in any form. Where the data is cut on its way must not matter."""
    records = read_text(data)
    if data:
        first = data[0] * len(data) // 256
        assert read_text(data, (first, (first + len(data)) // 2)) == records
    for event in conclude_all(records):
        encode(event)


class Target(NamedTuple):
    """``seeds`` gives inputs to begin with, out of the corpus directory."""

    run: Callable[[bytes], None]
    seeds: Callable[[Path], Iterator[bytes]]


def _kmsg(corpus: Path) -> Iterator[bytes]:
    for path in sorted(corpus.glob("samples/*.kmsg.gz")):
        yield gzip.decompress(path.read_bytes())


def _reports(corpus: Path) -> Iterator[bytes]:
    """A report or two of each kernel: small inputs are mutated better."""
    for data in _kmsg(corpus):
        lines = data.split(b"\n")
        heads = [n for n, line in enumerate(lines) if b"invoked oom-killer" in line]
        for head in (*heads[:1], *heads[-1:]):
            yield b"\n".join(lines[head : head + 150])
    for path in sorted(corpus.glob("recordings/*.kmsg")):
        yield path.read_bytes()[-16_000:]


def _record_lines(corpus: Path) -> Iterator[bytes]:
    for data in _reports(corpus):
        yield from data.split(b"\n")[::10]


def _texts(corpus: Path) -> Iterator[bytes]:
    for data in _reports(corpus):
        yield b"\n".join(line.partition(b";")[2] for line in data.split(b"\n"))


def _logs(corpus: Path) -> Iterator[bytes]:
    for path in sorted([*corpus.glob("field/*.log"), *corpus.glob("seed/*.log")]):
        yield path.read_bytes()[:16_000]


TARGETS = {
    "record": Target(fuzz_record, _record_lines),
    "blocks": Target(fuzz_blocks, _reports),
    "lines": Target(fuzz_lines, _texts),
    "text": Target(fuzz_text, _logs),
}
