"""Recognise copies of one report in a paste of several outputs: ``grep -r`` over /var/log, kern.log and the
journal, dmesg twice.

A kill line names a process and all its sizes, so the same line is the same kill, unless the kernel's own
stamps differ. A report without a kill line is identified by its header and its stamp.

Core: no clock, no file, no socket.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import NamedTuple

from oomwatchd.records.capture import OomCapture
from oomwatchd.records.kmsg import KmsgRecord

#: captures that wait for a better copy, and the records that they hold in all
MAX_HELD = 64
MAX_HELD_RECORDS = 20_000
#: reports that are remembered to recognise their copies
MAX_KNOWN = 4096
#: the last reports with the same line: a new one is compared with all of them
MAX_ALIKE = 64
#: how far apart the stamps of one line may be in two outputs: one may be rounded to the second
APART_USEC = 1_000_000

Key = str
"""What a line says that no other report says."""


class Duplicates:
    """Captures in, each report once: the copy with the most lines, in the place of the first copy.

    A capture is held back for a better copy until ``release`` or until too many are.
    """

    def __init__(self) -> None:
        self._held: list[OomCapture] = []
        self._known: OrderedDict[Key, list[_Known]] = OrderedDict()

    def take(self, capture: OomCapture) -> list[OomCapture]:
        """Take the next capture; return those that need not be held any longer."""
        keys = _keys(capture)
        same = next((known for key, usec in keys if (known := self._same(key, usec)) is not None), None)
        if same is None:
            self._held.append(capture)
            self._remember(keys, capture)
        elif same.capture is not None and len(capture.records) > len(same.capture.records):
            self._held = [capture if one is same.capture else one for one in self._held]
            self._remember(keys, capture)
        else:
            self._remember(keys, same.capture)
        out = []
        while len(self._held) > MAX_HELD or sum(len(one.records) for one in self._held) > MAX_HELD_RECORDS:
            out.append(self._held.pop(0))
            self._forget(out[-1])
        return out

    def release(self) -> list[OomCapture]:
        """Return all that is held; copies that come later are still recognised."""
        out, self._held = self._held, []
        for capture in out:
            self._forget(capture)
        return out

    def _forget(self, gone: OomCapture) -> None:
        """This capture was returned: a better copy would come too late."""
        for key, _ in _keys(gone):
            self._known[key] = [
                _Known(known.usec, None if known.capture is gone else known.capture)
                for known in self._known.get(key, ())
            ]

    def _same(self, key: Key, usec: int | None) -> _Known | None:
        for known in self._known.get(key, ()):
            if usec is None or known.usec is None or abs(usec - known.usec) <= APART_USEC:
                return known
        return None

    def _remember(self, keys: Iterable[tuple[Key, int | None]], capture: OomCapture | None) -> None:
        for key, usec in keys:
            same = self._same(key, usec)
            others = [known for known in self._known.get(key, ()) if known is not same]
            stamp = usec if usec is not None or same is None else same.usec
            self._known[key] = [*others, _Known(stamp, capture)][-MAX_ALIKE:]
            self._known.move_to_end(key)
        while len(self._known) > MAX_KNOWN:
            self._known.popitem(last=False)


class _Known(NamedTuple):
    """A report known by one of its keys: the line's stamp, and the capture while it is held."""

    usec: int | None
    capture: OomCapture | None


def _keys(capture: OomCapture) -> list[tuple[Key, int | None]]:
    """What identifies the report: its kill lines that have sizes, else its first line with the stamp."""
    if capture.repeats:
        return []
    killed = [record for record in capture.records if _says_all(record)]
    if killed:
        return [(record.text.strip(), record.usec) for record in killed]
    first = capture.records[0]
    stamp = first.usec if first.usec is not None else first.wall
    return [] if stamp is None else [(f"{stamp}:{len(capture.records)}:{first.text.strip()}", first.usec)]


def _says_all(record: KmsgRecord) -> bool:
    return "illed process " in record.text and "-rss:" in record.text
