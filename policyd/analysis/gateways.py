"""Gateways: those that route nothing, ports that nobody serves, certificates that several show."""

from __future__ import annotations

from policyd.analysis.model import Analysed, Findings, at, in_workloads
from policyd.mesh.edges import selects
from policyd.mesh.gateway_api.values import OpenedListener
from policyd.mesh.istio.gateway import Gateway
from policyd.mesh.istio.virtual_service import VirtualService


def find(analysed: Analysed) -> Findings:
    """Everything about gateways."""
    yield from _unused(analysed)
    yield from _idle(analysed)
    yield from _shared_certificates(analysed)


def _unused(analysed: Analysed) -> Findings:
    bound = {id_ for one in analysed.declaration.of(VirtualService) for id_ in one.resource.gateway_ids()}
    for declared in analysed.declaration.of(Gateway):
        if isinstance(declared.resource, OpenedListener):
            continue  # a Gateway API's; its routes are told of by their conditions
        servers = declared.resource.spec.servers
        ruled = any(not one.to_every_service and not (one.tls and one.tls.https_redirect) for one in servers)
        if declared.resource.id not in bound and ruled:
            message = f"no VirtualService is bound to the Gateway `{declared.resource.name}`, so that it routes nothing"
            yield at(declared, "PM0201", message, ("metadata", "name"), "name it in `gateways` of a VirtualService")


def _idle(analysed: Analysed) -> Findings:
    for name, instance in sorted(analysed.mesh.instances.items()):
        serving = [one for one in analysed.mesh.gateways if selects(one, instance)]
        served = {server.port.number for gateway in serving for server in gateway.spec.servers}
        for listen in instance.listens:
            if listen.declared not in served:
                message = f"the gateway `{name}` opens port {listen.declared}, which no Gateway serves"
                remedy = "write a Gateway with that port, or close it"
                yield in_workloads(analysed, "PM0202", message, ("gateways", name, "listen"), remedy)


def _shared_certificates(analysed: Analysed) -> Findings:
    """A client that has a connection for one host uses it for the other, where there are no rules for it."""
    shown: dict[str, str] = {}
    for declared in analysed.declaration.of(Gateway):
        gateway = declared.resource
        for number, server in enumerate(gateway.spec.servers):
            if server.tls is None or not server.tls.shows:
                continue
            for certificate, _ in server.tls.pairs:
                first = shown.setdefault(certificate, gateway.id)
                if first != gateway.id:
                    message = f"the certificate `{certificate}` is shown by the Gateway `{first}` too"
                    remedy = (
                        "clients reuse connections from one to the other; join the Gateways, or use two certificates"
                    )
                    yield at(declared, "IST0138", message, ("spec", "servers", number, "tls"), remedy)
