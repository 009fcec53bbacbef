"""Make the capture of a report from its records and its evidence: all that is stored of it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from functools import partial

import msgspec

from oomwatchd.daemon.clocks import Times
from oomwatchd.daemon.evidence import KEPT, Evidence
from oomwatchd.daemon.suppression import Suppression
from oomwatchd.formats import Section, oom_kill
from oomwatchd.formats.recognise import recognise
from oomwatchd.observe.history import Before, History
from oomwatchd.observe.host import Host
from oomwatchd.observe.recorder import Recorder
from oomwatchd.records.capture import EarlierKill, OomCapture, ProcessFacts, Snapshot, Source
from oomwatchd.records.kmsg import KmsgRecord
from oomwatchd.reports.assemble import OomBlock
from oomwatchd.reports.storms import Folded
from oomwatchd.sources.kmsg import LogClock

#: Kills remembered for later reports: how many, and how long.
EARLIER_KILLS = 64
EARLIER_USEC = 3600 * 1_000_000
#: In a storm the first report gets the recorder's whole history, the later ones what came since, and at least
#: so many samples.
BRIEF_USEC = 10_000_000
BRIEF_SAMPLES = 6


class Issued(msgspec.Struct, frozen=True, gc=False):
    """What the first issue of a report fixed for its later revisions."""

    detected: float | None
    named_at: float | None
    wall_offset: float
    before: Callable[[], Before] | None = None
    earlier: tuple[EarlierKill, ...] = ()
    headless_before: int | None = None


class Made(msgspec.Struct, frozen=True, gc=False):
    """A capture, the moment its first victim was named, and a function that formats the recorder's samples
    before it, for the worker."""

    capture: OomCapture
    named_at: float | None
    before: Callable[[], Before] | None


class Captures:
    """Makes captures, and remembers what a report's later revisions and later reports need of it."""

    def __init__(
        self,
        source: Source,
        host: Host,
        evidence: Evidence,
        clock: LogClock,
        now: Callable[[], Times],
        recorder: Recorder | None,
    ) -> None:
        self._source = source
        self._host = host
        self._evidence = evidence
        self._clock = clock
        self._now = now
        self._recorder = recorder
        self._issued: dict[int, Issued] = {}
        self._earlier: deque[EarlierKill] = deque(maxlen=EARLIER_KILLS)
        self._history_usec = -BRIEF_USEC
        self.suppression = Suppression()

    def make(self, folded: Folded, numbers: list[int], *, historical: bool) -> Made:
        """The capture of a report whose records have these numbers; ``historical``: it was in the log before
        this boot was watched."""
        block = folded.block
        first, known = numbers[0], set(numbers)
        now = self._now()
        at = self._evidence.machine(known)
        self._evidence.attribute()  # later kill lines may have left only one cgroup that it can be
        processes = self._evidence.victims(known)
        issued = self._issued.pop(first, None) or Issued(
            detected=None if historical else now.wall,
            named_at=self._evidence.named_at(known),
            wall_offset=now.wall - self._clock.log_usec(now.monotonic_usec) / 1e6,
            before=None if historical or at is None else self._before(block, processes),
            earlier=() if historical else self._remember(block, processes),
            headless_before=self.suppression.take(block) if block.revision == 0 else None,
        )
        if block.settled:
            processes = self._evidence.settle(known, processes)
        else:
            self._issued[first] = issued
            if len(self._issued) > KEPT:
                del self._issued[next(iter(self._issued))]
        return Made(
            self._capture(folded, issued, at, processes, historical=historical),
            issued.named_at,
            issued.before,
        )

    def _capture(
        self,
        folded: Folded,
        issued: Issued,
        at: Snapshot | None,
        processes: tuple[ProcessFacts, ...],
        *,
        historical: bool,
    ) -> OomCapture:
        block, last = folded.block, folded.last
        records = block.records if last is None else (*block.records, last)
        seqs = [record.seq for record in records if record.seq is not None]
        return OomCapture(
            source=self._source,
            records=block.records,
            first_seq=seqs[0] if seqs else None,
            last_seq=max(seqs, default=None),
            lost_records=block.lost_records,
            left_out=block.left_out,
            revision=block.revision,
            settled=block.settled,
            repeats=folded.repeats,
            last_usec=last.usec if last else None,
            historical=historical,
            wall_offset=issued.wall_offset,
            detected=issued.detected,
            page_size_bytes=self._host.page_size_bytes,
            kernel=self._host.kernel,
            arch=self._host.machine,
            at=at,
            after=self._evidence.snapshot() if block.settled and at is not None else None,
            processes=processes,
            earlier=issued.earlier,
            headless_before=issued.headless_before,
        )

    def _before(self, block: OomBlock, processes: tuple[ProcessFacts, ...]) -> Callable[[], Before] | None:
        if self._recorder is None:
            return None
        usec = self._now().monotonic_usec
        since, self._history_usec = usec - self._history_usec, usec
        most = None if since >= BRIEF_USEC else BRIEF_SAMPLES
        return partial(_history_before, self._recorder.history(usec), processes, block.records, most)

    def _remember(self, block: OomBlock, processes: tuple[ProcessFacts, ...]) -> tuple[EarlierKill, ...]:
        """The kills before this report; its own are added for those to come."""
        first = next((record.usec for record in block.records if record.usec is not None), None)
        if first is None:
            return ()
        earlier = tuple(kill for kill in self._earlier if first - EARLIER_USEC <= kill.usec < first)
        for facts in processes:
            self._earlier.append(EarlierKill(usec=first, comm=facts.comm or "", cgroup=facts.cgroup))
        return earlier


def _history_before(
    history: History,
    processes: Iterable[ProcessFacts],
    records: Iterable[KmsgRecord],
    most: int | None,
) -> Before:
    """The samples before the report, with the processes and cgroups that it names; runs in the worker's
    thread."""
    paths = {path for facts in processes if (path := facts.cgroup)} | cgroups_named(records)
    return history.before({facts.pid for facts in processes}, paths, most=most)


def cgroups_named(records: Iterable[KmsgRecord]) -> set[str]:
    """The cgroups that the summary line of a report names: whose limit was hit, where the victim was."""
    for record in records:
        if record.text.startswith("oom-kill:") and (found := recognise(record.text, raw=True)):
            form, m = found
            if form.section is Section.SUMMARY:
                summary = oom_kill.parse_summary(m["constraint"], m["rest"])
                return {path for path in (summary.oom_memcg, summary.task_memcg) if path}
    return set()
