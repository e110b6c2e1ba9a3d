"""Istio's Gateway and VirtualService and the core's Service as strict models, field by field.

Law: what a model accepts is honoured by the resources made from it; every other field is refused by name.
Reference: https://istio.io/latest/docs/reference/config/networking/ (the parts supported now).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from policyd.mesh.matching import (
    RETRY_CONDITIONS,
    check_distinct_headers,
    check_header_name,
    check_header_value,
    check_host,
    check_host_pattern,
    check_labels,
    check_path,
    check_regex,
)
from policyd.strict import NOTHING, Duration, Many, Model, Name, PortNumber

Networking = Literal["networking.istio.io/v1", "networking.istio.io/v1beta1", "networking.istio.io/v1alpha3"]
MESH: Final = "mesh"  # the reserved gateway name: all sidecars

HostPattern = Annotated[str, AfterValidator(check_host_pattern)]
HeaderName = Annotated[str, AfterValidator(check_header_name)]
HeaderValue = Annotated[str, AfterValidator(check_header_value)]
Distinct = BeforeValidator(check_distinct_headers)
Labels = Annotated[Mapping[str, str], AfterValidator(check_labels)]
Path = Annotated[str, AfterValidator(check_path)]


class Metadata(Model):
    """Names a resource; without a namespace the folder's default one holds."""

    name: Name
    namespace: Name | None = None
    labels: Labels = NOTHING
    annotations: Mapping[str, str] = NOTHING


class StringMatch(Model):
    """At most one of `exact`, `prefix` and `regex` (RE2, whole value); without any, the value is there."""

    exact: Annotated[str, Field(max_length=2048)] | None = None
    prefix: Annotated[str, Field(max_length=2048)] | None = None
    regex: Annotated[str, AfterValidator(check_regex)] | None = None

    @model_validator(mode="after")
    def _one(self) -> StringMatch:
        if sum(value is not None for value in (self.exact, self.prefix, self.regex)) > 1:
            raise ValueError("several of `exact`, `prefix` and `regex`; keep one")
        return self

    @property
    def presence(self) -> bool:
        """Whether any value will do."""
        return self.exact is None and self.prefix is None and self.regex is None


def _check_value_match(match: StringMatch) -> StringMatch:
    if match.presence:
        raise ValueError("one of `exact`, `prefix` and `regex` is missing; add it")
    return match


def _check_uri_match(match: StringMatch) -> StringMatch:
    for path in (match.exact, match.prefix):
        if path is not None:
            check_path(path)
    return match


ValueMatch = Annotated[StringMatch, AfterValidator(_check_value_match)]
UriMatch = Annotated[ValueMatch, AfterValidator(_check_uri_match)]


class HttpMatch(Model):
    """All that is given must hold (HTTPMatchRequest)."""

    uri: UriMatch | None = None
    ignore_uri_case: bool = False
    method: ValueMatch | None = None
    authority: ValueMatch | None = None
    headers: Annotated[Mapping[HeaderName, StringMatch], Distinct] = NOTHING
    without_headers: Annotated[Mapping[HeaderName, StringMatch], Distinct] = NOTHING
    query_params: Mapping[Annotated[str, Field(min_length=1, max_length=256)], ValueMatch] = NOTHING

    @model_validator(mode="after")
    def _case(self) -> HttpMatch:
        if self.ignore_uri_case and self.uri is not None and self.uri.regex is not None:
            raise ValueError("`ignoreUriCase` does not hold for a regex; write `(?i)` into it")
        return self


class PortSelector(Model):
    """A port of the destination service, by number."""

    number: PortNumber


class Destination(Model):
    """A service's host name, and its port where it has several."""

    host: Annotated[str, AfterValidator(check_host)]
    port: PortSelector | None = None


class RouteDestination(Model):
    """Where requests go; of several, each gets its weight's share (0: none)."""

    destination: Destination
    weight: Annotated[int, Field(ge=0, le=1_000_000)] = 0


class HeaderOperations(Model):
    """`set` replaces, `add` appends, `remove` removes."""

    set: Annotated[Mapping[HeaderName, HeaderValue], Distinct] = NOTHING
    add: Annotated[Mapping[HeaderName, HeaderValue], Distinct] = NOTHING
    remove: Many[HeaderName] = ()


class Headers(Model):
    """What is done to the headers of the request and of the response."""

    request: HeaderOperations = HeaderOperations()
    response: HeaderOperations = HeaderOperations()


class Rewrite(Model):
    """What the destination gets: `uri` instead of the matched prefix (or whole path), `authority` as Host."""

    uri: Path | None = None
    authority: HostPattern | None = None

    @model_validator(mode="after")
    def _some(self) -> Rewrite:
        if self.uri is None and self.authority is None:
            raise ValueError("neither `uri` nor `authority` is given; add one")
        return self


class Redirect(Model):
    """The answer that sends the client elsewhere: `uri` replaces the whole path, `authority` Host."""

    uri: Path | None = None
    authority: HostPattern | None = None
    redirect_code: Literal[301, 302, 303, 307, 308] = 301

    @model_validator(mode="after")
    def _some(self) -> Redirect:
        if self.uri is None and self.authority is None:
            raise ValueError("neither `uri` nor `authority` is given; add one")
        return self


class Body(Model):
    """A response's body; Envoy keeps at most 4,096 bytes (max_direct_response_body_size_bytes)."""

    string: Annotated[str, Field(max_length=1024)]


class DirectResponse(Model):
    """An answer without a destination."""

    status: Annotated[int, Field(ge=200, le=599)]
    body: Body | None = None


def _check_retry_on(text: str) -> str:
    for condition in text.split(","):
        word = condition.strip()
        if word not in RETRY_CONDITIONS and not re.fullmatch(r"[1-5][0-9][0-9]", word):
            raise ValueError(f"`{word[:80]}` is no retry condition; known are {', '.join(sorted(RETRY_CONDITIONS))}")
    return text


class Retries(Model):
    """`attempts` more tries (0: none), each within `per_try_timeout` seconds, where `retry_on` says so."""

    attempts: Annotated[int, Field(ge=0, le=100)]
    per_try_timeout: Duration | None = None
    retry_on: Annotated[str, AfterValidator(_check_retry_on)] | None = None


class HttpRoute(Model):
    """One rule; the first whose `match` holds (any of its blocks; none: always) answers.

    `timeout` is in seconds, 0 and None mean none.
    """

    name: Annotated[str, Field(max_length=253)] | None = None
    match: Many[HttpMatch] = ()
    route: Many[RouteDestination] = ()
    redirect: Redirect | None = None
    direct_response: DirectResponse | None = None
    rewrite: Rewrite | None = None
    timeout: Duration | None = None
    retries: Retries | None = None
    headers: Headers = Headers()

    @model_validator(mode="after")
    def _one_action(self) -> HttpRoute:
        actions = [bool(self.route), self.redirect is not None, self.direct_response is not None]
        if sum(actions) != 1:
            raise ValueError("give exactly one of `route`, `redirect` and `directResponse`")
        if not self.route and (self.rewrite or self.timeout is not None or self.retries):
            raise ValueError("`rewrite`, `timeout` and `retries` need `route`; remove them")
        if len(self.route) > 1 and sum(destination.weight for destination in self.route) == 0:
            raise ValueError("the weights add up to 0; give one destination a `weight`")
        return self


class VirtualServiceSpec(Model):
    """Which hosts, at which gateways (`mesh`: in sidecars), are routed how."""

    hosts: Annotated[Many[HostPattern], Field(min_length=1)]
    gateways: Annotated[Many[str], Field(min_length=1)] = (MESH,)
    http: Annotated[Many[HttpRoute], Field(min_length=1)]


class _Resource(Model):
    metadata: Metadata

    @property
    def name(self) -> str:
        """`metadata.name`."""
        return self.metadata.name

    @property
    def namespace(self) -> str:
        """`metadata.namespace`; in a Mesh every resource has one."""
        return self.metadata.namespace or ""

    @property
    def id(self) -> str:
        """`<namespace>/<name>`, as `gateways` of a VirtualService refer to it."""
        return f"{self.namespace}/{self.name}"

    def within(self, namespace: str) -> Any:
        """Return the resource with its namespace filled in."""
        if self.metadata.namespace is not None:
            return self
        return self.model_copy(update={"metadata": self.metadata.model_copy(update={"namespace": namespace})})


class VirtualService(_Resource):
    """Istio's VirtualService (HTTP routes)."""

    api_version: Networking = "networking.istio.io/v1"
    kind: Literal["VirtualService"] = "VirtualService"
    spec: VirtualServiceSpec

    def gateway_ids(self) -> tuple[str, ...]:
        """Return the ids (`<namespace>/<name>`) of the gateways, without the reserved `mesh`."""
        names = (name for name in self.spec.gateways if name != MESH)
        return tuple(name if "/" in name else f"{self.namespace}/{name}" for name in names)

    @property
    def in_mesh(self) -> bool:
        """Whether it holds in sidecars."""
        return MESH in self.spec.gateways


class ServerPort(Model):
    """A port at the edge."""

    number: PortNumber
    name: Name
    protocol: Literal["HTTP"]


class Server(Model):
    """A port at the edge and the hosts that are served there."""

    port: ServerPort
    hosts: Annotated[Many[HostPattern], Field(min_length=1)]


class GatewaySpec(Model):
    """Which gateway instances (by labels, in any namespace) open which ports."""

    selector: Annotated[Labels, Field(min_length=1)]
    servers: Annotated[Many[Server], Field(min_length=1)]


class Gateway(_Resource):
    """Istio's Gateway (plain HTTP servers)."""

    api_version: Networking = "networking.istio.io/v1"
    kind: Literal["Gateway"] = "Gateway"
    spec: GatewaySpec


def _check_http(name: str) -> str:
    if name != "http" and not name.startswith("http-"):
        raise ValueError(f"the protocol of port `{name}` is not supported yet; use `http` or `http-<suffix>`")
    return name


class ServicePort(Model):
    """A port of a Service: `port` is what callers use, `target_port` the workload's (else the same)."""

    port: PortNumber
    target_port: PortNumber | None = None
    name: Annotated[Name, AfterValidator(_check_http)] = "http"
    protocol: Literal["TCP"] = "TCP"
    app_protocol: Literal["http"] | None = None


class ServiceSpec(Model):
    """The ports, and by labels the instances behind them (in the Service's namespace)."""

    ports: Annotated[Many[ServicePort], Field(min_length=1)]
    selector: Annotated[Labels, Field(min_length=1)]
    type: Literal["ClusterIP"] = "ClusterIP"


class CoreService(_Resource):
    """Kubernetes' Service."""

    api_version: Literal["v1"] = "v1"
    kind: Literal["Service"] = "Service"
    spec: ServiceSpec


_VIRTUAL_SERVICE_LATER: Final = (
    "allowCredentials", "corsPolicy", "delegate", "derivePort", "exportTo", "fault", "gateways", "mirror",
    "mirrorPercentage", "mirrorPercent", "mirrors", "port", "prefixRewrite", "scheme", "sourceLabels",
    "sourceNamespace", "statPrefix", "subset", "tcp", "tls", "uriRegexRewrite", "backoff",
    "retryIgnorePreviousHosts", "retryRemoteLocalities", "headers", "bytes", "name",
)  # fmt: skip
_GATEWAY_LATER: Final = ("bind", "defaultEndpoint", "name", "targetPort", "tls")
_SERVICE_LATER: Final = (
    "allocateLoadBalancerNodePorts", "clusterIP", "clusterIPs", "externalIPs", "externalName",
    "externalTrafficPolicy", "healthCheckNodePort", "internalTrafficPolicy", "ipFamilies", "ipFamilyPolicy",
    "loadBalancerClass", "loadBalancerIP", "loadBalancerSourceRanges", "nodePort", "publishNotReadyAddresses",
    "sessionAffinity", "sessionAffinityConfig", "trafficDistribution",
)  # fmt: skip

KINDS: Final[Mapping[str, type[VirtualService | Gateway | CoreService]]] = {
    "Gateway": Gateway,
    "VirtualService": VirtualService,
    "Service": CoreService,
}
LATER: Final[Mapping[str, Mapping[str, str]]] = {
    "Gateway": dict.fromkeys(_GATEWAY_LATER, "Gateway"),
    "VirtualService": dict.fromkeys(_VIRTUAL_SERVICE_LATER, "VirtualService"),
    "Service": dict.fromkeys(_SERVICE_LATER, "Service"),
}
