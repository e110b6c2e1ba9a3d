"""A Cedar schema, parsed once, and the facts that the engine needs from it.

Law: Cedar is given no schema a decision (it costs 50 µs), so it knows no action groups then; the ancestors of
every action are read here, once, from Cedar's own rendering of the schema.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import cedarpy

from policyd.cedar.model import Uid
from policyd.errors import InvalidInput, Problem

MAX_SCHEMA_BYTES = 1 << 20

# Cedar renders one action a declaration: action "GET" in [Action::"read"] appliesTo {
_ACTION = re.compile(r'^\s*action "((?:[^"\\]|\\.)*)"(?: in \[([^\n]*?)\])?(?: appliesTo \{|;)', re.MULTILINE)
_PARENT = re.compile(r'Action::"((?:[^"\\]|\\.)*)"')


@dataclass(frozen=True, slots=True)
class Schema:
    """A parsed schema; `actions` maps every action and action group to its ancestors, sorted, itself left
    out.
    """

    text: str
    actions: Mapping[Uid, tuple[Uid, ...]]
    handle: cedarpy.Schema = field(repr=False, compare=False)

    @property
    def rendered(self) -> str:
        """Its text as Cedar writes it: one form, without comments."""
        return str(self.handle)

    def action(self, name: str) -> Uid | None:
        """The action of that name, or None where the schema has none."""
        uid = Uid("Action", name)
        return uid if uid in self.actions else None


def parse_schema(text: str, file: str = "") -> Schema:
    """Parse schema text (Cedar's own syntax); raises InvalidInput, naming `file`."""
    if len(text.encode()) > MAX_SCHEMA_BYTES:
        raise InvalidInput([Problem("schema", f"a schema has at most {MAX_SCHEMA_BYTES} bytes", file)])
    try:
        handle = cedarpy.Schema.from_str(text)
    except ValueError as error:
        raise InvalidInput([Problem("schema", f"the schema does not parse: {error}", file)]) from error
    return Schema(text, _ancestors(dict(_parents(str(handle)))), handle)


def _parents(rendered: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    for match in _ACTION.finditer(rendered):
        yield match[1], tuple(_PARENT.findall(match[2] or ""))


def _ancestors(parents: Mapping[str, tuple[str, ...]]) -> dict[Uid, tuple[Uid, ...]]:
    """The transitive closure; Cedar has refused cycles."""

    def above(name: str) -> set[str]:
        return {one for parent in parents.get(name, ()) for one in (parent, *above(parent))}

    return {Uid("Action", name): tuple(Uid("Action", one) for one in sorted(above(name))) for name in parents}
