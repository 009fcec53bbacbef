"""A board's log in each form in which it leaves the board, made from raw /dev/kmsg records of a real
kernel."""

from __future__ import annotations

import gzip
from collections.abc import Iterable, Iterator
from pathlib import Path

from oomwatchd.event import OomEvent, conclude
from oomwatchd.records.capture import OomCapture, Source
from oomwatchd.records.kmsg import KmsgRecord, parse_record
from oomwatchd.reports.captures import captures_of

KERNEL = Path(__file__).parent.parent / "data/corpus/kernel"
MIPS = KERNEL / "6.1.0-50-4kc-malta-mipsel.kmsg.gz"
#: netconsole's MAX_PRINT_CHUNK
CHUNK = 1000


def raw_records(path: Path = MIPS) -> list[bytes]:
    """The records as the kernel gives them, without dictionaries."""
    lines = gzip.decompress(path.read_bytes()).split(b"\n")
    return [line for line in lines if parse_record(line) is not None]


def events(captures: Iterable[OomCapture]) -> list[OomEvent]:
    return [conclude(capture).event for capture in captures]


def records(raw: Iterable[bytes]) -> list[KmsgRecord]:
    return [record for line in raw if (record := parse_record(line)) is not None]


def expected(raw: Iterable[bytes]) -> list[OomEvent]:
    """What the raw records say, read as the board itself would."""
    own = (record for record in records(raw) if record.facility == 0)
    return events(captures_of(own, Source(kind="file", form="kmsg")))


def console(raw: Iterable[bytes]) -> bytes:
    """What the same records look like on a serial console."""
    return b"".join(
        b"[%5d.%06d] %b\r\n" % (record.usec // 1_000_000, record.usec % 1_000_000, line.encode())
        for record in records(raw)
        if record.usec is not None
        for line in record.text.split("\n")
    )


def datagrams(raw: Iterable[bytes], release: bytes = b"") -> Iterator[bytes]:
    """The same as netconsole's extended format, in fragments where a record is too long for one datagram
    (``send_fragmented_body``)."""
    for line in raw:
        head, _, body = line.partition(b";")
        body += b"\n"
        head = release + b"," + head if release else head
        if len(head) + 1 + len(body) <= CHUNK:
            yield head + b";" + body
            continue
        room = CHUNK - len(head) - len(b",ncfrag=0000/0000;")
        for at in range(0, len(body), room):
            yield b"%b,ncfrag=%d/%d;%b" % (head, at, len(body), body[at : at + room])


def same(event: OomEvent) -> dict[str, object]:
    """What must be equal for every source: all but source and time."""
    from oomwatchd.render.json import event_document

    document = event_document(event)
    for name in ("id", "host", "source", "time", "summary", "undecoded", "revision"):
        document.pop(name)
    return document
