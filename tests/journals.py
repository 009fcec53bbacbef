"""Real journal files out of kernel records, made by systemd-journal-remote from the journal's export form."""

from __future__ import annotations

import shutil
import struct
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from oomwatchd.records.kmsg import parse_record, unescape

MACHINE_ID = "11111111222222223333333344444444"
#: when the boots of these tests began: microseconds since the epoch
REALTIME = 1_760_000_000_000_000
REMOTE = Path("/lib/systemd/systemd-journal-remote")
#: the tools that tests of real journals need
TOOLS = REMOTE.exists() and shutil.which("unshare") is not None

Entry = Mapping[str, bytes]


def kernel_entry(
    record: bytes, boot_id: str, *, hostname: str = "board", offset_usec: int = 0
) -> dict[str, bytes]:
    """What journald makes of one raw record (``dev_kmsg_record()``); ``offset_usec`` is when the boot
    began, after REALTIME."""
    parsed = parse_record(record)
    assert parsed is not None
    facility, usec = parsed.facility or 0, parsed.usec or 0
    _, _, body = record.partition(b"\n")[0].partition(b";")
    return entry(
        unescape(body),
        boot_id,
        usec,
        offset_usec=offset_usec,
        _TRANSPORT=b"kernel",
        PRIORITY=str(parsed.level).encode(),
        SYSLOG_FACILITY=str(facility).encode(),
        SYSLOG_IDENTIFIER=b"unknown" if facility else b"kernel",
        _SOURCE_MONOTONIC_TIMESTAMP=str(usec).encode(),
        _HOSTNAME=hostname.encode(),
    )


def entry(
    message: bytes, boot_id: str, usec: int, *, offset_usec: int = 0, **fields: bytes
) -> dict[str, bytes]:
    """One entry, received ``usec`` after the boot began."""
    return {
        "__REALTIME_TIMESTAMP": str(REALTIME + offset_usec + usec).encode(),
        "__MONOTONIC_TIMESTAMP": str(usec).encode(),
        "_BOOT_ID": boot_id.encode(),
        "_MACHINE_ID": MACHINE_ID.encode(),
        "MESSAGE": message,
        **fields,
    }


def write_journal(directory: Path, entries: Iterable[Entry], name: str = "system.journal") -> Path:
    """A journal file with these entries; the directory is made."""
    directory.mkdir(parents=True, exist_ok=True)
    file = directory / name
    subprocess.run(
        [REMOTE, "-o", file, "-"], input=b"".join(_export(entries)), check=True, capture_output=True
    )
    return file


def _export(entries: Iterable[Entry]) -> Iterator[bytes]:
    """The journal's export form, https://systemd.io/JOURNAL_EXPORT_FORMATS."""
    for one in entries:
        for name, value in one.items():
            if value.isascii() and value.decode("ascii").isprintable():
                yield b"%s=%s\n" % (name.encode(), value)
            else:
                yield b"%s\n%s%s\n" % (name.encode(), struct.pack("<Q", len(value)), value)
        yield b"\n"
