"""Strict YAML: text becomes documents of plain values, each value with its line.

Law: what two readers could understand differently is refused: duplicate keys, tags, merge keys, control
characters. Only `true` and `false` are booleans (YAML 1.2 core schema); `on`, `no`, `0o17` and dates stay
text. Size, depth and the number of values with all aliases expanded are bounded, and nothing here recurses.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import yaml

from policyd.errors import InvalidInput, Problem

MAX_BYTES: Final = 1_048_576
MAX_DEPTH: Final = 64
MAX_VALUES: Final = 200_000
MAX_PROBLEMS: Final = 100  # of one file; who has more repeats one mistake

_PARSER: Final[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\ud800-\udfff\ufffe\uffff]")
_INTEGER = re.compile(r"-?(?:0|[1-9][0-9]{0,17})")
_DECIMAL = re.compile(r"-?[0-9]{1,18}\.[0-9]{1,18}")
_WORDS: Final[Mapping[str, Any]] = {"true": True, "false": False, "null": None, "~": None, "": None}

Path = Sequence[str | int]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a value stands (a mapping's value: where its key does); lines and columns count from 1."""

    line: int
    column: int
    children: Mapping[str | int, Place] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class Document:
    """One document: `value` is made of dict (text keys), list, str, int, float, bool and None."""

    file: str
    value: Any
    place: Place = Place(1, 1)

    def find(self, path: Path) -> Place:
        """Return the place of `path`, or of the nearest value above it that the document has."""
        place = self.place
        for step in path:
            if step not in place.children:
                break
            place = place.children[step]
        return place

    def problem(self, code: str, message: str, path: Path = (), remedy: str = "") -> Problem:
        """Return a Problem at the place of `path`."""
        place = self.find(path)
        return Problem(code, message, self.file, place.line, place.column, remedy)


def load(text: str, file: str, *, max_bytes: int = MAX_BYTES) -> tuple[Document, ...]:
    """Parse every document of `text`, empty ones included (their value is None); raises InvalidInput."""
    check_text(text, file, max_bytes)
    builder = _Builder(file)
    try:
        for event in yaml.parse(text, Loader=_PARSER):
            builder.take(event)
    except yaml.MarkedYAMLError as error:
        raise InvalidInput([*builder.problems, _syntax(error, text, file)]) from None
    except yaml.YAMLError as error:
        raise InvalidInput([*builder.problems, Problem("yaml", f"no valid YAML: {error}", file)]) from None
    if builder.problems:
        raise InvalidInput(builder.problems)
    return tuple(builder.documents)


def load_one(text: str, file: str, *, max_bytes: int = MAX_BYTES) -> Document:
    """Parse a file of at most one document; an empty one has an empty mapping as its value."""
    documents = [d for d in load(text, file, max_bytes=max_bytes) if d.value is not None]
    if len(documents) > 1:
        raise InvalidInput([documents[1].problem("yaml", "more than one document", remedy="keep one document in it")])
    return documents[0] if documents else Document(file, {})


def check_text(text: str, file: str, max_bytes: int = MAX_BYTES) -> None:
    """Refuse what is too large or has control characters, NUL among them; raises InvalidInput."""
    size = len(text.encode("utf-8", "surrogatepass"))
    if size > max_bytes:
        raise InvalidInput([too_large(file, size, max_bytes)])
    if bad := _FORBIDDEN.search(text):
        line, column = position(text, bad.start())
        message = f"the control character U+{ord(bad.group()):04X} is not allowed"
        raise InvalidInput([Problem("text", message, file, line, column, "remove it")])


def too_large(file: str, size: int, max_bytes: int) -> Problem:
    """Return the Problem of a file of `size` bytes where `max_bytes` are allowed."""
    return Problem("size", f"{size:,} bytes, at most {max_bytes:,} are allowed", file, remedy="split the file")


def position(text: str, offset: int) -> tuple[int, int]:
    """Return line and column, from 1, of a character's offset."""
    start = text.rfind("\n", 0, offset) + 1
    return text.count("\n", 0, offset) + 1, offset - start + 1


def _syntax(error: yaml.MarkedYAMLError, text: str, file: str) -> Problem:
    mark = error.problem_mark or error.context_mark
    line, column = (mark.line + 1, mark.column + 1) if mark else (0, 0)
    line = min(line, len(text.splitlines()))  # what is missing at the end is reported behind it
    problem = error.problem or "unreadable"
    remedy = "indent with spaces" if "\\t" in problem or "\t" in problem or "tab" in problem else ""
    return Problem("yaml", f"no valid YAML: {problem}", file, line, column, remedy)


@dataclass(frozen=True, slots=True)
class _Built:
    """A finished value; `size` counts the values in it with aliases expanded, `height` how deep they nest."""

    value: Any
    place: Place
    size: int = 1
    height: int = 0


@dataclass(slots=True)
class _Open:
    """A mapping or a sequence that has not ended yet."""

    value: dict[str, Any] | list[Any]
    line: int
    column: int
    anchor: str | None
    children: dict[str | int, Place] = field(default_factory=dict)
    key: str | None = None
    key_at: tuple[int, int] = (0, 0)
    size: int = 1
    height: int = 1

    def wants_key(self) -> bool:
        return isinstance(self.value, dict) and self.key is None

    def add(self, built: _Built) -> None:
        self.size += built.size
        self.height = max(self.height, built.height + 1)
        if isinstance(self.value, list):
            self.children[len(self.value)] = built.place
            self.value.append(built.value)
            return
        assert self.key is not None
        if self.key not in self.value:
            self.children[self.key] = Place(*self.key_at, built.place.children)
            self.value[self.key] = built.value
        self.key = None


class _Builder:
    """Takes the parser's events one by one; a stack instead of recursion."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.documents: list[Document] = []
        self.problems: list[Problem] = []
        self._stack: list[_Open] = []
        self._anchors: dict[str, _Built | None] = {}
        self._values = 0

    def take(self, event: yaml.Event) -> None:
        """Take the next event; raises InvalidInput for what ends the reading at once."""
        match event:
            case yaml.DocumentStartEvent():
                self._anchors = {}
            case yaml.ScalarEvent():
                self._scalar(event)
            case yaml.AliasEvent():
                self._alias(event)
            case yaml.MappingStartEvent() | yaml.SequenceStartEvent():
                self._open(event)
            case yaml.MappingEndEvent() | yaml.SequenceEndEvent():
                self._close()

    def _refuse(self, event: yaml.Event, message: str, remedy: str = "") -> Problem:
        return Problem("yaml", message, self.file, *_at(event), remedy)

    def _count(self, event: yaml.Event, size: int, depth: int) -> None:
        self._values += size
        if len(self.problems) >= MAX_PROBLEMS:
            raise InvalidInput(self.problems)
        if self._values > MAX_VALUES:
            message = f"more than {MAX_VALUES:,} values once its aliases are expanded"
            raise InvalidInput([*self.problems, self._refuse(event, message, "write less, or fewer aliases")])
        if depth > MAX_DEPTH:
            message = f"nested more than {MAX_DEPTH} levels deep"
            raise InvalidInput([*self.problems, self._refuse(event, message, "nothing here needs that")])

    def _scalar(self, event: Any) -> None:
        self._count(event, 1, len(self._stack))
        if event.tag is not None:
            self.problems.append(self._refuse(event, f"the tag `{event.tag}` is not supported", "remove it"))
        if bad := _FORBIDDEN.search(event.value):
            message = f"the control character U+{ord(bad.group()):04X} is not allowed"
            self.problems.append(self._refuse(event, message, "remove it"))
        if self._stack and self._stack[-1].wants_key():
            self._key(event)
            return
        value = _resolve(event.value) if event.implicit[0] else event.value
        self._finish(_Built(value, _place(event)), event.anchor)

    def _key(self, event: Any) -> None:
        top = self._stack[-1]
        place = _place(event)
        top.key, top.key_at = event.value, (place.line, place.column)
        if event.anchor is not None:
            self._anchors[event.anchor] = _Built(event.value, place)
        if event.value == "<<" and event.implicit[0]:
            message, remedy = "merge keys (`<<`) are not supported", "write the fields out"
            self.problems.append(self._refuse(event, message, remedy))
        elif event.value in top.value:
            first = top.children[event.value].line
            message = f"the key `{event.value[:80]}` is there twice, first in line {first}"
            self.problems.append(self._refuse(event, message, "remove or rename one"))

    def _alias(self, event: Any) -> None:
        if self._stack and self._stack[-1].wants_key():
            refusal = self._refuse(event, "an alias as a key is not supported", "write the key out")
            raise InvalidInput([*self.problems, refusal])
        target = self._anchors.get(event.anchor)
        if target is None:
            word = "refers to itself" if event.anchor in self._anchors else "refers to nothing"
            raise InvalidInput([*self.problems, self._refuse(event, f"the alias `*{event.anchor}` {word}")])
        self._count(event, target.size, len(self._stack) + target.height)
        place = Place(*_at(event), target.place.children)
        self._finish(_Built(target.value, place, target.size, target.height), None)

    def _open(self, event: Any) -> None:
        self._count(event, 1, len(self._stack) + 1)
        if event.tag is not None:
            self.problems.append(self._refuse(event, f"the tag `{event.tag}` is not supported", "remove it"))
        if self._stack and self._stack[-1].wants_key():
            raise InvalidInput([*self.problems, self._refuse(event, "a key must be text")])
        if event.anchor is not None:
            self._anchors[event.anchor] = None
        empty: dict[str, Any] | list[Any] = {} if isinstance(event, yaml.MappingStartEvent) else []
        self._stack.append(_Open(empty, *_at(event), event.anchor))

    def _close(self) -> None:
        done = self._stack.pop()
        place = Place(done.line, done.column, done.children)
        self._finish(_Built(done.value, place, done.size, done.height), done.anchor)

    def _finish(self, built: _Built, anchor: str | None) -> None:
        if anchor is not None:
            self._anchors[anchor] = built
        if self._stack:
            self._stack[-1].add(built)
        else:
            self.documents.append(Document(self.file, built.value, built.place))


def _at(event: yaml.Event) -> tuple[int, int]:
    mark = event.start_mark
    return (mark.line + 1, mark.column + 1) if mark else (0, 0)


def _place(event: yaml.Event) -> Place:
    return Place(*_at(event))


def _resolve(text: str) -> Any:
    if text in _WORDS:
        return _WORDS[text]
    if _INTEGER.fullmatch(text):
        return int(text)
    return float(text) if _DECIMAL.fullmatch(text) else text
