"""Panics of earlier boots: what pstore kept of them, found when the daemon starts."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from oomwatchd.records.capture import OomCapture, Source
from oomwatchd.reports.assemble import Assembler, OomBlock
from oomwatchd.reports.decode import decode
from oomwatchd.sources import pstore

#: how many dumps are read: the daemon's memory is limited, and a machine that panics often has many
MOST_BYTES = 4 << 20


def roots() -> Sequence[Path]:
    """Where dumps are: the copy that the unit makes for a daemon without rights (``RuntimeDirectory=``,
    systemd.exec(5)), else the kernel's and systemd's own places."""
    copied = os.environ.get("RUNTIME_DIRECTORY")
    return (Path(copied),) if copied else pstore.ROOTS


def panics(roots: Sequence[Path], detected: float) -> Iterator[OomCapture]:
    """The reports that ended a boot, oldest first; ``detected`` is now, in seconds since the epoch.

    A dump's other reports are left out: they were watched live, and without sequence numbers they cannot be
    recognised as the same. Raises PermissionDeniedError.
    """
    for dump in pstore.read_pstore(roots, most_bytes=MOST_BYTES):
        assembler = Assembler(early=False)
        signals = [signal for item in dump.records for signal in assembler.feed(item)]
        for block in (*signals, *assembler.flush()):
            if not isinstance(block, OomBlock):
                continue
            if decode(block.records, lost_records=block.lost_records).kind == "oom_panic":
                yield OomCapture(
                    source=Source(kind="file", form="dmesg", name=dump.name),
                    records=block.records,
                    lost_records=block.lost_records,
                    settled=True,
                    wall_offset=dump.wall_offset,
                    detected=detected,
                )
