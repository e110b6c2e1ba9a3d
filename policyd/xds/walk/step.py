"""What one listener does with one request: which chain takes it, what is asked about it, and where it goes.

Law: only what is written in the resources is told; shares without weight get nothing, as in Envoy.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

from policyd.names import (
    AUTHZ_FILTER,
    METADATA_CLUSTER,
    METADATA_LEAVES,
    METADATA_LISTENER,
    METADATA_NAMESPACE,
    METADATA_TOKENS,
    SNI_HEADER,
    STATE_CLUSTER,
    STATE_TCP,
)
from policyd.xds.walk.asked import Asked
from policyd.xds.walk.change import forwarded, normalised, redirected
from policyd.xds.walk.match import Chosen, choose, percent
from policyd.xds.walk.sent import Sent, manager

_FAULTS: Final = "envoy.filters.http.fault"
_SETS_METADATA: Final = "envoy.filters.http.set_metadata"
_NOTES: Final = "envoy.filters.http.set_filter_state"
NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})
_NO_ROUTE: Final = 404  # Envoy's own answer where nothing matches
_CODES: Final[Mapping[str, int]] = {
    "MOVED_PERMANENTLY": 301, "FOUND": 302, "SEE_OTHER": 303, "TEMPORARY_REDIRECT": 307, "PERMANENT_REDIRECT": 308,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Question:
    """What policyd would be told of where it is asked: the listener's name, and what the route adds."""

    listener: str
    extensions: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer without a destination."""

    status: int
    location: str = ""
    body: str = ""


@dataclass(frozen=True, slots=True)
class Leg:
    """Where `percent` of the requests go, as `asked`; a copy is beside them, and nobody waits for its answer."""

    cluster: str
    asked: Asked
    percent: float = 100.0
    copy: bool = False
    question: Question | None = None
    ends: bool = False  # a tunnel, whose bytes are read there


@dataclass(frozen=True, slots=True)
class Step:
    """What a listener does: `table` and `chosen` are where that is written, and either `answer` or `legs`.

    `question` is what policyd is asked before an answer; that of a leg stands there. `issuers` says of each issuer
    whose tokens are verified whether the token goes on. `patience` and `faults` are Envoy's own words.
    """

    asked: Asked
    table: str = ""
    chosen: Chosen | None = None
    answer: Answer | None = None
    legs: tuple[Leg, ...] = ()
    question: Question | None = None
    issuers: Mapping[str, bool] = field(default_factory=dict)
    patience: Mapping[str, Any] = field(default_factory=dict)
    faults: Mapping[str, Any] = field(default_factory=dict)


def chain_for(listener: Mapping[str, Any], *, encrypted: bool, name: str = "") -> Mapping[str, Any] | None:
    """The filter chain that takes a connection, with TLS for a server `name` or in the clear; None: none does."""
    found = [
        (rank, chain)
        for chain in listener.get("filter_chains", ())
        if (rank := _fits(chain.get("filter_chain_match", {}), encrypted, name)) is not None
    ]
    if not found:
        return None
    chain: Mapping[str, Any] = max(found, key=lambda one: one[0])[1]
    if manager(chain) is None and "transport_socket" not in chain:
        return chain  # bytes are passed on as they are, TLS too
    return chain if ("transport_socket" in chain) is encrypted else None


def _fits(match: Mapping[str, Any], encrypted: bool, name: str) -> tuple[int, int] | None:
    transport = match.get("transport_protocol", "")
    if transport and transport != ("tls" if encrypted else "raw_buffer"):
        return None
    wanted = match.get("server_names", ())
    ranks = [rank for one in wanted if (rank := _name_rank(one, name)) is not None]
    if wanted and not ranks:
        return None
    return max(ranks, default=0), bool(transport)


def _name_rank(wanted: str, name: str) -> int | None:
    if wanted == name:
        return 1000
    return len(wanted) if wanted.startswith("*.") and name.endswith(wanted[1:]) else None


def steps(
    sent: Sent, chain: Mapping[str, Any], asked: Asked, tokens: Mapping[str, Mapping[str, Any]] = NOTHING
) -> tuple[tuple[float, Step], ...]:
    """What a filter chain does with a request, or a connection, each with its percent; none where it does neither.

    `tokens` are the claims of those that the request shows, by issuer.
    """
    config = manager(chain)
    if config is None:
        found = _connection(chain, asked)
        return ((100.0, found),) if found is not None else ()
    filters = {one["name"]: one.get("typed_config", {}) for one in config.get("http_filters", ())}
    providers = filters.get(METADATA_TOKENS, {}).get("providers", {}).values()
    issuers = {one.get("issuer", ""): bool(one.get("forward")) for one in providers}
    told = {one["payload_in_metadata"]: tokens[one["issuer"]] for one in providers if one.get("issuer") in tokens}
    asked = asked.changed(claims=told)
    if not asked.is_tunnel:
        path = normalised(asked.path)
        if path is None:
            return ((100.0, Step(asked, answer=Answer(400, body="the path has no form that a proxy takes"))),)
        asked = asked.changed(path=path)
    table = config.get("route_config") or sent.routes(config.get("rds", {}).get("route_config_name", "")) or {}
    said = _Said(filters, table)

    def of(chosen: Chosen | None) -> Step:
        routed = _routed(asked, table, chosen, said)
        faults = said.of(_FAULTS, chosen) if _FAULTS in filters and routed[1] else {}
        return Step(asked, table.get("name", ""), chosen, *routed, issuers, _patience(chosen), {**faults})

    return tuple((one.percent, of(one)) for one in choose(table, asked)) or ((100.0, of(None)),)


def _connection(chain: Mapping[str, Any], asked: Asked) -> Step | None:
    """A connection that is made a tunnel, or passed on: where that goes (tcp_proxy.v3.TcpProxy)."""
    for one in chain.get("filters", ()):
        config = one.get("typed_config", {})
        if asked.is_tunnel and str(config.get("@type", "")).endswith("TcpProxy") and "cluster" in config:
            tunnel = config.get("tunneling_config", {})
            headers = {**asked.headers, **({SNI_HEADER: asked.host} if tunnel.get("headers_to_add") else {})}
            goes_on = asked.changed(authority=tunnel.get("hostname", asked.authority), headers=headers)
            return Step(asked, legs=(Leg(config["cluster"], goes_on),))
    return None


def _routed(
    asked: Asked, table: Mapping[str, Any], chosen: Chosen | None, said: _Said
) -> tuple[Answer | None, tuple[Leg, ...], Question | None]:
    """The answer or the legs, and the question before an answer."""
    if chosen is None or chosen.route is None:
        return Answer(_NO_ROUTE), (), said.question(chosen)
    route = chosen.route
    if "route" in route:
        return None, tuple(_legs(asked, table, chosen, said)), None
    if "redirect" in route:
        redirect = route["redirect"]
        code = _CODES[redirect.get("response_code", "MOVED_PERMANENTLY")]
        return Answer(code, redirected(asked, route["match"], redirect)), (), said.question(chosen)
    response = route.get("direct_response", {})
    body = response.get("body", {}).get("inline_string", "")
    return Answer(response.get("status", 200), body=body), (), said.question(chosen)


def _legs(asked: Asked, table: Mapping[str, Any], chosen: Chosen, said: _Said) -> Iterator[Leg]:
    route = chosen.route or {}
    action, around = route["route"], (route, chosen.virtual_host, table)
    shares = action.get("weighted_clusters", {}).get("clusters", ())
    whole = sum(one.get("weight", 0) for one in shares) or 1
    ends = asked.is_tunnel and any("connect_config" in one for one in action.get("upgrade_configs", ()))
    for one in shares:
        if weight := one.get("weight", 0):
            goes_on = forwarded(asked, route, (one, *around))
            through = _noted(one)
            to, is_last = through or one["name"], ends and not through
            yield Leg(to, goes_on, 100 * weight / whole, question=said.question(chosen, one), ends=is_last)
    if not shares:
        # through listeners inside, which only look at what comes, to where the route's own words say
        marks = route.get("metadata", {}).get("filter_metadata", {}).get(METADATA_NAMESPACE, {})
        through = marks.get(METADATA_LEAVES) or marks.get(METADATA_CLUSTER) or _noted(route)
        goes_on = forwarded(asked, route, around)
        yield Leg(through or action["cluster"], goes_on, question=said.question(chosen), ends=ends and not through)
    for copy in action.get("request_mirror_policies", ()):
        goes_on = forwarded(asked, route, around)
        host = f"{goes_on.host}-shadow{goes_on.authority[len(goes_on.host) :]}"  # as Envoy calls a copy's Host
        share = percent(copy.get("runtime_fraction", {}).get("default_value"), 100.0)
        yield Leg(copy["cluster"], goes_on.changed(authority=host), share, copy=True)


def _noted(share: Mapping[str, Any]) -> str:
    """Where a share goes through listeners inside, which only look at what comes; "" where there are none."""
    notes = share.get("typed_per_filter_config", {}).get(_NOTES, {}).get("on_request_headers", ())
    texts = (
        one["format_string"]["text_format_source"] for one in notes if one["object_key"] in (STATE_CLUSTER, STATE_TCP)
    )
    return next((text["inline_string"] for text in texts), "")


class _Said:
    """What the filters of a listener are told by the table, by its virtual host, by the route and by a share."""

    def __init__(self, filters: Mapping[str, Any], table: Mapping[str, Any]) -> None:
        self._filters = filters
        self._table = table
        values = (one.get("value", {}) for one in filters.get(_SETS_METADATA, {}).get("metadata", ())
                  if one.get("metadata_namespace") == METADATA_NAMESPACE)  # fmt: skip
        self._listener = next((one.get(METADATA_LISTENER, "") for one in values), "")

    def of(self, name: str, chosen: Chosen | None) -> Mapping[str, Any]:
        """The narrowest thing that is said to a filter."""
        return next(self._every(name, chosen, None), {})

    def _every(self, name: str, chosen: Chosen | None, share: Mapping[str, Any] | None) -> Iterator[Mapping[str, Any]]:
        """All that is said to a filter, the narrowest first."""
        for place in (share, chosen.route if chosen else None, chosen.virtual_host if chosen else None, self._table):
            found = (place or {}).get("typed_per_filter_config", {}).get(name)
            if found is not None:
                yield found

    def question(self, chosen: Chosen | None, share: Mapping[str, Any] | None = None) -> Question | None:
        """What policyd is asked; None where it is not."""
        if AUTHZ_FILTER not in self._filters:
            return None
        said = list(self._every(AUTHZ_FILTER, chosen, share))
        if said and said[0].get("disabled"):
            return None
        extensions: dict[str, str] = {}
        for one in reversed(
            said
        ):  # of one name the narrowest wins; of others all are told (FilterConfigPerRoute::merge)
            extensions |= one.get("check_settings", {}).get("context_extensions", {})
        return Question(self._listener, extensions)


def _patience(chosen: Chosen | None) -> dict[str, Any]:
    action = (chosen.route or {}).get("route", {}) if chosen else {}
    return {name: action[name] for name in ("timeout", "retry_policy") if name in action}
