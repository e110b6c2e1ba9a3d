"""An Envoy's own words about what it holds, as values.

Law: the words come over the network: they are unpacked within bounds, and what has another shape than Envoy's is left
out or refused, never guessed at.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from policyd.errors import StreamError

MAX_JSON: Final = 128 << 20  # bytes
_BODIES: Final[Mapping[str, str]] = {"routes": "route_config", "clusters": "cluster", "listeners": "listener"}


@dataclass(frozen=True, slots=True)
class Held:
    """One resource that Envoy holds; `problem` is why it does not take a newer one."""

    name: str
    version: str
    body: Mapping[str, Any] = field(default_factory=dict)
    is_active: bool = True
    problem: str = ""


def unpack(held: bytes) -> Mapping[str, Any]:
    """What an agent showed; raises StreamError for what is none of it."""
    try:
        unpacked = zlib.decompressobj()
        text = unpacked.decompress(held, MAX_JSON)
        if unpacked.unconsumed_tail or not unpacked.eof:
            raise StreamError(f"more than {MAX_JSON:,} bytes, or not all of them, were shown")
        value = json.loads(text)
    except (zlib.error, ValueError, RecursionError):
        raise StreamError("what the agent showed cannot be read") from None
    if not isinstance(value, dict):
        raise StreamError("what the agent showed has another form than an Envoy's")
    return value


def resources(kind: str, shown: Mapping[str, Any]) -> tuple[Held, ...]:
    """The resources of a dump, by name; of endpoints and secrets see `endpoints` and the dump itself."""
    if kind == "secrets":
        return tuple(Held(one.get("name", ""), one.get("version", ""), one) for one in _rows(shown, "secrets"))
    body = _BODIES[kind]
    found: list[Held] = []
    for one in _rows(shown, "configs"):
        found += _listener(one) if kind == "listeners" else [_held(one, body, one)]
    return tuple(sorted(found, key=lambda one: (one.name, not one.is_active)))


def _listener(one: Mapping[str, Any]) -> Iterator[Held]:
    problem = str(one.get("error_state", {}).get("details", ""))
    states = [(name, one[name]) for name in ("active_state", "warming_state") if isinstance(one.get(name), dict)]
    for name, state in states:
        yield _held(state, "listener", one, is_active=name == "active_state", problem=problem)
    # a name that Envoy has lost says nothing of a listener; where one of its own was rejected, that has the problem too
    if not states and problem and one.get("name"):
        yield Held(str(one["name"]), "", {}, is_active=False, problem=problem)


def _held(
    state: Mapping[str, Any], body: str, named: Mapping[str, Any], *, is_active: bool = True, problem: str = ""
) -> Held:
    held = state.get(body)
    value: Mapping[str, Any] = held if isinstance(held, dict) else {}
    name = str(value.get("name") or named.get("name", ""))
    return Held(name, str(state.get("version_info", "")), value, is_active, problem)


@dataclass(frozen=True, slots=True)
class HeldEndpoint:
    """One host of a cluster as Envoy sees it."""

    cluster: str
    address: str
    health: str
    is_ejected: bool
    weight: int
    priority: int


def endpoints(shown: Mapping[str, Any]) -> tuple[HeldEndpoint, ...]:
    """Every host of every cluster, by cluster."""
    found = (
        _endpoint(str(cluster.get("name", "")), host)
        for cluster in _rows(shown, "cluster_statuses")
        for host in _rows(cluster, "host_statuses")
    )
    return tuple(sorted(found, key=lambda one: (one.cluster, one.priority, one.address)))


def _endpoint(cluster: str, host: Mapping[str, Any]) -> HeldEndpoint:
    health = host.get("health_status", {})
    health = health if isinstance(health, dict) else {}
    return HeldEndpoint(
        cluster=cluster,
        address=address(host.get("address", {})),
        health=str(health.get("eds_health_status", "UNKNOWN")),
        is_ejected=bool(health.get("failed_outlier_check")),
        weight=int(host.get("weight", 1) or 1),
        priority=int(host.get("priority", 0) or 0),
    )


def address(shown: Mapping[str, Any]) -> str:
    """An Address as people write it."""
    if not isinstance(shown, dict):
        return ""
    socket = shown.get("socket_address", {})
    if socket:
        host = str(socket.get("address", ""))
        return f"[{host}]:{socket.get('port_value', 0)}" if ":" in host else f"{host}:{socket.get('port_value', 0)}"
    internal = shown.get("envoy_internal_address", {})
    if internal:
        return f"internal {internal.get('server_listener_name', '')}"
    return str(shown.get("pipe", {}).get("path", ""))


def _rows(shown: Mapping[str, Any], name: str) -> Iterator[Mapping[str, Any]]:
    rows = shown.get(name, ())
    return (one for one in (rows if isinstance(rows, list) else ()) if isinstance(one, dict))
