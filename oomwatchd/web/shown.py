"""The daemon's state and events in words, for the pages' templates."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from os.path import commonprefix
from typing import Any

import msgspec

from oomwatchd.delivery.policy import Delivery
from oomwatchd.diagnosis.headroom import Headroom
from oomwatchd.event.groups import Group
from oomwatchd.web.found import Row, link
from oomwatchd.words.amounts import percent, size
from oomwatchd.words.escape import harmless_name


class State(msgspec.Struct, frozen=True, kw_only=True):
    """The daemon's state for the first page. ``trouble`` is why it is not well, ``without`` what this host
    does not let it see."""

    started: float
    trouble: str | None
    kernel_kills: float | None
    kills: float
    unaccounted: float | None
    stored: int
    store_failure: str | None
    without: tuple[str, ...]
    headroom: Headroom
    deliveries: tuple[Delivery, ...] = ()


def shown(group: Group[Row], query: Mapping[str, str]) -> dict[str, Any]:
    """A row of the list: the newest event of the group stands for all. ``query`` holds the list's filters."""
    row, count = group.newest, len(group.rows)
    return {
        "id": row.id,
        "time": iso(row.wall),
        "when": stamp(row.wall),
        "kind": row.kind,
        "kills": group.kills,
        "victim": "" if row.victim_comm is None else harmless_name(row.victim_comm),
        "pid": row.victim_pid,
        "where": row.place or "",
        "summary": row.summary,
        "historical": row.historical,
        "count": count,
        "first": iso(group.first),
        "first_when": stamp(group.first),
        "each": _each(group, query) if count > 1 else None,
    }


def _each(group: Group[Row], query: Mapping[str, str]) -> str:
    """A link to the list of all events of the group."""
    row = group.newest
    fields = {name: value for name, value in query.items() if name not in ("after", "since", "before")}
    # restarted containers of one pod differ in the end of their paths
    path = commonprefix([one.cgroup or "" for one in group.rows])  # noqa: RUF071  # by character, as filters
    about = {"kind": row.kind, "comm": row.victim_comm, "cgroup": None if row.container else path}
    about |= {"host": row.host, "container": row.container, "pod": row.pod, "namespace": row.namespace}
    fields |= {name: value for name, value in about.items() if value}
    # up to the next second, so that the last event is included
    fields |= {"since": repr(group.first), "before": repr(group.last + 1.0), "each": "1"}
    return link("/events", fields)


def row_document(row: Row) -> dict[str, Any]:
    """An event of the list for programs."""
    return {
        "id": row.id,
        "host": row.host,
        "url": f"/api/v1/events/{row.id}",
        "time": iso(row.wall),
        "kind": row.kind,
        "constraint": row.constraint,
        "kills": row.kills,
        "victim_pid": row.victim_pid,
        "victim_comm": row.victim_comm,
        "cgroup": row.cgroup,
        "unit": row.unit,
        "container": row.container,
        "container_id": row.container_id,
        "pod": row.pod,
        "namespace": row.namespace,
        "summary": row.summary,
        "historical": row.historical,
    }


def state_view(state: State) -> dict[str, Any]:
    """The state's figures as bars and words."""
    seen = state.headroom
    zones = []
    for zone in seen.zones:
        room = zone.headroom_bytes
        zones.append(
            {
                "label": f"node {zone.node} {zone.zone}",
                "value": size(room) if room > 0 else "none",
                "share": max(0.0, min(1.0, room / zone.managed_bytes)),
                # a low zone may be too small to have any room, however free it is
                "tight": room <= 0 and zone.managed_bytes > zone.min_bytes + zone.reserve_bytes,
                "note": f"{size(zone.free_bytes)} free of {size(zone.managed_bytes)}, "
                f"min {size(zone.min_bytes)}, reserve {size(zone.reserve_bytes)}, "
                f"largest free order {zone.largest_free_order}",
            }
        )
    cgroups = [
        {
            "label": group.path,
            "value": size(group.headroom_bytes),
            "share": max(0.0, min(1.0, group.headroom_bytes / group.limit_bytes))
            if group.limit_bytes
            else 0.0,
            "tight": group.headroom_bytes <= 0,
            "note": f"{size(group.usage_bytes)} charged of {size(group.limit_bytes)}",
        }
        for group in seen.cgroups[:10]
    ]
    available = None
    if seen.available_bytes is not None and seen.total_bytes:
        share = percent(seen.available_bytes, seen.total_bytes)
        available = f"{size(seen.available_bytes)} of {size(seen.total_bytes)} ({share})"
    pressure = [
        f"{share}: {', '.join(f'{seen.pressure[share, w] * 100:.1f} % over {w} s' for w in (10, 60, 300))}"
        for share in ("some", "full")
        if (share, 10) in seen.pressure
    ]
    return {
        "since": stamp(state.started),
        "since_iso": iso(state.started),
        "zones": zones,
        "cgroups": cgroups,
        "available": available,
        "pressure": pressure,
    }


def iso(wall: float) -> str:
    """Seconds since the epoch as RFC 3339 in UTC, empty for what no calendar has."""
    try:
        return datetime.fromtimestamp(wall, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    except (ValueError, OverflowError, OSError):
        return ""


def stamp(wall: float) -> str:
    """The same for people."""
    return iso(wall).replace("T", " ").replace("Z", " UTC")
