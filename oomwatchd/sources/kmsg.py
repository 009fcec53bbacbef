"""/dev/kmsg as a source: one descriptor, read in bounded batches and never blocking.

Source: Documentation/ABI/testing/dev-kmsg, kernel/printk/printk.c (``devkmsg_read()``,
``devkmsg_llseek()``).
"""

from __future__ import annotations

import errno
import logging
import os
import re
from collections.abc import Callable
from itertools import repeat
from pathlib import Path
from time import monotonic
from typing import Literal

from oomwatchd.errors import OomwatchdError, PermissionDeniedError, UnavailableError
from oomwatchd.formats.recognise import nothing_recognised
from oomwatchd.records.kmsg import KmsgGap, KmsgRecord, parse_record, parse_records, whole_text
from oomwatchd.words.escape import harmless

log = logging.getLogger(__name__)

#: Longest record that any kernel hands out (``PRINTKRB_RECORD_MAX``, before 6.10 ``CONSOLE_EXT_LOG_MAX``).
RECORD_BYTES = 8192
#: One batch: what is read before the loop looks at signals and timers again.
BITE_RECORDS = 256
BITE_SECONDS = 0.05
#: after so many records the time is checked
_LOOK_RECORDS = 16


class KmsgSource:
    """The open device. Not thread-safe; belongs to the loop that reads.

    A lost record, whether overwritten before it was read (EPIPE) or too long for the buffer (EINVAL), shows
    as a jump in the next record's sequence number. Only the next record tells how many were lost, so the gap
    is reported there.
    """

    kind: Literal["kmsg"] = "kmsg"

    def __init__(
        self,
        descriptor: int,
        name: str,
        *,
        record_bytes: int = RECORD_BYTES,
        read: Callable[[int, int], bytes] = os.read,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        os.set_blocking(descriptor, False)
        self._descriptor = descriptor
        self._name = name
        self._record_bytes = record_bytes
        self._read = read
        self._clock = clock
        #: sequence number of the newest record read
        self.last_seq: int | None = None
        #: reads that gave no record because the data was not in the kernel's format
        self.malformed = 0
        #: records passed over: read but not returned
        self.passed = 0

    @classmethod
    def open(cls, device: str) -> KmsgSource:
        """Open ``device`` at the oldest record it still holds.

        Raises PermissionDeniedError and UnavailableError, each with a hint.
        """
        try:
            descriptor = os.open(device, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
        except OSError as error:
            raise _cannot_open(device, error) from error
        return cls(descriptor, device)

    @classmethod
    def adopt(cls, descriptor: int, name: str) -> KmsgSource:
        """Take over a descriptor that the service manager opened, and move it back to the oldest record.

        The manager keeps the file description, so its position is where the last daemon stopped reading.
        Records that it had read but not stored must be read again.
        """
        try:
            os.lseek(descriptor, 0, os.SEEK_SET)
        except OSError as error:
            if error.errno != errno.ESPIPE:
                raise UnavailableError(f"{name}: no kernel log: {error.strerror}") from error
        return cls(descriptor, name)

    def fileno(self) -> int:
        return self._descriptor

    def close(self) -> None:
        os.close(self._descriptor)

    def read(self, *, idle: bool = False) -> tuple[list[KmsgRecord | KmsgGap], bool]:
        """The next batch of records and gaps, and whether the log is drained.

        ``idle``: no report is open. Then a batch without any line of a report returns only its first and last
        record; the others are counted in ``passed``.
        Raises UnavailableError when the log itself has ended, which the real device never does.
        """
        pieces: list[bytes] = []
        try:
            drained = self._bite(pieces)
        except UnavailableError:
            if not pieces:
                raise
            drained = False  # what came before the end first
        items: list[KmsgRecord | KmsgGap] = []
        if not pieces or (idle and len(pieces) > 2 and self._pass_over(pieces, items)):
            return items, drained
        records = parse_records(pieces)
        if self._follow_each_other(records):
            items += filter(None, records)
        else:
            for record in records:
                self._take(record, items)
        return items, drained

    def _follow_each_other(self, records: list[KmsgRecord | None]) -> bool:
        """Whether no record is missing or malformed since the last one read; if so, take them."""
        seqs = [None if record is None else record.seq for record in records]
        first = seqs[0]
        if first is None or self.last_seq not in (None, first - 1):
            return False
        if seqs != list(range(first, first + len(seqs))):
            return False
        self.last_seq = seqs[-1]
        return True

    def _bite(self, pieces: list[bytes]) -> bool:
        until = self._clock() + BITE_SECONDS
        read, descriptor, size = self._read, self._descriptor, self._record_bytes
        for _ in range(BITE_RECORDS // _LOOK_RECORDS):
            try:
                # what was read before an error stays in the list
                pieces.extend(map(read, repeat(descriptor, _LOOK_RECORDS), repeat(size)))
            except BlockingIOError:
                return True
            except OSError as error:
                if error.errno not in (errno.EPIPE, errno.EINVAL):
                    raise UnavailableError(f"{self._name}: {error.strerror}") from error
            if pieces and not pieces[-1]:
                while pieces and not pieces[-1]:
                    pieces.pop()
                raise UnavailableError(f"{self._name}: end of file, which a kernel log never has")
            if self._clock() >= until:
                break
        return False

    def _pass_over(self, pieces: list[bytes], items: list[KmsgRecord | KmsgGap]) -> bool:
        """Whether none of these records matters; if so, take only the first and the last of them."""
        first, last = parse_record(pieces[0]), parse_record(pieces[-1])
        if first is None or last is None or first.seq is None or last.seq is None:
            return False
        if last.seq - first.seq != len(pieces) - 1:
            return False
        text = whole_text(pieces)
        if text is None or not nothing_recognised(text, len(pieces)):
            return False
        self._take(first, items)
        self.last_seq = last.seq
        items.append(last)
        self.passed += len(pieces) - 2
        return True

    def _take(self, record: KmsgRecord | None, items: list[KmsgRecord | KmsgGap]) -> None:
        if record is None or record.seq is None:
            if not self.malformed:
                log.warning("%s gives no records of the kernel log", self._name)
            self.malformed += 1
            return
        if self.last_seq is not None and record.seq > self.last_seq + 1:
            items.append(KmsgGap(record.seq - self.last_seq - 1))
        self.last_seq = record.seq
        items.append(record)


def _cannot_open(device: str, error: OSError, proc: Path = Path("/proc")) -> OomwatchdError:
    message = f"{harmless(device)}: {error.strerror}"
    if error.errno not in (errno.EPERM, errno.EACCES):
        hint = "in a container: start it with --device /dev/kmsg; `oomwatchd analyze` reads a saved log"
        return UnavailableError(message, hint=hint)
    if _sysctl(proc, "printk_devkmsg") == "off":
        hint = (
            "the kernel runs with printk.devkmsg=off, which closes the device to everybody: boot without it"
        )
    elif error.errno == errno.EPERM and _has_cap_syslog(proc):
        hint = _REFUSED_THOUGH_CAPABLE if _is_first_user_namespace(proc) else _OTHER_USER_NAMESPACE
    elif _sysctl(proc, "dmesg_restrict") == "1":
        hint = "kernel.dmesg_restrict is 1: run as root or with CAP_SYSLOG (a container: --cap-add SYSLOG)"
    else:
        hint = "run as root, or with CAP_SYSLOG and read permission on the device"
    return PermissionDeniedError(message, hint=hint)


#: with CAP_SYSLOG not the log refuses (check_syslog_permissions()), but the rules for devices
_REFUSED_THOUGH_CAPABLE = (
    "CAP_SYSLOG is there, so the device cgroup of this container refuses the device: docker or podman run"
    " --device /dev/kmsg, which a mount does not replace; in Kubernetes a device plugin or privileged"
)
#: capable() asks the initial user namespace
_OTHER_USER_NAMESPACE = (
    "CAP_SYSLOG counts in the host's own user namespace alone: not in a rootless container, nor with"
    " hostUsers: false or userns-remap"
)
#: linux/capability.h
_CAP_SYSLOG = 34


def _has_cap_syslog(proc: Path) -> bool:
    try:
        found = re.search(r"^CapEff:\s*([0-9a-f]+)$", (proc / "self/status").read_text(), re.MULTILINE)
    except OSError:
        return False
    return found is not None and bool(int(found[1], 16) >> _CAP_SYSLOG & 1)


def _is_first_user_namespace(proc: Path) -> bool:
    """``PROC_USER_INIT_INO`` (linux/proc_ns.h); True where /proc does not say."""
    try:
        return str((proc / "self/ns/user").readlink()) == f"user:[{0xEFFFFFFD}]"
    except OSError:
        return True


def _sysctl(proc: Path, name: str) -> str:
    try:
        return (proc / "sys/kernel" / name).read_text().strip()
    except OSError:
        return ""


class LogClock:
    """The kernel log's clock, estimated from CLOCK_MONOTONIC.

    Records are stamped with ``local_clock()``, which starts with CLOCK_MONOTONIC but is not disciplined by
    NTP: after months of uptime the two are seconds to minutes apart. A record was printed after the log was
    last seen empty and before it was read, so each reading bounds the difference from both sides. The
    estimate moves only when a reading contradicts it, so a late reading (the daemon was stopped, the machine
    thrashed) does not look like a slow clock.
    """

    def __init__(self) -> None:
        #: log clock minus CLOCK_MONOTONIC, microseconds
        self.skew_usec = 0

    def saw(self, oldest: int, newest: int, empty_at: int | None, read_at: int) -> None:
        """Take one reading: records stamped ``oldest`` to ``newest`` were read at ``read_at``; at
        ``empty_at`` (None: unknown) the log held nothing unread. All are microseconds, the last two of
        CLOCK_MONOTONIC."""
        if empty_at is not None:
            self.skew_usec = min(self.skew_usec, oldest - empty_at)
        self.skew_usec = max(self.skew_usec, newest - read_at)

    def log_usec(self, monotonic_usec: int) -> int:
        """The log clock at a moment of CLOCK_MONOTONIC."""
        return monotonic_usec + self.skew_usec
