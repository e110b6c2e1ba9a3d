"""How callers treat a destination: balancing, connection pools, outlier detection, TLS (Istio's TrafficPolicy)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from policyd.mesh.istio.common import HeaderName, HostPattern, Path
from policyd.mesh.locality import check_locality_pattern, check_region
from policyd.mesh.matching import (
    check_credential,
    check_host,
    check_label_or_pair,
    check_long_enough,
    check_token,
    check_whole_seconds,
)
from policyd.strict import Duration, Many, Model, PortNumber

LATER: Final[Mapping[str, str]] = {
    "consecutiveErrors": "Istio no longer reads it; write `consecutive5xxErrors` or `consecutiveGatewayErrors`",
    "zoneAwareLbSetting": "Istio has it from 1.31 on, as an experiment; write `localityLbSetting`",
}

Count = Annotated[int, Field(ge=1, le=2**31 - 1)]
CountOrNone = Annotated[int, Field(ge=0, le=2**31 - 1)]
Percent = Annotated[int, Field(ge=0, le=100)]
Wait = Annotated[Duration, AfterValidator(check_long_enough)]  # at least a millisecond
Seconds = Annotated[Wait, AfterValidator(check_whole_seconds)]
Token = Annotated[str, AfterValidator(check_token)]


class TcpKeepalive(Model):
    """Probes of the system on connections that are idle; what is left out is the system's own."""

    probes: Count | None = None
    time: Seconds | None = None
    interval: Seconds | None = None


class TcpSettings(Model):
    """Connections to a destination."""

    max_connections: Count | None = None
    connect_timeout: Wait | None = None
    tcp_keepalive: TcpKeepalive | None = None
    max_connection_duration: Wait | None = None
    idle_timeout: Duration | None = None


class Http2KeepAlive(Model):
    """Pings on HTTP/2 connections: every `interval`, answered within `timeout`."""

    interval: Wait
    timeout: Wait


class HttpSettings(Model):
    """Requests to a destination; a count of 0 and what is left out mean no limit."""

    http1_max_pending_requests: CountOrNone | None = None
    http2_max_requests: CountOrNone | None = None
    max_requests_per_connection: CountOrNone | None = None
    max_retries: CountOrNone | None = None
    idle_timeout: Duration | None = None
    h2_upgrade_policy: Literal["DEFAULT", "DO_NOT_UPGRADE", "UPGRADE"] = "DEFAULT"
    use_client_protocol: bool = False
    max_concurrent_streams: CountOrNone | None = None
    http2_keep_alive: Http2KeepAlive | None = None


class ConnectionPool(Model):
    """How many connections, requests and retries may be under way from one caller."""

    tcp: TcpSettings = TcpSettings()
    http: HttpSettings = HttpSettings()


class CookieAttribute(Model):
    """One more attribute of the cookie, such as `SameSite`."""

    name: Token
    value: Annotated[str, Field(max_length=1024, pattern=r"^[^;\x00-\x1f\x7f]*$")] = ""


class HttpCookie(Model):
    """A cookie by which requests are told apart; with a `ttl` it is made for who has none (0: for the session)."""

    name: Token
    path: Path | None = None
    ttl: Duration | None = None
    attributes: Many[CookieAttribute] = ()


class RingHash(Model):
    """A ring of at least so many places."""

    minimum_ring_size: Annotated[int, Field(ge=1, le=8_388_608)] = 1024  # the larger one is Envoy's limit


class Maglev(Model):
    """A table of so many places."""

    table_size: Annotated[int, Field(ge=2, le=5_000_011)] = 65_537

    @model_validator(mode="after")
    def _prime(self) -> Maglev:
        size = self.table_size
        if any(size % divisor == 0 for divisor in range(2, int(size**0.5) + 1)):
            raise ValueError(f"the table of Maglev has a prime number of places, and {size} is none; take 65537")
        return self


class ConsistentHash(Model):
    """What is equal in requests sends them to the same instance, as long as that is there."""

    http_header_name: HeaderName | None = None
    http_cookie: HttpCookie | None = None
    use_source_ip: bool | None = None
    http_query_parameter_name: Annotated[str, Field(min_length=1, max_length=256)] | None = None
    ring_hash: RingHash | None = None
    maglev: Maglev | None = None
    minimum_ring_size: Annotated[int, Field(ge=0, le=8_388_608)] | None = None

    @model_validator(mode="after")
    def _one(self) -> ConsistentHash:
        keys = (self.http_header_name, self.http_cookie, self.use_source_ip, self.http_query_parameter_name)
        if sum(key is not None for key in keys) != 1 or self.use_source_ip is False:
            names = "`httpHeaderName`, `httpCookie`, `httpQueryParameterName` and `useSourceIp: true`"
            raise ValueError(f"give exactly one of {names}")
        if sum(table is not None for table in (self.ring_hash, self.maglev, self.minimum_ring_size)) > 1:
            raise ValueError("several of `ringHash`, `maglev` and `minimumRingSize`; keep one")
        return self


class Distribute(Model):
    """Where the requests of callers in `from` go, in percent by locality; `*` at the end stands for the rest."""

    from_: Annotated[str, AfterValidator(check_locality_pattern), Field(alias="from")]
    to: Annotated[
        Mapping[Annotated[str, AfterValidator(check_locality_pattern)], Annotated[int, Field(ge=1, le=100)]],
        Field(min_length=1),
    ]

    @model_validator(mode="after")
    def _whole(self) -> Distribute:
        if (total := sum(self.to.values())) != 100:
            raise ValueError(f"the shares of `{self.from_}` add up to {total}; make it 100")
        return self


class Failover(Model):
    """The region that takes over where that of the caller, `from`, has nothing left."""

    from_: Annotated[str, AfterValidator(check_region), Field(alias="from")]
    to: Annotated[str, AfterValidator(check_region)]

    @model_validator(mode="after")
    def _elsewhere(self) -> Failover:
        if self.from_ == self.to:
            raise ValueError(f"`{self.to}` fails over to itself; name another region")
        return self


class LocalityBalancing(Model):
    """Which localities are preferred: by shares, or the nearest first where outlier detection finds the broken ones."""

    enabled: bool = True
    distribute: Many[Distribute] = ()
    failover: Many[Failover] = ()
    failover_priority: Many[Annotated[str, AfterValidator(check_label_or_pair)]] = ()

    @model_validator(mode="after")
    def _one(self) -> LocalityBalancing:
        if sum(bool(way) for way in (self.distribute, self.failover, self.failover_priority)) > 1:
            raise ValueError("several of `distribute`, `failover` and `failoverPriority`; keep one")
        return self


class Warmup(Model):
    """What is new gets its share little by little: from `minimum_percent` on, in `duration`."""

    duration: Wait
    minimum_percent: Percent = 10
    aggression: Annotated[float, Field(ge=1.0, le=1000.0, strict=False)] = 1.0


class LoadBalancer(Model):
    """Which instance gets a request.

    With PASSTHROUGH nothing is balanced: a Host is reached at what its own name means, whatever endpoints are declared,
    and of a Service any instance as it comes, as behind its address in a cluster of Kubernetes.
    """

    simple: Literal["UNSPECIFIED", "LEAST_CONN", "LEAST_REQUEST", "ROUND_ROBIN", "RANDOM", "PASSTHROUGH"] | None = None
    consistent_hash: ConsistentHash | None = None
    locality_lb_setting: LocalityBalancing | None = None
    warmup: Warmup | None = None
    warmup_duration_secs: Wait | None = None

    @model_validator(mode="after")
    def _fits(self) -> LoadBalancer:
        if self.simple is not None and self.consistent_hash is not None:
            raise ValueError("both `simple` and `consistentHash`; keep one")
        if self.warmup is not None and self.warmup_duration_secs is not None:
            raise ValueError("both `warmup` and `warmupDurationSecs`; keep `warmup`")
        if self.passes_through and self.locality_lb_setting is not None:
            raise ValueError("`PASSTHROUGH` looks at no locality; choose another, or leave `localityLbSetting` out")
        if self.slow_start is not None and (self.simple in ("RANDOM", "PASSTHROUGH") or self.consistent_hash):
            raise ValueError("only `LEAST_REQUEST` and `ROUND_ROBIN` warm up; choose one, or leave `warmup` out")
        return self

    @property
    def passes_through(self) -> bool:
        """Whether nothing is balanced."""
        return self.simple == "PASSTHROUGH"

    @property
    def slow_start(self) -> Warmup | None:
        """The warm-up, by whichever field it was asked for."""
        if self.warmup_duration_secs is not None:
            return Warmup(duration=self.warmup_duration_secs)
        return self.warmup


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


class ClientTls(Model):
    """What a caller does for a connection: the mesh's own mutual TLS, none, or TLS of its own."""

    mode: Literal["DISABLE", "SIMPLE", "MUTUAL", "ISTIO_MUTUAL"] = "DISABLE"
    ca_certificates: Annotated[str, Field(min_length=1, max_length=4096)] | None = None
    client_certificate: Annotated[str, Field(min_length=1, max_length=4096)] | None = None
    private_key: Annotated[str, Field(min_length=1, max_length=4096)] | None = None
    ca_crl: Annotated[str, Field(min_length=1, max_length=4096)] | None = None
    subject_alt_names: Many[Annotated[str, Field(min_length=1, max_length=2048)]] = ()
    sni: HostPattern | None = None
    insecure_skip_verify: bool = False
    credential_name: Annotated[str, AfterValidator(check_credential)] | None = None

    @model_validator(mode="after")
    def _fits(self) -> ClientTls:
        own = (self.client_certificate is not None, self.private_key is not None)
        if self.mode == "MUTUAL" and not all(own) and self.credential_name is None:
            raise ValueError("`MUTUAL` needs `clientCertificate` and `privateKey`, or `credentialName`; add them")
        if self.credential_name is not None and (any(own) or self.ca_certificates is not None):
            raise ValueError("`credentialName` has the certificates and the key; remove the other files")
        if self.mode != "MUTUAL" and any(own):
            raise ValueError("`clientCertificate` and `privateKey` are for `MUTUAL`; remove them")
        if self.ca_crl is not None and (self.ca_certificates is None or self.insecure_skip_verify):
            raise ValueError(
                "`caCrl` lists what `caCertificates` have revoked; give these, without `insecureSkipVerify`"
            )
        named = self.sni is not None and (self.mode == "DISABLE" or "*" in self.sni)
        given = (
            self.ca_certificates or self.subject_alt_names or named or self.insecure_skip_verify
            or self.credential_name
        )  # fmt: skip
        if self.mode in ("DISABLE", "ISTIO_MUTUAL") and given:
            other = "nothing but `sni`, a name," if self.mode == "ISTIO_MUTUAL" else "nothing else"
            raise ValueError(f"with `{self.mode}` {other} is given; remove the other fields")
        return self

    @property
    def ca_file(self) -> str | None:
        """The authorities that a credential has, by path in the mesh's folder; None where there is none."""
        return f"credentials/{self.credential_name}/ca.crt" if self.credential_name else None

    @property
    def crl_file(self) -> str | None:
        """The list of what these have revoked, which a credential need not have."""
        return f"credentials/{self.credential_name}/ca.crl" if self.credential_name else None

    @property
    def own_files(self) -> tuple[str, str] | None:
        """The certificate and the key of a credential."""
        if self.credential_name is None or self.mode != "MUTUAL":
            return None
        return f"credentials/{self.credential_name}/tls.crt", f"credentials/{self.credential_name}/tls.key"


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
