"""Services: ports whose names say nothing."""

from __future__ import annotations

from policyd.analysis.model import Analysed, Findings, at
from policyd.mesh.istio.service import CoreService


def find(analysed: Analysed) -> Findings:
    """Every such port."""
    for declared in analysed.declaration.of(CoreService):
        service = declared.resource
        for number, port in enumerate(service.spec.ports):
            if "name" not in port.model_fields_set and port.app_protocol is None:
                message = f"nothing says what port {port.port} of `{service.name}` speaks: it is taken for HTTP"
                path = ("spec", "ports", number)
                yield at(declared, "IST0118", message, path, "give it a `name` as in `http-main`, or `appProtocol`")
