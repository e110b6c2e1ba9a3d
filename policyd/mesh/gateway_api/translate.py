"""A folder's resources of the Gateway API become those that say the same in Istio's words, and the status of each.

Law: the outcome depends on what is declared alone; the order of files does not matter. Of what is attached all of it
is there, of what is not nothing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from policyd.mesh.credentials import Credentials
from policyd.mesh.declaration import Declared
from policyd.mesh.gateway_api import backend_tls
from policyd.mesh.gateway_api import rules as requests
from policyd.mesh.gateway_api.at_gateways import AtGateways
from policyd.mesh.gateway_api.at_services import AtServices
from policyd.mesh.gateway_api.attach import AnyRoute, Attaching
from policyd.mesh.gateway_api.attached_rules import named
from policyd.mesh.gateway_api.attachments import Attachments
from policyd.mesh.gateway_api.backend_tls_policy import BackendTlsPolicy
from policyd.mesh.gateway_api.backends import Backends, Grants
from policyd.mesh.gateway_api.common import GatewayApiResource
from policyd.mesh.gateway_api.conditions import (
    ACCEPTED,
    RESOLVED,
    Condition,
    Fault,
    ListenerStatus,
    Status,
    Statuses,
    good,
    judged,
)
from policyd.mesh.gateway_api.gateway import KubernetesGateway
from policyd.mesh.gateway_api.gateway_class import CONTROLLER, GatewayClass
from policyd.mesh.gateway_api.known import Known
from policyd.mesh.gateway_api.listeners import PENDING, UNCHECKED, Openings, is_ours
from policyd.mesh.gateway_api.reference_grant import ReferenceGrant
from policyd.mesh.gateway_api.values import ShowsBackends

R = TypeVar("R", bound=GatewayApiResource)


@dataclass(frozen=True, slots=True)
class Translation:
    """Further resources, and what is told of those of the Gateway API."""

    resources: tuple[Declared[Any], ...] = ()
    statuses: Statuses = field(default_factory=dict)


def translate(resources: Sequence[Declared[Any]], known: Known, credentials: Credentials | None = None) -> Translation:
    """What resources of the Gateway API come to; `credentials` are its files, None where they are not at hand."""
    if not any(isinstance(one.resource, GatewayApiResource) for one in resources):
        return Translation()
    return _Translator(resources, known, credentials).translation()


class _Translator:
    def __init__(self, resources: Sequence[Declared[Any]], known: Known, credentials: Credentials | None) -> None:
        self._classes = {one.resource.name: one.resource for one in _of(resources, GatewayClass)}
        self._gateways = _of(resources, KubernetesGateway)
        self._policies = _of(resources, BackendTlsPolicy)
        self._credentials = credentials
        self._routes: list[Declared[Any]] = [one for one in resources if isinstance(one.resource, AnyRoute)]
        ours = [one.resource for one in self._gateways if is_ours(one.resource, self._classes)]
        grants = Grants(one.resource for one in _of(resources, ReferenceGrant))
        self._ours = frozenset(one.id for one in ours)
        self._known = known
        self._backends = Backends(known, grants)
        self._openings = Openings(ours, known, grants, credentials)
        self._attachments = Attachments(Attaching(self._openings, self._ours, known), self._backends)
        self._hidden: dict[str, list[str]] = {}

    def translation(self) -> Translation:
        statuses: dict[tuple[str, str], Status] = {}
        for one in sorted(self._routes, key=lambda found: (*found.resource.age, found.resource.kind)):
            statuses[one.resource.kind, one.resource.id] = self._attachments.attach(one)
        policies = backend_tls.opened(self._policies, self._known, self._credentials, self._leading())
        at_gateways = AtGateways(self._gateways, self._openings, self._attachments.listeners, self._backends)
        at_services = AtServices(self._attachments.services, self._known, self._backends)
        made = [*at_gateways.made(), *at_services.made(), *policies[0], *self._shown()]
        statuses |= policies[1]
        for gateway in self._gateways:
            statuses[gateway.resource.kind_key, gateway.resource.id] = self._of_gateway(gateway.resource)
        for name, one_class in self._classes.items():
            statuses["GatewayClass", one_class.id] = _of_class(name, one_class)
        return Translation(tuple(made), statuses)

    def _shown(self) -> Iterator[Declared[ShowsBackends]]:
        """What gateway instances show backends: what the oldest of their Gateways says."""
        taken: set[str] = set()
        for gateway in self._of_age():
            said = self._openings.client_certificate(gateway.resource)
            here = {edge.name for edge in self._openings.edges(gateway.resource)}
            if said is None or said[1] is not None:
                continue
            self._hidden[gateway.resource.id] = sorted(here & taken)
            metadata = named(gateway.resource.namespace, f"{gateway.resource.name}~shown")
            free = frozenset(here - taken)
            taken |= here
            yield gateway.standing_for(ShowsBackends(metadata=metadata, instances=free, credential=said[0]))

    def _of_age(self) -> list[Declared[KubernetesGateway]]:
        """The Gateways of this mesh, the oldest first."""
        ours = (one for one in self._gateways if one.resource.id in self._ours)
        return sorted(ours, key=lambda one: one.resource.age)

    # ---- what is told

    def _leading(self) -> dict[str, list[str]]:
        """The Gateways (ids) that lead to a host, by host."""
        found: defaultdict[str, set[str]] = defaultdict(set)
        for opening in self._openings.every() if self._policies else ():
            for one in self._attachments.listeners[opening.id] if opening.section == "http" else ():
                for host in requests.led_to(one.route.resource, self._backends):
                    found[host].add(opening.gateway.id)
        return {host: sorted(ids) for host, ids in found.items()}

    def _of_gateway(self, gateway: KubernetesGateway) -> Status:
        if gateway.id not in self._ours:
            return Status((PENDING,))
        listeners = tuple(
            ListenerStatus(
                one.listener.name, one.kinds, len(self._attachments.listeners[one.id]), one.conditions(), one.places
            )
            for one in self._openings.of(gateway.id)
        )
        conditions = (
            *self._openings.conditions(gateway),
            *self._of_client_certificate(gateway),
            *([UNCHECKED] if gateway.spec.lets_anybody_in else []),
        )
        addresses = tuple(dict.fromkeys(edge.address for edge in self._openings.edges(gateway)))
        return Status(conditions, listeners, addresses=addresses)

    def _of_client_certificate(self, gateway: KubernetesGateway) -> Iterator[Condition]:
        said = self._openings.client_certificate(gateway)
        if said is None:
            return
        _, fault = said
        if fault is None and (hidden := self._hidden.get(gateway.id)):
            message = f"an older Gateway at {', '.join(hidden)} shows backends another certificate; name it in one"
            fault = Fault("InvalidClientCertificateRef", message)
        yield judged(RESOLVED, fault)


def _of_class(name: str, given: GatewayClass) -> Status:
    if given.spec.controller_name == CONTROLLER:
        return Status((good(ACCEPTED),))
    message = f"`{name}` is another controller's; that of this mesh is `{CONTROLLER}`"
    return Status((Condition(ACCEPTED, "Unknown", "Pending", message),))


def _of(resources: Iterable[Declared[Any]], kind: type[R]) -> list[Declared[R]]:
    return [one for one in resources if isinstance(one.resource, kind)]
