"""Something grew steadily until the kill.

This uses the flight recorder (the minutes before the kill) and the state on detection. First it looks at the
process or cgroup that the kill was about. That one is named if it grew along a line (least squares, nine
tenths of the variation explained) by at least a tenth of the limit: of the cgroup's limit if that was hit,
otherwise of RAM. For a process that started shortly before the first sample, the line starts at 0 when the
process started, and ends with the size in the report. Of a process that has most of what is in swap, its
part of the swap counts, too.

If that gives nothing, it names the kind of memory that grew most on the whole machine, at nearly every step:
``AnonPages`` is the processes' own data, ``Shmem`` is tmpfs and shared segments, ``SUnreclaim`` is kernel
objects, ``PageTables`` and ``KernelStack`` come from many processes or threads.

Steady growth over minutes may be a rising load as well as a leak. The rate shows how long a larger limit
would have lasted. Who fills a machine within 20 seconds may as well load its data: whoever holds most is
named first then.
"""

from __future__ import annotations

from oomwatchd.diagnosis.attribution import owner_of
from oomwatchd.diagnosis.case import Case
from oomwatchd.diagnosis.claims import Cause, Claim, Tier
from oomwatchd.diagnosis.growth import POINTS, SHARE, Climb, climb_of, grows
from oomwatchd.diagnosis.levers import duration, own_settings, setting
from oomwatchd.diagnosis.owners import owned
from oomwatchd.procfs import meminfo
from oomwatchd.records.report import Finding
from oomwatchd.words.amounts import percent, size
from oomwatchd.words.escape import harmless_name
from oomwatchd.words.text import middle_cut

ID = "leak_suspect"
TITLE = "Something grew steadily until the kill"

_KINDS = ("AnonPages", "Shmem", "SUnreclaim", "PageTables", "KernelStack", "Percpu")
#: To be the cause: its final share of the limit, and the share of that which it gained while recorded.
_DECIDES, _MOST = 0.5, 0.5
#: Seconds for which it grew, and, where it filled swap, for which as much memory again would last. Whoever
#: fills a machine faster may as well load its data.
_LASTING, _AGAIN = 20, 30


def find(case: Case) -> Claim | None:
    return _user(case) or _kind(case)


def _user(case: Case) -> Claim | None:
    """The claim for a process or cgroup that grew."""
    climb = climb_of(case)
    if climb is None:
        return None
    track, whole = climb.track, climb.whole
    cgroup = track.cgroup if track.kind == "process" else track.name
    unit = owner_of(cgroup).unit if cgroup else None
    who = f"{harmless_name(track.name)} (pid {track.pid})" if track.kind == "process" else "cgroup"
    where = f" {middle_cut(harmless_name(cgroup), 60)}" if cgroup else ""
    if track.kind == "process" and cgroup:
        where = f" in {unit or 'cgroup' + where}"
    called = f"{unit or 'the cgroup'}" if track.kind != "process" else harmless_name(track.name)
    finding = Finding(
        id=ID,
        severity="warning",
        title=f"{who if track.kind == 'process' else unit or 'The cgroup'} grew steadily until the kill",
        explanation=f"{who}{where} grew from {size(climb.first)} to {size(climb.last)} in the "
        f"{climb.seconds:.0f} seconds before: {size(climb.per_minute)} a minute. A leak, or a load that came "
        "up.",
        evidence={
            "kind": track.kind,
            **({"pid": track.pid, "comm": track.name} if track.pid is not None else {}),
            **({"cgroup": cgroup} if cgroup else {}),
            **({"unit": unit} if unit else {}),
            "first_bytes": climb.first,
            "last_bytes": climb.last,
            "seconds": round(climb.seconds, 3),
            "growth_per_minute_bytes": climb.per_minute,
        },
        advice=_advice(case, called, climb, whole),
    )
    text = f"{called} grew steadily, {size(climb.per_minute)} a minute, until the kill"
    # below half of the whole it is not the cause
    grown = climb.last - climb.first
    decides = climb.last >= _DECIDES * whole and grown >= _MOST * climb.last
    if not case.in_cgroup:
        decides = decides and climb.seconds >= _LASTING
        if case.swap_full:
            decides = decides and 60 * whole >= _AGAIN * climb.per_minute
    # growth of a cgroup in kernel memory, shared memory or cache has its own finding
    if case.in_cgroup and track.kind == "cgroup":
        decides = decides and (case.ledger.held("anon") or 0) >= _MOST * whole
    return Claim(
        finding=finding, cause=Cause(tier=Tier.GREW, text=text, excess_bytes=grown) if decides else None
    )


def _advice(case: Case, called: str, climb: Climb, whole: int) -> str:
    """The advice: how long a larger limit would have lasted."""
    track = climb.track
    place = owned(track.name, case.container_names) if track.kind == "cgroup" else None
    guest = place is not None and place.kind == "virtual machine"
    own = "the guest's RAM" if guest else own_settings(track.name if track.kind == "process" else "")
    rate = f"at {size(climb.per_minute)} a minute"
    for_so_long = duration(60 * whole / climb.per_minute if climb.per_minute else 0)
    if case.in_cgroup:
        return (
            f"Find what {called} keeps and does not give back: {rate} a limit of {size(2 * whole)} lasts "
            f"{for_so_long} longer. Bound it by {own}, or restart it before; raise the limit only if it then "
            "stops growing."
        )
    return (
        f"Bound {called}: {own}, or {setting(case, 'MemoryMax=', 'a limit of its cgroup')}, so that it alone "
        f"is hit; find what it keeps: {rate} {size(whole)} more RAM last {for_so_long}."
    )


def _kind(case: Case) -> Claim | None:
    """The claim for a kind of memory that grew on the whole machine."""
    if case.capture is None or case.at is None:
        return None
    snapshots = [*case.capture.before, case.at]
    series = [(s.usec, meminfo(s)) for s in snapshots]
    total = case.meminfo_at.get("MemTotal")
    if len(series) < POINTS or not total:
        return None
    best: tuple[int, str, int] | None = None
    for kind in _KINDS:
        points = [m[kind] for _, m in series if kind in m]
        if len(points) != len(series):
            continue
        grown = points[-1] - points[0]
        if grown < SHARE * total or not grows(points):
            continue
        if best is None or grown > best[0]:
            best = (grown, kind, points[0])
    seconds = (series[-1][0] - series[0][0]) / 1e6
    if best is None or seconds <= 0:
        return None
    grown, kind, first = best
    finding = Finding(
        id=ID,
        severity="warning",
        title="One kind of memory grew steadily until the kill",
        explanation=f"{kind} grew from {size(first)} to {size(first + grown)} in the {seconds:.0f} seconds "
        f"before, by {percent(grown, total)} of RAM: {size(int(60 * grown / seconds))} a minute.",
        evidence={
            "kind": kind,
            "first_bytes": first,
            "last_bytes": first + grown,
            "seconds": round(seconds, 3),
            "growth_per_minute_bytes": int(60 * grown / seconds),
        },
    )
    return Claim(finding=finding)
