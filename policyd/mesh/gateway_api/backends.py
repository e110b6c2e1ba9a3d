"""What references to backends come to: a destination, or the reason why there is none.

Law: a reference into another namespace needs that namespace's word (ReferenceGrant); without it, what is there is not
even looked at.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from policyd.mesh.gateway_api.common import GROUP, ObjectReference
from policyd.mesh.gateway_api.conditions import Fault
from policyd.mesh.gateway_api.known import Known, KnownPort
from policyd.mesh.gateway_api.reference_grant import ReferenceGrant
from policyd.mesh.hosts import CLUSTER_DOMAIN
from policyd.mesh.istio.common import Section
from policyd.mesh.istio.destination import Destination, PortSelector
from policyd.mesh.matching import did_you_mean

ISTIO: Final = "networking.istio.io"
AUTHORITIES: Final = ("ConfigMap", "Secret")  # the kinds that may hold them


@dataclass(frozen=True, slots=True)
class Referrer:
    """Who refers: a kind of the Gateway API in a namespace."""

    kind: str
    namespace: str


class Grants:
    """Who may refer to what in other namespaces."""

    def __init__(self, grants: Iterable[ReferenceGrant]) -> None:
        self._grants = tuple(grants)

    def allow(self, who: Referrer, group: str, kind: str, namespace: str, name: str) -> bool:
        """Whether a thing may be referred to; those of the own namespace always may."""
        if namespace == who.namespace:
            return True
        return any(
            any((one.group, one.kind, one.namespace) == (GROUP, who.kind, who.namespace) for one in grant.spec.from_)
            and any((one.group, one.kind) == (group, kind) and one.name in (None, name) for one in grant.spec.to)
            for grant in self._grants
            if grant.namespace == namespace
        )


class Backends:
    """Where references lead."""

    def __init__(self, known: Known, grants: Grants) -> None:
        self._known = known
        self._grants = grants

    def of(self, who: Referrer, ref: ObjectReference, section: Section) -> Destination | Fault:
        """The destination that is meant, for requests or for connections."""
        namespace = ref.namespace or who.namespace
        if (ref.group, ref.kind) not in (("", "Service"), (ISTIO, "ServiceEntry"), (ISTIO, "Hostname")):
            shown = f"{ref.kind}.{ref.group}" if ref.group else ref.kind
            message = f"nothing is led to a `{shown}`; name a `Service`, or a `ServiceEntry` of `{ISTIO}`"
            return Fault("InvalidKind", message)
        host_only = ref.kind == "Hostname"
        if not host_only and not self._grants.allow(who, ref.group, ref.kind, namespace, ref.name):
            message = f"no ReferenceGrant of `{namespace}` lets a {who.kind} of `{who.namespace}` refer to `{ref.name}`"
            return Fault("RefNotPermitted", message)
        if ref.kind == "Service":
            return self._service(f"{ref.name}.{namespace}", ref.port, section)
        host = ref.name if host_only else self._known.entries.get(f"{namespace}/{ref.name}")
        if host is None or host not in self._known.hosts:
            message = f"no ServiceEntry outside of the mesh declares `{ref.name}`, alone and by its whole name"
            return Fault("BackendNotFound", message)
        return _on(host, ref.port, self._known.hosts[host], section, f"`{host}`")

    def _service(self, id_: str, port: int | None, section: Section) -> Destination | Fault:
        if id_ in self._known.at_edge:
            return Fault("BackendNotFound", f"`{id_}` is a gateway, to which no route leads; route to what it serves")
        ports = self._known.services.get(id_)
        if ports is None:
            near = did_you_mean(id_, self._known.services, ())
            return Fault("BackendNotFound", f"`{id_}` is no service of the mesh{f'; {near}' if near else ''}")
        return _on(f"{id_}.svc.{CLUSTER_DOMAIN}", port, ports, section, f"the service `{id_}`")


def _on(
    host: str, number: int | None, ports: tuple[KnownPort, ...], section: Section, called: str
) -> Destination | Fault:
    port = next((one for one in ports if one.number == number), None)
    listed = ", ".join(str(one.number) for one in ports)
    if port is None:
        which = "no port is named" if number is None else f"port {number} is none of its own"
        return Fault("BackendNotFound", f"{which} for {called}; it has {listed}")
    if not (port.requests if section == "http" else port.connections):
        speaks, wanted = ("connections", "requests") if section == "http" else ("requests", "connections")
        return Fault("UnsupportedProtocol", f"port {number} of {called} takes {speaks}, and is sent {wanted}")
    return Destination(host=host, port=PortSelector(number=port.number))
