"""A way as values: hops, each with its decision and with where it leads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from policyd.policy.authorize import Answer as Decided
from policyd.xds.walk.asked import Asked
from policyd.xds.walk.step import Answer


@dataclass(frozen=True, slots=True)
class Place:
    """A rule of a VirtualService and where it is written: `rule` counts from 1, `match` too (0: without one).

    `name` is the rule's, or for connections the section in which it stands.
    """

    resource: str  # <namespace>/<name>
    rule: int
    match: int = 0
    name: str = ""
    file: str = ""
    line: int = 0


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a cluster leads: an address or a name, in the clear or not, and whose it is ("" where it is not ours).

    Port 0 is a listener inside the same Envoy, by its name.
    """

    address: str
    port: int
    instance: str = ""
    encrypted: bool = False
    priority: int = 0
    weight: int = 0


@dataclass(frozen=True, slots=True)
class Destination:
    """A cluster with its share of the requests, and the hops at its endpoints, those alike told once.

    `expects` are the identities one of which the other end has to prove. `looked_up`: its addresses are found when it
    is called.
    """

    cluster: str
    service: str
    port: int
    subset: str
    percent: float
    asked: Asked
    copy: bool = False
    expects: tuple[str, ...] = ()
    server_name: str = ""
    endpoints: tuple[Endpoint, ...] = ()
    looked_up: bool = False
    decided: Decided | None = None
    undecided: str = ""
    ends_inside: bool = False  # a tunnel whose requests are read, and routed, inside the same proxy
    arrivals: tuple[Arrival, ...] = ()

    @property
    def is_application(self) -> bool:
        """Whether it is the application beside a sidecar."""
        return self.cluster.startswith("inbound|")


@dataclass(frozen=True, slots=True)
class Hop:
    """What one listener does with the request. `refused` says why a connection is not taken at all.

    `undecided` says why a question has no answer, as for a path that no policy can be asked about. With `shares` chance
    decides which of these becomes of a request, and nothing else is said here.
    """

    instance: str
    listener: str
    asked: Asked
    refused: str = ""
    virtual_host: str = ""
    place: Place | None = None
    route: str = ""
    answer: Answer | None = None
    decided: Decided | None = None
    undecided: str = ""
    timeout: str = ""
    retries: Mapping[str, Any] = field(default_factory=dict)
    faults: Mapping[str, Any] = field(default_factory=dict)
    destinations: tuple[Destination, ...] = ()
    shares: tuple[Share, ...] = ()


@dataclass(frozen=True, slots=True)
class Share:
    """What becomes of `percent` of the requests."""

    percent: float
    hop: Hop


@dataclass(frozen=True, slots=True)
class Arrival:
    """A hop that comes out the same at each of some instances, but for their names."""

    instances: tuple[str, ...]
    hop: Hop


def hops(hop: Hop) -> Iterator[Hop]:
    """A hop and all that follow it, copies apart: nobody waits for what becomes of these."""
    yield hop
    for share in hop.shares:
        yield from hops(share.hop)
    for one in hop.destinations:
        if not one.copy:
            for arrival in one.arrivals:
                yield from hops(arrival.hop)


def is_denied(way: Hop) -> bool:
    """Whether a policy denies the request on some way that it may take."""
    return any(
        found is not None and not found.decision.allowed
        for hop in hops(way)
        for found in (hop.decided, *(one.decided for one in hop.destinations))
    )


def is_lost(way: Hop) -> bool:
    """Whether the request comes to an end on some way where nothing has answered it that was meant to."""
    return any(
        hop.refused
        or hop.undecided
        or (hop.answer is not None and hop.answer.status >= 400 and hop.place is None)
        or any(one.undecided or not (one.endpoints or one.looked_up) for one in hop.destinations if not one.copy)
        for hop in hops(way)
    )
