"""Kubernetes' Service: a name, its ports, and by labels the instances behind it."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field

from policyd.mesh.istio.common import Labels, Resource
from policyd.strict import Many, Model, Name, PortNumber

LATER: Final = (
    "allocateLoadBalancerNodePorts", "clusterIP", "clusterIPs", "externalIPs", "externalName",
    "externalTrafficPolicy", "healthCheckNodePort", "internalTrafficPolicy", "ipFamilies", "ipFamilyPolicy",
    "loadBalancerClass", "loadBalancerIP", "loadBalancerSourceRanges", "nodePort", "publishNotReadyAddresses",
    "sessionAffinity", "sessionAffinityConfig", "trafficDistribution",
)  # fmt: skip


def _check_protocol(name: str) -> str:
    if name.partition("-")[0] not in ("http", "tcp"):
        raise ValueError(f"the protocol of port `{name}` is not supported yet; use `http`, `tcp` or `http-<suffix>`")
    return name


class ServicePort(Model):
    """A port of a Service: `port` is what callers use, `target_port` the workload's (else the same)."""

    port: PortNumber
    target_port: PortNumber | None = None
    name: Annotated[Name, AfterValidator(_check_protocol)] = "http"
    protocol: Literal["TCP"] = "TCP"
    app_protocol: Literal["http", "tcp"] | None = None

    @property
    def speaks(self) -> Literal["http", "tcp"]:
        """What is decided on it: requests, or connections; `appProtocol` has the last word."""
        if self.app_protocol is not None:
            return self.app_protocol
        return "tcp" if self.name.partition("-")[0] == "tcp" else "http"


class ServiceSpec(Model):
    """The ports, and by labels the instances behind them (in the Service's namespace)."""

    ports: Annotated[Many[ServicePort], Field(min_length=1)]
    selector: Annotated[Labels, Field(min_length=1)]
    type: Literal["ClusterIP"] = "ClusterIP"


class CoreService(Resource):
    """Kubernetes' Service."""

    api_version: Literal["v1"] = "v1"
    kind: Literal["Service"] = "Service"
    spec: ServiceSpec
