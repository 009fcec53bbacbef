"""The journal as a source: records that journald read from /dev/kmsg, in this boot and earlier ones.

Source: systemd.journal-fields(7), sd_journal_open(3), sd_journal_get_fd(3), systemd's
``src/journal/journald-kmsg.c`` (``dev_kmsg_record()``). journald unescapes the text and keeps a record's
stamp, level and facility; it drops the sequence number, flag and caller.

Only ``_TRANSPORT=kernel`` is read: fields that begin with ``_`` are journald's own and no client can set
them. What user space wrote to /dev/kmsg has this transport as well, but another ``SYSLOG_FACILITY``.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from oomwatchd.errors import NoInputError, OomwatchdError, PermissionDeniedError, UnavailableError
from oomwatchd.records.kmsg import FACILITY_KERN, KmsgGap, KmsgRecord, to_text
from oomwatchd.sources.mapped import release_journals
from oomwatchd.words.deferred import deferred
from oomwatchd.words.escape import harmless

#: One batch: what is read before the loop looks at signals and timers again.
BITE_RECORDS: Final = 256
BITE_SECONDS: Final = 0.05
#: After this many unreadable entries in a row the file is given up. It equals one batch because each batch
#: starts its own count.
MAX_DAMAGED: Final = BITE_RECORDS

#: SD_MESSAGE_JOURNAL_MISSED: the ring buffer overtook journald
_MISSED_ID: Final = "e9bf28e6e834481bb6f48f548ad13606"
_MISSED: Final = deferred(r"Missed (\d{1,18}) kernel messages")
#: a journal directory holds files, and directories with files that are named by a machine id
_MACHINE: Final = "[0-9a-f]" * 32 + "*"
_FILES: Final = ("*.journal", "*.journal~", f"{_MACHINE}/*.journal", f"{_MACHINE}/*.journal~")
_SYSTEM_DIRECTORIES: Final = (Path("/var/log/journal"), Path("/run/log/journal"))


class JournalBoot(msgspec.Struct, frozen=True, kw_only=True):
    """One boot in the journal. Each boot has its own log clock and needs an assembler of its own.

    ``id`` is the boot id (32 hexadecimal digits), ``hostname`` is as in the entries; ``first`` and ``last``
    are the times of its first and last entry, seconds since the epoch.
    """

    id: str
    hostname: str | None
    first: float
    last: float


class Journal:
    """An open journal: this host's, or the files in a directory. Not thread-safe."""

    def __init__(self, reader: Any, name: str, *, local: bool) -> None:
        #: systemd.journal's reader, for callers that follow it with their own matches
        self.reader = reader
        self.name = name
        self._local = local

    @classmethod
    def open(cls, directory: Path | None = None) -> Journal:
        """Open this host's journal, or the files in ``directory`` and its machines' directories.

        Raises NoInputError, PermissionDeniedError, UnavailableError, each with a hint. libsystemd itself
        opens a journal that it may not read, and shows it empty.
        """
        places = _SYSTEM_DIRECTORIES if directory is None else (directory,)
        if directory is not None and not directory.is_dir():
            raise NoInputError(f"there is no directory {harmless(str(directory))}", hint="check the name")
        _check(places, directory)
        journal = _systemd_journal()  # loads libsystemd too, which takes 1 MiB
        converters = {
            "MESSAGE": to_text,
            "_HOSTNAME": to_text,
            "_BOOT_ID": to_text,
            "_MACHINE_ID": to_text,  # else `uuid`
            "MESSAGE_ID": to_text,
            "_SOURCE_MONOTONIC_TIMESTAMP": int,
            "__REALTIME_TIMESTAMP": int,
            "__MONOTONIC_TIMESTAMP": _as_it_is,
        }
        try:
            reader = journal.Reader(path=None if directory is None else str(directory), converters=converters)
        except OSError as error:
            name = "the journal" if directory is None else harmless(str(directory))
            raise UnavailableError(f"{name} cannot be opened: {error.strerror}") from error
        name = "the journal" if directory is None else f"the journal in {harmless(str(directory))}"
        return cls(reader, name, local=directory is None)

    def close(self) -> None:
        self.reader.close()

    def boots(self) -> list[JournalBoot]:
        """All boots, oldest first."""
        found = []
        for boot_id in self.reader.query_unique("_BOOT_ID"):
            self.reader.flush_matches()
            self.reader.add_match(f"_BOOT_ID={boot_id}")
            self.reader.seek_head()
            first = _readable(self.reader.get_next)
            self.reader.seek_tail()
            last = _readable(self.reader.get_previous)
            if first and last:
                found.append(
                    JournalBoot(
                        id=boot_id,
                        hostname=_one(first.get("_HOSTNAME")),
                        first=first["__REALTIME_TIMESTAMP"] / 1e6,
                        last=last["__REALTIME_TIMESTAMP"] / 1e6,
                    )
                )
        return sorted(found, key=lambda boot: (boot.first, boot.id))

    def select(self, boot: str | int | None) -> list[JournalBoot]:
        """The boots meant by ``boot``, as journalctl's ``--boot`` takes it: an id (hyphens allowed); 0 is
        the current boot (the last one, in a directory), -1 the one before it, 1 the oldest; None: all.

        Raises NoInputError when the journal has no such boot.
        """
        boots = self.boots()
        if boot is None:
            return boots
        if isinstance(boot, str):
            wanted = boot.replace("-", "").lower()
            chosen = [one for one in boots if one.id == wanted]
        elif boot > 0:
            chosen = boots[boot - 1 : boot]
        else:
            current = next((n for n, one in enumerate(boots) if one.id == _current_boot()), len(boots) - 1)
            at = (current if self._local else len(boots) - 1) + boot
            chosen = boots[at : at + 1] if at >= 0 else []
        if not chosen:
            raise NoInputError(
                f"{self.name} has no boot {harmless(str(boot))}",
                hint=f"it has {len(boots)}, which journalctl --list-boots names",
            )
        return chosen

    def records(self, boot: JournalBoot, since: float | None = None) -> Iterator[KmsgRecord | KmsgGap]:
        """The kernel's records of one boot, in order, from ``since`` (seconds since the epoch) on.

        One iteration at a time: the next call moves the journal's only position. Raises UnavailableError
        when the files are damaged so that nothing more can be read.
        """
        _match_kernel(self.reader, boot.id)
        if since is None:
            self.reader.seek_head()
        else:
            self.reader.seek_realtime(float(since))
        while True:
            items, drained = _bite(self.reader, self.name, BITE_RECORDS)
            yield from items
            if drained:
                return


def read_journal(
    *, boot: str | int | None = None, since: float | None = None, directory: Path | None = None
) -> Iterator[tuple[JournalBoot, Iterator[KmsgRecord | KmsgGap]]]:
    """Each boot meant by ``boot`` (see ``Journal.select``) with its kernel records.

    A boot's records must be read before the next boot is asked for. Raises what ``Journal.open``,
    ``select`` and ``records`` raise.
    """
    journal = Journal.open(directory)
    try:
        for one in journal.select(boot):
            if since is None or one.last >= since:
                yield one, journal.records(one, since)
    finally:
        journal.close()


class JournalSource:
    """The journal of the running boot, followed: for hosts where /dev/kmsg may not be read.

    Has the shape of ``sources.kmsg.KmsgSource``. Its records come when journald has written them and have no
    sequence numbers, so a loss shows only where journald noticed it. Not thread-safe.
    """

    kind: Literal["journal"] = "journal"

    def __init__(self, reader: Any, name: str) -> None:
        self._reader = reader
        self._name = name
        self._descriptor: int = reader.fileno()  # from here on new entries are noticed
        #: journal entries have none
        self.last_seq: None = None
        #: entries that could not be read
        self.malformed = 0
        #: records passed over: none ever is
        self.passed = 0

    @classmethod
    def open(cls, directory: Path | None = None) -> JournalSource:
        """Open the journal at the oldest kernel record of the running boot, like the ring buffer: the store
        recognises reports that it already has. Raises what ``Journal.open`` raises.
        """
        journal = Journal.open(directory)
        _match_kernel(journal.reader, _current_boot())
        journal.reader.seek_head()
        return cls(journal.reader, journal.name)

    def skip_to(self, usec: int) -> None:
        """Continue at the first entry that journald took at ``usec`` (CLOCK_MONOTONIC of this boot, in
        microseconds) or later; at the oldest entry if there is none yet."""
        self._reader.seek_monotonic(max(0, usec) / 1e6, _current_boot())

    def fileno(self) -> int:
        return self._descriptor

    def close(self) -> None:
        self._reader.close()

    def read(self, *, idle: bool = False) -> tuple[list[KmsgRecord | KmsgGap], bool]:
        """The next batch of records and gaps, and whether the journal is drained.

        Raises UnavailableError when the journal cannot be read any more.
        """
        try:
            self._reader.process()  # clears the descriptor
        except OSError as error:
            raise UnavailableError(f"{self._name}: {error.strerror}") from error
        items, drained = _bite(self._reader, self._name, BITE_RECORDS, time.monotonic() + BITE_SECONDS)
        if items:
            release_journals()
        return items, drained


def _readable(step: Callable[[], Mapping[str, Any]]) -> Mapping[str, Any]:
    """The next entry that is not damaged; empty if there is none."""
    for _ in range(MAX_DAMAGED):
        with suppress(OSError, ValueError):
            return step()
    return {}


def _bite(
    reader: Any, name: str, count: int, until: float | None = None
) -> tuple[list[KmsgRecord | KmsgGap], bool]:
    """Up to ``count`` items from the reader's position on, and whether there are no more."""
    items: list[KmsgRecord | KmsgGap] = []
    damaged = 0
    while len(items) < count:
        try:
            entry = reader.get_next()
        except (OSError, ValueError) as error:  # a ValueError where a field's name is no text
            damaged += 1
            if damaged >= MAX_DAMAGED:
                why = error.strerror if isinstance(error, OSError) else "its fields cannot be read"
                raise UnavailableError(
                    f"{name} is damaged: {why}", hint="journalctl --verify names the file"
                ) from error
            items.append(KmsgGap(1))
            continue
        damaged = 0
        if not entry:
            return items, True
        items.append(_item(entry))
        if until is not None and time.monotonic() >= until:
            break
    return items, False


def _item(entry: Mapping[str, Any]) -> KmsgRecord | KmsgGap:
    """The record that this entry holds."""
    text = _one(entry.get("MESSAGE")) or ""
    if _one(entry.get("MESSAGE_ID")) == _MISSED_ID:
        missed = _MISSED.match(text)
        return KmsgGap(int(missed[1]) if missed else None)
    facility, level = _one(entry.get("SYSLOG_FACILITY")), _one(entry.get("PRIORITY"))
    usec = _one(entry.get("_SOURCE_MONOTONIC_TIMESTAMP"))
    return KmsgRecord(
        text=text,
        facility=facility if isinstance(facility, int) else FACILITY_KERN,  # up to 241 kern is left out
        level=level if isinstance(level, int) and 0 <= level <= 7 else None,
        usec=usec if isinstance(usec, int) else None,
        wall=entry["__REALTIME_TIMESTAMP"] / 1e6,
        raw=text.encode("utf-8", "replace"),
        whole=True,
    )


def _one(value: Any) -> Any:
    """The first value of a field, which an entry may have more than once."""
    return value[0] if isinstance(value, list) else value


def _as_it_is(value: Any) -> Any:
    return value


def _match_kernel(reader: Any, boot_id: str) -> None:
    """Match the kernel records of one boot, and journald's message that it missed some."""
    reader.flush_matches()
    reader.add_match("_TRANSPORT=kernel")
    reader.add_disjunction()
    reader.add_match("_TRANSPORT=driver")
    reader.add_match(f"MESSAGE_ID={_MISSED_ID}")
    reader.add_conjunction()
    reader.add_match(f"_BOOT_ID={boot_id}")


def _current_boot() -> str:
    from systemd import id128

    return str(id128.get_boot().hex)


def _systemd_journal() -> Any:
    try:
        from systemd import journal
    except ImportError as error:
        raise UnavailableError(
            "the journal cannot be read without systemd-python",
            hint="install python3-systemd, or with pip: oomwatchd[journal]",
        ) from error
    return journal


def _check(places: tuple[Path, ...], directory: Path | None) -> None:
    """Check that there is a journal and that some of it may be read."""
    files = [file for place in places for pattern in _FILES for file in place.glob(pattern)]
    closed = [file for file in files if not os.access(file, os.R_OK)]
    if files and len(closed) < len(files):
        return
    error: OomwatchdError
    if closed:
        hint = "run as root or as a member of the group systemd-journal"
        error = PermissionDeniedError(f"the journal {harmless(str(closed[0]))} may not be read", hint=hint)
    elif any(place.is_dir() and not os.access(place, os.R_OK | os.X_OK) for place in places):
        error = PermissionDeniedError("the journal's directory may not be read", hint="run as root")
    elif directory is not None:
        error = NoInputError(
            f"no journal files in {harmless(str(directory))}",
            hint="name the directory with the .journal files",
        )
    else:
        error = UnavailableError(
            "this host keeps no journal", hint="`oomwatchd analyze` reads a saved log or the output of dmesg"
        )
    raise error
