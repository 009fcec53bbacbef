"""The JSON Schema of the event, from its types: what ``render.json`` writes is what this describes.

``python -m tools.generate`` writes docs/event.schema.json.

Core: no clock, no file, no socket.
"""

from __future__ import annotations

import inspect
from typing import Any

import msgspec

from oomwatchd.event import SCHEMA, OomEvent

#: parts whose field of free names stands beside the fixed ones in JSON
_FLATTENED = {"Zone": "amounts", "Node": "amounts", "Task": "extra"}
#: parts whose absent values are left out instead of being null
_SPARSE = {"FreeBlocks"}


def event_schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of one event. Every property is always there, with null for what the kernel
    did not say; properties that it does not name may come with later versions."""
    (_, definitions) = msgspec.json.schema_components(
        [OomEvent], schema_hook=_anything, ref_template="#/$defs/{name}"
    )
    for name, definition in definitions.items():
        if "properties" not in definition:
            continue
        if "description" in definition:  # Python 3.13 takes the indent off docstrings, 3.11 does not
            definition["description"] = inspect.cleandoc(definition["description"])
        properties: dict[str, Any] = definition["properties"]
        if name in _FLATTENED:
            free = properties.pop(_FLATTENED[name])
            definition["additionalProperties"] = _values(free)
        for property_ in properties.values():
            property_.pop("default", None)
        if name not in _SPARSE:
            definition["required"] = list(properties)
    event: dict[str, Any] = definitions.pop("OomEvent")
    event["properties"]["schema"] = {"const": SCHEMA}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:{SCHEMA.replace('.', ':')}",
        **event,
        "title": SCHEMA,
        "description": "One OOM invocation of the Linux kernel, decoded and explained (docs/event.md).",
        "$defs": dict(sorted(definitions.items())),
    }


def _anything(_: type) -> dict[str, Any]:
    # the one free mapping is ``snapshots``; msgspec takes an empty schema for none
    return {"description": "a snapshot, or a list of them in the order of time"}


def _values(free: dict[str, Any]) -> Any:
    """The schema of a mapping's values, also of one that may be null."""
    mapping = next((choice for choice in free.get("anyOf", ()) if choice.get("type") == "object"), free)
    return mapping["additionalProperties"]


def document() -> bytes:
    """docs/event.schema.json."""
    return msgspec.json.format(msgspec.json.encode(event_schema()), indent=2) + b"\n"
