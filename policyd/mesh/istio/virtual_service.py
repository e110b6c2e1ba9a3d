"""Istio's VirtualService: which hosts are routed how."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Final, Literal

from pydantic import Field, model_validator

from policyd.mesh.istio.common import ExportTo, HostPattern, Networking, Resource, Section
from policyd.mesh.istio.connection_route import ConnectionMatch, TcpRoute, TlsRoute
from policyd.mesh.istio.destination import Destination
from policyd.mesh.istio.http_route import HttpRoute
from policyd.mesh.istio.matches import HttpMatch
from policyd.strict import Many, Model
from policyd.yaml import Path

MESH: Final = "mesh"  # the reserved gateway name: all sidecars
LATER: Final[Mapping[str, str]] = {
    "exponentialDelay": "Istio itself does not implement it; write `fixedDelay`",
    "http2Error": "Istio itself does not implement it; write `httpStatus` or `grpcStatus`",
    "sourceSubnet": "Istio itself does not implement it; write `sourceLabels` or `sourceNamespace`",
}

SECTIONS: Final[tuple[Section, ...]] = ("http", "tcp", "tls")


class VirtualServiceSpec(Model):
    """Which hosts, at which gateways (`mesh`: in sidecars), are routed how; without hosts others delegate to it."""

    hosts: Many[HostPattern] = ()
    gateways: Annotated[Many[str], Field(min_length=1)] = (MESH,)
    http: Many[HttpRoute] = ()
    tls: Many[TlsRoute] = ()
    tcp: Many[TcpRoute] = ()
    export_to: ExportTo = ()

    @model_validator(mode="after")
    def _rules(self) -> VirtualServiceSpec:
        if not (self.http or self.tls or self.tcp):
            raise ValueError("it has no rules; add `http`, `tls` or `tcp`")
        return self

    @model_validator(mode="after")
    def _delegate(self) -> VirtualServiceSpec:
        if not self.hosts and (self.tls or self.tcp):
            raise ValueError("a delegate has `http` rules only; add `hosts`, or remove the others")
        if not self.hosts and "gateways" in self.model_fields_set:
            raise ValueError("`hosts` is missing; add it, or remove `gateways`, which a delegate has not")
        if not self.hosts and any(rule.delegate for rule in self.http):
            raise ValueError("a delegate does not delegate; give it `hosts`, or `route` here")
        return self


class VirtualService(Resource):
    """Istio's VirtualService."""

    api_version: Networking = "networking.istio.io/v1"
    kind: Literal["VirtualService"] = "VirtualService"
    spec: VirtualServiceSpec

    def gateway_id(self, name: str) -> str:
        """Return the id (`<namespace>/<name>`) of a gateway as this resource names it; `mesh` stays."""
        return name if "/" in name or name == MESH else f"{self.namespace}/{name}"

    def gateway_ids(self) -> tuple[str, ...]:
        """Return the ids of the gateways, without the reserved `mesh`."""
        return tuple(self.gateway_id(name) for name in self.spec.gateways if name != MESH)

    @property
    def in_mesh(self) -> bool:
        """Whether it holds in sidecars."""
        return MESH in self.spec.gateways

    @property
    def is_delegate(self) -> bool:
        """Whether it has rules only for others that delegate to it."""
        return not self.spec.hosts

    def matches(self) -> Iterator[tuple[Path, HttpMatch | ConnectionMatch]]:
        """Return the blocks of all of its rules, with their places."""
        for section in SECTIONS:
            for at, rule in enumerate(getattr(self.spec, section)):
                for of, match in enumerate(rule.match):
                    yield ("spec", section, at, "match", of), match

    def selected_labels(self) -> Iterator[tuple[str, str]]:
        """Return the labels by which its rules select proxies."""
        for _, match in self.matches():
            yield from match.source_labels.items()


def held_at(virtual: VirtualService, path: Path) -> frozenset[str]:
    """Return the gateways, as they are named, at which the rule holds in which something stands; `mesh` is sidecars."""
    matches = getattr(virtual.spec, str(path[1]))[path[2]].match
    narrowed = (set(match.gateways or virtual.spec.gateways) for match in matches)
    return frozenset().union(*narrowed) if matches else frozenset(virtual.spec.gateways)


def led_to(virtual: VirtualService) -> Iterator[tuple[Path, Destination]]:
    """Return every destination of its rules, copies included, with its place."""
    for at, rule in enumerate(virtual.spec.http):
        where = ("spec", "http", at)
        for of, route in enumerate(rule.route):
            yield (*where, "route", of, "destination"), route.destination
        if rule.mirror is not None:
            yield (*where, "mirror"), rule.mirror
        for of, policy in enumerate(rule.mirrors):
            yield (*where, "mirrors", of, "destination"), policy.destination
    for section, rules in (("tls", virtual.spec.tls), ("tcp", virtual.spec.tcp)):
        for at, connections in enumerate(rules):
            for of, one in enumerate(connections.route):
                yield ("spec", section, at, "route", of, "destination"), one.destination
