"""A warning in words: what is about to run out, what grows, whom the kernel would kill, and what to do now.

Core: no clock, no file, no socket.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from oomwatchd.diagnosis.attribution import names_in, owner_of, place_of
from oomwatchd.records.capture import OomCapture, Track
from oomwatchd.records.near import Grower, Near
from oomwatchd.records.nearing import Nearing
from oomwatchd.records.report import Memcg, MemcgCounter, OomReport, Task
from oomwatchd.warning.series import slope
from oomwatchd.words.amounts import percent, size
from oomwatchd.words.escape import harmless_name

_GROWERS = 4
#: A grower has this share of the growth.
_SHARE = 0.1


def near_of(capture: OomCapture, told: Nearing, ended: str | None) -> Near:
    """The content of the event; ``ended`` is the time of the end, in words."""
    owner, names = owner_of(told.cgroup or "/"), dict(capture.container_names)
    return Near(
        state=told.state,
        reason=told.reason,
        cgroup=told.cgroup,
        unit=owner.unit,
        container_id=owner.container_id,
        container_name=names.get(owner.container_id or ""),
        limit_bytes=told.limit_bytes,
        capacity_bytes=told.capacity_bytes,
        used_bytes=told.used_bytes,
        left_bytes=told.left_bytes,
        cache_bytes=told.cache_bytes,
        swap_left_bytes=told.swap_left_bytes,
        grown_bytes=told.grown_bytes,
        growing_seconds=round((told.usec - told.since_usec) / 1e6, 3),
        rate_bytes_per_second=round(told.rate_bytes_per_second),
        soonest_seconds=told.soonest_seconds,
        latest_seconds=told.latest_seconds,
        pressure_full_ratio=told.pressure_full_ratio,
        refaults_bytes_per_second=told.refaults_per_second and round(told.refaults_per_second),
        growers=growers(capture.tracks, told, names),
        points=tuple((round((usec - told.usec) / 1e6, 3), used) for usec, used in told.points),
        ended=ended,
        passed=told.passed,
        peak_bytes=told.peak_bytes,
        kill_id=told.kill_id,
        lead_seconds=told.lead_seconds,
    )


def growers(tracks: Iterable[Track], told: Nearing, names: Mapping[str, str]) -> tuple[Grower, ...]:
    """What grew since the growth began, the fastest first, without the cgroup that the warning is about;
    ``names`` are those of containers, by id."""
    found = []
    for track in tracks:
        points = [point for point in track.points if told.since_usec <= point[0] <= told.usec]
        inside = told.cgroup is None or _is_inside(track, told)
        if len(points) < 2 or not inside or (track.kind == "cgroup" and track.name in ("/", told.cgroup)):
            continue
        rate = slope(points)
        if points[-1][1] - points[0][1] < _SHARE * told.grown_bytes or rate <= 0:
            continue
        found.append(
            Grower(
                kind=track.kind,
                name=track.name,
                pid=track.pid,
                cgroup=track.cgroup,
                place=_place(track.cgroup if track.kind == "process" else track.name, names, told.cgroup),
                bytes=points[-1][1],
                rate_bytes_per_second=round(rate),
                seconds=round((points[-1][0] - points[0][0]) / 1e6, 3),
            )
        )
    # a process is more specific than its cgroup
    found.sort(key=lambda one: (one.kind != "process", -one.rate_bytes_per_second))
    return tuple(found[:_GROWERS])


def _is_inside(track: Track, told: Nearing) -> bool:
    if track.kind == "tmpfs":  # anybody's files are in it
        shared = told.shmem_grown_bytes
        return shared is None or shared >= _SHARE * told.grown_bytes
    path = track.cgroup if track.kind == "process" else track.name
    return path is not None and f"{path}/".startswith(f"{told.cgroup}/")


def report_of(capture: OomCapture, told: Nearing) -> OomReport:
    """The present state in the form of a report: whose limit it is, and the tasks that could be killed."""
    memcg = None
    if told.cgroup is not None:
        counter = MemcgCounter(usage_bytes=told.used_bytes + told.cache_bytes, limit_bytes=told.limit_bytes)
        memcg = Memcg(oom_path=told.cgroup, memory=counter)
    return OomReport(
        kind="oom_near",
        complete=True,
        kernel=capture.kernel,
        arch=capture.arch,
        page_size_bytes=capture.page_size_bytes,
        first_usec=told.usec,
        first_wall=told.wall,
        constraint="none" if told.cgroup is None else "memcg",
        memcg=memcg,
        tasks=tuple(
            Task(
                pid=one.pid,
                uid=one.uid,
                tgid=one.pid,
                comm=one.comm,
                rss_bytes=one.rss_bytes,
                swap_bytes=one.swap_bytes,
                pgtables_bytes=one.pgtables_bytes,
                oom_score_adj=one.oom_score_adj,
            )
            for one in told.candidates
        ),
    )


def _place(path: str | None, names: Mapping[str, str], known: str | None) -> str | None:
    """The container or unit of a cgroup, by its usual name; None if it has none or is that of ``known``."""
    if path is None or not path.startswith("/"):
        return None
    owner, whole = owner_of(path), owner_of(known or "/")
    found = place_of(names_in(names.get(owner.container_id or "")), container_id=owner.container_id)
    same = owner.container_id == whole.container_id if found else owner.unit == whole.unit
    return None if same and known is not None else found or owner.unit


def place(told: Near) -> str:
    """Whose memory is about to run out, by the name that people know: container, pod, unit or cgroup."""
    if told.cgroup is None:
        return "the machine"
    known = place_of(names_in(told.container_name), container_id=told.container_id)
    return harmless_name(known or told.unit or told.cgroup)


def span(soonest: float, latest: float | None) -> str:
    """``40 to 60 s``, ``40 s to 2 min``."""
    first, last = _time(soonest), None if latest is None else _time(latest)
    if last is None:
        return f"{first} or later"
    number, _, unit = first.partition(" ")
    return first if first == last else f"{number if last.endswith(f' {unit}') else first} to {last}"


def _time(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def left_said(told: Near) -> str:
    """``out of memory in 40 to 60 s at this rate: 300 MiB of 512 MiB held (59 %), +3.0 MiB/s``."""
    if told.reason == "thrashing":
        return f"next to nothing is left: {_held(told)}"
    when = span(told.soonest_seconds, told.latest_seconds)
    return f"out of memory in {when} at this rate: {_held(told)}"


def _rate(bytes_per_second: float) -> str:
    """``+3.5 MiB/s``."""
    mib = bytes_per_second / (1 << 20)
    return f"+{mib:.1f} MiB/s" if mib >= 1 else f"+{bytes_per_second / 1024:.0f} kB/s"


def _held(told: Near) -> str:
    share = percent(told.used_bytes, told.capacity_bytes)
    held = f"{size(told.used_bytes)} of {size(told.capacity_bytes)} held ({share})"
    if told.reason == "thrashing":
        waits = told.pressure_full_ratio
        return held if waits is None else f"{held}, all tasks waited {100 * waits:.0f} % of the last 10 s"
    return f"{held}, {_rate(told.rate_bytes_per_second)}"


_PASSED = {
    "freed": "memory was freed",
    "stopped": "the growth stopped",
    "slowed": "the growth slowed down",
    "room": "there is more room now",
    "gone": "the cgroup ended",
}


def ended_said(told: Near) -> str | None:
    """How the warning ended; None while it is active."""
    if told.state == "came_true":
        return f"the kernel killed {_time(told.lead_seconds or 0.0)} after the warning"
    if told.state == "passed":
        return f"passed: {_PASSED[told.passed or 'stopped']}"
    return "nobody watched on" if told.state == "unknown" else None


def grower_called(one: Grower) -> str:
    """``python3 (pid 12, web.service)``, ``container web``, ``tmpfs /dev/shm``."""
    where = None if one.place is None else harmless_name(one.place)
    if one.kind == "process":
        inside = f"pid {one.pid}" if where is None else f"pid {one.pid}, {where}"
        return f"{harmless_name(one.name)} ({inside})"
    return where if where is not None else f"{one.kind} {harmless_name(one.name)}"


def grower_said(one: Grower) -> str:
    """``python3 (pid 12), 300 MiB, +3.0 MiB/s for 40 s``."""
    rate = _rate(one.rate_bytes_per_second)
    return f"{grower_called(one)}, {size(one.bytes)}, {rate} for {_time(one.seconds)}"


def holder(told: Near, tasks: Iterable[Task]) -> Task | None:
    """The process that holds more than half; None: there is none."""
    largest = max(tasks, key=_held_by, default=None)
    return largest if largest is not None and 2 * _held_by(largest) > told.used_bytes else None


def _held_by(task: Task) -> int:
    return (task.rss_bytes or 0) + (task.swap_bytes or 0)


def who_said(told: Near, tasks: Iterable[Task]) -> str | None:
    """What grows most, or what holds most if no growth of one was seen."""
    if told.growers:
        return grower_said(told.growers[0])
    task = holder(told, tasks)
    return None if task is None else f"{task_called(task)} holds most, {size(_held_by(task))}"


def task_called(task: Task) -> str:
    """``python3 (pid 12)``."""
    return f"{harmless_name(task.comm)} (pid {task.pid})"


_HEADS = {
    "came_true": "out of memory as announced",
    "passed": "no longer near the end of memory",
    "unknown": "was near the end of memory",
}


def became_said(told: Near) -> str:
    """What is coming, or how it ended and what it was at the warning."""
    ended = ended_said(told)
    return left_said(told) if ended is None else f"{ended}; at the warning {_held(told)}"


def summarize(told: Near, tasks: Iterable[Task] = ()) -> str:
    """What runs out, when, and what grows, in one line that is safe to print. A warning that has ended says
    first how it ended."""
    head, who = _HEADS.get(told.state), who_said(told, tasks)
    where = place(told) if head is None else f"{head}, {place(told)}"
    return f"{where}: {became_said(told)}{'' if who is None else f'; {who}'}"
