"""OomEvent -> JSON in the form of the event contract (docs/event.md).

Core: no clock, no file, no socket.
"""

from __future__ import annotations

from typing import Any

import msgspec

from oomwatchd.event import OomEvent


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
    """The event as one line of JSON, UTF-8, without a newline."""
    return msgspec.json.encode(event_document(event))
