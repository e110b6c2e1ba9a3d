"""The kinds that a mesh folder may hold: the model of each, and the fields that are not supported yet."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from policyd.mesh.istio import (
    destination_rule,
    gateway,
    peer_authentication,
    request_authentication,
    service,
    service_entry,
    sidecar,
    virtual_service,
    workload_entry,
)
from policyd.mesh.istio.common import Resource
from policyd.mesh.istio.destination_rule import DestinationRule
from policyd.mesh.istio.gateway import Gateway
from policyd.mesh.istio.peer_authentication import PeerAuthentication
from policyd.mesh.istio.request_authentication import RequestAuthentication
from policyd.mesh.istio.service import CoreService
from policyd.mesh.istio.service_entry import ServiceEntry
from policyd.mesh.istio.sidecar import Sidecar
from policyd.mesh.istio.virtual_service import VirtualService
from policyd.mesh.istio.workload_entry import WorkloadEntry

KINDS: Final[Mapping[str, type[Resource]]] = {
    "Gateway": Gateway,
    "VirtualService": VirtualService,
    "DestinationRule": DestinationRule,
    "Service": CoreService,
    "ServiceEntry": ServiceEntry,
    "WorkloadEntry": WorkloadEntry,
    "RequestAuthentication": RequestAuthentication,
    "PeerAuthentication": PeerAuthentication,
    "Sidecar": Sidecar,
}
LATER: Final[Mapping[str, Mapping[str, str]]] = {
    "Gateway": dict.fromkeys(gateway.LATER, "Gateway"),
    "VirtualService": dict.fromkeys(virtual_service.LATER, "VirtualService"),
    "DestinationRule": dict.fromkeys(destination_rule.LATER, "DestinationRule"),
    "Service": dict.fromkeys(service.LATER, "Service"),
    "ServiceEntry": dict.fromkeys(service_entry.LATER, "ServiceEntry"),
    "WorkloadEntry": dict.fromkeys(workload_entry.LATER, "WorkloadEntry"),
    "Sidecar": dict.fromkeys(sidecar.LATER, "Sidecar"),
    "PeerAuthentication": dict.fromkeys(peer_authentication.LATER, "PeerAuthentication"),
    "RequestAuthentication": dict.fromkeys(request_authentication.LATER, "RequestAuthentication"),
}
