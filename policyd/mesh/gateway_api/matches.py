"""Matches of routes as those of VirtualServices."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from policyd.mesh.gateway_api.grpc_route import GrpcRouteMatch, MethodMatch
from policyd.mesh.gateway_api.http_matches import HeaderMatch, HttpRouteMatch, PathMatch, QueryParamMatch
from policyd.mesh.gateway_api.values import MILLION, Segments, Slice
from policyd.mesh.istio.matches import HttpMatch, StringMatch

ANY_NAME: Final = "[^/]+"


def http_match(match: HttpRouteMatch, port: int | None, below: int) -> HttpMatch:
    """A match of an HTTPRoute, on a port (None: on all), for its share of the requests."""
    method = StringMatch(exact=match.method) if match.method is not None else None
    return _sliced(
        below,
        uri=_path(match.path),
        method=method,
        headers=_values(match.headers),
        query_params=_values(match.query_params),
        port=port,
    )


def grpc_match(match: GrpcRouteMatch, port: int | None, below: int) -> HttpMatch:
    """A match of a GRPCRoute: a call is a request whose path is `/<service>/<method>`."""
    return _sliced(below, uri=_method(match.method), headers=_values(match.headers), port=port)


def _sliced(below: int, **fields: Any) -> HttpMatch:
    return HttpMatch(**fields) if below >= MILLION else Slice(below=below, **fields)


def _values(given: Iterable[HeaderMatch | QueryParamMatch]) -> dict[str, StringMatch]:
    """By name; of several of one name the first one."""
    found: dict[str, StringMatch] = {}
    for one in given:
        exact = one.type == "Exact"
        found.setdefault(one.name, StringMatch(exact=one.value) if exact else StringMatch(regex=one.value))
    return found


def _path(path: PathMatch) -> StringMatch | None:
    if path.type == "Exact":
        return StringMatch(exact=path.value)
    if path.type == "RegularExpression":
        return StringMatch(regex=path.value)
    return Segments(prefix=path.segments) if path.segments else None


def _method(method: MethodMatch | None) -> StringMatch | None:
    if method is None:
        return None
    if method.type == "RegularExpression":
        return StringMatch(regex=f"/(?:{method.service or ANY_NAME})/(?:{method.method or ANY_NAME})")
    if method.service is None:
        return StringMatch(regex=f"/{ANY_NAME}/{method.method}")
    if method.method is None:
        return StringMatch(prefix=f"/{method.service}/")
    return StringMatch(exact=f"/{method.service}/{method.method}")
