"""Which of several rules a request takes: the specification's order.

Law: the narrowest host first, then the narrowest match, then the oldest route, then its name, then its place there.
Where the specification leaves it open, a regex comes after an exact path and before every prefix.
"""

from __future__ import annotations

from typing import Any

from policyd.mesh.gateway_api.grpc_route import GrpcRouteMatch
from policyd.mesh.gateway_api.http_matches import HttpRouteMatch

Order = tuple[Any, ...]


def by_host(pattern: str) -> Order:
    """The hosts without `*` first, then the longer ones."""
    return pattern.startswith("*"), -len(pattern)


def by_http_match(match: HttpRouteMatch) -> Order:
    """The exact path, the longest path, the method, the most headers, the most parameters."""
    kinds = ("Exact", "RegularExpression", "PathPrefix")
    path = match.path
    length = len(path.value if path.type != "PathPrefix" else path.segments)
    return kinds.index(path.type), -length, match.method is None, -len(match.headers), -len(match.query_params)


def by_grpc_match(match: GrpcRouteMatch) -> Order:
    """The longest service, the longest method, the most headers; regexes after names."""
    method = match.method
    if method is None:
        return 2, 0, 0, -len(match.headers)
    regex = method.type == "RegularExpression"
    return int(regex), -len(method.service or ""), -len(method.method or ""), -len(match.headers)
