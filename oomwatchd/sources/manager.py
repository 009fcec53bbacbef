"""What the service manager, systemd-oomd, earlyoom and nohang say in the journal of the running boot.

Only entries whose sender journald verified are read: those of process 1 (``_PID=1``) with one of
a few message ids, and those of systemd-oomd.service. Fields that begin with ``_`` are journald's own and no
client can set them. Entries of a user's own manager about its units are left out: any of that user's
processes could have written them.

Source: systemd.journal-fields(7), sd-messages.h, systemd ``src/core/unit.c``, ``src/core/service.c``.
systemd-python releases the interpreter's lock (GIL) while it seeks and waits, and holds it only to copy one
entry at a time.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from oomwatchd.diagnosis import user_killers
from oomwatchd.diagnosis.oomd import killed_cgroup
from oomwatchd.errors import UnavailableError
from oomwatchd.records.capture import SourceForm, UnitEntry
from oomwatchd.records.kmsg import to_text
from oomwatchd.sources.journal import Journal
from oomwatchd.sources.mapped import release_journals

Step = Literal["oom_kill", "oomd_kill", "exited", "failed", "restart_scheduled", "started", "start_failed"]

#: sd-messages.h
OOMD_KILL_ID: Final = "d989611b15e44c9dbf31e3c81256e4ed"
STEPS: Final[Mapping[str, Step]] = {
    "fe6faa94e7774663a0da52717891d8ef": "oom_kill",
    OOMD_KILL_ID: "oomd_kill",
    "98e322203f7a4ed290d09fe03c09fe15": "exited",
    "d9b373ed55a64feb8242e02dbe79a49c": "failed",
    "5eb03494b6584870a536b337290809b3": "restart_scheduled",
    "39f53479d3a045ac8e11786248231fbf": "started",
    "be02cf6855d2428ba40df7e9d022f03d": "start_failed",
}
OOMD_UNIT: Final = "systemd-oomd.service"
#: daemons that kill before the kernel has to, by unit
KILLERS: Final[Mapping[str, SourceForm]] = {
    "earlyoom.service": "earlyoom",
    "nohang.service": "nohang",
    "nohang-desktop.service": "nohang",
}
#: Entries of one batch.
BITE_ENTRIES: Final = 64
#: After this many unreadable entries in a row the file is given up.
_MAX_DAMAGED: Final = 1000
_TEXT_BYTES: Final = 4096
_NAME_BYTES: Final = 256


class OomdLine(msgspec.Struct, frozen=True, kw_only=True):
    """systemd-oomd's own line about a kill; ``usec`` and ``wall`` as in UnitEntry."""

    usec: int
    wall: float
    text: str


class KillerLine(msgspec.Struct, frozen=True, kw_only=True):
    """A line of earlyoom or nohang about a kill; ``usec`` and ``wall`` as in UnitEntry."""

    usec: int
    wall: float
    program: SourceForm
    text: str


Said = UnitEntry | OomdLine | KillerLine


class ManagerJournal:
    """These entries of one boot, oldest first. Not thread-safe."""

    def __init__(self, reader: Any, name: str) -> None:
        self._reader = reader
        self._name = name
        #: entries that could not be read
        self.damaged = 0

    @classmethod
    def open(cls, boot_id: str, directory: Path | None = None) -> ManagerJournal:
        """Open the journal. Raises what ``Journal.open`` raises."""
        journal = Journal.open(directory)
        reader = journal.reader
        reader.add_match("_PID=1")
        for message in STEPS:
            reader.add_match(f"MESSAGE_ID={message}")
        reader.add_disjunction()
        for unit in (OOMD_UNIT, *KILLERS):
            reader.add_match(f"_SYSTEMD_UNIT={unit}")
        reader.add_conjunction()
        reader.add_match(f"_BOOT_ID={boot_id}")
        reader.seek_head()
        reader.fileno()  # from here on new files are noticed
        return cls(reader, journal.name)

    def read(self) -> tuple[list[Said], bool]:
        """The next batch, and whether there is nothing more for now. Raises UnavailableError when the journal
        cannot be read any more. Releases the mapped files at once (``sources.mapped``)."""
        try:
            return self._read()
        finally:
            release_journals()

    def _read(self) -> tuple[list[Said], bool]:
        found: list[Said] = []
        failed = 0
        try:
            self._reader.process()  # takes new and rotated files into account
        except OSError as error:
            raise UnavailableError(f"{self._name}: {error.strerror}") from error
        for _ in range(BITE_ENTRIES):
            try:
                entry = self._reader.get_next()
            except (OSError, ValueError) as error:  # a ValueError where a field's name is no text
                self.damaged += 1
                failed += 1
                if failed >= min(_MAX_DAMAGED, BITE_ENTRIES):
                    why = error.strerror if isinstance(error, OSError) else "its fields cannot be read"
                    raise UnavailableError(f"{self._name} is damaged: {why}") from error
                continue
            if not entry:
                return found, True
            if (item := _item(entry)) is not None:
                found.append(item)
        return found, False

    def close(self) -> None:
        self._reader.close()


def _item(entry: Mapping[str, Any]) -> Said | None:
    usec = int(entry["__MONOTONIC_TIMESTAMP"].timestamp)
    wall = entry["__REALTIME_TIMESTAMP"] / 1e6
    text = _text(entry, "MESSAGE", _TEXT_BYTES)
    step = STEPS.get(_text(entry, "MESSAGE_ID", 32))
    unit = _text(entry, "UNIT", _NAME_BYTES)
    if step is not None and unit and _number(entry, "_PID") == 1:
        return UnitEntry(
            usec=usec,
            wall=wall,
            unit=unit,
            step=step,
            text=text,
            result=_result(entry, step),
            restarts=_number(entry, "N_RESTARTS") if step == "restart_scheduled" else None,
        )
    sender = _text(entry, "_SYSTEMD_UNIT", _NAME_BYTES)
    if sender == OOMD_UNIT and killed_cgroup(text) is not None:
        return OomdLine(usec=usec, wall=wall, text=text)
    program = KILLERS.get(sender)
    if program is not None and (user_killers.kills(program, text) or user_killers.tells(program, text)):
        return KillerLine(usec=usec, wall=wall, program=program, text=text)
    return None


def _result(entry: Mapping[str, Any], step: Step) -> str | None:
    if step == "failed":
        return _text(entry, "UNIT_RESULT", 64) or None
    if step == "exited":
        return (
            " ".join(filter(None, (_text(entry, "EXIT_CODE", 32), _text(entry, "EXIT_STATUS", 32)))) or None
        )
    if step == "start_failed":
        return _text(entry, "JOB_RESULT", 64) or None
    return None


def _text(entry: Mapping[str, Any], name: str, limit: int) -> str:
    """A field as text. An entry may have the field more than once, or as another type."""
    value = entry.get(name)
    if isinstance(value, list):
        value = value[0]
    if isinstance(value, bytes):
        return to_text(value[:limit])
    return "" if value is None else str(value)[:limit]


def _number(entry: Mapping[str, Any], name: str) -> int | None:
    text = _text(entry, name, 20)
    return int(text) if text.isascii() and text.isdigit() else None
