"""What the policies of a set read, from their typed syntax tree: all that a decision can depend on.

Law: sound, never exact. Where the tree does not say plainly which part is read, the whole is taken as read;
so what is left out of a request cannot change its decision. It rests on how Cedar reads: attributes by `.`,
`[]` and `has` only, tags by `hasTag` and `getTag` only, ancestors by `in` only, and entities compare by their
ids.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, TypeVar

from cedarpy import pst

from policyd.cedar.model import Entity, Uid
from policyd.cedar.syntax_tree import (
    ancestors_computed,
    attributes_read,
    chain_of,
    chain_read,
    compared_entities,
    nodes_of,
    uid_of,
)
from policyd.signals import PEER_HEADER

WITHHELD_HEADERS = (
    "authorization",
    "cookie",
    "proxy-authorization",
    PEER_HEADER,
)  # never sent to policyd: not sent is not absent

HEADERS = "Headers"
USER = "User"
CONTEXT_ONLY = frozenset({HEADERS, "Labels", USER})  # entities that a request reaches through its context only
_OTHER_TAGS = frozenset(  # what bears tags and is certainly not the headers
    {("principal",), ("resource",), ("context", "user"), ("context", "destination", "labels")}
)

_READING = frozenset({pst.Var, pst.GetAttr, pst.HasAttr})  # the nodes that ask for attributes

T = TypeVar("T")
Paths = Mapping[str, "Paths | None"]  # a record's attributes that are read; None: all of what is there


@dataclass(frozen=True, slots=True)
class Reads:
    """What is read; None where that is all there is.

    `context` by paths; `attributes` of entities, `tags` and, of them, the `headers` by name; `ancestors`
    asked for by `in`; `entities` that conditions name, so that a request has to bring them too.
    """

    context: Paths | None = field(default_factory=dict)
    attributes: frozenset[str] = frozenset()
    tags: frozenset[str] | None = frozenset()
    headers: frozenset[str] = frozenset()
    ancestors: frozenset[Uid] | None = frozenset()
    entities: frozenset[Uid] = frozenset()

    @property
    def time(self) -> bool:
        """Whether the moment of the request is read; whatever reads it may answer otherwise at the next one."""
        return self.context is None or "time" in self.context


def reads_of(trees: Iterable[pst.Template]) -> Reads:
    """Return what all these policies together read."""
    return union(_reads_of(tree) for tree in trees)


def union(parts: Iterable[Reads]) -> Reads:
    """What any of these parts reads."""
    all_of = list(parts)
    if len(all_of) == 1:
        return all_of[0]
    return Reads(
        context=_merged([one.context for one in all_of]),
        attributes=frozenset[str]().union(*(one.attributes for one in all_of)),
        tags=_whole_or_union(one.tags for one in all_of),
        headers=frozenset[str]().union(*(one.headers for one in all_of)),
        ancestors=_whole_or_union(one.ancestors for one in all_of),
        entities=frozenset[Uid]().union(*(one.entities for one in all_of)),
    )


def _reads_of(tree: pst.Template) -> Reads:
    paths: set[tuple[str, ...]] = set()
    attributes: set[str] = set()
    tags: set[str | None] = set()
    headers: set[str | None] = set()
    named: list[Uid] = []
    compared: list[Uid] = []
    ancestors: set[Uid] = set()
    unnamed = False
    for node in nodes_of(tree):
        kind = type(node)
        if kind is pst.EntityUid:
            ancestors.add(uid_of(node))
        elif kind is pst.EntityLit:
            named.append(uid_of(node.value))
        elif kind is pst.BinaryOp:
            compared += compared_entities(node)
            tags.update(tag_names(node))
            headers.update(header_names(node))
            unnamed = unnamed or ancestors_computed(node)
        elif kind is pst.Is:
            unnamed = unnamed or ancestors_computed(node)
        elif kind in _READING:
            chain = chain_read(node)
            if chain is not None and chain[0] == "context":
                paths.add(chain[1:])
            attributes.update(attributes_read(node))
    return Reads(
        context=_as_tree(frozenset(paths)),
        attributes=_shared(frozenset(attributes)),
        tags=None if None in tags else _shared(frozenset(tags)),
        headers=_shared(frozenset(headers - {None})),
        ancestors=None if unnamed else _shared(frozenset(ancestors)),
        entities=_shared(frozenset(Counter(named) - Counter(compared) if named else ())),
    )


@lru_cache(maxsize=1024)
def _shared(part: frozenset[T]) -> frozenset[T]:
    """One object for equal parts: most policies of thousands read the same few things."""
    return part


def tag_names(node: object) -> Iterator[str | None]:
    """The tag that an expression reads; None where its name is computed."""
    if isinstance(node, pst.BinaryOp) and node.op in ("has_tag", "get_tag"):
        yield node.right.value if isinstance(node.right, pst.StringLit) else None


def header_names(node: object) -> Iterator[str | None]:
    """The header that an expression reads; None where its name is computed."""
    if isinstance(node, pst.BinaryOp) and not _is_other(node.left):
        yield from tag_names(node)


def _is_other(base: object) -> bool:
    """Whether what bears the tag is certainly not the headers."""
    if isinstance(base, pst.EntityLit):
        return str(base.value.type) != HEADERS
    return chain_of(base) in _OTHER_TAGS


@lru_cache(maxsize=1024)
def _as_tree(paths: frozenset[tuple[str, ...]]) -> Paths | None:
    """Attributes by their paths; shared, so never changed."""
    if () in paths:
        return None
    names = sorted({path[0] for path in paths})
    return {name: _as_tree(frozenset(path[1:] for path in paths if path[0] == name)) for name in names}


def _merged(trees: list[Paths | None]) -> Paths | None:
    """All that any of these trees has."""
    if None in trees:
        return None
    below: dict[str, list[Paths | None]] = {}
    for tree in trees:
        for name, inner in (tree or {}).items():
            below.setdefault(name, []).append(inner)
    return {name: _merged(below[name]) for name in sorted(below)}


def _whole_or_union(parts: Iterable[frozenset[T] | None]) -> frozenset[T] | None:
    found: set[T] = set()
    for part in parts:
        if part is None:
            return None
        found |= part
    return frozenset(found)


def context_read(record: Mapping[str, Any], paths: Paths | None, reached: set[Uid]) -> Mapping[str, Any]:
    """The part of a context that is read; the entities that it refers to are added to `reached`."""
    if paths is None:
        reached.update(entities_in(record))
        return record
    part: dict[str, Any] = {}
    for name, inner in paths.items():
        value = record.get(name)
        if isinstance(value, str):
            part[name] = value
        elif inner is not None and isinstance(value, dict) and "__entity" not in value and "__extn" not in value:
            part[name] = context_read(value, inner, reached)
        elif value is not None:
            part[name] = value
            reached.update(entities_in(value))
    return part


def headers_read(headers: Entity, reads: Reads) -> Entity:
    """The headers that are read."""
    tags = headers.tags
    return Entity(
        headers.uid, headers.attrs, headers.parents, {name: tags[name] for name in tags if name in reads.headers}
    )


def lean(entity: Entity, reads: Reads) -> Entity:
    """The part of an entity that policies read."""
    tags, above = reads.tags, reads.ancestors
    return Entity(
        entity.uid,
        {name: value for name, value in entity.attrs.items() if name in reads.attributes},
        [parent for parent in entity.parents if above is None or parent in above],
        {name: value for name, value in entity.tags.items() if tags is None or name in tags},
    )


def entities_in(value: Any) -> Iterator[Uid]:
    """The entities that a context refers to."""
    if isinstance(value, Mapping):
        if (entity := value.get("__entity")) is not None:
            yield Uid(entity["type"], entity["id"])
        elif "__extn" not in value:
            for inner in value.values():
                yield from entities_in(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from entities_in(inner)
