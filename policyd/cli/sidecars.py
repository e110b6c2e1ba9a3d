"""What is said about sidecars: the agent's lines of JSON events become the state of each; what they took, policyd says.

Law: pure; a line that is no event, or of a sidecar that nobody asked for, changes nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from policyd.cli.life import Phase
from policyd.xds.status import taken

if TYPE_CHECKING:
    from policyd._pb import admin_pb2 as pb

MAX_LINE: Final = 16_384


@dataclass(frozen=True, slots=True)
class SidecarState:
    """Whether a sidecar is up, or why not."""

    phase: Phase = Phase.STARTING
    why: str = "its agent has not joined yet"


States = Mapping[str, SidecarState]


def awaited(names: Iterable[str]) -> States:
    """Return the states of sidecars of which nothing was heard."""
    return dict.fromkeys(sorted(names), SidecarState())


def kind(place: pb.InstancePlace) -> str:
    """What stands beside an application, or at the edge: a `sidecar`, a `gateway`, or nothing (`proxyless`)."""
    return "proxyless" if place.role == "sidecar" and not place.outbound_port else place.role


def heard(states: States, line: str) -> States:
    """Return the states after the agent printed `line`."""
    event = _event(line)
    what, name = event.get("event"), event.get("instance")
    if what in ("agent.joined", "agent.resumed", "agent.came_back"):
        return _all(states, "its identity is awaited")
    if what == "agent.waiting":
        return _all(states, f"the agent waits: {event.get('reason', '')}")
    if not isinstance(name, str) or name not in states:
        return states
    after = _after(event)
    return states if after is None else {**states, name: after}


def metrics(line: str) -> str:
    """Where Prometheus finds the agent's metrics, if that is what the line says, else ""."""
    event = _event(line)
    address = event.get("address")
    said = event.get("event") == "agent.metrics" and isinstance(address, str)
    return f"http://{address}/metrics" if said else ""


def missing(states: States) -> str:
    """Say which sidecars are not up and why, "" when all are."""
    parts = [f"{name}: {state.why}" for name, state in states.items() if state.phase is not Phase.HEALTHY]
    return "; ".join(parts)


def are_told(proxies: Iterable[pb.ProxyStatus]) -> bool:
    """Whether any has still to answer to what it was sent; who rejects some waits with the rest."""
    states = ([one.state for one in proxy.types] for proxy in proxies)
    return any("sent" in known and "rejected" not in known for known in states)


def unopened(proxies: Iterable[pb.ProxyStatus]) -> str:
    """Say which ports proxies could not open, "" where they could."""
    found = ((proxy.instance, address) for proxy in proxies for one in proxy.types for address in taken(one.rejection))
    return "; ".join(f"`{name}` cannot open {address}, which another program has open" for name, address in found)


def _event(line: str) -> Mapping[str, Any]:
    if not line.startswith("{") or len(line) > MAX_LINE:
        return {}
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _after(event: Mapping[str, Any]) -> SidecarState | None:
    match event["event"]:
        case "sidecar.identity":
            return SidecarState(Phase.STARTING, "its Envoy starts")
        case "sidecar.starting" | "sidecar.restarting":
            return SidecarState(Phase.STARTING, "its Envoy waits for its configuration")
        case "sidecar.ready":
            return SidecarState(Phase.HEALTHY, "")
        case "sidecar.crashed":
            again = event.get("again_in", 0)
            return SidecarState(Phase.WAITING, f"its Envoy {event.get('ended', 'ended')}, starts again in {again} s")
        case "sidecar.not_started":
            return SidecarState(Phase.WAITING, f"its Envoy cannot be started: {event.get('reason', '')}")
        case "sidecar.secret_rejected":
            return SidecarState(Phase.STARTING, f"its Envoy refuses its certificate: {event.get('reason', '')}")
        case _:
            return None


def _all(states: States, why: str) -> States:
    return {
        name: state if state.phase is Phase.HEALTHY else SidecarState(Phase.STARTING, why)
        for name, state in states.items()
    }
