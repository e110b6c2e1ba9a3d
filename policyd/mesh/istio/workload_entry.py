"""Istio's WorkloadEntry: a machine that serves in the mesh, with a sidecar of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field, model_validator

from policyd.mesh.istio.common import Labels, Networking, Resource
from policyd.mesh.locality import check_locality
from policyd.mesh.matching import check_ip
from policyd.strict import NOTHING, Model, Name, PortNumber

LATER: Final[Mapping[str, str]] = {
    "network": "every proxy must reach the machine's `address` directly; take it out",
}
INBOUND_PORT: Final = 15006  # Istio's own, where nothing else is said; `policyd-proxy capture` redirects there
OUTBOUND_PORT: Final = 15001
OURS: Final = "policyd/"  # in front of annotations that we read
INBOUND: Final = f"{OURS}inboundPort"
INBOUND_OF: Final = f"{INBOUND}."  # and the name of a port of the Service
OUTBOUND: Final = f"{OURS}outboundPort"
TEMPLATES: Final = "inject.istio.io/templates"  # Istio's: what stands beside the application
PROXYLESS: Final = "grpc-agent"  # an agent, and no sidecar


Place = Annotated[str, AfterValidator(check_locality)]
Weight = Annotated[int, Field(ge=1, le=1_000_000)]


def check_annotations(annotations: Mapping[str, str]) -> Mapping[str, str]:
    """Return annotations, of which ours are ports."""
    for name, text in annotations.items():
        if name.startswith(OURS) and name not in (INBOUND, OUTBOUND) and not name.startswith(INBOUND_OF):
            raise ValueError(f"`{name[:80]}` is no annotation of ours; known are `{INBOUND}` and `{OUTBOUND}`")
        if name.startswith(OURS) and not (text.isascii() and text.isdigit() and 0 < int(text[:6]) < 65536):
            raise ValueError(f"`{name}` is no port: `{text[:80]}`; write a number in quotes, up to 65535")
    return annotations


class WorkloadEntrySpec(Model):
    """Where the machine is, and who serves there; `ports` say where the application listens, by the Service's names.

    Of the requests to several machines each gets its `weight`'s share (none given: 1).
    """

    address: Annotated[str, AfterValidator(check_ip)]
    ports: Mapping[Name, PortNumber] = NOTHING
    labels: Annotated[Labels, Field(min_length=1)]
    service_account: Name | None = None
    locality: Place | None = None
    weight: Weight | None = None


class WorkloadEntry(Resource):
    """Istio's WorkloadEntry; the ports of the sidecar itself are in annotations, else Istio's 15006 and 15001.

    Of a Service with several ports, each further one is reached at the port of an annotation with its name in the end.
    """

    api_version: Networking = "networking.istio.io/v1"
    kind: Literal["WorkloadEntry"] = "WorkloadEntry"
    spec: WorkloadEntrySpec

    @model_validator(mode="after")
    def _ports(self) -> WorkloadEntry:
        check_annotations(self.metadata.annotations)
        return self

    @property
    def given_inbound(self) -> tuple[str, ...]:
        """The names of the ports of which an annotation of their own says where peers reach them."""
        return tuple(name.removeprefix(INBOUND_OF) for name in self.metadata.annotations if name.startswith(INBOUND_OF))

    def inbound_port(self, name: str, *, first: bool) -> int | None:
        """Where peers reach its sidecar for a port of its Service; of all but the first it has to be said."""
        own = self.metadata.annotations.get(f"{INBOUND_OF}{name}")
        if own is None and first:
            own = self.metadata.annotations.get(INBOUND, str(INBOUND_PORT))
        return int(own) if own is not None else None

    @property
    def is_proxyless(self) -> bool:
        """Whether it has no sidecar, since its application speaks xDS by itself: in Istio's word for that."""
        return PROXYLESS in map(str.strip, self.metadata.annotations.get(TEMPLATES, "").split(","))

    @property
    def outbound_port(self) -> int:
        """Where its application's own proxy listens, on its loopback."""
        return int(self.metadata.annotations.get(OUTBOUND, OUTBOUND_PORT))
