"""Fills a message from its JSON form, several times faster than protobuf's own reader of JSON.

Law: what this makes is what `json_format.ParseDict` makes, or an error. What has a JSON form of its own that is not
here (Struct, Timestamp and the like) is left to ParseDict. An Any that was packed lately is not packed again. What a
message names (`references`) is noted on the way.
"""

from __future__ import annotations

import base64
import hashlib
import marshal
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any, Final

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from policyd.envoy_api.references import TELLING, Reference, told

_WRAPPERS: Final = frozenset(
    f"google.protobuf.{name}Value"
    for name in ("Double", "Float", "Int64", "UInt64", "Int32", "UInt32", "Bool", "String")
)
_OWN_FORMS: Final = frozenset(
    f"google.protobuf.{name}"
    for name in ("Struct", "Value", "ListValue", "Timestamp", "FieldMask", "BytesValue", "Empty")
)
_MAX_KEPT: Final = 500  # packed Any values of an age; what many resources have in them is asked for soon again
_KEY_BYTES: Final = 16

_Set = Callable[[Any, Any], None]  # the message and the value of one of its fields
_Plan = tuple[dict[str, _Set], frozenset[str], str]  # by name of the field; which of them name resources; the message
_Kept = tuple[str, bytes, Sequence[Reference]]  # of an Any: its type, its bytes, what it names


def content_key(content: Any) -> bytes:
    """What stands for a value in JSON form: the same for equal ones, another one for others, and short."""
    form = marshal.dumps(content, 2)  # a form without back references, equal for what is equal
    return hashlib.blake2b(form, digest_size=_KEY_BYTES).digest()


class Filler:
    """Fills messages of one pool. `message` finds a class by its full name; `parse` is the pool's ParseDict."""

    def __init__(self, message: Callable[[str], type[Any]], parse: Callable[[Mapping[str, Any], Any], None]) -> None:
        self._message = message
        self._parse = parse
        self._plans: dict[str, _Plan] = {}
        self._packed: dict[bytes, _Kept] = {}
        self._aged: dict[bytes, _Kept] = {}  # those before; whoever is not asked for meanwhile goes
        self._named: list[Reference] = []  # by what is being filled

    def fill_naming(self, made: Any, fields: Mapping[str, Any]) -> frozenset[Reference]:
        """As `fill`; returns what the message names."""
        self._named = []
        self.fill(made, fields)
        return frozenset(self._named)

    def fill(self, made: Any, fields: Mapping[str, Any]) -> None:
        """Set the fields of a message; raises KeyError, TypeError or ValueError for what it does not have."""
        self._fill(self._plan_of(made.DESCRIPTOR), made, fields)

    def _fill(self, plan: _Plan, made: Any, fields: Mapping[str, Any]) -> None:
        setters, telling, full_name = plan
        for name, value in fields.items():
            setter = setters.get(name)
            if setter is None:
                raise KeyError(f'Message type "{full_name}" has no field named "{name}"')
            if value is not None:
                setter(made, value)
        if telling:
            for name in telling & fields.keys():
                self._named += told(name, fields[name], fields)

    def _plan_of(self, descriptor: Descriptor) -> _Plan:
        full_name = descriptor.full_name
        return self._plans.get(full_name) or self._plans.setdefault(full_name, self._plan(descriptor))

    def _plan(self, descriptor: Descriptor) -> _Plan:
        plan: dict[str, _Set] = {}
        for field in descriptor.fields:
            setter = self._setter(field)
            plan[field.name] = plan[field.json_name] = setter
        return plan, TELLING & plan.keys(), descriptor.full_name

    def _setter(self, field: FieldDescriptor) -> _Set:
        inner = field.message_type
        if inner is not None and inner.GetOptions().map_entry:
            return self._map(field.name, inner.fields_by_name["value"])
        one = self._value(field)
        if field.is_repeated:
            return _each(field.name, one) if inner is not None else _scalars(field.name, self._scalar(field))
        if inner is not None:
            return _inside(field.name, one)
        return _scalar(field.name, self._scalar(field))

    def _map(self, name: str, value: FieldDescriptor) -> _Set:
        if value.message_type is not None:
            one = self._value(value)

            def set_messages(made: Any, given: Any) -> None:
                there = getattr(made, name)
                for key, item in given.items():
                    one(there[key], item)

            return set_messages
        scalar = self._scalar(value)

        def set_scalars(made: Any, given: Any) -> None:
            there = getattr(made, name)
            for key, item in given.items():
                there[key] = scalar(item)

        return set_scalars

    def _value(self, field: FieldDescriptor) -> _Set:
        """What fills a message that is a field's value."""
        inner = field.message_type
        if inner is None:
            return _never
        full_name = inner.full_name
        if full_name == "google.protobuf.Any":
            return self._any
        if full_name == "google.protobuf.Duration":
            return _duration
        if full_name in _WRAPPERS:
            return _wrapper
        if full_name in _OWN_FORMS:
            return lambda made, value: self._parse(value, made)
        return self._part(inner)

    def _part(self, descriptor: Descriptor) -> _Set:
        """Fills a message within another; its plan is looked up once."""
        plan: _Plan | None = None

        def fill(made: Any, value: Any) -> None:
            nonlocal plan
            if plan is None:  # not before, since messages may be within themselves
                plan = self._plan_of(descriptor)
            self._fill(plan, made, value)

        return fill

    def _scalar(self, field: FieldDescriptor) -> Callable[[Any], Any]:
        if field.enum_type is not None:
            numbers = {value.name: value.number for value in field.enum_type.values}
            return lambda value: value if isinstance(value, int) else numbers[value]
        if field.type == FieldDescriptor.TYPE_BYTES:
            return _bytes
        return _as_it_is

    def _any(self, made: Any, fields: Any) -> None:
        if not fields:
            return  # one that is there and holds nothing
        key = content_key(fields)
        kept = self._packed.get(key) or self._aged.get(key)
        if kept is None:
            kept = self._pack(fields)
            if kept is None:
                self._parse(fields, made)
                return
        if len(self._packed) >= _MAX_KEPT:
            self._packed, self._aged = {}, self._packed
        self._packed[key] = kept
        made.type_url, made.value, names = kept
        self._named += names

    def _pack(self, fields: Mapping[str, Any]) -> _Kept | None:
        """None for a message whose own JSON form has a `value`."""
        type_url = fields["@type"]
        inner = self._message(type_url.rpartition("/")[2])()
        if inner.DESCRIPTOR.full_name.startswith("google.protobuf."):
            return None
        around, self._named = self._named, []
        self.fill(inner, {name: value for name, value in fields.items() if name != "@type"})
        names, self._named = tuple(dict.fromkeys(self._named)), around
        return type_url, inner.SerializeToString(deterministic=True), names


def _inside(name: str, one: _Set) -> _Set:
    def set_message(made: Any, value: Any) -> None:
        there = getattr(made, name)
        there.SetInParent()
        one(there, value)

    return set_message


def _each(name: str, one: _Set) -> _Set:
    def set_messages(made: Any, values: Any) -> None:
        there = getattr(made, name)
        for value in values:
            one(there.add(), value)

    return set_messages


def _scalar(name: str, convert: Callable[[Any], Any]) -> _Set:
    if convert is _as_it_is:
        return lambda made, value: setattr(made, name, value)
    return lambda made, value: setattr(made, name, convert(value))


def _scalars(name: str, convert: Callable[[Any], Any]) -> _Set:
    return lambda made, values: getattr(made, name).extend([convert(value) for value in values])


def _duration(made: Any, value: str) -> None:
    seconds = Decimal(value.removesuffix("s"))
    made.seconds = int(seconds)
    made.nanos = int((seconds - int(seconds)) * 1_000_000_000)


def _wrapper(made: Any, value: Any) -> None:
    made.value = value


def _as_it_is(value: Any) -> Any:
    return value


def _bytes(value: str) -> bytes:
    return base64.b64decode(value, validate=True)


def _never(made: Any, value: Any) -> None:
    raise TypeError(f"{made} takes no message")
