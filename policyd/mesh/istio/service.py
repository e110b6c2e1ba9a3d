"""Kubernetes' Service: a name, its ports, and by labels the instances behind it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from policyd.mesh.istio.common import Labels, Resource
from policyd.mesh.protocols import Protocol, by_name, by_word, undeclared
from policyd.strict import Many, Model, Name, PortNumber, check_label, describe

_EDGE: Final = "who is outside comes in by a Gateway; take it out"
_ADDRESSES: Final = "no addresses are allotted here, callers ask by name; take it out"
_STICKY: Final = "let a DestinationRule choose by what requests have in common: `loadBalancer: {consistentHash: …}`"
LATER: Final[Mapping[str, str]] = {
    **dict.fromkeys(("clusterIPs", "ipFamilies", "ipFamilyPolicy"), _ADDRESSES),
    **dict.fromkeys(
        ("allocateLoadBalancerNodePorts", "externalIPs", "externalTrafficPolicy", "healthCheckNodePort",
         "loadBalancerClass", "loadBalancerIP", "loadBalancerSourceRanges", "nodePort"), _EDGE,
    ),
    "externalName": "declare the name outside with a ServiceEntry",
    "sessionAffinityConfig": _STICKY,
    "trafficDistribution": "let a DestinationRule prefer what is near: `localityLbSetting` with `outlierDetection`",
}  # fmt: skip
KNOWN: Final = "begin it with `http`, `http2`, `grpc`, `grpc-web`, `tls` or `tcp`, as in `http-<suffix>`"

AppProtocol = Literal[
    "http", "http2", "grpc", "grpc-web", "tcp", "tls", "https", "mongo", "mysql", "redis",
    "kubernetes.io/h2c", "kubernetes.io/ws", "kubernetes.io/wss",
]  # fmt: skip


def _check_protocol(name: str) -> str:
    if name.partition("-")[0] == "udp":
        raise ValueError(f"what port `{name}` speaks is not carried by sidecars; {KNOWN}")
    return name


def _check_target(value: Any) -> int | str | None:
    """A number, or the name of a port of the workloads."""
    if value is None or (type(value) is int and 0 < value < 65536):
        return value
    if isinstance(value, str) and not value.isdigit():
        return check_label(value)
    raise ValueError(f"{describe(value)} is no port; write a number up to 65535, or the name of a workload's port")


def _check_affinity(value: str) -> str:
    if value != "None":
        raise ValueError(f"`{value[:80]}` is no affinity here; {_STICKY}")
    return value


def _check_internal(value: str) -> str:
    if value != "Cluster":
        raise ValueError(f"`{value[:80]}` keeps to one node, and there are none here; write `Cluster`, or take it out")
    return value


def _check_cluster_ip(value: str) -> str:
    if value != "None":
        raise ValueError(f"`{value[:80]}`: {_ADDRESSES}")
    return value


class ServicePort(Model):
    """A port of a Service: `port` is what callers use, `targetPort` the workload's, its number or name."""

    port: PortNumber
    target_port: Annotated[int | str | None, BeforeValidator(_check_target)] = None
    name: Annotated[Name, AfterValidator(_check_protocol)] = "http"
    protocol: Literal["TCP"] = "TCP"
    app_protocol: AppProtocol | None = None

    @property
    def says(self) -> Protocol | None:
        """What it is said to speak; `appProtocol` has the last word."""
        named = by_name(self.name) if "name" in self.model_fields_set else None
        return by_word(self.app_protocol or "") or named

    @property
    def speaks(self) -> Protocol:
        """What it speaks where nobody else says more."""
        return self.says or undeclared(self.port)


class ServiceSpec(Model):
    """The ports, and by labels the instances behind them (in the Service's namespace).

    With `publish_not_ready_addresses` callers are led to instances that do not answer their probes, too.
    """

    ports: Annotated[Many[ServicePort], Field(min_length=1)]
    selector: Annotated[Labels, Field(min_length=1)]
    type: Literal["ClusterIP"] = "ClusterIP"
    cluster_ip: Annotated[str, AfterValidator(_check_cluster_ip)] | None = Field(default=None, alias="clusterIP")
    session_affinity: Annotated[str, AfterValidator(_check_affinity)] = "None"
    internal_traffic_policy: Annotated[str, AfterValidator(_check_internal)] = "Cluster"
    publish_not_ready_addresses: bool = False


class CoreService(Resource):
    """Kubernetes' Service."""

    api_version: Literal["v1"] = "v1"
    kind: Literal["Service"] = "Service"
    spec: ServiceSpec
