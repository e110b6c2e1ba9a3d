"""Istio's Sidecar: which Services and Hosts the proxies of some workloads know."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field

from policyd.mesh.istio.common import Labels, Networking, Resource
from policyd.mesh.matching import check_host
from policyd.strict import NOTHING, Many, Model, check_label

LATER: Final = ("bind", "captureMode", "inboundConnectionPool", "ingress", "outboundTrafficPolicy", "port")


def check_egress_host(text: str) -> str:
    """Return `<namespace>/<host>`; the namespace may be `.`, `*` or `~`, the host `*` or begin with `*.`."""
    namespace, slash, host = text.partition("/")
    if not slash:
        raise ValueError(f"`{text[:80]}` has no namespace; write `./*` for one's own, `*/{text[:40]}` for any")
    if namespace not in (".", "*", "~"):
        check_label(namespace)
    if host != "*":
        check_host(host.removeprefix("*."))
    return text


class SidecarSelector(Model):
    """The instances of the namespace that bear every one of these labels."""

    labels: Annotated[Labels, Field(min_length=1)]


class EgressListener(Model):
    """What may be called: `./*` is one's own namespace, `*/*` everything, `~/*` nothing."""

    hosts: Annotated[Many[Annotated[str, AfterValidator(check_egress_host)]], Field(min_length=1, max_length=1000)]


class SidecarSpec(Model):
    """Which instances (of this namespace; all of them without a selector) know what."""

    workload_selector: SidecarSelector | None = None
    egress: Annotated[Many[EgressListener], Field(min_length=1)]

    @property
    def labels(self) -> Labels:
        """What an instance has to bear."""
        return self.workload_selector.labels if self.workload_selector else NOTHING


class Sidecar(Resource):
    """Istio's Sidecar (what a proxy knows of others)."""

    api_version: Networking = "networking.istio.io/v1"
    kind: Literal["Sidecar"] = "Sidecar"
    spec: SidecarSpec
