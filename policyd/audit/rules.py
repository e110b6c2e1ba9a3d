"""The operator's masks: which values of a record are left out, hashed or shortened.

Law: pure; applied before anything is buffered, and named in `masked`. The hash is keyed, so that equal values stay
equal and nobody without the key finds a value by trying. Of a set, as claims are, each value is changed by itself, and
it stays a set.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final

import msgspec

from policyd.audit.masking import MASK
from policyd.audit.record import Entry, Fault
from policyd.config.audit import MaskSettings
from policyd.errors import IncompleteRequest, UnacceptablePath

KEY_BYTES: Final = 32
HASH_PREFIX: Final = "hmac-sha256:"
_HASH_DIGITS: Final = 32
_CUT: Final = "…"

Masker = Callable[[Entry], Entry]
_GONE: Final = object()

# errors that quote what the caller sent, by where that stands in a context
_QUOTED_BY: Final[Mapping[tuple[str, ...], str]] = {
    ("request", "path"): UnacceptablePath.code,
    ("request", "host"): IncompleteRequest.code,
    ("sni",): IncompleteRequest.code,
}
_QUOTE: Final = re.compile("`.*`", re.DOTALL)  # from the first to the last


def make_masker(rules: Sequence[MaskSettings], key: bytes) -> Masker | None:
    """What applies the rules to an entry; None where there are none."""
    if not rules:
        return None
    changes = [(path, _change(rule, key)) for rule in rules for path in rule.paths]
    unquoted = make_unquoter(rules)

    def apply(entry: Entry) -> Entry:
        entry = unquoted(entry)
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


def make_unquoter(rules: Sequence[MaskSettings]) -> Masker:
    """What masks in an entry only what its errors quote of masked values: for who says errors and nothing more."""
    masked = [path for rule in rules for path in rule.paths]
    codes = frozenset(code for path in masked for said, code in _QUOTED_BY.items() if said[: len(path)] == path)
    return partial(_unquoted, codes=codes)


def _unquoted(entry: Entry, codes: frozenset[str]) -> Entry:
    """An entry whose errors of these codes quote nothing."""
    errors, shadow = entry.errors, entry.shadow
    if any(one.source in codes for one in errors):
        entry = msgspec.structs.replace(entry, errors=_without_quotes(errors, codes))
    if shadow is not None and any(one.source in codes for one in shadow.errors):
        silent = msgspec.structs.replace(shadow, errors=_without_quotes(shadow.errors, codes))
        entry = msgspec.structs.replace(entry, shadow=silent)
    return entry


def _without_quotes(faults: Sequence[Fault], codes: frozenset[str]) -> tuple[Fault, ...]:
    return tuple(
        Fault(one.source, _QUOTE.sub(f"`{MASK}`", one.message)) if one.source in codes else one for one in faults
    )


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
