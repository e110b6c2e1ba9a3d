"""Where instances are put on this machine: ports and the secret of each application's own proxy.

Law: pure; whether a port is free, which ports to try and what is secret are arguments. Only what is declared
has a place, and what has one keeps it.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator, Mapping, Set
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import islice
from typing import Final

from policyd.errors import InvalidInput, Problem
from policyd.mesh.declaration import Declaration
from policyd.mesh.files import GatewayInstanceSpec, PortSpec, WorkloadSpec
from policyd.mesh.model import Listen
from policyd.strict import dotted
from policyd.yaml import Path

MAX_TRIES: Final = 1000  # candidates looked at for one port


@dataclass(frozen=True, slots=True)
class PortPlace:
    """Where a port of a workload (`number` is its own) is served, and where its peers reach it."""

    number: int
    app_port: int
    inbound_port: int


@dataclass(frozen=True, slots=True)
class SidecarPlace:
    """The ports of a sidecar and the secret of its application's proxy.

    `app_port` and `inbound_port` are those of the workload's first port, `number` (0: not known), `more` those of the
    others. Of one without a sidecar they are one, and `outbound_port` is nobody's.
    """

    app_port: int
    inbound_port: int
    outbound_port: int
    proxy_secret: str = field(repr=False)
    more: tuple[PortPlace, ...] = ()
    number: int = field(default=0, compare=False)

    @property
    def ports(self) -> tuple[PortPlace, ...]:
        """All of them, the first one first."""
        return (PortPlace(self.number, self.app_port, self.inbound_port), *self.more)

    def of(self, number: int, *, first: bool) -> PortPlace | None:
        """Where a port of the workload is; one that is not known by its number was the first."""
        found = next((one for one in self.ports if one.number == number), None)
        return found or (self.ports[0] if first and not self.number else None)


@dataclass(frozen=True, slots=True)
class Placement:
    """Where every declared instance is, by name."""

    sidecars: Mapping[str, SidecarPlace] = field(default_factory=dict)
    gateways: Mapping[str, tuple[Listen, ...]] = field(default_factory=dict)

    def ports(self) -> frozenset[int]:
        """Return every port that is taken by this placement."""
        own = {s.outbound_port for s in self.sidecars.values()}
        own |= {p for s in self.sidecars.values() for one in s.ports for p in (one.app_port, one.inbound_port)}
        return frozenset(own | {listen.actual for listens in self.gateways.values() for listen in listens})


def place(
    declaration: Declaration,
    previous: Placement,
    *,
    is_free: Callable[[int], bool],
    candidates: Iterator[int],
    secret: Callable[[], str],
    held: Set[int] = frozenset(),
) -> Placement:
    """Place what `declaration` has, each where `previous` had it if that port is free or `held` by ourselves.

    `candidates` are ports to try, without end. `held` are the ports that our own running processes have open:
    none at start, `previous.ports()` while they run. A given port that someone else has open is a Problem; a
    gateway's `listen` that is taken gets another port. Raises InvalidInput.
    """
    picker = _Picker(declaration, previous.ports(), is_free, candidates, held)
    for name, gateway in declaration.workloads.gateways.items():
        picker.gateway(name, gateway, previous.gateways.get(name, ()))
    for name, workload in declaration.workloads.workloads.items():
        picker.sidecar(name, workload, previous.sidecars.get(name), secret)
    if picker.problems:
        raise InvalidInput(picker.problems)
    return Placement(picker.sidecars, picker.gateways)


def assumed(declaration: Declaration) -> Placement:
    """Place `declaration` without a machine, for questions answered offline: every port free, no secrets."""
    return place(
        declaration,
        Placement(),
        is_free=lambda _: True,
        candidates=iter(range(1024, 10_000_000)),
        secret=lambda: "",
    )


class _Picker:
    """The ports taken so far, while one placement is made."""

    def __init__(
        self,
        declaration: Declaration,
        placed: Set[int],
        is_free: Callable[[int], bool],
        candidates: Iterator[int],
        held: Set[int],
    ) -> None:
        self.sidecars: dict[str, SidecarPlace] = {}
        self.gateways: dict[str, tuple[Listen, ...]] = {}
        self.problems: list[Problem] = []
        self._document = declaration.workloads_document
        self._is_free, self._candidates, self._held = is_free, candidates, held
        # a given or declared port is nobody else's, wherever in the file it is given
        self._reserved = _reserved(declaration)
        self._placed = placed  # a newcomer gets none of these: their owner may still have it open
        self._taken: set[int] = set()

    def gateway(self, name: str, spec: GatewayInstanceSpec, before: tuple[Listen, ...]) -> None:
        known = {listen.declared: listen.actual for listen in before}
        self.gateways[name] = tuple(self._listen(name, spec, port, known.get(port)) for port in spec.listen)

    def _listen(self, name: str, spec: GatewayInstanceSpec, declared: int, before: int | None) -> Listen:
        if not _is_here(spec.address):
            return Listen(declared, declared)
        running = before in self._held
        for port in (before, declared) if running else (declared, before):
            if port is not None and (port == declared or port not in self._reserved) and self._take(port):
                return Listen(declared, port)
        return Listen(declared, self._pick(("gateways", name, "listen")))

    def sidecar(self, name: str, spec: WorkloadSpec, before: SidecarPlace | None, secret: Callable[[], str]) -> None:
        if before is not None and self._stays(spec, before):
            self.sidecars[name] = before
            return
        first, *more = spec.serves
        app, inbound = self._served(name, spec, *first, before.of(first[1].port, first=True) if before else None)
        outbound = self._outbound(name, spec, before) if not spec.proxyless else inbound
        others = []
        for path, port in more:
            known = before.of(port.port, first=False) if before else None
            others.append(PortPlace(port.port, *self._served(name, spec, path, port, known)))
        self.sidecars[name] = SidecarPlace(
            app, inbound, outbound, before.proxy_secret if before else secret(), tuple(others), first[1].port
        )

    def _stays(self, spec: WorkloadSpec, before: SidecarPlace) -> bool:
        """Whether it is as it was in all of its ports, which are ours; they are taken then."""
        numbers = tuple(number for number, _, _ in spec.shown)
        if spec.given_ports or numbers != (before.number, *(one.number for one in before.more)):
            return False
        ports = {before.app_port, before.inbound_port, before.outbound_port}
        ports.update(port for one in before.more for port in (one.app_port, one.inbound_port))
        free = ports <= self._held and ports.isdisjoint(self._reserved) and ports.isdisjoint(self._taken)
        if not free or len(ports) != 3 + 2 * len(before.more) or not _is_here(spec.address):
            return False
        self._taken |= ports
        return True

    def _outbound(self, name: str, spec: WorkloadSpec, before: SidecarPlace | None) -> int:
        known = before.outbound_port if before else None
        return self._port(name, spec, ("outboundPort",), spec.outbound_port, known)

    def _served(
        self, name: str, spec: WorkloadSpec, path: Path, port: PortSpec, before: PortPlace | None
    ) -> tuple[int, int]:
        """Where an application serves a port, and where its peers reach it."""
        known = before.inbound_port if before else None
        if spec.proxyless:  # peers come to the application itself
            return (self._port(name, spec, (*path, "inboundPort"), port.inbound_port, known),) * 2
        app = self._port(name, spec, (*path, "appPort"), port.app_port, before.app_port if before else None)
        return app, self._port(name, spec, (*path, "inboundPort"), port.inbound_port, known)

    def _port(self, name: str, spec: WorkloadSpec, field: Path, given: int | None, before: int | None) -> int:
        path = ("workloads", name, *field)
        if given is not None:
            if _is_here(spec.address) and given not in self._taken and not self._usable(given):
                message = f"port {given} is in use by another program"
                self.problems.append(self._document.problem("port", message, path, "free it or leave the port out"))
            self._taken.add(given)
            return given
        if not _is_here(spec.address):
            message = f"`{dotted(field)}` of `{name}` is missing, which a workload at `{spec.address}` needs"
            self.problems.append(self._document.problem("port", message, path, "add it"))
            return 0
        if before and before not in self._reserved and self._take(before):
            return before
        return self._pick(path)

    def _pick(self, path: Path) -> int:
        for port in islice(self._candidates, MAX_TRIES):
            if port not in self._reserved and port not in self._placed and self._take(port):
                return port
        self.problems.append(self._document.problem("port", "no free port was found", path, "give one"))
        return 0

    def _take(self, port: int) -> bool:
        if port in self._taken or not self._usable(port):
            return False
        self._taken.add(port)
        return True

    def _usable(self, port: int) -> bool:
        return port in self._held or self._is_free(port)


def _reserved(declaration: Declaration) -> frozenset[int]:
    given = {number for spec in declaration.workloads.workloads.values() for _, number in spec.given_ports}
    listens = {port for spec in declaration.workloads.gateways.values() for port in spec.listen}
    return frozenset(given | listens)


@lru_cache(maxsize=1024)
def _is_here(address: str) -> bool:
    """Tell whether an address is this machine's loopback, whose ports can be tried."""
    return ipaddress.ip_address(address).is_loopback
