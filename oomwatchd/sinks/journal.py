"""The systemd journal: one structured entry an event.

``MESSAGE`` says who and why; ``MESSAGE_ID`` is fixed for each kind of event, so that
``journalctl MESSAGE_ID=...`` finds them and ``journalctl -x`` explains them; ``PRIORITY`` is 2 (crit) for a
panic, 4 (warning) where only a cgroup's limit was reached or an allocation failed, 5 (notice) for a test,
else 3 (err). The fields
``OOM_...`` hold the particulars; docs/journal.md lists them. ``OBJECT_SYSTEMD_UNIT`` names the victim's unit.

Reports without a victim may come by the hundred a second: of one kind and cgroup one entry a minute is
written, and the next one says in ``OOM_LEFT_OUT`` how many were left out.

The sender speaks journald's native protocol itself, because libsystemd's waits for a stalled journald
and systemd-python does that while it holds the interpreter's lock. A stalled journald is waited for half a
second at most and only until the first entry is given up; from then on entries are given up at once until
one is taken.

Source: https://systemd.io/JOURNAL_NATIVE_PROTOCOL/, systemd.journal-fields(7).
"""

from __future__ import annotations

import array
import errno
import fcntl
import os
import select
import socket
import struct
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress

import msgspec

from oomwatchd.delivery.policy import RateBound
from oomwatchd.event import OomEvent
from oomwatchd.records.report import Victim
from oomwatchd.sinks._error import NotHereError, SinkError
from oomwatchd.sinks._message_ids import MESSAGE_IDS
from oomwatchd.sinks._particulars import (
    is_test,
    limit_cgroup,
    names,
    severity,
    unit_of,
    victim_attribution,
)
from oomwatchd.words.escape import harmless

SOCKET = "/run/systemd/journal/socket"
#: what libsystemd asks for, too
_SEND_BUFFER = 8 << 20
_PATIENCE_MS = 500
#: victims that are listed; a group kill may have thousands
_LISTED_VICTIMS = 64
_SENT = 1024
#: struct ucred of unix(7): pid, uid, gid
_UCRED = struct.Struct("=iII")
#: syslog(3)
_PRIORITY = {"critical": 2, "error": 3, "warning": 4, "test": 5}

Fields = Iterable[tuple[str, object]]


class Options(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``[sinks.journal]``"""

    enabled: bool = True
    #: journald's native socket
    socket: str = SOCKET


def fields(event: OomEvent, left_out: int = 0) -> list[tuple[str, object]]:
    """The entry as field names and values; None is a field that is left out. ``left_out`` is how many like it
    were left out before it.

    Names in values are the kernel's, unescaped, except in MESSAGE: journalctl shows a value with control
    characters as "[blob data]", which would hide the alert.
    """
    victim = event.victims[0] if event.victims else Victim(pid=0, comm="")
    pid = event.victims[0].pid if event.victims else None
    whose = victim_attribution(event)
    called = names(event)
    memcg = event.memcg
    near = event.near
    message = harmless(event.summary)
    if left_out:
        message += f" ({left_out} more since the last such entry)"
    seconds = event.time.kernel_seconds
    return [
        ("MESSAGE", message),
        ("MESSAGE_ID", MESSAGE_IDS[event.kind]),
        ("PRIORITY", _PRIORITY[severity(event)]),
        ("SYSLOG_IDENTIFIER", "oomwatchd"),
        ("OBJECT_SYSTEMD_UNIT", unit_of(event)),
        ("OOM_EVENT_ID", event.id),
        ("OOM_KIND", event.kind),
        ("OOM_CONSTRAINT", event.constraint),
        ("OOM_KILLS", event.kills),
        ("OOM_COMPLETE", int(event.complete)),
        ("OOM_HISTORICAL", int(event.historical)),
        ("OOM_TEST", 1 if is_test(event) else None),
        ("OOM_REPEATS", event.repeats or None),
        ("OOM_LEFT_OUT", left_out or None),
        ("OOM_VICTIM_PID", pid),
        ("OOM_VICTIM_COMM", victim.comm if pid is not None else None),
        ("OOM_VICTIM_UID", victim.uid),
        ("OOM_VICTIM_ANON_RSS_BYTES", victim.anon_rss_bytes),
        ("OOM_VICTIM_OOM_SCORE_ADJ", victim.oom_score_adj),
        ("OOM_VICTIM_PIDS", " ".join(str(v.pid) for v in event.victims[:_LISTED_VICTIMS]) or None),
        ("OOM_TRIGGER_PID", event.trigger.pid),
        ("OOM_TRIGGER_COMM", event.trigger.comm),
        ("OOM_MEMCG", memcg.oom_path if memcg else None),
        ("OOM_TASK_MEMCG", memcg.task_path if memcg else None),
        ("OOM_CGROUP", whose.cgroup if whose else event.oomd.cgroup if event.oomd else None),
        ("OOM_UNIT", unit_of(event)),
        ("OOM_SLICE", whose.slice if whose else None),
        ("OOM_CONTAINER_ID", whose.container_id if whose else None),
        ("OOM_CONTAINER_NAME", called.container),
        ("OOM_POD_NAME", called.pod),
        ("OOM_POD_NAMESPACE", called.namespace),
        ("OOM_POD_UID", whose.pod_uid if whose else None),
        ("OOM_FINDINGS", " ".join(finding.id for finding in event.findings) or None),
        ("OOM_NEAR_STATE", near.state if near else None),
        ("OOM_NEAR_LEFT_BYTES", near.left_bytes if near else None),
        ("OOM_NEAR_SECONDS", near.soonest_seconds if near else None),
        ("OOM_WARNING_ID", event.warned.id if event.warned else None),
        ("OOM_WARNED_SECONDS", event.warned.lead_seconds if event.warned else None),
        ("OOM_BOOT_ID", event.source.boot_id),
        ("OOM_KERNEL_SEQ", event.source.first_seq),
        ("OOM_KERNEL_MONOTONIC_USEC", None if seconds is None else round(seconds * 1e6)),
        ("OOM_TIME", event.time.wall),
    ]


def encode(fields: Fields) -> bytes:
    """Fields in the native protocol's form: ``NAME=value`` where the value is one plain line, else the
    name, a newline, the length as 64 bit little endian and the value."""
    parts = []
    for name, value in fields:
        if value is None:
            continue
        data = str(value).encode("utf-8", "backslashreplace")
        if b"\n" in data:
            parts.append(b"%s\n%s%s\n" % (name.encode(), struct.pack("<Q", len(data)), data))
        else:
            parts.append(b"%s=%s\n" % (name.encode(), data))
    return b"".join(parts)


class Journal:
    """The connection to journald; see the module."""

    name = "journal"

    def __init__(self, path: str) -> None:
        self._path = path
        self._socket: socket.socket | None = None
        self._stalled = False
        self._as_root = True
        self._sent: deque[tuple[str, int, int, str | None]] = deque(maxlen=_SENT)
        self._bound = RateBound()

    def emit(self, event: OomEvent) -> None:
        """Send the event; a later revision only if it has more kills or repeats, or ends a warning. Raises
        SinkError."""
        state = event.near.state if event.near is not None else None
        key = (event.id, event.kills, event.repeats, state)
        if key in self._sent:
            return
        left_out: int | None = 0
        if not event.repeats:  # else it is the last word on a storm
            where, seconds = limit_cgroup(event), event.time.kernel_seconds or 0.0
            left_out = self._bound.take(event.id, event.kind, event.kills, where, seconds)
        if left_out is None:
            return
        data = encode(fields(event, left_out))
        try:
            self._send(data)
        except OSError as error:
            self.close()
            self._stalled = error.errno == errno.EAGAIN
            what = "journald does not read" if self._stalled else error.strerror or error
            raise SinkError(f"journal {self._path}: {what}") from error
        self._stalled = False
        self._sent.append(key)

    def close(self) -> None:
        """Close the connection."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _send(self, data: bytes) -> None:
        try:
            self._send_once(data)
        except (ConnectionError, FileNotFoundError):
            # another journald has taken the socket's place since
            self.close()
            self._send_once(data)

    def _send_once(self, data: bytes) -> None:
        channel = self._socket or self.connect()
        try:
            try:
                self._pass(channel, data)
            except BlockingIOError:
                if self._stalled or not _writable(channel):
                    raise
                self._pass(channel, data)
        except OSError as error:
            if error.errno not in (errno.EMSGSIZE, errno.ENOBUFS):
                raise
            with _sealed(data) as fd:
                self._pass(channel, b"", (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd])))

    def _pass(self, channel: socket.socket, data: bytes, *files: tuple[int, int, array.array[int]]) -> None:
        """One datagram, as root's if we may say so."""
        if self._as_root:
            ucred = _UCRED.pack(os.getpid(), 0, os.getgid())
            try:
                channel.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_CREDENTIALS, ucred), *files])
            except OSError as error:
                # EINVAL: this namespace of users has no root
                if error.errno not in (errno.EPERM, errno.EINVAL):
                    raise
                self._as_root = False
            else:
                return
        channel.sendmsg([data], files)

    def connect(self) -> socket.socket:
        channel = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        try:
            channel.setblocking(False)
            with suppress(OSError):
                channel.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
            channel.connect(self._path)
        except OSError:
            channel.close()
            raise
        self._socket = channel
        return channel


def _writable(channel: socket.socket) -> bool:
    poller = select.poll()
    poller.register(channel, select.POLLOUT)
    return bool(poller.poll(_PATIENCE_MS))


@contextmanager
def _sealed(data: bytes) -> Iterator[int]:
    """A sealed memory file, as an entry goes that is too large for a datagram."""
    fd = os.memfd_create("oomwatchd-journal", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(fd, rest) :]
        seals = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
        yield fd
    finally:
        os.close(fd)


def connected(path: str) -> Journal:
    """The sink, its connection open. Raises SinkError."""
    sink = Journal(path)
    try:
        sink.connect()
    except FileNotFoundError:
        raise NotHereError(f"no journal at {path}") from None
    except OSError as error:
        raise SinkError(f"no journal at {path} ({error.strerror or error})") from None
    return sink


def open(options: Options) -> Journal | None:
    """The sink, None if it is switched off. Raises SinkError where this host has no journal."""
    return connected(options.socket) if options.enabled else None
