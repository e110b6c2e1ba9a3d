"""GRPCRoute: which calls of which methods go where."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from policyd.mesh.gateway_api.common import (
    BackendRef,
    GatewayApiResource,
    HeaderFilter,
    Hostnames,
    MirrorFilter,
    ObjectName,
    Parents,
)
from policyd.mesh.gateway_api.http_filters import check_filter_type, check_one
from policyd.mesh.gateway_api.http_matches import HeaderMatch
from policyd.mesh.gateway_api.http_route import LATER as HTTP_LATER
from policyd.mesh.gateway_api.sessions import SessionPersistence, check_backends
from policyd.mesh.matching import check_regex
from policyd.strict import Many, Model

LATER: Final[Mapping[str, str]] = {
    name: HTTP_LATER[name] for name in ("idleTimeout", "useDefaultGateways", "extensionRef")
}
_SERVICE: Final = r"^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*$"


class MethodMatch(Model):
    """A service, a method, or a method of a service: the very ones, or by regexes (RE2)."""

    type: Literal["Exact", "RegularExpression"] = "Exact"
    service: Annotated[str, Field(min_length=1, max_length=1024)] | None = None
    method: Annotated[str, Field(min_length=1, max_length=1024)] | None = None

    @model_validator(mode="after")
    def _form(self) -> MethodMatch:
        if self.service is None and self.method is None:
            raise ValueError("neither `service` nor `method` is given; add one")
        for given in (self.service, self.method):
            if given is not None and self.type == "RegularExpression":
                check_regex(given)
            elif given is not None and not all(
                part.isidentifier() and part.isascii() for part in given.split("." if given is self.service else "/")
            ):
                raise ValueError(f"`{given[:80]}` is no name of a gRPC service or method; write it without slashes")
        return self


class GrpcRouteMatch(Model):
    """All that is given must hold."""

    method: MethodMatch | None = None
    headers: Annotated[Many[HeaderMatch], Field(max_length=16)] = ()


class GrpcFilter(Model):
    """One thing that is done, by its type."""

    type: Annotated[
        Literal["RequestHeaderModifier", "ResponseHeaderModifier", "RequestMirror"], BeforeValidator(check_filter_type)
    ]
    request_header_modifier: HeaderFilter | None = None
    response_header_modifier: HeaderFilter | None = None
    request_mirror: MirrorFilter | None = None

    @model_validator(mode="after")
    def _one(self) -> GrpcFilter:
        check_one(self, self.type, {})
        return self


def _check_once(filters: tuple[GrpcFilter, ...]) -> tuple[GrpcFilter, ...]:
    kinds = [one.type for one in filters if one.type != "RequestMirror"]
    if twice := next((kind for kind in kinds if kinds.count(kind) > 1), None):
        raise ValueError(f"the filter `{twice}` is there twice; keep one")
    return filters


Filters16 = Annotated[Many[GrpcFilter], Field(max_length=16), AfterValidator(_check_once)]


class GrpcBackendRef(BackendRef):
    """Where calls go, and what is done to those alone that go there."""

    filters: Filters16 = ()


class GrpcRouteRule(Model):
    """Calls that any of the matches is for, and what is done with them."""

    name: ObjectName | None = None
    matches: Annotated[Many[GrpcRouteMatch], Field(max_length=64)] = ()
    filters: Filters16 = ()
    backend_refs: Annotated[Many[GrpcBackendRef], Field(max_length=16)] = ()
    session_persistence: SessionPersistence | None = None

    @model_validator(mode="after")
    def _fits(self) -> GrpcRouteRule:
        check_backends(self.session_persistence, len(self.backend_refs))
        return self


class GrpcRouteSpec(Model):
    """To what the route is attached, for which hosts, and its rules."""

    parent_refs: Parents = ()
    hostnames: Hostnames = ()
    rules: Annotated[Many[GrpcRouteRule], Field(min_length=1, max_length=16)] = (GrpcRouteRule(),)


class GrpcRouteResource(GatewayApiResource):
    """The Gateway API's GRPCRoute."""

    api_version: Literal["gateway.networking.k8s.io/v1", "gateway.networking.k8s.io/v1alpha2"] = (
        "gateway.networking.k8s.io/v1"
    )
    kind: Literal["GRPCRoute"] = "GRPCRoute"
    spec: GrpcRouteSpec
