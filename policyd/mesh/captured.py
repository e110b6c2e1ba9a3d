"""Which instances are captured: what their applications send and get passes the sidecar, though they know of none.

Law: a Sidecar asks for it (`captureMode: IPTABLES`), and the agent's machine does it. Whoever is captured on a machine
asks as its workload, so there is one on each, and no port of another is where its sidecar listens.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from policyd.errors import Problem
from policyd.mesh.declaration import Declaration
from policyd.mesh.istio.sidecar import Sidecar, SidecarSpec
from policyd.mesh.istio.workload_entry import INBOUND_PORT, OUTBOUND_PORT
from policyd.mesh.model import Instance
from policyd.mesh.sidecars import said_of

DNS_PORT: Final = 15053
PORTS: Final = frozenset({OUTBOUND_PORT, INBOUND_PORT, DNS_PORT})
MODE: Final = "IPTABLES"


@dataclass(frozen=True, slots=True)
class Captured:
    """What of an instance is captured: what it sends, and what comes to which ports of its workload."""

    outbound: bool = False
    inbound: frozenset[int] = frozenset()

    def __bool__(self) -> bool:
        """Whether anything is."""
        return self.outbound or bool(self.inbound)


NOTHING: Final = Captured()


def is_captured_somewhere(sidecars: Iterable[Sidecar]) -> bool:
    """Whether some Sidecar asks for it."""
    return any(_captures(one.spec) for one in sidecars)


def captured(sidecars: Iterable[Sidecar], instance: Instance) -> Captured:
    """What of an instance is captured, by the narrowest Sidecars that say how it calls and is called."""
    said = said_of(sidecars, instance)
    egress = next((one.egress for one in said if one.egress), ())
    ingress = next((one.ingress for one in said if one.ingress), ())
    ports = frozenset(one.port.number for one in ingress if one.capture_mode == MODE)
    return Captured(any(one.capture_mode == MODE for one in egress), ports)


def check_captured(declaration: Declaration, instances: Mapping[str, Instance], problems: list[Problem]) -> None:
    """One instance of a machine is captured, and the ports of its capture are nobody else's."""
    declared = [one for one in declaration.of(Sidecar) if _captures(one.resource.spec)]
    if not declared:
        return
    sidecars = tuple(one.resource for one in declaration.of(Sidecar))
    found = {name: one for name, one in instances.items() if captured(sidecars, one)}
    first: dict[str, str] = {}
    by_address: dict[str, list[Instance]] = {}
    for one in instances.values():
        by_address.setdefault(one.address, []).append(one)
    at = declared[0]
    for name, instance in sorted(found.items()):
        other = first.setdefault(instance.address, name)
        if other != name:
            message = f"`{name}` and `{other}` are both captured at `{instance.address}`, and nothing tells them apart"
            problems.append(at.problem("capture", message, ("spec",), "select one of them, or move one"))
            continue
        for neighbour in by_address[instance.address]:
            if taken := next((port for port in _ports(neighbour, captured=neighbour is instance) if port in PORTS), 0):
                message = f"`{neighbour.name}` has port {taken}, where the capture of `{name}` listens"
                problems.append(at.problem("capture", message, ("spec",), "give it another one"))


def _captures(spec: SidecarSpec) -> bool:
    modes = (*(one.capture_mode for one in spec.egress), *(one.capture_mode for one in spec.ingress))
    return MODE in modes


def _ports(instance: Instance, *, captured: bool) -> Iterator[int]:
    """The ports of an instance; those of its own capture it may share with it."""
    yield from (port.app_port for port in instance.ports)
    yield from (one.actual for one in instance.listens)
    yield from (port.inbound_port for port in instance.ports if not captured or port.inbound_port != INBOUND_PORT)
    if not captured or instance.outbound_port != OUTBOUND_PORT:
        yield instance.outbound_port
