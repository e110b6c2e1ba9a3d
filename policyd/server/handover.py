"""A Ruling goes from the process that checked it to those that decide under it, in pieces small enough to wait for.

Law: taking one over never keeps a decision waiting for long: policies come a few at a time, those that the last ruling
had are not sent again, and what comes out must have the very revision that was checked.
"""

from __future__ import annotations

import hashlib
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from itertools import islice
from typing import Any, Final

from policyd.authz.ruling import Ruling, make_ruling
from policyd.cedar.policies import Policy, PolicySet, set_of
from policyd.cedar.schema import Schema, parse_schema
from policyd.errors import DecisionError
from policyd.mesh.model import Mesh
from policyd.server.link import Chosen, Down, Policies, Rule

AT_ONCE: Final = 32  # policies a message: unpacking them keeps the interpreter for some 3 ms
PAUSE_SECONDS: Final = 0.0005  # between pieces of what is let go


def key_of(policy: Policy) -> bytes:
    """What a policy is known by: its text and its place."""
    return hashlib.sha256(f"{policy.file}\0{policy.line}\0{policy.text}".encode()).digest()[:16]


def keys_of(ruling: Ruling) -> frozenset[bytes]:
    """The keys of a ruling's policies, and of those that are tried beside them."""
    return frozenset(key_of(policy) for one in _sides(ruling) for policy in one.policy_set.policies)


@dataclass(frozen=True, slots=True)
class Given:
    """What was handed over to somebody last: a ruling, and as which rule."""

    number: int
    ruling: Ruling


def messages(ruling: Ruling, number: int, before: Given | None = None) -> Iterator[Down]:
    """All that hands a ruling over, as the rule `number`, to who was given another one before."""
    known = keys_of(before.ruling) if before else frozenset()
    chosen = [
        Chosen(one.revision, tuple(key_of(policy) for policy in one.policy_set.policies)) for one in _sides(ruling)
    ]
    new = {
        key: policy
        for side, one in zip(chosen, _sides(ruling), strict=True)
        for key, policy in zip(side.keys, one.policy_set.policies, strict=True)
        if key not in known
    }
    pieces = iter(new.items())
    while piece := tuple(islice(pieces, AT_ONCE)):
        yield Policies(piece)
    active, *shadow = chosen
    mesh = _for_decisions(ruling.mesh)
    gone: dict[str, tuple[Any, ...]] = {}
    if before is not None:
        mesh, gone = _news(_for_decisions(before.ruling.mesh), mesh)
    onto = before.number if before else 0
    yield Rule(number, active, shadow[0] if shadow else None, mesh, ruling.schema.text, onto, gone)


def _sides(ruling: Ruling) -> tuple[Ruling, ...]:
    return (ruling,) if ruling.shadow is None else (ruling, ruling.shadow)


def are_alike(one: Ruling, other: Ruling) -> bool:
    """Whether who decides under one has all that the other would hand over."""
    sides, others = _sides(one), _sides(other)
    return (
        len(sides) == len(others)
        and one.schema.text == other.schema.text
        and all(map(_have_same_policies, sides, others))
        and all(getattr(one.mesh, name) == getattr(other.mesh, name) for name in _told(other.mesh))
    )


def _have_same_policies(one: Ruling, other: Ruling) -> bool:
    return one.revision == other.revision and one.policy_set.policies == other.policy_set.policies


def _told(mesh: Mesh) -> list[str]:
    """What of a mesh decisions need."""
    return [one.name for one in fields(mesh) if one.compare and not isinstance(getattr(mesh, one.name), tuple)]


def _for_decisions(mesh: Mesh) -> Mesh:
    """The mesh without the declared resources, which only proxies' configuration is made of."""
    declared: dict[str, Any] = {one.name: () for one in fields(mesh) if isinstance(getattr(mesh, one.name), tuple)}
    return replace(mesh, **declared)


def _mappings(mesh: Mesh) -> dict[str, Mapping[Any, Any]]:
    found = {one.name: getattr(mesh, one.name) for one in fields(mesh) if one.init}
    return {name: value for name, value in found.items() if isinstance(value, Mapping)}


def _news(before: Mesh, now: Mesh) -> tuple[Mesh, dict[str, tuple[Any, ...]]]:
    """A mesh with what is new or different in its mappings, and the keys that have gone from each."""
    new: dict[str, Any] = {}
    gone = {}
    for name, after in _mappings(now).items():
        was = getattr(before, name)
        new[name] = {key: one for key, one in after.items() if (old := was.get(key)) is not one and old != one}
        gone[name] = tuple(key for key in was if key not in after)
    return replace(now, **new), gone


def _whole(before: Mesh, rule: Rule) -> Mesh:
    """The mesh that a rule means, on that of the rule before."""
    laid: dict[str, Any] = {}
    for name, new in _mappings(rule.mesh).items():
        was, gone = getattr(before, name), set(rule.gone[name])
        laid[name] = {**(was if not gone else {key: one for key, one in was.items() if key not in gone}), **new}
    return replace(rule.mesh, **laid)


class Takeover:
    """Puts rulings together again, at the lower end."""

    def __init__(self) -> None:
        self._last: Given | None = None
        self._known: Mapping[bytes, Policy] = {}
        self._new: dict[bytes, Policy] = {}
        self._schema: Schema | None = None
        self._gone: deque[object] = deque()

    def take(self, message: Policies) -> None:
        """Keep the pieces until they are named."""
        self._new.update(message.policies)

    def ruling(self, rule: Rule) -> Ruling:
        """The ruling that `rule` names; raises DecisionError where its revision, or the rule before, is another one."""
        last = self._last
        if rule.onto != (last.number if last and rule.onto else 0):
            raise DecisionError(f"the rule {rule.number} is on top of {rule.onto}, which is not the last one here")
        if self._schema is None or self._schema.text != rule.schema:
            self._schema = parse_schema(rule.schema)
        known = {**self._known, **self._new}
        active, shadow = _set_of(rule.active, known), _set_of(rule.shadow, known) if rule.shadow else None
        mesh = _whole(last.ruling.mesh, rule) if last and rule.onto else rule.mesh
        ruling = make_ruling(mesh, active, self._schema, shadow, last.ruling.entities if last else None)
        for came, meant in ((ruling, rule.active), (ruling.shadow, rule.shadow)):
            if came is not None and meant is not None and came.revision != meant.revision:
                raise DecisionError(f"revision `{came.revision}` came out of `{meant.revision}`")
        kept = {*rule.active.keys, *(rule.shadow.keys if rule.shadow else ())}
        self._known, self._new = {key: known[key] for key in kept}, {}
        self._gone.extend(policy for key, policy in known.items() if key not in kept)
        self._last = Given(rule.number, ruling)
        return ruling

    def let_go(self, old: Ruling | None, sleep: Callable[[float], object] = time.sleep) -> None:
        """Free what the last ruling had for itself, piece by piece: all at once would keep the interpreter."""
        for one in _sides(old) if old else ():
            for _ in one.engine.fading():
                sleep(PAUSE_SECONDS)
        del old
        while self._gone:
            for _ in range(min(AT_ONCE, len(self._gone))):
                self._gone.popleft()
            sleep(PAUSE_SECONDS)


def _set_of(chosen: Chosen, known: Mapping[bytes, Policy]) -> PolicySet:
    return set_of(known[key] for key in chosen.keys)
