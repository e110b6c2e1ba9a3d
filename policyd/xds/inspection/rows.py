"""What proxies hold, in rows with the columns that Istio's users know."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from policyd.xds.inspection.held import Held, HeldEndpoint, address, endpoints, resources
from policyd.xds.inspection.kind import Kind
from policyd.xds.walk.sent import manager

HEADERS: Final[Mapping[str, tuple[str, ...]]] = {
    "listeners": ("LISTENER", "NAME", "MATCH", "DESTINATION"),
    "routes": ("NAME", "VHOST NAME", "DOMAINS", "MATCH", "DESTINATION"),
    "clusters": ("SERVICE", "PORT", "SUBSET", "DIRECTION", "TYPE", "TLS"),
    "endpoints": ("ENDPOINT", "STATUS", "OUTLIER CHECK", "CLUSTER"),
    "secrets": ("NAME", "TYPE", "SUBJECT", "SERIAL", "NOT BEFORE", "NOT AFTER"),
}
Row = tuple[str, ...]


def rows(kind: Kind, held: Mapping[str, Any]) -> Iterator[Row]:
    """A kind of what is held."""
    if kind is Kind.ENDPOINTS:
        return endpoint_rows(endpoints(held))
    of = {
        Kind.LISTENERS: listener_rows,
        Kind.ROUTES: route_rows,
        Kind.CLUSTERS: cluster_rows,
        Kind.SECRETS: secret_rows,
    }
    return of[kind](resources(kind.value, held))


def listener_rows(held: Iterable[Held]) -> Iterator[Row]:
    """A row a filter chain."""
    for one in held:
        where = address(one.body.get("address", {})) or "-"
        name = one.name if one.is_active else f"{one.name} (not active)"
        chains = one.body.get("filter_chains", ())
        for chain in chains:
            yield where, name, _chain_match(chain), _chain_destination(chain)
        if not chains:
            yield where, name, "-", one.problem or "-"


def _chain_match(chain: Mapping[str, Any]) -> str:
    match = chain.get("filter_chain_match", {})
    parts = [f"SNI {', '.join(match['server_names'])}"] if match.get("server_names") else []
    if transport := match.get("transport_protocol"):
        parts.append({"tls": "TLS", "raw_buffer": "plain text"}.get(transport, transport))
    elif "transport_socket" in chain:
        parts.append("TLS")
    if protocols := match.get("application_protocols"):
        parts.append(f"ALPN {', '.join(protocols)}")
    return "; ".join(parts) or "ALL"


def _chain_destination(chain: Mapping[str, Any]) -> str:
    config = manager(chain)
    if config is not None:
        if "route_config" in config:
            return f"inline route {config['route_config'].get('name', '')}"
        return f"route {config.get('rds', {}).get('route_config_name', '')}"
    for one in chain.get("filters", ()):
        to = one.get("typed_config", {})
        if str(to.get("@type", "")).endswith("TcpProxy"):
            clusters = to.get("weighted_clusters", {}).get("clusters", ())
            return f"cluster {to.get('cluster') or ', '.join(part['name'] for part in clusters)}"
    return "-"


def route_rows(held: Iterable[Held]) -> Iterator[Row]:
    """A row a route."""
    for one in held:
        for host in one.body.get("virtual_hosts", ()):
            domains = host.get("domains", ())
            shown = ", ".join(domains[:2]) + (f" + {len(domains) - 2} more" if len(domains) > 2 else "")
            for route in host.get("routes", ()):
                yield one.name, host.get("name", ""), shown, route_match(route.get("match", {})), route_target(route)


def route_match(match: Mapping[str, Any]) -> str:
    """A RouteMatch in short."""
    if "connect_matcher" in match:
        parts = ["CONNECT"]
    elif "safe_regex" in match:
        parts = [f"~{match['safe_regex'].get('regex', '')}"]
    elif "path" in match:
        parts = [f"={match['path']}"]
    else:
        parts = [f"{match.get('prefix', match.get('path_separated_prefix', ''))}*"]
    parts += [("!" if one.get("invert_match") else "") + str(one.get("name", "")) for one in match.get("headers", ())]
    parts += [f"?{one.get('name', '')}" for one in match.get("query_parameters", ())]
    return " ".join(parts)


def route_target(route: Mapping[str, Any]) -> str:
    """Where a route leads."""
    if "direct_response" in route:
        return f"answer {route['direct_response'].get('status', 200)}"
    if "redirect" in route:
        return "redirect"
    action = route.get("route", {})
    shares = action.get("weighted_clusters", {}).get("clusters", ())
    if shares:
        return ", ".join(f"{one.get('weight', 0)} {one.get('name', '')}" for one in shares)
    return str(action.get("cluster", "-"))


def cluster_rows(held: Iterable[Held]) -> Iterator[Row]:
    """A row a cluster."""
    for one in held:
        direction, port, subset, service = (*one.name.split("|"), "", "", "")[:4] if "|" in one.name else _NAMELESS
        kind = one.body.get("type") or one.body.get("cluster_type", {}).get("name", "").rpartition(".")[2] or "STATIC"
        tls = "TLS" if "transport_socket" in one.body else "-"
        yield service or one.name, port or "-", subset or "-", direction or "-", kind, tls


_NAMELESS: Final = ("", "", "", "")


def endpoint_rows(held: Iterable[HeldEndpoint]) -> Iterator[Row]:
    """A row a host of a cluster."""
    for one in held:
        yield one.address, one.health, "FAILED" if one.is_ejected else "OK", one.cluster


def secret_rows(held: Iterable[Held]) -> Iterator[Row]:
    """A row a certificate."""
    for one in held:
        kind = str(one.body.get("type", ""))
        certificates = one.body.get("certificates", ())
        for found in certificates:
            yield (
                one.name, kind, *(str(found.get(key, "")) for key in ("subject", "serial", "not_before", "not_after")),
            )  # fmt: skip
        if not certificates:
            yield one.name, kind, "-", "-", "-", "-"
