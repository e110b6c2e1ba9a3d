"""Recorded requests decided again under a candidate, exactly, or not at all.

Law: nothing is guessed. What the candidate reads of a request is in the record, or follows from it (the path's
segments, the time, what the candidate's own mesh says of callers, services and instances), or is known to have been
absent because the policies of then would have recorded it; else the request is undecidable, and it is said for want of
what. A masked value is not known. Two requests of which the candidate reads the same are one question.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

import msgspec

from policyd.audit.record import Record
from policyd.cedar.reads import Paths, Reads, union
from policyd.errors import PolicydError
from policyd.policy.recorded import request_of
from policyd.policy.replay_user import USER, lacking_of_user, part_of_user, paths_of_user
from policyd.policy.ruling import Ruling

NO_TIME: Final = datetime(1970, 1, 1, tzinfo=UTC)
MAX_RELATIONS: Final = 65_536

_METHOD, _PATH, _SEGMENTS = ("request", "method"), ("request", "path"), ("request", "segments")
_HEADERS, _LABELS, _PORT = ("request", "headers"), ("destination", "labels"), ("destination", "port")
_TIME: Final = ("time",)

Path = tuple[str, ...]
Before = Callable[[str, datetime], Ruling | None]  # what was in force under a revision at a time, if that is kept


class Ask(NamedTuple):
    """All that the candidate's decision on a record depends on."""

    principal: str
    action: str
    resource: str
    proxy: str
    time: datetime
    context: dict[str, Any]


class Lacking(NamedTuple):
    """What the candidate reads and the record does not have, as paths into the context."""

    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Answer:
    """The candidate's word, `error` where it could not decide, and the policies or the error that gave it."""

    word: str
    by: tuple[str, ...] = ()


_encode: Final = msgspec.json.Encoder(order="sorted").encode
_decode: Final = msgspec.json.Decoder(Ask).decode


def has_question(record: Record) -> bool:
    """Whether policies decided."""
    asked = record.kind == "decision" and record.decision in ("allow", "deny")
    return asked and bool(record.principal and record.action and record.resource)


class Projector:
    """Turns records into questions to `candidate`; `before` finds what was in force then."""

    def __init__(self, candidate: Ruling, before: Before) -> None:
        self._candidate = candidate
        self._before = before
        self._rulings: dict[str, Ruling | None] = {}
        self._wanted: dict[tuple[str, str, str], _Wanted] = {}
        self._known: dict[tuple[str, str, str, str, str], Reads | None] = {}
        self._ports = _ports(candidate)

    def question(self, record: Record) -> bytes | Lacking:
        """The question, equal for equal ones; or what it would take to ask it. The record has a question."""
        relation = (record.principal, record.action, record.resource)
        wanted = self._wanted.get(relation)
        if wanted is None:
            if len(self._wanted) >= MAX_RELATIONS:
                self._wanted.clear()
            wanted = self._wanted[relation] = _wanted(record, self._candidate)
        found: dict[str, Any] = {}
        lacking = [*self._lacking(record, wanted, found)]
        if lacking:
            return Lacking(tuple(sorted(set(lacking))))
        proxy = record.proxy if wanted.of_instance else ""
        time = record.time if _TIME in wanted.paths else NO_TIME
        return _encode(Ask(*relation, proxy, time, found))

    def _lacking(self, record: Record, wanted: _Wanted, found: dict[str, Any]) -> Iterator[str]:
        """Copy what is wanted into `found`, and tell what is not to be had."""
        context, masked = record.context, record.masked
        if masked:
            yield from (f"{_name(one)} (masked)" for one in wanted.all_paths() if _is_masked(one, masked))
        for path, whole in wanted.paths.items():
            if path == _TIME:
                continue
            if path in (_LABELS, _PORT) and self._follows(path, record):
                continue
            value = _look_up(context, path)
            if value is None:
                if not self._absent(path, record):
                    yield _name(path)
            elif path == USER:
                yield from map(_name, lacking_of_user(value, wanted.reads, self._reads_then(record)))
                _put(found, path, part_of_user(value, wanted.reads) if isinstance(value, Mapping) else value)
            elif self._is_part(path, whole, value, record):
                yield _name(path)
            elif path:
                _put(found, path, value)
            else:
                found.update(value)
        yield from self._headers_lacking(record, wanted.headers, found)

    def _headers_lacking(self, record: Record, headers: tuple[str, ...], found: dict[str, Any]) -> Iterator[str]:
        if not headers:
            return
        sent = _look_up(record.context, _HEADERS)
        values = sent if isinstance(sent, Mapping) else {}
        for name in headers:
            if name in values:
                _put(found, (*_HEADERS, name), values[name])
            elif (known := self._reads_then(record)) is None or name not in known.headers:
                yield _name((*_HEADERS, name))

    def _follows(self, path: Path, record: Record) -> bool:
        """Whether the candidate's mesh says it of the instance that was asked; of what is outside it says nothing."""
        if record.resource.startswith("Host::"):
            return path == _LABELS
        ports = self._ports.get(record.proxy)
        return ports is not None and (path == _LABELS or len(ports) == 1)

    def _absent(self, path: Path, record: Record) -> bool:
        """Whether what is not in the record was not there: then policies looked at it."""
        known = self._reads_then(record)
        if known is None:
            return False
        level: Paths | None = known.context
        value: Any = record.context
        for name in path:
            if level is None:
                return True
            if name not in level:
                return False
            value = value.get(name) if isinstance(value, Mapping) else None
            if value is None:
                return True
            level = level[name]
        return False

    def _is_part(self, path: Path, whole: bool, value: Any, record: Record) -> bool:
        """Whether the record has a part only of what is wanted whole."""
        return whole and _is_plain(value) and not self._complete(path, record)

    def _complete(self, path: Path, record: Record) -> bool:
        """Whether policies looked at all of what the record has a part of."""
        known = self._reads_then(record)
        level = known.context if known else {}
        for name in path:
            if level is None:
                return True
            level = level.get(name, {})
        return level is None

    def _reads_then(self, record: Record) -> Reads | None:
        """What the policies read that decided then, those on trial too; None where that is not known."""
        shadow = record.shadow.revision if record.shadow else ""
        key = (record.principal, record.action, record.resource, record.revision, shadow)
        if key not in self._known:
            if len(self._known) >= MAX_RELATIONS:
                self._known.clear()
            self._known[key] = self._find_reads(record, shadow)
        return self._known[key]

    def _find_reads(self, record: Record, shadow: str) -> Reads | None:
        if record.revision not in self._rulings:
            self._rulings[record.revision] = self._before(record.revision, record.time)
        ruling = self._rulings[record.revision]
        if ruling is None:
            return None
        try:
            found = [ruling.reads(request_of(record, ruling))]
            trial = getattr(ruling, "shadow", None)
            if shadow and trial is not None and trial.revision == shadow:
                found.append(trial.reads(request_of(record, trial)))
        except PolicydError:
            return None
        return union(found)


def decide(question: bytes, candidate: Ruling) -> Answer:
    """What the candidate says; raises nothing on purpose."""
    asked = _decode(question)
    record = _record_of(asked)
    try:
        decision = candidate.decide(request_of(record, candidate))
    except PolicydError as error:
        return Answer("error", (error.message,))
    failed = tuple(error.policy for error in decision.errors) if not decision.reasons else ()
    return Answer(decision.word, decision.reasons or failed)


def _record_of(asked: Ask) -> Record:
    return Record(
        time=asked.time,
        kind="decision",
        principal=asked.principal,
        action=asked.action,
        resource=asked.resource,
        context=asked.context,
        proxy=asked.proxy,
        writer="",
        seq=0,
        prev="",
    )


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What the candidate reads of one caller's requests of one kind: `paths`, and of each whether all below it."""

    paths: Mapping[Path, bool]
    headers: tuple[str, ...]
    reads: Reads

    @property
    def of_instance(self) -> bool:
        """Whether it matters which instance was asked."""
        return _LABELS in self.paths or _PORT in self.paths

    def all_paths(self) -> Iterator[Path]:
        """Headers and claims too."""
        yield from (path for path in self.paths if path != USER)
        yield from paths_of_user(self.reads) if USER in self.paths else ()
        yield from ((*_HEADERS, name) for name in self.headers)


def _wanted(record: Record, candidate: Ruling) -> _Wanted:
    try:
        reads = candidate.reads(request_of(record, candidate))
    except PolicydError:  # it is no request of the candidate's mesh, whatever is in it
        return _Wanted({}, (), Reads())
    paths = {path: whole for path, whole in _leaves(reads.context, ()) if path != _HEADERS}
    if any(path[:1] in ((), USER) for path in paths):  # is recorded as one
        paths = {path: whole for path, whole in paths.items() if path[:1] != USER} | {USER: True}
    if _SEGMENTS in paths:
        del paths[_SEGMENTS]
        paths[_PATH] = False
    if _METHOD in paths and record.action not in ('Action::"other"', 'Action::"connect"'):
        del paths[_METHOD]  # the action says it
    return _Wanted(paths, tuple(sorted(reads.headers)), reads)


def _leaves(tree: Paths | None, above: Path) -> Iterator[tuple[Path, bool]]:
    """The paths that are read, and whether all below each."""
    if tree is None:
        yield above, True
        return
    for name, below in tree.items():
        if below:
            yield from _leaves(below, (*above, name))
        else:
            yield (*above, name), below is None


def _ports(ruling: Ruling) -> dict[str, set[int]]:
    """The Services' ports at which each instance is asked."""
    found: dict[str, set[int]] = {name: set() for name in ruling.mesh.instances}
    for listener in ruling.mesh.listeners.values():
        if listener.service:  # else it sends requests out
            found.setdefault(listener.instance, set()).add(listener.port)
    return found


def _look_up(context: Mapping[str, Any], path: Path) -> Any:
    value: Any = context
    for name in path:
        value = value.get(name) if isinstance(value, Mapping) else None
        if value is None:
            return None
    return value


def _put(found: dict[str, Any], path: Path, value: Any) -> None:
    *above, last = path
    for name in above:
        found = found.setdefault(name, {})
    found[last] = value


def _is_plain(value: Any) -> bool:
    """Whether it has parts, of which some may not have been recorded."""
    return isinstance(value, Mapping) and "__extn" not in value and "__entity" not in value


def _is_masked(path: Path, masked: tuple[str, ...]) -> bool:
    name = ".".join(path)
    return not path or any(one == name or one.startswith(f"{name}.") or name.startswith(f"{one}.") for one in masked)


def _name(path: Path) -> str:
    return f"context.{'.'.join(path)}" if path else "context"
