"""Kubernetes' Service: a name, its ports, and by labels the instances behind it."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from policyd.mesh.istio.common import Labels, Resource
from policyd.mesh.protocols import Protocol, by_name, by_word
from policyd.strict import Many, Model, Name, PortNumber, check_label, describe

LATER: Final = (
    "allocateLoadBalancerNodePorts", "clusterIP", "clusterIPs", "externalIPs", "externalName",
    "externalTrafficPolicy", "healthCheckNodePort", "internalTrafficPolicy", "ipFamilies", "ipFamilyPolicy",
    "loadBalancerClass", "loadBalancerIP", "loadBalancerSourceRanges", "nodePort", "publishNotReadyAddresses",
    "sessionAffinity", "sessionAffinityConfig", "trafficDistribution",
)  # fmt: skip
KNOWN: Final = "begin it with `http`, `http2`, `grpc`, `grpc-web` or `tcp`, as in `http-<suffix>`"

AppProtocol = Literal[
    "http", "http2", "grpc", "grpc-web", "tcp", "mongo", "mysql", "redis", "kubernetes.io/h2c", "kubernetes.io/ws"
]


def _check_protocol(name: str) -> str:
    if by_name(name) is None:
        raise ValueError(f"the protocol of port `{name}` is not supported yet; {KNOWN}")
    return name


def _check_target(value: Any) -> int | str | None:
    """A number, or the name of a port of the workloads."""
    if value is None or (type(value) is int and 0 < value < 65536):
        return value
    if isinstance(value, str) and not value.isdigit():
        return check_label(value)
    raise ValueError(f"{describe(value)} is no port; write a number up to 65535, or the name of a workload's port")


class ServicePort(Model):
    """A port of a Service: `port` is what callers use, `targetPort` the workload's, its number or name."""

    port: PortNumber
    target_port: Annotated[int | str | None, BeforeValidator(_check_target)] = None
    name: Annotated[Name, AfterValidator(_check_protocol)] = "http"
    protocol: Literal["TCP"] = "TCP"
    app_protocol: AppProtocol | None = None

    @property
    def speaks(self) -> Protocol:
        """What is decided on it: requests, or connections; `appProtocol` has the last word."""
        return by_word(self.app_protocol or "") or by_name(self.name) or "http"


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
