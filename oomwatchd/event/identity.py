"""The id of an event: the same records give the same id, wherever and whenever they are read.

Core: no clock, no file, no socket.
"""

from __future__ import annotations

import hashlib

from oomwatchd.records.capture import OomCapture
from oomwatchd.records.nearing import Nearing


def event_id(capture: OomCapture) -> str:
    """The same records give the same id: live, after a restart, or from a file.

    The id is made from the boot id and sequence number of the first record, if both are known; for the
    journal, which has no numbers, from boot id, stamp and text of the first record; for raw records of an
    unknown boot, from number, stamp and text; for text, from all of it. For a followed machine its name is
    added, and the time of arrival if no line has a time. A kill without a report is identified by the moment
    at which the report was missed; a warning by its cgroup and the moment at which it was given."""
    if capture.nearing is not None:
        return near_id(capture.source.boot_id, capture.nearing)
    hasher = hashlib.blake2b(digest_size=10)
    followed = capture.source.followed
    if followed is not None:
        hasher.update(f"{followed.name}\n".encode("utf-8", "replace"))
        first = capture.records[0]
        if first.usec is None and first.wall is None:  # the same words may come again after a reboot
            hasher.update(f"{capture.detected}\n".encode())
    if capture.unseen is not None:
        hasher.update(f"{capture.source.boot_id}:unseen:{capture.detected}".encode())
        return hasher.hexdigest()
    if capture.source.boot_id and capture.first_seq is not None:
        hasher.update(f"{capture.source.boot_id}:{capture.first_seq}".encode())
        return hasher.hexdigest()
    if capture.source.boot_id and capture.records and capture.records[0].usec is not None:
        first = capture.records[0]
        hasher.update(f"{capture.source.boot_id}:{first.usec}:{first.text}".encode("utf-8", "replace"))
        return hasher.hexdigest()
    records = capture.records[:1] if capture.first_seq is not None else capture.records
    lines = [f"{record.seq}:{record.usec}:{record.wall}:{record.text}\n" for record in records]
    hasher.update("".join(lines).encode("utf-8", "replace"))
    return hasher.hexdigest()


def near_id(boot_id: str | None, warning: Nearing) -> str:
    """The id of a warning, which it keeps to its end."""
    text = f"{boot_id}:near:{warning.usec}:{warning.cgroup or ''}"
    return hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=10).hexdigest()
