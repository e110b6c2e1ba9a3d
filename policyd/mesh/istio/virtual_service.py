"""Istio's VirtualService: which hosts are routed how."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field, model_validator

from policyd.mesh.istio.common import Distinct, HeaderName, HeaderValue, HostPattern, Networking, Path, Resource
from policyd.mesh.istio.matches import HttpMatch
from policyd.mesh.matching import RETRY_CONDITIONS, check_host
from policyd.strict import NOTHING, Duration, Many, Model, PortNumber

MESH: Final = "mesh"  # the reserved gateway name: all sidecars
LATER: Final = (
    "allowCredentials", "corsPolicy", "delegate", "derivePort", "exportTo", "fault", "gateways", "mirror",
    "mirrorPercentage", "mirrorPercent", "mirrors", "port", "prefixRewrite", "scheme", "sourceLabels",
    "sourceNamespace", "statPrefix", "subset", "tcp", "tls", "uriRegexRewrite", "backoff",
    "retryIgnorePreviousHosts", "retryRemoteLocalities", "headers", "bytes", "name",
)  # fmt: skip


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


class VirtualService(Resource):
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
