"""Nodes and edges: who there is, who called whom between two looks, how well.

Law: pure. A node is a service with its versions, or one instance of it; counts of edges that fall together are added
before quantiles are taken, so that a p95 is one of requests and never of averages.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal

from policyd import signals
from policyd.telemetry.graph import OUTSIDE, Counts, Edge, Look, Traffic, traffic

if TYPE_CHECKING:
    from policyd._pb import admin_pb2 as pb

Kind = Literal["workload", "gateway", "outside", "host"]
By = Literal["version", "service"]
MANY: Final = 40  # instances; from here on services are shown first
MAX_NODES: Final = 1_000
UNKNOWN: Final = "(unknown)"


@dataclass(frozen=True, slots=True)
class Node:
    """Who calls or is called. `versions` are the instances that it stands for."""

    key: str
    name: str
    version: str
    kind: Kind
    namespace: str = ""
    versions: tuple[str, ...] = ()
    health: str = ""


@dataclass(frozen=True, slots=True)
class Link:
    """An edge of the picture: the traffic from one node to another, and how it is secured."""

    source: str
    target: str
    traffic: Traffic

    @property
    def key(self) -> str:
        """Its name in addresses and pages."""
        return f"{self.source}~{self.target}"

    @property
    def is_busy(self) -> bool:
        """Whether anything ended meanwhile."""
        return bool(self.traffic.rate or self.traffic.connections)

    @property
    def state(self) -> Literal["denied", "failing", "busy", "idle"]:
        """The worst that can be said of it."""
        one = self.traffic
        if one.denied > 0:
            return "denied"
        if one.failed > 0:
            return "failing"
        return "busy" if self.is_busy else "idle"

    @property
    def is_mutual(self) -> bool:
        """Whether both ends proved who they are."""
        return self.traffic.edge.security == signals.MUTUAL_TLS


@dataclass(frozen=True, slots=True)
class Picture:
    """All of it at one moment; `seconds` lie between its two looks, `missed` are the proxies that did not answer."""

    nodes: tuple[Node, ...]
    links: tuple[Link, ...]
    seconds: float = 0.0
    missed: Mapping[str, str] = field(default_factory=dict)
    omitted: int = 0

    def node(self, key: str) -> Node | None:
        """A node by its key."""
        return next((one for one in self.nodes if one.key == key), None)

    def link(self, key: str) -> Link | None:
        """A link by its key."""
        return next((one for one in self.links if one.key == key), None)


def picture(
    before: Look,
    now: Look,
    seconds: float,
    places: Sequence[pb.InstancePlace],
    by: By,
    missed: Mapping[str, str] | None = None,
) -> Picture:
    """Draw what happened between two looks; of very many nodes the first."""
    nodes = {node.key: node for node in _nodes(places, by)}
    group = {instance: node.key for node in nodes.values() for instance in node.versions}
    told = traffic(_grouped(before, group), _grouped(now, group), seconds)
    for name in (end for one in told for end in (one.edge.source, one.edge.destination)):
        nodes.setdefault(name, _stranger(name))
    shown = dict(list(nodes.items())[:MAX_NODES])
    links = tuple(
        sorted(
            (Link(one.edge.source, one.edge.destination, one) for one in _joined(told)),
            key=lambda link: (link.source, link.target),
        )
    )
    kept = tuple(link for link in links if link.source in shown and link.target in shown)
    return Picture(tuple(shown.values()), kept, seconds, missed or {}, len(nodes) - len(shown))


def default_by(places: Sequence[pb.InstancePlace]) -> By:
    """Versions while they can be told apart at a glance."""
    return "version" if len(places) <= MANY else "service"


def focused(whole: Picture, key: str) -> Picture:
    """A node and those that it calls or is called by."""
    links = tuple(link for link in whole.links if key in (link.source, link.target))
    near = {key, *(end for link in links for end in (link.source, link.target))}
    nodes = tuple(node for node in whole.nodes if node.key in near)
    return Picture(nodes, links, whole.seconds, whole.missed, whole.omitted)


def without_idle(whole: Picture) -> Picture:
    """What is busy, and who has part in it."""
    links = tuple(link for link in whole.links if link.is_busy)
    busy = {end for link in links for end in (link.source, link.target)}
    return Picture(
        tuple(node for node in whole.nodes if node.key in busy), links, whole.seconds, whole.missed, whole.omitted
    )


def of_namespace(whole: Picture, namespace: str) -> Picture:
    """What is in a namespace, and who is beside it."""
    inside = {node.key for node in whole.nodes if node.namespace == namespace}
    links = tuple(link for link in whole.links if link.source in inside or link.target in inside)
    near = inside | {end for link in links for end in (link.source, link.target)}
    nodes = tuple(node for node in whole.nodes if node.key in near)
    return Picture(nodes, links, whole.seconds, whole.missed, whole.omitted)


def _nodes(places: Iterable[pb.InstancePlace], by: By) -> Iterable[Node]:
    of_service: dict[str, list[pb.InstancePlace]] = defaultdict(list)
    for place in places:
        of_service[place.service if by == "service" else place.name].append(place)
    for key, some in sorted(of_service.items()):
        first = some[0]
        name, _, namespace = first.service.rpartition(".")
        own = name or first.service
        versions = tuple(sorted(place.name for place in some))
        yield Node(
            key=key,
            name=own,
            version=_version(first.name, own) if by == "version" else "",
            kind="gateway" if first.role == "gateway" else "workload",
            namespace=namespace if name else "",
            versions=versions,
            health=_health(some),
        )


def _version(instance: str, service: str) -> str:
    """What an instance's name says beyond its service's."""
    rest = instance.removeprefix(f"{service}-")
    return rest if rest != service else ""


def _health(places: Iterable[pb.InstancePlace]) -> str:
    return "; ".join(f"{one.name}: {one.health}" for one in places if one.health not in ("", "healthy"))


def _stranger(name: str) -> Node:
    if name == OUTSIDE:
        return Node(name, "outside", "", "outside")
    if name in ("", signals.UNKNOWN, UNKNOWN):
        return Node(name or UNKNOWN, "unknown", "", "outside")
    return Node(name, name, "", "host")


def _grouped(one: Look, group: Mapping[str, str]) -> Look:
    """The look with what falls together added up."""
    found: dict[Edge, Counts] = {}
    for edge, counts in one.items():
        source, target = (group.get(end, end or UNKNOWN) for end in (edge.source, edge.destination))
        known = found.setdefault(Edge(source, target, edge.security), Counts())
        known.requests += counts.requests
        known.denied += counts.denied
        known.failed += counts.failed
        known.connections += counts.connections
        for bound, count in counts.buckets.items():
            known.buckets[bound] += count
    return found


def _joined(told: Iterable[Traffic]) -> Iterable[Traffic]:
    """One for each pair of ends: the busiest with the rates of all, in the clear where any is."""
    pairs: dict[tuple[str, str], list[Traffic]] = defaultdict(list)
    for one in told:
        pairs[one.edge.source, one.edge.destination].append(one)
    for some in pairs.values():
        if len(some) == 1:
            yield some[0]
            continue
        busy = [one for one in some if one.rate or one.connections] or some[:1]
        least = min(busy, key=lambda one: one.edge.security == signals.MUTUAL_TLS)
        yield Traffic(
            least.edge,
            sum(one.rate for one in some),
            sum(one.denied for one in some),
            sum(one.failed for one in some),
            sum(one.connections for one in some),
            max((one.p50 for one in busy if one.p50 is not None), default=None),
            max((one.p95 for one in busy if one.p95 is not None), default=None),
        )
