"""Rules of routes at a listener, as VirtualServices that no file could hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from policyd.mesh.declaration import Declared
from policyd.mesh.gateway_api.listeners import Opening
from policyd.mesh.gateway_api.rules import Ruled
from policyd.mesh.gateway_api.values import AttachedRules
from policyd.mesh.istio.common import Metadata
from policyd.mesh.istio.virtual_service import VirtualServiceSpec


def rules_of(opening: Opening, host: str, found: Sequence[Ruled]) -> AttachedRules:
    """Rules of a host, in their order."""
    name = f"{opening.id.partition('/')[2]}~{host}"
    spec = VirtualServiceSpec(hosts=(host,), gateways=(opening.id,), http=tuple(one.rule for one in found))
    sources = tuple(one.source for one in found)
    return AttachedRules(metadata=named(opening.gateway.namespace, name), spec=spec, sources=sources)


def connections_of(
    opening: Opening, declared: Declared[Any], hosts: tuple[str, ...], led: Mapping[str, Any], mark: str = ""
) -> AttachedRules:
    """Rules of connections; `mark` tells the server for which they are."""
    spec = VirtualServiceSpec(hosts=hosts, gateways=(f"{opening.id}{mark}",), **led)
    route = declared.resource
    name = f"{opening.id.partition('/')[2]}{mark}~{route.namespace}.{route.name}"
    sources = ((declared.document, ("spec", "rules", 0)),)
    return AttachedRules(metadata=named(opening.gateway.namespace, name), spec=spec, sources=sources)


def named(namespace: str, name: str) -> Metadata:
    """A name that no resource of a file can have."""
    return Metadata.model_construct(name=name, namespace=namespace, labels={}, annotations={})
