"""OomEvent -> JSON in the form of the event contract (docs/event.md).

Core: no clock, no file, no socket.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec.structs import replace

from oomwatchd.event import OomEvent
from oomwatchd.records.report import Node, Zone


def event_document(event: OomEvent) -> dict[str, Any]:
    """The event as plain values, in the contract's shape: what zones, nodes and tasks carry under
    names of the kernel's own choice stands beside their fixed fields."""
    document: dict[str, Any] = msgspec.to_builtins(event)
    memory = document["memory"]
    if memory is not None:
        for part in (*memory["nodes"], *memory["zones"]):
            part.update(part.pop("amounts"))
    for task in document["tasks"]:
        extra = task.pop("extra")
        if extra:
            task.update(extra)
    return document


def encode(event: OomEvent) -> bytes:
    """The event as one line of JSON, UTF-8, without a newline: :func:`event_document`, of which only what
    differs from the event is made as plain values."""
    memory, tasks = event.memory, event.tasks
    if any(task.extra for task in tasks):
        return msgspec.json.encode(event_document(event))
    if memory is not None:
        memory = replace(memory, nodes=[*map(_flat, memory.nodes)], zones=[*map(_flat, memory.zones)])
    # a quote inside a text is escaped, so this can only be the field
    rows = msgspec.Raw(msgspec.json.encode(tasks).replace(b',"extra":null}', b"}"))
    return msgspec.json.encode(replace(event, memory=memory, tasks=rows))


def _flat(part: Node | Zone) -> dict[str, Any]:
    shown: dict[str, Any] = msgspec.to_builtins(part)
    shown.update(shown.pop("amounts"))
    return shown
