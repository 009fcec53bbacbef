"""netconsole's extended datagrams -> records in order, with gaps where records are missing.

Source: Documentation/networking/netconsole.rst, drivers/net/netconsole.c (``send_ext_msg_udp``)::

    [RELEASE,]PRI,SEQ,USEC,FLAG[,key=value...][,ncfrag=OFFSET/TOTAL];TEXT\\n KEY=VALUE\\n

If a record is larger than a datagram, its part after the ``;`` comes in fragments. No socket, no clock.
"""

from __future__ import annotations

import re

import msgspec

from oomwatchd.records.kmsg import KmsgGap, KmsgRecord, parse_record

Item = KmsgRecord | KmsgGap

#: a missing datagram is given up after this many later ones, or this many seconds
MAX_HELD = 256
HOLD_SECONDS = 0.5
#: incomplete records that are held, and the most bytes of one (the kernel's have 1 KiB to 8 KiB)
MAX_FRAGMENTED = 32
MAX_BODY = 64 << 10
#: a record that is at most this late is not from a new boot
_LATE_USEC = 5_000_000
_HEAD = re.compile(rb"(?:[^,;\n]{1,65},)?(\d{1,4},(\d{1,18}),(\d{1,18}),[^;\n]{0,256});")
_FRAGMENT = re.compile(rb",ncfrag=(\d{1,6})/(\d{1,6})")


def is_extended(datagram: bytes) -> bool:
    """Whether the datagram has the extended format; else it is plain text."""
    return _HEAD.match(datagram) is not None


class _Parts(msgspec.Struct):
    """A record of which not all fragments have come."""

    head: bytes
    total: int
    pieces: dict[int, bytes] = {}


class Sequence:
    """The records of one machine. ``lost`` counts those that never came."""

    def __init__(self) -> None:
        self.lost = 0
        self._next: int | None = None
        self._newest_usec = 0
        self._held: dict[int, KmsgRecord | None] = {}
        self._held_since: float | None = None
        self._parts: dict[int, _Parts] = {}

    @property
    def waits(self) -> bool:
        """Whether a missing datagram may still come."""
        return bool(self._held or self._parts)

    def feed(self, datagram: bytes, now: float) -> list[Item]:
        """Take the next datagram; return the records that are in order now. Never raises."""
        match = _HEAD.match(datagram)
        if match is None:
            return []
        seq, usec = int(match[2]), int(match[3])
        out: list[Item] = []
        if self._next is not None and seq < self._next:
            if usec + _LATE_USEC >= self._newest_usec:
                return out  # a copy, or too late
            out += self._release(everything=True)  # the machine was rebooted
            self._next = None
            self._parts.clear()
        record = self._whole(seq, match, datagram)
        self._newest_usec = usec if self._next is None else max(self._newest_usec, usec)
        if self._next is None:
            self._next = seq
        if record is None:
            if self._held_since is None:
                self._held_since = now
            return out
        self._held[seq] = record
        out += self._release()
        if not self._held and not self._parts:
            self._held_since = None
        elif self._held_since is None:
            self._held_since = now
        if len(self._held) > MAX_HELD:
            out += self._give_up(now)
        return out

    def rest(self, now: float) -> list[Item]:
        """Nothing came until ``now``: give up missing datagrams that are overdue, and return the records
        after them."""
        if self._held_since is None or now - self._held_since < HOLD_SECONDS:
            return []
        return self._give_up(now)

    def _give_up(self, now: float) -> list[Item]:
        """Count everything missing before the first held record as lost; incomplete records too."""
        if not self._held:
            self._parts.clear()  # the next one shows the gap
            self._held_since = None
            return []
        first = min(self._held)
        assert self._next is not None
        missing = first - self._next
        for seq in [seq for seq in self._parts if seq < first]:
            del self._parts[seq]
        self._next = first
        self.lost += missing
        out: list[Item] = [KmsgGap(lost=missing)] if missing > 0 else []
        out += self._release()
        self._held_since = now if self._held or self._parts else None
        return out

    def _release(self, *, everything: bool = False) -> list[Item]:
        out: list[Item] = []
        while self._held:
            if self._next not in self._held:
                if not everything:
                    break
                first = min(self._held)
                out.append(KmsgGap(lost=first - (self._next or 0)))
                self.lost += first - (self._next or 0)
                self._next = first
            assert self._next is not None
            record = self._held.pop(self._next)
            if record is not None:
                out.append(record)
            self._next += 1
        return out

    def _whole(self, seq: int, match: re.Match[bytes], datagram: bytes) -> KmsgRecord | None:
        """The record, None while fragments of it are missing."""
        head, body = match[1], datagram[match.end() :]
        fragment = _FRAGMENT.search(head)
        if fragment is not None:
            head = head[: fragment.start()] + head[fragment.end() :]
            offset, total = int(fragment[1]), int(fragment[2])
            if total > MAX_BODY or offset + len(body) > total:
                return None
            parts = self._parts.setdefault(seq, _Parts(head, total))
            parts.pieces[offset] = body
            body = b"".join(parts.pieces[at] for at in sorted(parts.pieces))
            if len(body) < parts.total:
                while len(self._parts) > MAX_FRAGMENTED:
                    del self._parts[min(self._parts)]
                return None
            self._parts.pop(seq)
            head = parts.head
        record = parse_record(head + b";" + body.split(b"\n", 1)[0])
        return record
