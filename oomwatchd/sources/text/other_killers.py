"""Kills by daemons in a pasted journal or syslog: systemd-oomd's, earlyoom's, nohang's. No file, no clock.

Anybody can have written such a line, like any line of a text. The lines are found only in text that is read
anyway: the beginning of a large file, and the parts with a word of the kernel's or of a unit that ended with
``oom-kill``. Each further word to search the whole file for would cost as much as these (:mod:`.needles`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from msgspec.structs import replace

from oomwatchd.diagnosis import oomd, user_killers
from oomwatchd.diagnosis.attribution import owner_of
from oomwatchd.records.capture import OomCapture, Source, SourceForm
from oomwatchd.records.kmsg import KmsgRecord
from oomwatchd.words.deferred import deferred

#: the programs by the tag before their words; nohang-desktop is nohang with another configuration
_TAGGED = deferred(
    r"(?:^|[\s\]>])(?P<program>systemd-oomd|earlyoom|nohang(?:-desktop)?|systemd)(?:\[\d{1,10}\])?:"
    r" (?P<text>.*)",
    re.DOTALL,
)


class OtherKillers:
    """Records in, captures of such kills out; ``source`` is asked when one is found."""

    def __init__(self, source: Callable[[], Source]) -> None:
        self._source = source
        self._oomd: list[KmsgRecord] = []
        self._kills = user_killers.Kills()

    @staticmethod
    def may_hold(records: Sequence[KmsgRecord]) -> bool:
        """Whether :meth:`feed` may have something to do for any of these, a quick look at all."""
        raw = b"\n".join([record.raw for record in records])
        return b"oomd" in raw or b"earlyoom" in raw or b"nohang" in raw

    def feed(self, record: KmsgRecord) -> list[OomCapture]:
        """The next record of the text."""
        raw = record.raw  # most lines end here, and a loop costs more
        if b"oomd" not in raw and b"earlyoom" not in raw and b"nohang" not in raw:
            return []
        line = record.raw.decode("utf-8", "backslashreplace")
        if (found := _TAGGED.search(line)) is None:
            return []
        own = replace(record, text=found["text"].rstrip("\r\n"), raw=record.raw)
        program = found["program"].removesuffix("-desktop")
        if program in ("systemd-oomd", "systemd"):
            return self._of_oomd(own, manager=program == "systemd")
        return self._of_daemon(program, own)

    def flush(self) -> list[OomCapture]:
        """The text ended, or rests."""
        out = self._end_oomd()
        for program, _ in self._kills.under_way:
            out += self._capture_of(program, self._kills.end(program))
        return out

    def _of_oomd(self, record: KmsgRecord, *, manager: bool) -> list[OomCapture]:
        """Join systemd-oomd's line and the service manager's later line about the same unit into one kill."""
        if manager:
            unit = oomd.counted_unit(record.text)
            path = oomd.killed_cgroup(self._oomd[0].text) if self._oomd else None
            if unit is not None and path is not None and owner_of(path).unit == unit:
                self._oomd.append(record)
                return self._end_oomd()
            return []
        if oomd.killed_cgroup(record.text) is None:
            return []
        out = self._end_oomd()
        self._oomd = [record]
        return out

    def _end_oomd(self) -> list[OomCapture]:
        records, self._oomd = self._oomd, []
        return [self._capture("oomd", records)] if records else []

    def _of_daemon(self, program: str, record: KmsgRecord) -> list[OomCapture]:
        return self._capture_of(program, self._kills.feed(program, record))

    def _capture_of(self, program: str, records: list[KmsgRecord]) -> list[OomCapture]:
        form: SourceForm = "earlyoom" if program == "earlyoom" else "nohang"
        return [self._capture(form, records)] if records else []

    def _capture(self, form: SourceForm, records: list[KmsgRecord]) -> OomCapture:
        return OomCapture(source=replace(self._source(), form=form), records=tuple(records), settled=True)
