"""Mutual TLS: where callers come in plain text, and are nobody to policies."""

from __future__ import annotations

from policyd.analysis.model import Analysed, Findings, at
from policyd.mesh.istio.destination_rule import DestinationRule
from policyd.mesh.istio.peer_authentication import PeerAuthentication
from policyd.mesh.protocols import CONNECTIONS
from policyd.mesh.selection import holds_for
from policyd.yaml import Path


def find(analysed: Analysed) -> Findings:
    """Everything about callers that prove nothing."""
    for declared in analysed.declaration.of(PeerAuthentication):
        spec = declared.resource.spec
        modes: list[tuple[Path, str]] = [(("spec", "mtls", "mode"), spec.mtls.mode)]
        modes += [(("spec", "portLevelMtls", port, "mode"), one.mode) for port, one in spec.port_level_mtls.items()]
        for path, mode in modes:
            if mode in ("PERMISSIVE", "DISABLE"):
                message = f"with `{mode}` callers in plain text are nobody to policies"
                yield at(declared, "PM0302", message, path, "write `STRICT` as soon as all callers are in the mesh")
                if ports := sorted(_of_connections(analysed, declared.resource, path, mode)):
                    message = f"connections in plain text are not taken at {', '.join(ports)}: they are no requests"
                    remedy = "bring their callers into the mesh, or let them in by a gateway's port of TCP or TLS"
                    yield at(declared, "PM0303", message, path, remedy)
    for rule in analysed.declaration.of(DestinationRule):
        policy = rule.resource.spec.traffic_policy
        if policy is not None and policy.tls is not None and policy.tls.mode == "DISABLE":
            message = f"callers of `{rule.resource.spec.host}` are told to speak plain text, and are nobody there"
            where = ("spec", "trafficPolicy", "tls", "mode")
            yield at(rule, "PM0301", message, where, "leave `tls` out: sidecars speak mutual TLS where they can")


def _of_connections(analysed: Analysed, resource: PeerAuthentication, path: Path, mode: str) -> set[str]:
    """The ports for which a mode would let connections in, in plain text, that no filter there can decide about."""
    only = int(str(path[2])) if path[1] == "portLevelMtls" else None
    return {
        f"`{instance.service}:{port.service_port}`"
        for instance in analysed.mesh.instances.values()
        if instance.role == "sidecar" and holds_for(resource, resource.spec.selector.match_labels, instance)
        for port in instance.ports
        if port.protocol in CONNECTIONS and port.peers == mode and only in (None, port.number)
    }
