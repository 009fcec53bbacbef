"""The binary encoding of OTLP's log messages, from their JSON form.

Written here because the official library costs 4 MiB resident for five message types, and its generated code
is not in Debian 12. The tests decode with it what is encoded here.

Source: https://protobuf.dev/programming-guides/encoding/, opentelemetry-proto's logs/v1/logs.proto,
common/v1/common.proto, resource/v1/resource.proto, collector/logs/v1/logs_service.proto
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from typing import Any, Literal

Scalar = Literal["string", "varint", "fixed64"]
#: by the field's name in JSON: its number, and its type or the fields of the message that it is
Message = Mapping[str, tuple[int, "Scalar | Message"]]

# each refers to the other
_ANY_VALUE: dict[str, tuple[int, Scalar | Message]] = {
    "stringValue": (1, "string"),
    "boolValue": (2, "varint"),
    "intValue": (3, "varint"),
}
_ANY_VALUE["arrayValue"] = (5, {"values": (1, _ANY_VALUE)})
_KEY_VALUE: Message = {"key": (1, "string"), "value": (2, _ANY_VALUE)}
_LOG_RECORD: Message = {
    "timeUnixNano": (1, "fixed64"),
    "severityNumber": (2, "varint"),
    "severityText": (3, "string"),
    "body": (5, _ANY_VALUE),
    "attributes": (6, _KEY_VALUE),
    "observedTimeUnixNano": (11, "fixed64"),
    "eventName": (12, "string"),
}
_SCOPE_LOGS: Message = {
    "scope": (1, {"name": (1, "string"), "version": (2, "string")}),
    "logRecords": (2, _LOG_RECORD),
}
_RESOURCE_LOGS: Message = {
    "resource": (1, {"attributes": (1, _KEY_VALUE)}),
    "scopeLogs": (2, _SCOPE_LOGS),
}
EXPORT_LOGS_SERVICE_REQUEST: Message = {"resourceLogs": (1, _RESOURCE_LOGS)}

_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5


def encode(message: Mapping[str, Any], fields: Message) -> bytes:
    """The message in binary. KeyError for a field that ``fields`` does not know."""
    parts = []
    for name, value in message.items():
        number, kind = fields[name]
        for one in value if isinstance(value, list) else [value]:
            parts.append(_field(number, kind, one))
    return b"".join(parts)


def _field(number: int, kind: Scalar | Message, value: Any) -> bytes:
    if kind == "varint":
        return _varint(number << 3 | _VARINT) + _varint(int(value) & 0xFFFF_FFFF_FFFF_FFFF)
    if kind == "fixed64":
        return _varint(number << 3 | _FIXED64) + struct.pack("<Q", int(value))
    if kind == "string":
        data = str(value).encode("utf-8", "backslashreplace")
    else:
        assert not isinstance(kind, str)
        data = encode(value, kind)
    return _varint(number << 3 | _LENGTH) + _varint(len(data)) + data


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def rejected_log_records(response: bytes) -> int:
    """``partial_success.rejected_log_records`` of an ExportLogsServiceResponse; 0 where it says nothing of
    it. ValueError for what is no message."""
    rejected = 0
    for number, partial in _fields(response):
        if number == 1 and isinstance(partial, bytes):
            for inner, value in _fields(partial):
                if inner == 1 and isinstance(value, int):
                    rejected = value
    return rejected


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    at = 0
    while at < len(data):
        tag, at = _read_varint(data, at)
        kind = tag & 7
        if kind == _VARINT:
            value, at = _read_varint(data, at)
            yield tag >> 3, value
            continue
        size = {_FIXED64: 8, _FIXED32: 4}.get(kind, 0)
        if kind == _LENGTH:
            size, at = _read_varint(data, at)
        if size > len(data) - at or (not size and kind != _LENGTH):
            raise ValueError("not a protobuf message")
        yield tag >> 3, data[at : at + size]
        at += size


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            break
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError("not a protobuf message")
