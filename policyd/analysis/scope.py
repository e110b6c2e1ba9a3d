"""What is given to namespaces that have nothing in them."""

from __future__ import annotations

from collections.abc import Iterable

from policyd.analysis.model import Analysed, Findings, at
from policyd.mesh.istio.destination_rule import DestinationRule
from policyd.mesh.istio.service_entry import ServiceEntry
from policyd.mesh.istio.virtual_service import VirtualService


def find(analysed: Analysed) -> Findings:
    """Every such namespace."""
    known = {one.namespace for one in analysed.mesh.services.values()}
    for kind in (VirtualService, DestinationRule, ServiceEntry):
        for declared in analysed.declaration.of(kind):
            given: Iterable[str] = declared.resource.spec.export_to  # type: ignore[attr-defined]
            for number, namespace in enumerate(given):
                if namespace not in (".", "*", "~") and namespace not in known:
                    message = f"nothing is in the namespace `{namespace}`, to which this is given"
                    yield at(declared, "PM0401", message, ("spec", "exportTo", number), "correct or remove it")
