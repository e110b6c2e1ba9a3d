"""A small mesh with everything that policies can tell apart, and requests in it, as Istio and as policyd see them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final

from policyd.authz.path import canonical_path
from policyd.authz.ruling import Ruling, make_ruling
from policyd.cedar.http import Endpoint, HttpFacts
from policyd.cedar.model import Entity, Request, Uid
from policyd.cedar.policies import load_policies
from policyd.cedar.schema import Schema
from policyd.mesh.build import build
from policyd.mesh.declare import declare
from policyd.mesh.model import Mesh
from policyd.mesh.placement import assumed
from policyd.policy.istio.identity import TrustDomains
from policyd.policy.istio.read import Declared, read_policies
from policyd.policy.istio.translate import Options, Translation, translate
from policyd.spiffe import SpiffeId
from policyd.yaml import Document
from tests.policy.istio import oracle

WORKLOADS: Final = """
workloads:
  web-v1: {service: web, port: 8080, labels: {version: v1, tier: front}}
  web-v2: {service: web, port: 8080, labels: {version: v2, tier: front}}
  api-1:  {service: api, port: 9090, labels: {version: v1, tier: back}}
  cart-1: {service: cart, port: 8080, namespace: shop, labels: {tier: back}}
gateways:
  edge: {listen: 8080, namespace: istio-system}
"""
NOW: Final = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
ISTIO: Final = oracle.Mesh("cluster.local", ("old.example",))
DOMAINS: Final = TrustDomains(ISTIO.trust_domain, tuple(ISTIO.aliases))


def mesh_of(workloads: str = WORKLOADS) -> Mesh:
    """The Mesh of a workloads.yaml."""
    declaration = declare({"workloads.yaml": workloads})
    return build(declaration, ISTIO.trust_domain, assumed(declaration))


def translated(text: str, mesh: Mesh, **options: Any) -> Translation:
    """Translate the text of a file of policies."""
    policies = read_policies({"authz.yaml": text}, "default")
    return translate(policies, mesh, Options("default", DOMAINS, **options), canonical_path)


def translated_values(policies: Sequence[Mapping[str, Any]], mesh: Mesh, **options: Any) -> Translation:
    """Translate policies that are values already, as the property has them."""
    from policyd.policy.istio.model import AuthorizationPolicy

    declared = [
        Declared(
            AuthorizationPolicy.model_validate(one, by_alias=True, by_name=False),
            one["metadata"]["namespace"],
            Document("authz.yaml", one),
        )
        for one in policies
    ]
    return translate(declared, mesh, Options("default", DOMAINS, **options), canonical_path)


def ruling_of(files: Mapping[str, str], mesh: Mesh, schema: Schema) -> Ruling:
    """Put files in force; raises InvalidInput unless they load strictly."""
    return make_ruling(mesh, load_policies(files, schema), schema)


def call_at(instance: str, mesh: Mesh, **what: Any) -> oracle.Call:
    """A request that `instance` answers, as Istio sees it."""
    found = mesh.instances[instance]
    service, _, namespace = found.service.partition(".")
    return oracle.Call(namespace, found.labels, found.role == "gateway", service, **{"port": found.service_port} | what)


def decided(ruling: Ruling, call: oracle.Call, instance: str) -> bool:
    """Decide the same request as policyd does."""
    facts = HttpFacts(
        principal=SpiffeId.parse(call.principal) if call.principal else None,
        service=f"{call.service}.{call.namespace}",
        method=call.method,
        target=call.path,
        host=re.sub(r":[0-9]*$", "", call.authority).lower(),
        time=NOW,
        source=Endpoint(call.source_ip, 40000),
        destination=Endpoint(call.destination_ip, call.port),
        instance=instance,
        headers=call.headers,
    )
    decision = ruling.decide(_with_user(ruling.request(facts), call.user))
    assert not decision.errors
    return decision.allowed


def _with_user(request: Request, user: oracle.User | None) -> Request:
    if user is None:
        return request
    uid = Uid("User", f"{user.issuer}/{user.subject}")
    attrs = {"issuer": user.issuer, "subject": user.subject}
    entity = Entity(uid, attrs, tags={name: list(values) for name, values in user.claims.items()})
    context = {**request.context, "user": {"__entity": uid.json()}}
    return replace(request, context=context, entities=(*request.entities, entity))
