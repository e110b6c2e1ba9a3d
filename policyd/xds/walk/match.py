"""Which route of a RouteConfiguration answers a request: the virtual host by Host, then the first route that matches.

Law: as in Envoy: an exact domain, then the longest ending, then the longest beginning, then `*`; of routes the first.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from policyd.names import METADATA_TOKENS
from policyd.xds.walk.asked import Asked, NotUnderstood, without_port

_PATHS: Final = frozenset({"prefix", "path", "safe_regex", "connect_matcher", "path_separated_prefix"})
_MATCH: Final = _PATHS | {
    "case_sensitive",
    "headers",
    "query_parameters",
    "grpc",
    "dynamic_metadata",
    "runtime_fraction",
}
_HEADER: Final = frozenset({"name", "string_match", "present_match", "invert_match", "treat_missing_header_as_empty"})
_STRING: Final = frozenset({"exact", "prefix", "suffix", "contains", "safe_regex", "ignore_case"})


@dataclass(frozen=True, slots=True)
class Chosen:
    """A route (None: no one matches) and its virtual host.

    `route_at` is the route's place there, `percent` its share of such requests.
    """

    virtual_host: Mapping[str, Any]
    route: Mapping[str, Any] | None = field(default=None)
    route_at: int = -1
    percent: float = 100.0


def choose(table: Mapping[str, Any], asked: Asked) -> tuple[Chosen, ...]:
    """The routes of a RouteConfiguration for a request, by their shares; none where no virtual host has its Host."""
    authority = asked.authority.lower()
    host = without_port(authority) if table.get("ignore_port_in_host_matching") else authority
    found = _virtual_host(table.get("virtual_hosts", ()), host)
    return () if found is None else tuple(_divided(found, asked))


def _divided(virtual_host: Mapping[str, Any], asked: Asked) -> Iterator[Chosen]:
    """A request has one number by chance, and a route with a fraction takes it where the number is below that."""
    taken = 0.0
    for place, route in enumerate(virtual_host.get("routes", ())):
        if matches(route["match"], asked):
            below = percent(route["match"].get("runtime_fraction", {}).get("default_value"), 100.0)
            if below > taken:
                yield Chosen(virtual_host, route, place, below - taken)
                taken = below
            if taken >= 100:
                return
    yield Chosen(virtual_host, percent=100 - taken)


def percent(fraction: Mapping[str, Any] | None, otherwise: float = 0.0) -> float:
    """A FractionalPercent in percent; `otherwise` where there is none."""
    if fraction is None:
        return otherwise
    whole = {"HUNDRED": 100, "TEN_THOUSAND": 10_000, "MILLION": 1_000_000}[fraction.get("denominator", "HUNDRED")]
    return 100 * float(fraction.get("numerator", 0)) / whole


def _virtual_host(hosts: Any, host: str) -> Mapping[str, Any] | None:
    best: tuple[tuple[int, int], Mapping[str, Any]] | None = None
    for one in hosts:
        for domain in one["domains"]:
            rank = _rank(domain.lower(), host)
            if rank is not None and (best is None or rank > best[0]):
                best = rank, one
    return None if best is None else best[1]


def _rank(domain: str, host: str) -> tuple[int, int] | None:
    """How closely a domain means a host; None where it does not."""
    if domain == host:
        return 3, 0
    if domain == "*":
        return 0, 0
    if domain.startswith("*") and host.endswith(domain[1:]) and len(host) > len(domain) - 1:
        return 2, len(domain)
    if domain.endswith("*") and host.startswith(domain[:-1]) and len(host) > len(domain) - 1:
        return 1, len(domain)
    return None


def matches(match: Mapping[str, Any], asked: Asked) -> bool:
    """Whether a RouteMatch holds; raises NotUnderstood."""
    _known(match, _MATCH, "match of a route")
    return (
        _path(match, asked)
        and all(_header(one, asked) for one in match.get("headers", ()))
        and all(_parameter(one, asked) for one in match.get("query_parameters", ()))
        and all(_claim(one, asked) for one in match.get("dynamic_metadata", ()))
        and ("grpc" not in match or (asked.header("content-type") or "").startswith("application/grpc"))
    )


def _path(match: Mapping[str, Any], asked: Asked) -> bool:
    if "connect_matcher" in match:
        return asked.is_tunnel
    if asked.is_tunnel:
        return False  # it has no path, not even `/`
    path = asked.bare_path
    if "safe_regex" in match:
        return regex(match["safe_regex"]["regex"]).fullmatch(path) is not None
    kind = next((one for one in ("prefix", "path", "path_separated_prefix") if one in match), None)
    if kind is None:
        raise NotUnderstood("a route matches by something else than a path")
    wanted = match[kind]
    if match.get("case_sensitive", True) is False:
        wanted, path = wanted.lower(), path.lower()
    if kind == "path":
        return bool(path == wanted)
    if kind == "path_separated_prefix":
        return bool(path == wanted or path.startswith(f"{wanted}/"))
    return bool(path.startswith(wanted))


def _header(one: Mapping[str, Any], asked: Asked) -> bool:
    _known(one, _HEADER, "matcher of a header")
    value = asked.header(one["name"])
    if value is None and one.get("treat_missing_header_as_empty"):
        value = ""
    if "string_match" in one:
        if value is None:
            return False  # whichever way it is turned
        return string_matches(one["string_match"], value) is not bool(one.get("invert_match"))
    return ((value is not None) is one.get("present_match", True)) is not bool(one.get("invert_match"))


def _parameter(one: Mapping[str, Any], asked: Asked) -> bool:
    value = asked.parameter(one["name"])
    if "string_match" in one:
        return value is not None and string_matches(one["string_match"], value)
    return (value is not None) is one.get("present_match", True)


def _claim(one: Mapping[str, Any], asked: Asked) -> bool:
    """What a token says (MetadataMatcher)."""
    if one.get("filter") != METADATA_TOKENS:
        raise NotUnderstood(f"a route matches by what the filter `{one.get('filter')}` has found")
    found: Any = asked.claims
    for step in one.get("path", ()):
        found = found.get(step.get("key")) if isinstance(found, Mapping) else None
    return (found is not None and _value(one.get("value", {}), found)) is not bool(one.get("invert"))


def _value(matcher: Mapping[str, Any], value: Any) -> bool:
    """A ValueMatcher."""
    if "or_match" in matcher:
        return any(_value(one, value) for one in matcher["or_match"].get("value_matchers", ()))
    if "list_match" in matcher:
        wanted = matcher["list_match"].get("one_of", {})
        return isinstance(value, list | tuple) and any(_value(wanted, one) for one in value)
    if "string_match" in matcher:
        return isinstance(value, str) and string_matches(matcher["string_match"], value)
    if "present_match" in matcher:
        return bool(matcher["present_match"])
    raise NotUnderstood("a claim is matched in a way that is not understood here")


def string_matches(matcher: Mapping[str, Any], value: str) -> bool:
    """Whether a StringMatcher holds for a value; raises NotUnderstood."""
    _known(matcher, _STRING, "matcher of a text")
    if "safe_regex" in matcher:
        return regex(matcher["safe_regex"]["regex"]).fullmatch(value) is not None
    kind = next((one for one in ("exact", "prefix", "suffix", "contains") if one in matcher), "exact")
    wanted = matcher.get(kind, "")
    if matcher.get("ignore_case"):
        wanted, value = wanted.lower(), value.lower()
    found = {
        "exact": value == wanted,
        "prefix": value.startswith(wanted),
        "suffix": value.endswith(wanted),
        "contains": wanted in value,
    }
    return bool(found[kind])


def regex(pattern: str) -> re.Pattern[str]:
    """A regex of RE2 as Python reads it; raises NotUnderstood for what only RE2 reads."""
    try:
        return re.compile(pattern, re.ASCII)
    except (re.error, OverflowError, RecursionError):
        raise NotUnderstood(f"the regex `{pattern[:80]}` is one that only a proxy reads") from None


def _known(fields: Mapping[str, Any], known: frozenset[str], what: str) -> None:
    if unknown := sorted(fields.keys() - known):
        raise NotUnderstood(f"a {what} has `{unknown[0]}`, which is not understood here")
