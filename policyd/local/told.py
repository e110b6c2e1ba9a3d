"""What came of compiling, for people and for programs.

Law: nothing is said to be decided in a proxy because it could be; what is said is what the compiler proved.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from policyd import envoy_api
from policyd.local import users
from policyd.local.compile import Compiled, Left
from policyd.local.envoy import BAD_PATH, FAILED, INCOMPLETE, NOBODY, rbac, rules
from policyd.local.logic import NO, YES, words_of
from policyd.local.replies import identified, mappers

_RBAC = "envoy.extensions.filters.http.rbac.v3.RBAC"
_OURS = {
    INCOMPLETE: ("503", "no usable method, host or caller, as policyd has no decision then"),
    BAD_PATH: ("400", "a path that has no canonical form"),
    NOBODY: ("deny", "whatever else"),
}


@dataclass(frozen=True, slots=True)
class Row:
    """A policy at a listener: its effect and outcome in words, and where it stands what prevents it, if so."""

    policy: str
    effect: str
    outcome: str
    why: str = ""


def rows(compiled: Compiled) -> list[Row]:
    """Every policy that is filed under the listener's service, by id."""
    forbids = {one.policy for one in (*compiled.forbids, *compiled.failing)}
    found = [Row(policy, "forbid", "compiled") for policy in forbids]
    found += [Row(one.policy, "permit", "compiled") for one in compiled.permits]
    found += [Row(one.policy, one.effect, "not compiled", why_left(one)) for one in compiled.left]
    found += [Row(one, effect, "never applies") for one, effect in compiled.unused]
    return sorted(found, key=lambda row: row.policy)


def why_left(left: Left) -> str:
    """What prevents it, with where that stands."""
    part = f" in `{left.text}`" if left.text else ""
    return f"{left.why}{part} ({left.file}:{left.line})"


def readable(compiled: Compiled) -> Iterator[tuple[str, str, str]]:
    """The filter, whose first match decides: what is done, by which policy, and when."""
    last = ("deny", "", "whatever else")
    for name, when, action in rules(compiled):
        done, words = _OURS.get(name, (action.lower(), ""))
        if name == FAILED:
            yield from (("deny", one.policy, f"{words_of(one.when)}, for it fails then") for one in compiled.failing)
            if when == YES:
                return
        elif when == YES:
            last = (done, "" if name in _OURS else name, "whatever else")
            break
        elif when != NO:
            yield done, "" if name in _OURS else name, words or words_of(when)
    yield last


def size(compiled: Compiled) -> int:
    """How many bytes a proxy is sent."""
    config = {name: value for name, value in rbac(compiled).items() if name != "@type"}
    return len(envoy_api.pack(_RBAC, config))


def as_json(compiled: Compiled, listeners: Sequence[str]) -> dict[str, Any]:
    """All of it; `listeners` are those that are compiled alike."""
    told: dict[str, Any] = {
        "listeners": list(listeners),
        "exact": compiled.is_exact,
        "obstacles": list(compiled.obstacles),
        "policies": [
            {"policy": row.policy, "effect": row.effect, "outcome": row.outcome} | ({"why": row.why} if row.why else {})
            for row in rows(compiled)
        ],
    }
    if not compiled.is_exact:
        return told
    if compiled.issuers:
        told["user"] = {"told": users.told(), "asked": users.asked(compiled.issuers, compiled.claims)}
    filters = {"identified": identified(), "filter": rbac(compiled), "local_reply_mappers": mappers()}
    return told | {"bytes": size(compiled), **filters}


def alike(found: Sequence[Compiled]) -> list[tuple[Compiled, list[str]]]:
    """What is compiled alike, once, with the names of its listeners."""
    groups: list[tuple[Compiled, list[str]]] = []
    for one in found:
        same = next((names for other, names in groups if one.content == other.content), None)
        if same is None:
            groups.append((one, [one.listener]))
        else:
            same.append(one.listener)
    return groups
