"""pstore as a source: the end of the log that a kernel saved when it panicked, read after the reboot.

Source: Documentation/ABI/testing/pstore, ``fs/pstore/platform.c`` (``pstore_dump()``), ``fs/pstore/inode.c``
(``pstore_mkfile()``), systemd-pstore(8).

A backend takes little at a time, so the kernel saves the log in parts, newest first. Each part begins with a
line such as ``Panic#1 Part2`` and holds whole lines as syslog(2) gives them: ``<4>[   12.345678] text``. The
files are ``dmesg-BACKEND-NUMBER`` in /sys/fs/pstore, until systemd-pstore moves them below
/var/lib/systemd/pstore and adds a joined ``dmesg.txt``. The other records there (``console-``, ``pmsg-``) are
not read: they hold text from user space that is not marked as such.
"""

from __future__ import annotations

import logging
import os
import re
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec

from oomwatchd.errors import NoInputError, PermissionDeniedError
from oomwatchd.records.kmsg import KmsgGap, KmsgRecord, to_text
from oomwatchd.words.deferred import deferred
from oomwatchd.words.escape import harmless

log = logging.getLogger(__name__)

#: where the kernel and systemd-pstore keep dumps
ROOTS: Final = (Path("/sys/fs/pstore"), Path("/var/lib/systemd/pstore"))
#: the kernel saves some ten KiB for each dump; larger files are not dumps
MAX_FILE_BYTES: Final = 4 << 20
MAX_FILES: Final = 10_000
_PACKED: Final = 8
#: parts of one dump are written within this time
SAME_DUMP_SECONDS: Final = 60.0

_FILE: Final = deferred(r"dmesg-(?P<backend>[\w-]+?)-(?P<number>\d{1,20})(?P<compressed>\.enc\.z)?")
_JOINED: Final = "dmesg.txt"
_HEADER: Final = deferred(rb"^(?:dmesg-\S+:\n)?([A-Z][a-z]{2,15})#(\d{1,9}) Part(\d{1,9})\n", re.MULTILINE)
_LINE: Final = deferred(
    rb"<(?P<pri>\d{1,4})>(?:\[ *(?P<seconds>\d{1,12})\.(?P<fraction>\d{6})\]"
    rb"(?:\[ *(?P<caller>[TC]\d{1,10})\])? ?)?(?P<text>.*)",
    re.DOTALL,
)


class PstoreDump(msgspec.Struct, frozen=True, kw_only=True):
    """One dump. It comes from an earlier boot, so its records need their own assembler.

    ``name`` is for people; ``reason`` is the kernel's word (Panic, Oops, Emergency ...). ``records`` are in
    order of time, with a gap where a part is missing or cut. ``wall_offset`` is seconds since the epoch minus
    the log clock; None where unknown (an archived file's time is when it was moved).
    """

    name: str
    reason: str
    records: tuple[KmsgRecord | KmsgGap, ...]
    wall_offset: float | None = None


class _Part(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One part as found in a file."""

    file: Path
    group: str  # the same for all parts of one dump
    reason: str
    part: int
    order: tuple[float, int]  # when it was written, and its number
    saved: float | None  # seconds since the epoch, where known
    text: bytes


def read_pstore(
    roots: Sequence[Path] = ROOTS,
    *,
    mounts: Path = Path("/proc/self/mounts"),
    most_bytes: int | None = None,
) -> Iterator[PstoreDump]:
    """The dumps below these directories, oldest first. A dump that is found twice (joined and in parts, in
    the kernel's store and in the archive) is returned once. A root that does not exist is skipped.

    At most ``most_bytes`` of the newest files are read: all of it is held until the last dump is returned. A
    dump has the same records, and its reports have the same ids, wherever it was found, so the store
    recognises reports that it already has. Raises PermissionDeniedError for a root that may not be read.
    """
    found: dict[Path, bool] = {}
    for root in roots:
        live = _is_pstore(root, mounts)
        found |= dict.fromkeys(_files(root), live)
    parts: dict[tuple[str, int, bytes], _Part] = {}
    for file in found if most_bytes is None else _newest(list(found), most_bytes):
        for part in _read(file, found[file]):
            parts.setdefault((part.reason, part.part, part.text), part)
    for dump in _dumps(list(parts.values())):
        joined = _join(dump)
        if joined.records:
            yield joined


def _newest(files: list[Path], most_bytes: int) -> list[Path]:
    """The newest dumps that fit into ``most_bytes``, in the order given. A dump is read whole or not at all:
    with a part missing its ids would differ."""
    known: list[tuple[float, int, Path]] = []
    for file in files:
        try:
            status = file.stat()
        except OSError:
            continue
        # a record that the kernel compressed becomes many times as long
        known.append((status.st_mtime, status.st_size * (_PACKED if file.suffix == ".z" else 1), file))
    since = float("-inf")
    for modified, size, _ in sorted(known, reverse=True):
        most_bytes -= min(size, MAX_FILE_BYTES)
        if most_bytes < 0:
            since = modified + SAME_DUMP_SECONDS
            break
    kept = {file for modified, _, file in known if modified > since}
    if len(kept) < len(known):
        log.warning("of the dumps in pstore the %d oldest files are not read", len(known) - len(kept))
    return [file for file in files if file in kept]


def read_directory(directory: Path) -> Iterator[PstoreDump]:
    """``read_pstore`` for a directory that a person named. Raises NoInputError if it is not there."""
    if not directory.is_dir():
        raise NoInputError(f"there is no directory {harmless(str(directory))}", hint="check the name")
    yield from read_pstore([directory])


def _is_pstore(root: Path, mounts: Path) -> bool:
    """Whether this is the kernel's own file system: a file's time there is the dump's."""
    try:
        lines = mounts.read_text().splitlines()
    except OSError:
        return False
    return any(line.split()[1:3] == [str(root), "pstore"] for line in lines)


def _files(root: Path) -> list[Path]:
    """The dump files below a root, parts before joined files. Raises PermissionDeniedError."""
    found: list[Path] = []

    def refuse(error: OSError) -> None:
        if isinstance(error, PermissionError):
            raise PermissionDeniedError(
                f"{harmless(str(error.filename))} may not be read", hint="run as root"
            ) from error

    for directory, _, names in os.walk(root, onerror=refuse):
        found += [Path(directory, name) for name in names if name == _JOINED or _FILE.fullmatch(name)]
        if len(found) > MAX_FILES:
            log.warning("%s: more than %d dump files, the rest is not read", root, MAX_FILES)
            break
    return sorted(found[:MAX_FILES], key=lambda file: (file.name == _JOINED, str(file)))


def _read(file: Path, live: bool) -> Iterator[_Part]:
    try:
        with file.open("rb") as stream:
            data = stream.read(MAX_FILE_BYTES)
            modified = os.fstat(stream.fileno()).st_mtime
    except PermissionError as error:
        raise PermissionDeniedError(f"{harmless(str(file))} may not be read", hint="run as root") from error
    except OSError as error:
        log.warning("%s cannot be read: %s", harmless(str(file)), error.strerror)
        return
    name = _FILE.fullmatch(file.name)
    backend = name["backend"] if name else str(file)
    number = int(name["number"]) if name else 0
    saved = modified if live else None
    if name and name["compressed"]:
        plain = _inflate(data)
        if plain is None:
            log.warning("%s is compressed in a way that cannot be read", harmless(str(file)))
            return
        data = plain
    if name and backend.startswith("efi"):
        # drivers/firmware/efi/efi-pstore.c, generic_id(): (seconds * 100 + part) * 1000 + count
        saved = float(number // 100_000)
    headers = list(_HEADER.finditer(data))
    for n, header in enumerate(headers):
        end = headers[n + 1].start() if n + 1 < len(headers) else len(data)
        reason, count, part = header[1].decode(), int(header[2]), int(header[3])
        yield _Part(
            file=file,
            group=f"{backend}:{reason}#{count}",
            reason=f"{reason}#{count}",
            part=part,
            order=(modified if saved is None else saved, number if name else part),
            saved=saved,
            text=data[header.end() : end].strip(b"\n\0"),
        )


def _inflate(data: bytes) -> bytes | None:
    """Decompress a record that the kernel could not: deflate, with zlib's frame (up to 4.9) or without."""
    for window_bits in (zlib.MAX_WBITS, -zlib.MAX_WBITS):
        try:
            plain = zlib.decompressobj(window_bits).decompress(data, MAX_FILE_BYTES)
        except zlib.error:
            continue
        if _HEADER.match(plain):
            return plain
    return None


def _dumps(parts: list[_Part]) -> Iterator[list[_Part]]:
    """Group parts into dumps, newest part first. Numbers restart with each boot: a dump ends where the part's
    number does not grow, or where the next part was written much later."""
    dump: list[_Part] = []
    found = []
    for part in sorted(parts, key=lambda part: (part.group, part.order)):
        last = dump[-1] if dump else None
        if last and (
            part.group != last.group
            or part.part <= last.part
            or part.order[0] - last.order[0] > SAME_DUMP_SECONDS
        ):
            found.append(dump)
            dump = []
        dump.append(part)
    found.append(dump)
    yield from sorted(filter(None, found), key=lambda dump: dump[0].order)


def _join(dump: list[_Part]) -> PstoreDump:
    records: list[KmsgRecord | KmsgGap] = []
    expected = None
    for part in reversed(dump):
        found, cut = _records(part.text)
        if cut or (expected is not None and part.part != expected):
            records.append(KmsgGap(None))
        records += found
        expected = part.part - 1
    if expected:  # parts are missing, and the newest ones hold the panic itself
        records.append(KmsgGap(None))
    stamps = [record.usec for record in records if isinstance(record, KmsgRecord) and record.usec is not None]
    saved = dump[0].saved
    return PstoreDump(
        name=f"{dump[0].file} ({dump[0].reason})",
        reason=dump[0].reason.partition("#")[0],
        records=tuple(records),
        wall_offset=saved - stamps[-1] / 1e6 if saved is not None and stamps else None,
    )


def _records(text: bytes) -> tuple[list[KmsgRecord], bool]:
    """The lines of a part, and whether it begins in the middle of a line. A record of several lines has the
    prefix on each of them. A line without a prefix is not part of the log: it is the end of a cut line, or
    ramoops's note on error correction."""
    lines = text.split(b"\n")
    records = []
    for line in lines:
        m = _LINE.fullmatch(line.rstrip(b"\r"))
        if m is None:
            continue
        priority = int(m["pri"])
        stamped = m["seconds"] is not None
        records.append(
            KmsgRecord(
                text=to_text(m["text"]),
                facility=priority >> 3,
                level=priority & 7,
                usec=int(m["seconds"]) * 1_000_000 + int(m["fraction"]) if stamped else None,
                caller=m["caller"].decode() if m["caller"] else None,
                raw=line,
            )
        )
    return records, bool(records) and _LINE.fullmatch(lines[0]) is None
