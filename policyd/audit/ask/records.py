"""Rows of the journal's copy as the records that they were, but for their hashes: a row proves nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from policyd.audit.record import Record

_JSON: Final = ("context", "detail", "shadow")


def record_of(value: Mapping[str, Any]) -> Record:
    """A row of the copy as a Record; the copy has no hashes."""
    return msgspec.convert({**value, **mappings(value), "prev": ""}, Record)


def mappings(value: Mapping[str, Any]) -> dict[str, Any]:
    """What the copy keeps as JSON, read."""
    return {name: json.loads(value[name]) for name in _JSON if isinstance(value.get(name), str)}
