"""``oomwatchd selftest``: provokes one real OOM kill in a throw-away memory cgroup and proves that it was
reported: by the running daemon (its store and its counters), or by this command itself if no daemon answers.

Safe on a production host, see ``throwaway``.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import os
import selectors
import signal
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import msgspec

from oomwatchd import config
from oomwatchd.cli import throwaway
from oomwatchd.cli.throwaway import Victim
from oomwatchd.errors import OomwatchdError
from oomwatchd.event import OomEvent, conclude
from oomwatchd.observe.host import Host, read_host
from oomwatchd.observe.snapshot import Snapshots
from oomwatchd.records.capture import OomCapture, Source
from oomwatchd.records.kmsg import KmsgRecord
from oomwatchd.reports.assemble import Assembler, OomBlock, Signal, VictimChosen
from oomwatchd.sources.kmsg import KmsgSource, LogClock
from oomwatchd.store import Store, holder

if TYPE_CHECKING:
    from oomwatchd.cli import Subparsers

#: how long to wait for the kernel log before the store is asked again
_POLL_SECONDS = 0.01
_MOST_SECONDS = 86400.0
_HTTP_SECONDS = 2.0
#: newest events of the store that are searched for the victim
_NEWEST = 200


class Counter(msgspec.Struct, frozen=True):
    """A counter before and after the kill."""

    before: int
    after: int


class Result(msgspec.Struct, kw_only=True):
    """The answer of ``--json``: what was provoked, who reported it and how fast.

    ``daemon`` is the address of the daemon that reported it, None for a watch of our own.
    ``report_seconds`` is from the kernel's stamp of the kill until the report could be read,
    ``whole_seconds`` from start to end. ``pid_compared`` is false where our process ids are not those of the
    kernel log (a container), ``cgroup_compared`` where the kernel's rate limit (10 reports in 5 s) suppressed
    the part of the report that names the cgroup. The victim's unique name is compared in any case.
    """

    daemon: str | None
    event_id: str
    pid: int
    pid_compared: bool
    comm: str
    cgroup: str
    cgroup_compared: bool
    report_seconds: float
    whole_seconds: float
    kernel_oom_kills: Counter
    daemon_oom_kills: Counter | None


def _seconds(text: str) -> float:
    with contextlib.suppress(ValueError):
        if 0 < (seconds := float(text)) <= _MOST_SECONDS:
            return seconds
    raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds above 0 and up to a day")


def add_parser(subparsers: Subparsers) -> None:
    parser = subparsers.add_parser(
        "selftest",
        help="provoke one OOM kill in a throw-away cgroup and prove that it is reported",
        description="Provokes one real OOM kill in a throw-away memory cgroup of "
        f"{throwaway.LIMIT_BYTES >> 20} MiB, which touches no other process, and proves that the running "
        "daemon reported it. If no daemon answers, the command watches the kernel log itself.",
    )
    parser.add_argument("--config", type=Path, metavar="FILE", help="the running daemon's configuration")
    parser.add_argument(
        "--timeout",
        type=_seconds,
        default=10.0,
        metavar="SECONDS",
        help="how long to wait for the kill, and then for the report (default: %(default)g)",
    )
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object")
    parser.set_defaults(run=run)


def run(args: SimpleNamespace) -> int:
    settings, _ = config.load(args.config)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that the cleanup runs
    result = selftest(settings, args.timeout)
    print(msgspec.json.encode(result).decode() if args.json else _as_text(result))
    return 0


def selftest(settings: config.Config, timeout: float) -> Result:
    """Raises OomwatchdError; its exit status is 1 if the kill was not reported."""
    began = time.monotonic()
    with contextlib.ExitStack() as stack:
        host = read_host()
        own = _OwnWatch(settings.kmsg.device, host)
        stack.callback(own.close)
        daemon = _Daemon.find(settings)
        counters = Snapshots(host)
        stack.callback(counters.close)
        kernel_before = counters.oom_kills() or 0
        daemon_before = daemon.oom_kills() if daemon else 0

        victim = stack.enter_context(throwaway.victim())
        own.expect(victim)
        victim.exceed()
        victim.wait(timeout)
        event = _await_report(victim, own, daemon, timeout)
        report_seconds = own.seconds_since_kill()

        _compare(event, victim)
        kernel = Counter(kernel_before, counters.oom_kills() or 0)
        if kernel.after <= kernel.before:
            raise OomwatchdError(f"the kernel's own counter, oom_kill in /proc/vmstat, stayed {kernel.after}")
        counted = Counter(daemon_before, daemon.oom_kills()) if daemon else None
        if counted is not None and counted.after <= counted.before:
            raise OomwatchdError(f"the daemon stored the event, but its kill counter stayed {counted.after}")
    return Result(
        daemon=daemon.address if daemon else None,
        event_id=event.id,
        pid=victim.pid,
        pid_compared=throwaway.is_initial_pid_namespace(),
        comm=victim.comm,
        cgroup=victim.cgroup,
        cgroup_compared="header" not in event.missing,
        report_seconds=round(report_seconds, 6),
        whole_seconds=round(time.monotonic() - began, 6),
        kernel_oom_kills=kernel,
        daemon_oom_kills=counted,
    )


def _await_report(victim: Victim, own: _OwnWatch, daemon: _Daemon | None, timeout: float) -> OomEvent:
    deadline = time.monotonic() + timeout
    while True:
        own.read(_POLL_SECONDS)
        event = daemon.event_of(victim) if daemon else own.event
        if event is not None and own.kill_usec is not None:
            return event
        if time.monotonic() > deadline:
            break
    if own.kill_usec is None:
        raise OomwatchdError(
            f"the kernel killed process {victim.pid} ({victim.comm}) but its log does not say so",
            hint="is the log level of OOM reports filtered, or another reader clearing the log?",
        )
    if daemon is not None and (hint := daemon.without_store()):
        raise OomwatchdError(f"the daemon at {daemon.address} keeps no store to compare with", hint=hint)
    reporter = f"the daemon at {daemon.address}" if daemon else "the watch"
    raise OomwatchdError(
        f"{reporter} did not report the kill of process {victim.pid} ({victim.comm}) within {timeout:g} s, "
        "though the kernel log has it"
    )


def _compare(event: OomEvent, victim: Victim) -> None:
    """Check that exactly that process in that cgroup was reported. Raises OomwatchdError."""
    if [_name(v.pid, v.comm) for v in event.victims] != [_name(victim.pid, victim.comm)]:
        named = ", ".join(f"{v.pid} ({v.comm})" for v in event.victims) or "nobody"
        raise OomwatchdError(f"event {event.id} names {named}, not {victim.pid} ({victim.comm})")
    if "header" in event.missing:  # and all else under the same rate limit (dump_header())
        return
    reported = event.memcg.task_path if event.memcg else None
    if reported is None or not reported.endswith(victim.cgroup):  # a cgroup namespace hides the beginning
        raise OomwatchdError(f"event {event.id} names cgroup {reported}, not {victim.cgroup}")


def _name(pid: int, comm: str) -> tuple[int | None, str]:
    return pid if throwaway.is_initial_pid_namespace() else None, comm


class _OwnWatch:
    """Reads the kernel log from now on, for the kernel's stamp of the kill and, without a daemon, for the
    event. Raises what KmsgSource.open() raises."""

    def __init__(self, device: str, host: Host) -> None:
        self._source = KmsgSource.open(device)
        os.lseek(self._source.fileno(), 0, os.SEEK_END)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._source, selectors.EVENT_READ)
        self._host = host
        self._clock = LogClock()
        self._empty_at: int | None = None
        self._assembler = Assembler()
        self._comm = ""
        #: the log clock's stamp of the victim's kill line
        self.kill_usec: int | None = None
        self.event: OomEvent | None = None

    def expect(self, victim: Victim) -> None:
        self._comm = victim.comm

    def read(self, seconds: float) -> None:
        """Wait at most so long for records, and read what there is."""
        self._selector.select(seconds)
        drained = False
        while not drained:
            before = _monotonic_usec()
            items, drained = self._source.read()
            stamps = [i.usec for i in items if isinstance(i, KmsgRecord) and i.usec is not None]
            if stamps:
                self._clock.saw(min(stamps), max(stamps), self._empty_at, _monotonic_usec())
            self._empty_at = before if drained else None
            for item in items:
                self._take(self._assembler.feed(item))
        self._take(self._assembler.tick(self._clock.log_usec(_monotonic_usec())))

    def seconds_since_kill(self) -> float:
        assert self.kill_usec is not None
        return max(0.0, (self._clock.log_usec(_monotonic_usec()) - self.kill_usec) / 1e6)

    def _take(self, signals: list[Signal]) -> None:
        for found in signals:
            if isinstance(found, VictimChosen) and found.comm == self._comm:
                self.kill_usec = found.record.usec
            elif isinstance(found, OomBlock) and (event := self._conclude(found)):
                self.event = event

    def _conclude(self, block: OomBlock) -> OomEvent | None:
        seqs = [record.seq for record in block.records if record.seq is not None]
        capture = OomCapture(
            source=Source(kind="kmsg", form="kmsg", boot_id=self._host.boot_id),
            records=block.records,
            first_seq=min(seqs, default=None),
            last_seq=max(seqs, default=None),
            lost_records=block.lost_records,
            page_size_bytes=self._host.page_size_bytes,
            kernel=self._host.kernel,
            arch=self._host.machine,
        )
        event = conclude(capture).event
        return event if any(v.comm == self._comm for v in event.victims) else None

    def close(self) -> None:
        self._selector.close()
        self._source.close()


class _Daemon:
    """The running daemon: its metrics page and its store."""

    def __init__(self, host: str, port: int, state_directory: Path) -> None:
        self._at = host, port
        #: of its HTTP server
        self.address = f"{host}:{port}"
        self._state_directory = state_directory

    @classmethod
    def find(cls, settings: config.Config) -> _Daemon | None:
        """The daemon that answers at the configured address, None if none does."""
        address = next((address for address in settings.http.addresses if address.port), None)
        if address is None:
            return None
        daemon = cls(address.host, address.port, settings.state_path())
        try:
            families = daemon._metrics()
        except (OSError, http.client.HTTPException, ValueError):
            return None
        return daemon if "oomwatchd_build_info" in families else None

    def oom_kills(self) -> int:
        """The kill lines it has counted. Raises OomwatchdError if it does not answer (any more)."""
        try:
            return int(sum(self._metrics().get("oomwatchd_oom_kills_total", ())))
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise OomwatchdError(f"the daemon at {self.address} does not answer: {error}") from error

    def event_of(self, victim: Victim) -> OomEvent | None:
        """The stored event of the victim, if there is one by now. Raises StoreError."""
        with contextlib.closing(Store.open_reader(self._state_directory)) as store:
            for row in store.list(limit=_NEWEST):
                if row.victim_comm == victim.comm and (capture := store.get(row.id)):
                    return conclude(capture).event
        return None

    def without_store(self) -> str | None:
        """Why it writes no store, and how to fix it; None if it writes one."""
        with contextlib.suppress(OSError, http.client.HTTPException, ValueError):
            if self._metrics().get("oomwatchd_store_up") == [0]:
                if (pid := holder(self._state_directory)) is not None:
                    return (
                        f"process {pid}, another oomwatchd, has {self._state_directory}; end it, or set"
                        " another state_directory"
                    )
                return f"see the daemon's log for what is wrong with {self._state_directory}"
        return None

    def _metrics(self) -> dict[str, list[float]]:
        """The values of each metric, of all labels."""
        host, port = self._at
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104  # not bound, compared
        connection = http.client.HTTPConnection(host, port, timeout=_HTTP_SECONDS)
        with contextlib.closing(connection):
            connection.request("GET", "/metrics")
            text = connection.getresponse().read().decode()
        # only a daemon that answered needs it: a board's may have no metrics
        from prometheus_client.parser import text_string_to_metric_families

        found: dict[str, list[float]] = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                found.setdefault(sample.name, []).append(sample.value)
        return found


def _monotonic_usec() -> int:
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000


def _as_text(result: Result) -> str:
    if result.daemon:
        reporter = f"the running daemon ({result.daemon})"
    else:
        reporter = "this command itself, no daemon answers"
    compared = ["pid"] * result.pid_compared + ["comm"] + ["cgroup"] * result.cgroup_compared
    compared += ["the kernel's oom_kill counter"]
    compared += ["the daemon's kill counter"] * (result.daemon_oom_kills is not None)
    lines = [
        f"ok: the OOM kill of process {result.pid} ({result.comm}) was reported",
        f"reported by: {reporter}",
        f"event:       {result.event_id}",
        f"cgroup:      {result.cgroup}",
        f"took:        {result.report_seconds:.3f} s after the kill, {result.whole_seconds:.3f} s in all",
        f"compared:    {', '.join(compared)}",
        f"kernel:      oom_kill {result.kernel_oom_kills.before} -> {result.kernel_oom_kills.after}",
    ]
    if result.daemon_oom_kills:
        counted = result.daemon_oom_kills
        lines.append(f"daemon:      oomwatchd_oom_kills_total {counted.before} -> {counted.after}")
    return "\n".join(lines)
