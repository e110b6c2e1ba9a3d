"""The operator's masks: which values of a record are left out, hashed or shortened.

Law: pure; applied before anything is buffered, and named in `masked`. The hash is keyed, so that equal values stay
equal and nobody without the key finds a value by trying. Of a set, as claims are, each value is changed by itself, and
it stays a set.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec

from policyd.audit.record import Entry
from policyd.config.audit import MaskSettings

KEY_BYTES: Final = 32
HASH_PREFIX: Final = "hmac-sha256:"
_HASH_DIGITS: Final = 32
_CUT: Final = "…"

Masker = Callable[[Entry], Entry]
_GONE: Final = object()


def make_masker(rules: Sequence[MaskSettings], key: bytes) -> Masker | None:
    """What applies the rules to an entry; None where there are none."""
    if not rules:
        return None
    changes = [(path, _change(rule, key)) for rule in rules for path in rule.paths]

    def apply(entry: Entry) -> Entry:
        context, masked = entry.context, []
        for path, change in changes:
            changed = _changed(context, path, change)
            if changed is not None:
                context = changed
                masked.append(".".join(path))
        if not masked:
            return entry
        return msgspec.structs.replace(entry, context=context, masked=tuple(dict.fromkeys([*entry.masked, *masked])))

    return apply


def _change(rule: MaskSettings, key: bytes) -> Callable[[Any], Any]:
    match rule.how:
        case "hash":
            return _each(
                lambda value: HASH_PREFIX + hmac.digest(key, _text(value).encode(), "sha256").hex()[:_HASH_DIGITS]
            )
        case "truncate":
            length = rule.length or 0
            return _each(lambda value: _shortened(_text(value), length))
        case _:
            return lambda _: _GONE


def _each(change: Callable[[Any], str]) -> Callable[[Any], Any]:
    return lambda value: sorted({change(one) for one in value}) if isinstance(value, (list, tuple)) else change(value)


def _shortened(text: str, length: int) -> str:
    return text if len(text) <= length else text[:length] + _CUT


def _text(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _changed(values: Mapping[str, Any], path: Sequence[str], change: Callable[[Any], Any]) -> dict[str, Any] | None:
    """`values` with what stands at `path` changed; None where nothing stands there."""
    name, *rest = path
    if name not in values:
        return None
    old = values[name]
    if rest:
        new = _changed(old, rest, change) if isinstance(old, Mapping) else None
        return None if new is None else {**values, name: new}
    new = change(old)
    if new is _GONE:
        return {key: value for key, value in values.items() if key != name}
    return {**values, name: new}
