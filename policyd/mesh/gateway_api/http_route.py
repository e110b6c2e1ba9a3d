"""HTTPRoute: which requests of which hosts go where, and what is done to them on the way."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field, model_validator

from policyd.mesh.gateway_api.common import (
    BackendRef,
    GatewayApiResource,
    Hostnames,
    ObjectName,
    Parents,
    Stable,
)
from policyd.mesh.gateway_api.http_filters import HttpFilter, check_filters
from policyd.mesh.gateway_api.http_matches import HttpRouteMatch
from policyd.mesh.gateway_api.sessions import SessionPersistence, check_backends
from policyd.strict import Duration, Many, Model

LATER: Final[Mapping[str, str]] = {
    "idleTimeout": "a proxy keeps no session that could be idle; write `absoluteTimeout`, for a permanent cookie",
    "useDefaultGateways": "name the Gateway in `parentRefs`",
    "externalAuth": "every request is decided by the policies of this mesh; write what you ask for in Cedar",
    "extensionRef": "no code is loaded into proxies; use the filters of the specification",
}
Filters16 = Annotated[Many[HttpFilter], Field(max_length=16), AfterValidator(check_filters)]


class HttpBackendRef(BackendRef):
    """Where requests go, and what is done to those alone that go there."""

    filters: Filters16 = ()


class Timeouts(Model):
    """How long a whole request may take, and each try of it; `0s` is for ever."""

    request: Duration | None = None
    backend_request: Duration | None = None

    @model_validator(mode="after")
    def _within(self) -> Timeouts:
        if self.request and self.backend_request and self.backend_request > self.request:
            raise ValueError("`backendRequest` is longer than `request`, within which it is; make it shorter")
        return self


class Retry(Model):
    """So many more tries where a connection failed, was refused, or was answered with one of the codes."""

    codes: Many[Annotated[int, Field(ge=400, le=599)]] = ()
    attempts: Annotated[int, Field(ge=0, le=100)] | None = None
    backoff: Annotated[Duration, Field(ge=0.001)] | None = None


class HttpRouteRule(Model):
    """Requests that any of the matches is for, and what is done with them."""

    name: ObjectName | None = None
    matches: Annotated[Many[HttpRouteMatch], Field(max_length=64)] = ()
    filters: Filters16 = ()
    backend_refs: Annotated[Many[HttpBackendRef], Field(max_length=16)] = ()
    timeouts: Timeouts | None = None
    retry: Retry | None = None
    session_persistence: SessionPersistence | None = None

    @model_validator(mode="after")
    def _fits(self) -> HttpRouteRule:
        check_backends(self.session_persistence, len(self.backend_refs))
        if self.backend_refs and any(one.request_redirect is not None for one in self.filters):
            raise ValueError("`RequestRedirect` answers by itself; remove it or `backendRefs`")
        every = (*self.filters, *(one for backend in self.backend_refs for one in backend.filters))
        paths = [part.path for one in every if (part := one.request_redirect or one.url_rewrite) is not None]
        if any(path is not None and path.type == "ReplacePrefixMatch" for path in paths):
            matches = self.matches or (HttpRouteMatch(),)
            if len(matches) != 1 or matches[0].path.type != "PathPrefix":
                raise ValueError("`ReplacePrefixMatch` needs exactly one match, by `PathPrefix`; make two rules of it")
        return self


class HttpRouteSpec(Model):
    """To what the route is attached, for which hosts, and its rules."""

    parent_refs: Parents = ()
    hostnames: Hostnames = ()
    rules: Annotated[Many[HttpRouteRule], Field(min_length=1, max_length=16)] = (HttpRouteRule(),)


class HttpRouteResource(GatewayApiResource):
    """The Gateway API's HTTPRoute."""

    api_version: Stable = "gateway.networking.k8s.io/v1"
    kind: Literal["HTTPRoute"] = "HTTPRoute"
    spec: HttpRouteSpec
