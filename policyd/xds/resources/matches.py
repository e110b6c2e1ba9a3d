"""Istio's match blocks as Envoy's RouteMatch."""

from __future__ import annotations

from typing import Any

from policyd.mesh.gateway_api.values import Segments, Slice
from policyd.mesh.istio.matches import HttpMatch, StringMatch

EVERYTHING: dict[str, Any] = {"prefix": "/"}


def route_match(match: HttpMatch) -> dict[str, Any]:
    """All conditions of a block but those on a token's claims, in one RouteMatch."""
    found = _path(match)
    headers = [_header(name, wanted) for name, wanted in match.headers.items() if not name.startswith("@")]
    headers += [_absent(name, unwanted) for name, unwanted in match.without_headers.items() if not name.startswith("@")]
    for pseudo, wanted in _pseudo(match):
        if wanted is not None:
            headers.append(_header(pseudo, wanted))
    if headers:
        found["headers"] = headers
    if isinstance(match, Slice):
        found["runtime_fraction"] = below(match.below)
    if match.query_params:
        found["query_parameters"] = [_parameter(name, wanted) for name, wanted in match.query_params.items()]
    return found


def below(share: int) -> dict[str, Any]:
    """So many of every million: it is one number that all routes of a request are compared with."""
    return {"default_value": {"numerator": share, "denominator": "MILLION"}}


def _pseudo(match: HttpMatch) -> tuple[tuple[str, StringMatch | None], ...]:
    return ((":scheme", match.scheme), (":method", match.method), (":authority", match.authority))


def _parameter(name: str, wanted: StringMatch) -> dict[str, Any]:
    return (
        {"name": name, "present_match": True}
        if wanted.presence
        else {"name": name, "string_match": string_match(wanted)}
    )


def _path(match: HttpMatch) -> dict[str, Any]:
    uri = match.uri
    if uri is None:
        return dict(EVERYTHING)
    if uri.regex is not None:
        return {"safe_regex": {"regex": uri.regex}}
    if isinstance(uri, Segments):
        return {"path_separated_prefix": uri.prefix}
    found: dict[str, Any] = {"path": uri.exact} if uri.exact is not None else {"prefix": uri.prefix}
    if match.ignore_uri_case:
        found["case_sensitive"] = False
    return found


def _header(name: str, wanted: StringMatch) -> dict[str, Any]:
    if wanted.presence:
        return {"name": name, "present_match": True}
    return {"name": name, "string_match": string_match(wanted)}


def _absent(name: str, unwanted: StringMatch) -> dict[str, Any]:
    header = {**_header(name, unwanted), "invert_match": True}
    if not unwanted.presence:
        # a header that is not there does not have the unwanted value either
        header["treat_missing_header_as_empty"] = True
    return header


def string_match(wanted: StringMatch) -> dict[str, Any]:
    """Envoy's StringMatcher."""
    if wanted.exact is not None:
        return {"exact": wanted.exact}
    if wanted.prefix is not None:
        # Envoy refuses an empty prefix, which any value has
        return {"prefix": wanted.prefix} if wanted.prefix else {"safe_regex": {"regex": ".*"}}
    return {"safe_regex": {"regex": wanted.regex}}
