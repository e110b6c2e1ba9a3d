"""Who may obtain which identity: the question that the issuance policies are asked (issuance.cedarschema).

Law: what is asked about comes from checked evidence and from what is declared, nothing from the request for
the certificate. Every entity that is named is supplied, with all its ancestors.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeAlias

from policyd.cedar.model import ANONYMOUS, Entity, Request, Uid
from policyd.mesh.model import Group, Mesh
from policyd.spiffe import SpiffeId

X509: Final = Uid("Action", "x509")
JWT: Final = Uid("Action", "jwt")
MAX_ENTITIES: Final = 16_384


@dataclass(frozen=True, slots=True)
class Evidence:
    """How we know who asks: `kind` is a word of the schema, `selectors` what was found, such as `unix:uid:1000`."""

    kind: str
    selectors: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Order:
    """An identity that somebody wants.

    `principal` is None before there is an SVID. `source` is the caller's IP address, "" where there is none;
    `time` is in UTC.
    """

    identity: SpiffeId
    principal: SpiffeId | None
    evidence: Evidence
    ttl: timedelta
    time: datetime
    dns_names: tuple[str, ...] = ()
    source: str = ""

    @property
    def action(self) -> Uid:
        """What the policies are asked to allow."""
        return X509

    def context(self) -> dict[str, Any]:
        """The order as the schema's context has it."""
        context = {**_context(self), "dns_names": list(self.dns_names)}
        return {**context, "source": _extension("ip", self.source)} if self.source else context


@dataclass(frozen=True, slots=True)
class JwtOrder:
    """A token that somebody wants, to show it to `audiences`; the rest as in an Order."""

    identity: SpiffeId
    principal: SpiffeId | None
    evidence: Evidence
    ttl: timedelta
    time: datetime
    audiences: tuple[str, ...]

    @property
    def action(self) -> Uid:
        """What the policies are asked to allow."""
        return JWT

    def context(self) -> dict[str, Any]:
        """The order as the schema's context has it."""
        return {**_context(self), "audiences": list(self.audiences)}


AnyOrder: TypeAlias = Order | JwtOrder


class Entities:
    """The Workload entities of the mesh that is declared now, made once each: the same are asked about for hours."""

    def __init__(self) -> None:
        self._made: tuple[Mesh | None, dict[SpiffeId, Entity]] = (None, {})

    def of(self, spiffe_id: SpiffeId, mesh: Mesh) -> Entity:
        """As `workload_entity`."""
        known_in, made = self._made
        if known_in is not mesh or len(made) >= MAX_ENTITIES:
            made = {}
            self._made = (mesh, made)
        entity = made.get(spiffe_id)
        if entity is None:
            entity = made[spiffe_id] = workload_entity(spiffe_id, mesh)
        return entity


def cedar_request(order: AnyOrder, mesh: Mesh, entities: Entities | None = None) -> Request:
    """The order as the issuance policies are asked about it; labels and groups are those that `mesh` declares."""
    made = (entities or Entities()).of
    asked = made(order.identity, mesh)
    asking = Entity(ANONYMOUS) if order.principal is None else made(order.principal, mesh)
    by_uid = {entity.uid: entity for entity in (asking, asked)}
    for entity in (asking, asked):
        for parent in entity.parents:
            by_uid.setdefault(parent, Entity(parent))
    return Request(asking.uid, order.action, asked.uid, order.context(), tuple(by_uid.values()))


def principal_uid(principal: SpiffeId | None) -> Uid:
    """Who asks, as policies and records name it."""
    return ANONYMOUS if principal is None else Uid("Workload", str(principal))


def workload_entity(spiffe_id: SpiffeId, mesh: Mesh) -> Entity:
    """The Workload entity of an identity, declared or not (an agent's is not), with all its ancestors as parents."""
    attributes: dict[str, Any] = {"trust_domain": spiffe_id.trust_domain, "path": spiffe_id.path}
    parents = [Uid("TrustDomain", spiffe_id.trust_domain)]
    if spiffe_id.namespace is not None and spiffe_id.service_account is not None:
        attributes |= {"namespace": spiffe_id.namespace, "service_account": spiffe_id.service_account}
        own = spiffe_id.trust_domain == mesh.trust_domain
        namespace = spiffe_id.namespace if own else f"{spiffe_id.trust_domain}/{spiffe_id.namespace}"
        parents.append(Uid("Namespace", namespace))
    parents += [Uid("Group", name) for name in groups_of(spiffe_id, mesh.groups)]
    declared = mesh.workloads.get(spiffe_id)
    return Entity(principal_uid(spiffe_id), attributes, parents, dict(declared.labels) if declared else {})


def groups_of(spiffe_id: SpiffeId, groups: Mapping[str, Group]) -> tuple[str, ...]:
    """The groups that hold an identity, directly or through groups that are their members, by name."""
    found = {name for name, group in groups.items() if spiffe_id in group.workloads}
    grown = True
    while grown:
        above = {name for name, group in groups.items() if group.groups & found}
        grown = not above <= found
        found |= above
    return tuple(sorted(found))


def _context(order: AnyOrder) -> dict[str, Any]:
    return {
        "evidence": {"kind": order.evidence.kind, "selectors": list(order.evidence.selectors)},
        "ttl": _extension("duration", f"{order.ttl // timedelta(milliseconds=1)}ms"),
        "time": _extension("datetime", f"{order.time.astimezone(UTC):%FT%TZ}"),
    }


def _extension(function: str, argument: str) -> dict[str, dict[str, str]]:
    return {"__extn": {"fn": function, "arg": argument}}
