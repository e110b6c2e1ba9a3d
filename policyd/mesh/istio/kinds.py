"""The kinds that a mesh folder may hold: the model of each, and the fields that are not supported yet."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from policyd.mesh.gateway_api import kinds as gateway_api
from policyd.mesh.istio import (
    destination_rule,
    enforcement,
    gateway,
    peer_authentication,
    request_authentication,
    service,
    service_entry,
    sidecar,
    telemetry,
    virtual_service,
    workload_entry,
    workload_group,
)
from policyd.mesh.istio.common import Resource
from policyd.mesh.istio.destination_rule import DestinationRule
from policyd.mesh.istio.enforcement import Enforcement
from policyd.mesh.istio.gateway import Gateway
from policyd.mesh.istio.peer_authentication import PeerAuthentication
from policyd.mesh.istio.request_authentication import RequestAuthentication
from policyd.mesh.istio.service import CoreService
from policyd.mesh.istio.service_entry import ServiceEntry
from policyd.mesh.istio.sidecar import Sidecar
from policyd.mesh.istio.telemetry import Telemetry
from policyd.mesh.istio.virtual_service import VirtualService
from policyd.mesh.istio.workload_entry import WorkloadEntry
from policyd.mesh.istio.workload_group import WorkloadGroup
from policyd.strict import Refused

KINDS: Final[Mapping[str, type[Resource]]] = {
    "Gateway": Gateway,
    "VirtualService": VirtualService,
    "DestinationRule": DestinationRule,
    "Service": CoreService,
    "ServiceEntry": ServiceEntry,
    "WorkloadEntry": WorkloadEntry,
    "WorkloadGroup": WorkloadGroup,
    "RequestAuthentication": RequestAuthentication,
    "PeerAuthentication": PeerAuthentication,
    "Sidecar": Sidecar,
    "Telemetry": Telemetry,
    "Enforcement": Enforcement,
    **gateway_api.KINDS,
}


def _refused(kind: str, later: Mapping[str, str] | Iterable[str]) -> Refused:
    return Refused(kind, later if isinstance(later, Mapping) else dict.fromkeys(later, ""))


LATER: Final[Mapping[str, Refused]] = {
    kind: _refused(kind, later)
    for kind, later in (
        ("Gateway", gateway.LATER),
        ("VirtualService", virtual_service.LATER),
        ("DestinationRule", destination_rule.LATER),
        ("Service", service.LATER),
        ("ServiceEntry", service_entry.LATER),
        ("WorkloadEntry", workload_entry.LATER),
        ("WorkloadGroup", workload_group.LATER),
        ("Sidecar", sidecar.LATER),
        ("PeerAuthentication", peer_authentication.LATER),
        ("RequestAuthentication", request_authentication.LATER),
        ("Telemetry", telemetry.LATER),
        ("Enforcement", enforcement.LATER),
        *gateway_api.LATER.items(),
    )
}
# Kinds that Istio has and a folder does not: what to do instead.
ELSEWHERE: Final[Mapping[str, str]] = {
    "AuthorizationPolicy": "turn it into Cedar with `policyd policy import istio FILE`, then take it out",
    "EnvoyFilter": "proxies take nothing but what is made from resources; say what you need by another kind",
    "ProxyConfig": "an agent's own options are those of `policyd-proxy run`",
    "TrafficExtension": "no code is loaded into proxies, each decides by policies alone",
    "WasmPlugin": "no code is loaded into proxies, each decides by policies alone",
    "ListenerSet": "write all listeners into the Gateway",
    "UDPRoute": "nothing here carries UDP",
}


def key_of(document: Any) -> str | None:
    """The kind that a document says it is, as in KINDS: of two kinds of one name the group tells which; None: none."""
    kind = document.get("kind") if isinstance(document, dict) else None
    if not isinstance(kind, str):
        return None
    qualified = f"{kind}.{str(document.get('apiVersion')).partition('/')[0]}"
    return qualified if qualified in KINDS else kind
