"""How messages of the administration API are shown as JSON."""

from __future__ import annotations

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
