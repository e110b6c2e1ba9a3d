"""BackendTLSPolicies: which of them holds for a port of a backend, and what is told of each.

Law: of several for one target the oldest holds, then the first by name; one for a port goes before one for the whole.
Where a policy's authorities may not or cannot be had, no connection is made: there is no way back to plain text.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from policyd.mesh.credentials import Credentials
from policyd.mesh.declaration import Declared
from policyd.mesh.gateway_api import held
from policyd.mesh.gateway_api.backend_tls_policy import BackendTlsPolicy, PolicyTarget
from policyd.mesh.gateway_api.backends import AUTHORITIES, ISTIO
from policyd.mesh.gateway_api.common import ParentReference
from policyd.mesh.gateway_api.conditions import ACCEPTED, RESOLVED, Fault, ParentStatus, Status, judged
from policyd.mesh.gateway_api.known import Known, KnownPort
from policyd.mesh.gateway_api.values import BackendTls, OpensTls, TrustsNobody
from policyd.mesh.hosts import CLUSTER_DOMAIN
from policyd.mesh.istio.common import Metadata
from policyd.mesh.matching import did_you_mean

NO_AUTHORITY: Final = "NoValidCACertificate"


@dataclass(frozen=True, slots=True)
class Backend:
    """What a target is: the host that rules lead to, and those of its ports that are meant."""

    host: str
    ports: tuple[int, ...]


def opened(
    policies: Iterable[Declared[BackendTlsPolicy]],
    known: Known,
    credentials: Credentials | None,
    gateways: Mapping[str, Sequence[str]],
) -> tuple[list[Declared[OpensTls]], dict[tuple[str, str], Status]]:
    """What policies come to, and what is told of them.

    `credentials` are the files of authorities, None where they are not at hand; `gateways` are the Gateways (ids) that
    lead to a host.
    """
    made: list[Declared[OpensTls]] = []
    statuses: dict[tuple[str, str], Status] = {}
    taken: dict[object, str] = {}
    for declared in sorted(policies, key=lambda one: one.resource.age):
        policy = declared.resource
        unresolved = _authorities_fault(policy, credentials)
        told: list[tuple[PolicyTarget, str, Fault | None]] = []
        for target in policy.spec.target_refs:
            found = _claimed(policy, target, _backend(policy, target, known), taken)
            if isinstance(found, Fault):
                told.append((target, "", found))
                continue
            none = Fault(NO_AUTHORITY, f"requests are answered with 503: {unresolved.message}") if unresolved else None
            told.append((target, found.host, none))
            made += (declared.standing_for(one) for one in _made(policy, target, found, is_closed=bool(unresolved)))
        statuses[policy.kind, policy.id] = Status(ancestors=tuple(_ancestors(told, unresolved, gateways)))
    return made, statuses


def _backend(policy: BackendTlsPolicy, target: PolicyTarget, known: Known) -> Backend | Fault:
    """The backend that is meant, and its ports for requests: what connections carry is their own."""
    if (target.group, target.kind) == ("", "Service"):
        id_ = f"{target.name}.{policy.namespace}"
        host, ports = f"{id_}.svc.{CLUSTER_DOMAIN}", known.services.get(id_)
        if ports is None or id_ in known.at_edge:
            near = did_you_mean(id_, known.services, ())
            return Fault("TargetNotFound", f"`{id_}` is no service of the mesh{f'; {near}' if near else ''}")
    elif (target.group, target.kind) == (ISTIO, "ServiceEntry"):
        host = known.entries.get(f"{policy.namespace}/{target.name}", "")
        ports = known.hosts.get(host)
        if ports is None:
            message = f"no ServiceEntry outside of the mesh declares `{target.name}`, alone and by its whole name"
            return Fault("TargetNotFound", message)
        if host in known.looked_up:
            return Fault("Invalid", f"`{host}` is looked up as it is asked for; set its `resolution` to DNS or STATIC")
    else:
        return Fault("TargetNotFound", f"a `{target.kind}` is no backend; name a `Service`, or a `ServiceEntry`")
    return _ports(target, host, ports)


def _ports(target: PolicyTarget, host: str, ports: Sequence[KnownPort]) -> Backend | Fault:
    meant = [one for one in ports if target.section_name in (None, one.name)]
    if not meant:
        listed = ", ".join(one.name for one in ports)
        return Fault("TargetNotFound", f"no port of `{target.name}` is called `{target.section_name}`; it has {listed}")
    numbers = tuple(one.number for one in meant if one.requests)
    if not numbers:
        return Fault("Invalid", f"`{target.name}` takes connections, whose TLS is their own; take it out")
    return Backend(host, numbers)


def _claimed(
    policy: BackendTlsPolicy, target: PolicyTarget, backend: Backend | Fault, taken: dict[object, str]
) -> Backend | Fault:
    """The same, unless another policy has it already: a target, and a port of it, is one policy's."""
    if isinstance(backend, Fault):
        return backend
    own = (policy.namespace, target.group, target.kind, target.name, target.section_name)
    if (first := taken.setdefault(own, policy.id)) != policy.id:
        return Fault("Conflicted", f"`{target.name}` has the older policy `{first}`; take one out")
    return backend


def _authorities_fault(policy: BackendTlsPolicy, credentials: Credentials | None) -> Fault | None:
    """Why the authorities of a policy are not to be had."""
    for ref in policy.spec.validation.ca_certificate_refs:
        if ref.group or ref.kind not in AUTHORITIES:
            shown = f"{ref.kind}.{ref.group}" if ref.group else ref.kind
            return Fault("InvalidKind", f"a `{shown}` holds no authorities; name a `ConfigMap` or a `Secret`")
        if wrong := held.trouble(ref.name, held.AUTHORITIES, credentials):
            return Fault("InvalidCACertificateRef", wrong)
    return None


def _made(policy: BackendTlsPolicy, target: PolicyTarget, backend: Backend, *, is_closed: bool) -> Iterator[OpensTls]:
    given = policy.spec.validation
    authorities = next((ref.name for ref in given.ca_certificate_refs), None)
    tls = (TrustsNobody if is_closed else BackendTls)(
        mode="SIMPLE",
        sni=given.hostname,
        subject_alt_names=given.names,
        credential_name=None if is_closed else authorities,
    )
    whole = target.section_name is None
    name = f"{policy.name}~{target.kind.lower()}.{target.name}.{target.section_name or ''}"
    metadata = Metadata.model_construct(name=name, namespace=policy.namespace, labels={}, annotations={})
    for port in backend.ports:
        yield OpensTls(metadata=metadata, host=backend.host, port=port, is_whole=whole, tls=tls)


def _ancestors(
    told: Iterable[tuple[PolicyTarget, str, Fault | None]],
    unresolved: Fault | None,
    gateways: Mapping[str, Sequence[str]],
) -> Iterator[ParentStatus]:
    """By the Gateways that lead to a target; by the target itself where none does."""
    found: dict[ParentReference, Fault | None] = {}
    for target, host, fault in told:
        parents = [_gateway(id_) for id_ in gateways.get(host, ())] or [
            ParentReference(group=target.group, kind=target.kind, name=target.name, section_name=target.section_name)
        ]
        for parent in parents:
            found[parent] = found.get(parent) or fault
    for parent, fault in found.items():
        yield ParentStatus(parent, (judged(ACCEPTED, fault), judged(RESOLVED, unresolved)))


def _gateway(id_: str) -> ParentReference:
    namespace, _, name = id_.partition("/")
    return ParentReference(namespace=namespace, name=name)
