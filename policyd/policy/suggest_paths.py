"""Paths that were asked for, as few patterns: what stands for one thing of many becomes `*`.

Law: every path that was taken in is matched by a pattern that comes out. A `*` stands for one segment; only where there
are too many patterns, or a part of a path is not known, for all that follows.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

MANY: Final = 12  # different segments at one place: then it is a name of one thing of many
MAX_PATTERNS: Final = 40  # of one policy
MAX_NODES: Final = 4_096  # of one tree; what is new beyond that is taken in as a prefix

_NUMBER: Final = re.compile(r"[0-9]+")
_UUID: Final = re.compile(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}", re.IGNORECASE)
_HASH: Final = re.compile(r"(?=.*[0-9])[0-9a-f]{8,}|[0-9a-f]{16,}", re.IGNORECASE)
_ULID: Final = re.compile(r"[0-7][0-9A-HJKMNP-TV-Z]{25}")
_PLAIN: Final = re.compile(r"[\x21-\x7e]*")
ANY: Final = "*"


@dataclass(frozen=True, slots=True, order=True)
class Pattern:
    """`segments`, of which ANY is any one; `open` ones go on with anything."""

    segments: tuple[str, ...]
    open: bool = False

    def condition(self) -> str:
        """As Cedar has it, of `context.request`."""
        if not self.open and ANY not in self.segments:
            return f"context.request.path == {quoted('/' + '/'.join(map(_literal, self.segments)))}"
        text = "/".join(["", *(ANY if one == ANY else like_text(_literal(one)) for one in self.segments)])
        if self.open:
            return f"context.request.path like {_like(text + '/*' if self.segments else '/*')}"
        return f"context.request.path like {_like(text)} && context.request.segments == {len(self.segments)}"


_ESCAPED: Final = "\0"  # in front of a segment that is a star itself


@dataclass(slots=True)
class _Node:
    below: dict[str, _Node] = field(default_factory=dict)
    ends: bool = False
    open: bool = False

    def merge(self, other: _Node) -> None:
        self.ends = self.ends or other.ends
        self.open = self.open or other.open
        for name, node in other.below.items():
            if name in self.below:
                self.below[name].merge(node)
            else:
                self.below[name] = node


@dataclass(slots=True)
class PathTree:
    """The paths that were seen, one `add` each."""

    _root: _Node = field(default_factory=_Node)
    _nodes: int = 0

    def add(self, path: str, known: bool = True) -> None:
        """Take in a path; of one that is not known whole only what stands in front of the unknown part."""
        segments = path.removeprefix("/").split("/")
        node = self._root
        for at, segment in enumerate(segments):
            if not known and ("[masked]" in segment or at == len(segments) - 1):
                node.open = True
                return
            name = _generalised(segment)
            following = node.below.get(name)
            if following is None:
                if self._nodes >= MAX_NODES:
                    node.open = True
                    return
                self._nodes += 1
                following = node.below[name] = _Node()
            node = following
        node.ends = True

    def patterns(self) -> list[Pattern]:
        """What matches all of it, MAX_PATTERNS at most."""
        _gather(self._root)
        depth = max(_depths(self._root), default=0)
        while len(found := sorted(set(_patterns(self._root, ())))) > MAX_PATTERNS:
            depth -= 1
            _cut(self._root, depth)
        return [one for one in found if not any(_covers(other, one) for other in found if other != one)]


def _generalised(segment: str) -> str:
    if any(form.fullmatch(segment) for form in (_NUMBER, _UUID, _HASH, _ULID)) or not _PLAIN.fullmatch(segment):
        return ANY
    return _ESCAPED + segment if segment == ANY else segment


def _literal(segment: str) -> str:
    return segment.removeprefix(_ESCAPED)


def _gather(node: _Node) -> None:
    """Where there are many, they are one."""
    if len(node.below) > MANY:
        whole = node.below.get(ANY, _Node())
        for name, one in node.below.items():
            if name != ANY:
                whole.merge(one)
        node.below = {ANY: whole}
    for one in node.below.values():
        _gather(one)


def _cut(node: _Node, depth: int) -> None:
    """What lies deeper is anything."""
    if depth <= 0:
        if node.below:
            node.below, node.open = {}, True
        return
    for one in node.below.values():
        _cut(one, depth - 1)


def _depths(node: _Node, depth: int = 0) -> Iterator[int]:
    yield depth
    for one in node.below.values():
        yield from _depths(one, depth + 1)


def _patterns(node: _Node, above: tuple[str, ...]) -> Iterator[Pattern]:
    if node.ends:
        yield Pattern(above)
    if node.open:
        yield Pattern(above, open=True)
        return
    for name, one in node.below.items():
        yield from _patterns(one, (*above, name))


def _covers(wide: Pattern, narrow: Pattern) -> bool:
    """Whether all that `narrow` matches is matched by `wide`."""
    if wide.open:
        if len(narrow.segments) < len(wide.segments) + (0 if narrow.open else 1):
            return False
    elif narrow.open or len(narrow.segments) != len(wide.segments):
        return False
    return all(mine in (ANY, other) for mine, other in zip(wide.segments, narrow.segments, strict=False))


def all_conditions(patterns: Iterable[Pattern]) -> str:
    """Any of these patterns; "" for any path."""
    found = list(patterns)
    if any(one.open and not one.segments for one in found):
        return ""
    exact = [one for one in found if not one.open and ANY not in one.segments]
    parts = [one.condition() for one in found if one not in exact]
    if len(exact) == 1:
        parts.insert(0, exact[0].condition())
    elif exact:
        listed = ", ".join(quoted("/" + "/".join(map(_literal, one.segments))) for one in exact)
        parts.insert(0, f"[{listed}].contains(context.request.path)")
    return " || ".join(f"({one})" if "&&" in one and len(parts) > 1 else one for one in parts)


def quoted(text: str) -> str:
    """A text as Cedar writes it."""
    return f'"{_escaped(text)}"'


def like_text(text: str) -> str:
    """A text within a pattern: its own stars are stars."""
    return _escaped(text).replace("*", "\\*")


def _like(text: str) -> str:
    return f'"{text}"'


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')
