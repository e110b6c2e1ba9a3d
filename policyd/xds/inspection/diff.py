"""What a proxy was sent against what it holds.

Law: equal versions are equal contents, since a version is the hash of one; what Envoy masks is taken for what was sent,
and only addresses are compared of endpoints, since the rest of them Envoy does not tell as it got it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from policyd.envoy_api import CLUSTER, LISTENER, ROUTE, TYPE_PREFIX, EnvoyApi
from policyd.errors import EnvoyError
from policyd.xds.inspection.held import Held, HeldEndpoint, address

MASKED: Final = "[redacted]"
MAX_PATHS: Final = 5  # of one resource that are named
TYPES: Final[Mapping[str, str]] = {"clusters": CLUSTER, "listeners": LISTENER, "routes": ROUTE}


@dataclass(frozen=True, slots=True)
class Sent:
    """One resource as the proxy was sent it; `body` is None where only its name is known."""

    name: str
    version: str
    body: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Difference:
    """`what` is `missing` (sent and not held), `unknown` (held and not sent) or `other` (held otherwise)."""

    kind: str
    name: str
    what: str
    detail: str = ""


def differences(kind: str, sent: Iterable[Sent], held: Iterable[Held], api: EnvoyApi) -> Iterator[Difference]:
    """Where both sides differ, by name."""
    wanted = {one.name: one for one in sent}
    there = {one.name: one for one in sorted(held, key=lambda one: one.is_active)}  # an active one hides a warming one
    for name in sorted(wanted.keys() | there.keys()):
        if name not in there:
            yield Difference(kind, name, "missing")
        elif name not in wanted:
            yield Difference(kind, name, "unknown")
        elif found := _otherwise(kind, wanted[name], there[name], api):
            yield found


def secret_differences(sent: Iterable[Sent], held: Iterable[Held], own: frozenset[str]) -> Iterator[Difference]:
    """As `differences`, for secrets, of which only versions are known; `own` are those that the agent gives."""
    there = [one for one in held if one.name not in own]
    yield from differences("secrets", sent, there, _NO_API)


def _otherwise(kind: str, sent: Sent, held: Held, api: EnvoyApi) -> Difference | None:
    why = f"; Envoy says: {held.problem}" if held.problem else ""
    if not held.is_active:
        return Difference(kind, sent.name, "other", f"it is not active yet{why}")
    if sent.version == held.version and not why:
        if sent.body is None or kind not in TYPES:
            return None
        paths = list(_paths("", sent.body, _straight(kind, held.body, api)))
        detail = f"equal versions and yet {', '.join(paths[:MAX_PATHS])}"
        return Difference(kind, sent.name, "other", detail) if paths else None
    paths = list(_paths("", sent.body, _straight(kind, held.body, api))) if sent.body is not None else []
    where = f" ({', '.join(paths[:MAX_PATHS])})" if paths else ""
    return Difference(kind, sent.name, "other", f"sent {sent.version}, held {held.version or 'none'}{where}{why}")


def _straight(kind: str, body: Mapping[str, Any], api: EnvoyApi) -> Mapping[str, Any]:
    """What Envoy told in the one form that messages have here."""
    plain = {name: value for name, value in body.items() if name != "@type"}
    try:
        return api.to_dict(api.build(TYPES[kind].removeprefix(TYPE_PREFIX), plain))
    except EnvoyError as error:
        return {"unreadable": str(error)}


def _paths(at: str, sent: Any, held: Any) -> Iterator[str]:
    """Where two JSON values differ."""
    if held == MASKED or sent == held:
        return
    if isinstance(sent, Mapping) and isinstance(held, Mapping):
        for key in sorted(sent.keys() | held.keys()):
            yield from _paths(f"{at}.{key}".lstrip("."), sent.get(key), held.get(key))
    elif isinstance(sent, list) and isinstance(held, list) and len(sent) == len(held):
        for number, (one, other) in enumerate(zip(sent, held, strict=True)):
            yield from _paths(f"{at}[{number}]", one, other)
    else:
        yield at or "everything"


def endpoint_differences(sent: Iterable[Sent], held: Iterable[HeldEndpoint]) -> Iterator[Difference]:
    """Which addresses of which cluster one side alone has; clusters that were not sent by address are passed over."""
    there: dict[str, set[str]] = {}
    for one in held:
        there.setdefault(one.cluster, set()).add(one.address)
    for assignment in sent:
        wanted = set(_addresses(assignment.body or {}))
        found = there.get(assignment.name, set())
        if wanted != found:
            lacks = f"lacks {', '.join(sorted(wanted - found))}" if wanted - found else ""
            more = f"has besides {', '.join(sorted(found - wanted))}" if found - wanted else ""
            yield Difference("endpoints", assignment.name, "other", "; ".join(filter(None, (lacks, more))))


def _addresses(assignment: Mapping[str, Any]) -> Iterator[str]:
    for group in assignment.get("endpoints", ()):
        for one in group.get("lb_endpoints", ()):
            yield address(one.get("endpoint", {}).get("address", {}))


_NO_API: Any = None  # of secrets nothing is built
