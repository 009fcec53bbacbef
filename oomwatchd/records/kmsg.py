"""One record of the kernel's ring buffer: bytes -> KmsgRecord.

Source: Documentation/ABI/testing/dev-kmsg, kernel/printk/printk.c (``info_print_ext_header``,
``msg_print_ext_body``). A record as /dev/kmsg gives it::

    PRI,SEQ,USEC[,FLAG[,key=value...]];TEXT\\n
     KEY=VALUE\\n            (dictionary lines, each begins with one blank)

Core: no clock, no file, no socket.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import repeat
from operator import itemgetter
from typing import Literal

import msgspec

FACILITY_KERN = 0

Setting = Literal["code", "prose"]
"""What a line of a text stands in, where it is no log: source code, or sentences."""


class KmsgRecord(msgspec.Struct, frozen=True, gc=False):
    """One printk record, or one line of text that stands for one.

    ``text``      the message; ``/dev/kmsg`` escapes are undone, bytes that are not UTF-8 stand as
                  ``\\xNN`` text. It may hold newlines (one record can be many lines).
    ``facility``  syslog facility, 0 = kern; None where the source does not say. User space can write
                  to /dev/kmsg but never with facility 0.
    ``level``     syslog level 0 (emerg) to 7 (debug), None where unknown.
    ``seq``       sequence number since boot, None for text.
    ``usec``      the log clock in microseconds since boot (``local_clock()``), None where not printed.
    ``flag``      ``-`` whole, ``c`` continuation or new line printed with pr_cont (4.9+), ``+`` (3.6-4.8).
    ``caller``    ``T123`` (task) or ``C1`` (cpu) with CONFIG_PRINTK_CALLER.
    ``wall``      seconds since the epoch, where the text carried wall-clock time.
    ``whole``     the text is one whole printk record to the last byte, though it has no sequence number
                  (journald's entries): names in it can be held to their size.
    ``raw``       what was read, without the closing newline and dictionary lines.
    ``setting``   for text: what the line is quoted in, None where it may stand in a log.
    """

    text: str
    facility: int | None = None
    level: int | None = None
    seq: int | None = None
    usec: int | None = None
    flag: str = "-"
    caller: str | None = None
    wall: float | None = None
    raw: bytes = b""
    whole: bool = False
    setting: Setting | None = None

    @property
    def is_whole(self) -> bool:
        """One printk record as the kernel has it, not a line of text that stands for one."""
        return self.whole or self.seq is not None

    @property
    def number(self) -> int | None:
        """Identifies this record within its boot, and rises with each record: its sequence number, else
        (journal entries) its stamp."""
        return self.usec if self.seq is None else self.seq


class KmsgGap(msgspec.Struct, frozen=True, gc=False):
    """Records that were lost between two others; ``lost`` is None where their number is not known."""

    lost: int | None = None


_ESCAPE = re.compile(rb"\\x([0-9a-f]{2})")


def unescape(text: bytes) -> bytes:
    """Undo /dev/kmsg's ``\\xNN`` escapes (once; the backslash itself comes as ``\\x5c``)."""
    if b"\\" not in text:
        return text
    return _ESCAPE.sub(lambda m: bytes((int(m[1], 16),)), text)


def to_text(text: bytes) -> str:
    """Bytes as text that any medium takes: what is not UTF-8 stands as ``\\xNN``."""
    return text.decode("utf-8", "backslashreplace").replace("\0", "\\x00")


def parse_record(data: bytes) -> KmsgRecord | None:
    """One ``read()`` of /dev/kmsg (or one line of a saved copy) -> KmsgRecord; None if it is none.

    Unknown further fields before the ``;`` are ignored, as the ABI text demands; dictionary lines are
    left out. Never raises.
    """
    line, _, _ = data.partition(b"\n")
    head, semicolon, body = line.partition(b";")
    if not semicolon:
        return None
    fields = head.split(b",")
    if len(fields) < 3 or not (fields[0].isdigit() and fields[1].isdigit() and fields[2].isdigit()):
        return None
    if len(head) > 512 or max(map(len, fields[:3])) > 18:  # 64 bits, as everything that keeps them
        return None
    pri = int(fields[0])
    flag = "-"
    caller = None
    if len(fields) > 3:
        flag = fields[3].decode("ascii", "replace")
        for field in fields[4:]:
            if field.startswith(b"caller="):
                caller = field[7:].decode("ascii", "replace")
    return KmsgRecord(
        text=to_text(unescape(body)),
        facility=pri >> 3,
        level=pri & 7,
        seq=int(fields[1]),
        usec=int(fields[2]),
        flag=flag,
        caller=caller,
        raw=line,
    )


_LINE = re.compile(
    r"^(\d{1,4}),(\d{1,18}),(\d{1,18}),([^,;\n]*)(?:,caller=(\w{1,16}))?;(.*)$", re.MULTILINE | re.ASCII
)
_DIGITS = frozenset(b"0123456789")
_FIRST, _LAST = itemgetter(0), itemgetter(-1)
_NEWLINE = frozenset(b"\n")


def whole_text(pieces: Sequence[bytes]) -> str | None:
    """Many reads of /dev/kmsg as one text, a record a line and without dictionary lines; None unless each
    piece is plainly one record of plain characters, as the kernel gives them."""
    data = b"".join(pieces)
    if not data.isascii() or b"\0" in data or b"\r" in data:
        return None
    if not (set(map(_FIRST, pieces)) <= _DIGITS and set(map(_LAST, pieces)) == _NEWLINE):
        return None
    text = data.decode("ascii")
    if text.count("\n") == len(pieces):
        return text
    lines = text.split("\n")
    text = "\n".join([line for line in lines if line[:1] != " "])
    return text if text.count("\n") == len(pieces) else None


def parse_records(pieces: Sequence[bytes]) -> list[KmsgRecord | None]:
    """``parse_record`` of many reads; at half the cost where all are as the kernel gives them."""
    text = whole_text(pieces) if pieces else None
    found = _LINE.findall(text) if text is not None else ()
    if text is None or len(found) != len(pieces):
        return list(map(parse_record, pieces))
    priorities, seqs, usecs, flags, callers, texts = zip(*found, strict=True)
    facilities = {priority: int(priority) >> 3 for priority in set(priorities)}
    levels = {priority: int(priority) & 7 for priority in facilities}
    if "\\" in text:
        texts = tuple([to_text(unescape(part.encode())) if "\\" in part else part for part in texts])
    return list(
        map(
            KmsgRecord,
            texts,
            map(facilities.__getitem__, priorities),
            map(levels.__getitem__, priorities),
            map(int, seqs),
            map(int, usecs),
            flags,
            [caller or None for caller in callers] if any(callers) else repeat(None),
            repeat(None),
            text.encode("ascii").split(b"\n"),
        )
    )
