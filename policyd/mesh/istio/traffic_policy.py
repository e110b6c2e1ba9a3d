"""How callers treat a destination: a policy's parts, and which of them hold for a port (Istio's TrafficPolicy)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from policyd.mesh.istio.balancing import LoadBalancer
from policyd.mesh.istio.client_tls import ClientTls
from policyd.mesh.istio.connection_pool import ConnectionPool
from policyd.mesh.istio.quantities import CountOrNone, Percent, Wait
from policyd.mesh.matching import check_host
from policyd.strict import Many, Model, PortNumber

LATER: Final[Mapping[str, str]] = {
    "consecutiveErrors": "Istio no longer reads it; write `consecutive5xxErrors` or `consecutiveGatewayErrors`",
    "zoneAwareLbSetting": "Istio has it from 1.31 on, as an experiment; write `localityLbSetting`",
}


class OutlierDetection(Model):
    """Which instances a caller takes for broken, and for how long it leaves them alone."""

    consecutive_5xx: Annotated[CountOrNone | None, Field(alias="consecutive5xxErrors")] = None
    consecutive_gateway_errors: CountOrNone | None = None
    consecutive_local_origin_failures: CountOrNone | None = None
    split_external_local_origin_errors: bool = False
    outlier_detection_http_error_codes: Many[Annotated[int, Field(ge=100, le=599)]] = ()
    interval: Wait | None = None
    base_ejection_time: Wait | None = None
    max_ejection_percent: Percent | None = None
    min_health_percent: Percent = 0

    @model_validator(mode="after")
    def _split(self) -> OutlierDetection:
        if self.consecutive_local_origin_failures is not None and not self.split_external_local_origin_errors:
            raise ValueError("`consecutiveLocalOriginFailures` needs `splitExternalLocalOriginErrors: true`; add it")
        return self


class RetryBudget(Model):
    """How many of the requests under way may be retries, in percent, and so many in any case."""

    percent: Annotated[float, Field(ge=0.0, le=100.0, strict=False)] = 20.0
    min_retry_concurrency: CountOrNone = 3
    budget_interval: Wait | None = None


class ProxyProtocol(Model):
    """Each connection begins with a header that says from where it comes, in this version of the PROXY protocol."""

    version: Literal["V1", "V2"] = "V1"


def _check_way(protocol: object) -> object:
    """Return how a forward proxy may be asked."""
    if protocol == "POST":
        raise ValueError("connections travel as CONNECT here, not as POST; write `CONNECT`, or leave it out")
    return protocol


class Tunnel(Model):
    """Connections that are led to the host, a forward proxy, go on to the target: it is asked to CONNECT there."""

    protocol: Annotated[Literal["CONNECT"], BeforeValidator(_check_way)] = "CONNECT"
    target_host: Annotated[str, AfterValidator(check_host)]
    target_port: PortNumber

    @property
    def authority(self) -> str:
        """What the proxy is asked for."""
        host = f"[{self.target_host}]" if ":" in self.target_host else self.target_host
        return f"{host}:{self.target_port}"


class PortSelector(Model):
    """A port of the host, by number."""

    number: PortNumber


class Sections(Model):
    """The parts of a policy; those left out are the defaults."""

    connection_pool: ConnectionPool | None = None
    load_balancer: LoadBalancer | None = None
    outlier_detection: OutlierDetection | None = None
    tls: ClientTls | None = None
    retry_budget: RetryBudget | None = None
    proxy_protocol: ProxyProtocol | None = None
    tunnel: Tunnel | None = None


class PortPolicy(Model):
    """The policy of one port: it stands in the place of the others, which it does not inherit from."""

    port: PortSelector
    connection_pool: ConnectionPool | None = None
    load_balancer: LoadBalancer | None = None
    outlier_detection: OutlierDetection | None = None
    tls: ClientTls | None = None


def _check_ports(policies: tuple[PortPolicy, ...]) -> tuple[PortPolicy, ...]:
    numbers = [policy.port.number for policy in policies]
    if twice := next((number for number in numbers if numbers.count(number) > 1), None):
        raise ValueError(f"port {twice} is there twice; write all of a port into one entry")
    return policies


class TrafficPolicy(Sections):
    """How callers treat a destination, and its single ports."""

    port_level_settings: Annotated[Many[PortPolicy], AfterValidator(_check_ports)] = ()


def effective(whole: TrafficPolicy | None, subset: TrafficPolicy | None, port: int) -> Sections:
    """The policy of a port: what the subset says section by section, else the whole; a port's own replaces both."""
    found = Sections()
    for policy in (whole, subset):
        if policy is None:
            continue
        given = {name: getattr(policy, name) for name in Sections.model_fields if getattr(policy, name) is not None}
        found = found.model_copy(update=given)
        own = next((one for one in policy.port_level_settings if one.port.number == port), None)
        if own is not None:
            replaced = {name: getattr(own, name) for name in PortPolicy.model_fields if name != "port"}
            found = found.model_copy(update=replaced)
    return found
