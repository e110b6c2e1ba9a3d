"""How values of the administration API are shown: pure functions from messages to text and JSON."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message


def as_dict(message: Message) -> dict[str, Any]:
    """Return a message as JSON has it: the proto's field names, every field, whole numbers as numbers."""
    value = MessageToDict(message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)
    return _numbers(message, value)


def _numbers(message: Message, value: dict[str, Any]) -> dict[str, Any]:
    """Put 64-bit numbers, which protobuf's JSON writes as text, back as numbers."""
    for field in message.DESCRIPTOR.fields:
        found = getattr(message, field.name)
        if field.message_type is not None and field.is_repeated:
            value[field.name] = [_numbers(m, v) for m, v in zip(found, value[field.name], strict=True)]
        elif field.message_type is not None and field.name in value:
            value[field.name] = _numbers(found, value[field.name])
        elif field.cpp_type in (field.CPPTYPE_INT64, field.CPPTYPE_UINT64) and not field.is_repeated:
            value[field.name] = found
    return value


def moment(seconds: int) -> str:
    """Write seconds since the epoch as UTC, `-` for 0."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC") if seconds else "-"


def since(seconds: int, now: int) -> str:
    """Write how long ago a moment was, in its largest unit, `-` for 0."""
    return span(now - seconds) if seconds else "-"


def span(seconds: int) -> str:
    """Write a length of time in its largest unit: `3 d`, `2 h`, `5 min`, `8 s`."""
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size} {unit}"
    return f"{max(seconds, 0)} s"


def short(digest: str) -> str:
    """Write the first characters of a hash, as people compare them."""
    return digest[:12] or "-"
