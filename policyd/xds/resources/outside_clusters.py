"""The clusters of Hosts: where a request that may leave goes, and what it shows there.

Law: no cluster here connects to an address that no Host may have: upstream_rbac refuses it when it is chosen, before
a connection, and of looked-up names such addresses are dropped, so that Envoy's next try (happy eyeballs) has none.
"""

from __future__ import annotations

import ipaddress
import itertools
from collections.abc import Iterable, Iterator
from typing import Any

from policyd.mesh.destinations import Caller
from policyd.mesh.istio.traffic_policy import Sections
from policyd.mesh.locality import parse_locality
from policyd.mesh.matching import is_address
from policyd.mesh.model import Mesh
from policyd.mesh.outside import Network, Outside, OutsideEndpoint, OutsidePort, forbidden
from policyd.mesh.outside_checks import OWN_TLS
from policyd.names import CLUSTER_HEADER, TARGET_HEADER
from policyd.signals import PEER_HEADER
from policyd.spiffe import SpiffeId
from policyd.xds.resources import ages, certificates, counting, localities, policies, tls
from policyd.xds.resources.localities import Spot
from policyd.xds.resources.model import Control, outbound_cluster, socket, tunnel_cluster

_EXTENSIONS = "type.googleapis.com/envoy.extensions"
DNS_CACHE = "policyd-egress"
MAX_NAMES = 1024  # looked up and kept at a time
AGAIN = {"base_interval": "1s", "max_interval": "10s"}  # after a look-up that failed
REFRESH = "60s"  # Istio's dnsRefreshRate; a record's own TTL goes before it
_LOOKUP = {"dns_lookup_family": "V4_PREFERRED", "dns_refresh_rate": REFRESH, "dns_failure_refresh_rate": AGAIN}
ANY_CLUSTER = "egress-any"  # ALLOW_ANY: whatever name was asked for


def never(mesh: Mesh, control: Control) -> tuple[Network, ...]:
    """The addresses that no Host may have in this mesh, policyd's own among them."""
    own = {instance.address for instance in mesh.instances.values()} | {control.authz_host}
    return forbidden(own, mesh.outbound.allow)


def clusters(mesh: Mesh, control: Control, caller: Caller, *, any_name: bool = False) -> list[dict[str, Any]]:
    """The clusters of every Host's ports as a class of proxies sees them, and of any name with ALLOW_ANY."""
    ranges = never(mesh, control)
    found = []
    for outside in mesh.outside:
        for port in outside.ports:
            for subset, part in _parts(mesh, caller, outside):
                policy = mesh.outside_policy(caller, outside.host, port.number, subset)
                if port.is_http or _opens_tls(policy):
                    name = outbound_cluster(outside.host, port.number, subset)
                    found.append(_cluster(mesh, caller, name, part, port, ranges, policy))
                if not port.is_http:
                    name = tunnel_cluster(outside.host, port.number, subset)
                    # of a forward proxy TLS is its own, of all others what the bytes have
                    as_is = policy if policy.tunnel else policy.model_copy(update={"tls": None})
                    found.append(_cluster(mesh, caller, name, part, port, ranges, as_is))
    if any_name:
        found.append(_dynamic(mesh, _base(ANY_CLUSTER, "HTTP", ranges, Sections()), ranges))
    return found


def _parts(mesh: Mesh, caller: Caller, outside: Outside) -> Iterator[tuple[str, Outside]]:
    """A Host as a whole (""), and the subsets that a class of proxies knows, where something bears their labels."""
    yield "", outside
    for name, subset in mesh.outside_destination(caller, outside.host).subsets.items():
        if (part := outside.of_labels(subset.labels)) is not None:
            yield name, part


def secrets(mesh: Mesh, caller: Caller) -> Iterable[dict[str, Any]]:
    """What proxies of a class show Hosts, and the authorities that they check these by, each once (Secret)."""
    found: dict[str, dict[str, Any]] = {}
    for outside in mesh.outside:
        parts = [name for name, _ in _parts(mesh, caller, outside)]
        for port, part in itertools.product(outside.ports, parts):
            given = mesh.outside_policy(caller, outside.host, port.number, part).tls
            if given is not None:
                found |= {
                    one["name"]: one for one in certificates.held(mesh, given.own_files, given.ca_file, given.crl_file)
                }
    return found.values()


def lookup(mesh: Mesh, control: Control) -> dict[str, Any]:
    """The filter that looks the asked name up (dynamic_forward_proxy.v3.FilterConfig); other routes it lets be."""
    config = {
        "@type": f"{_EXTENSIONS}.filters.http.dynamic_forward_proxy.v3.FilterConfig",
        "dns_cache_config": _dns_cache(mesh, never(mesh, control)),
    }
    return {"name": "envoy.filters.http.dynamic_forward_proxy", "typed_config": config}


def _opens_tls(policy: Sections) -> bool:
    """Whether the sidecar opens TLS to a Host, for what its application sends in the clear."""
    return policy.tls is not None and policy.tls.mode in OWN_TLS


def _cluster(
    mesh: Mesh,
    caller: Caller,
    name: str,
    outside: Outside,
    port: OutsidePort,
    ranges: tuple[Network, ...],
    policy: Sections,
) -> dict[str, Any]:
    cluster = _base(name, port.protocol, ranges, policy)
    if policy.tls is not None and _opens_tls(policy):
        options = cluster["typed_extension_protocol_options"][policies.HTTP_OPTIONS]
        alpn = ["h2"] if "http2_protocol_options" in options.get("explicit_http_config", {}) else ["http/1.1"]
        if policy.tls.mode == "ISTIO_MUTUAL":  # its names were checked to be SPIFFE IDs
            peers = tls.expected_of(mesh, map(SpiffeId.parse, outside.names))
            asked, roots = policy.tls.sni or outside.host, tls.roots_for(mesh, peers)
            cluster["transport_socket"] = tls.upstream(asked, peers, tuple(alpn), roots)
            cluster |= ages.cluster(mesh, peers)
        else:
            cluster["transport_socket"] = tls.to_outside(outside.host, policy.tls, outside.names, alpn)
    if policy.proxy_protocol is not None:
        version = policy.proxy_protocol.version
        cluster["transport_socket"] = tls.behind_header(version, cluster.get("transport_socket"))
    if outside.is_dynamic:
        return _dynamic(mesh, cluster, ranges)
    passes = policy.load_balancer is not None and policy.load_balancer.passes_through
    where = (not passes and outside.endpoints) or (OutsideEndpoint(outside.host),)
    static = outside.resolution == "STATIC" and not passes
    cluster["type"] = "STATIC" if static else "STRICT_DNS"
    endpoints = localities.groups((_spot(one, port) for one in where), caller, policy)
    cluster["load_assignment"] = {"cluster_name": name, "endpoints": endpoints}
    if outside.resolution == "DNS_ROUND_ROBIN" and policy.load_balancer is None:
        cluster["lb_policy"] = "ROUND_ROBIN"
    if not static:
        # each address is an endpoint of its own; a LOGICAL_DNS cluster would try addresses behind upstream_rbac's back
        cluster |= {**_LOOKUP, "respect_dns_ttl": True, **_resolver(mesh)}
    return cluster


def _dynamic(mesh: Mesh, cluster: dict[str, Any], ranges: Iterable[Network]) -> dict[str, Any]:
    config = {
        "@type": f"{_EXTENSIONS}.clusters.dynamic_forward_proxy.v3.ClusterConfig",
        "dns_cache_config": _dns_cache(mesh, ranges),
    }
    options = cluster["typed_extension_protocol_options"][policies.HTTP_OPTIONS]
    # Envoy asks for both, lest a name's certificate be another's
    options["upstream_http_protocol_options"] = {"auto_sni": True, "auto_san_validation": True}
    found = {key: value for key, value in cluster.items() if key != "lb_policy"}
    cluster_type = {"name": "envoy.clusters.dynamic_forward_proxy", "typed_config": config}
    return {**found, "lb_policy": "CLUSTER_PROVIDED", "cluster_type": cluster_type}


def _base(name: str, protocol: str, ranges: Iterable[Network], policy: Sections) -> dict[str, Any]:
    """What a policy says, over the protocol of the port, and the refusal of forbidden addresses."""
    cluster = {"name": name, **policies.cluster_fields(policy)}
    options = cluster["typed_extension_protocol_options"][policies.HTTP_OPTIONS]
    if protocol in ("HTTP2", "GRPC") and "http_protocol_options" in options.get("explicit_http_config", {}):
        options["explicit_http_config"] = {"http2_protocol_options": {}}
    own_words = (CLUSTER_HEADER, TARGET_HEADER) if policy.tunnel else ()
    options["http_filters"] = [counting.removes(PEER_HEADER, *own_words), _refuse(ranges), policies.CODEC]
    return cluster


def _refuse(ranges: Iterable[Network]) -> dict[str, Any]:
    """403 before there is a connection, where the chosen address is in one of the ranges (rbac.v3.RBAC, upstream)."""
    policy = {"permissions": [_at(one) for one in ranges], "principals": [{"any": True}]}
    config = {
        "@type": f"{_EXTENSIONS}.filters.http.rbac.v3.RBAC",
        "rules": {"action": "DENY", "policies": {"forbidden_address": policy}},
    }
    return {"name": "envoy.filters.http.upstream_rbac", "typed_config": config}


def _at(one: Network) -> dict[str, Any]:
    config = {
        "@type": f"{_EXTENSIONS}.rbac.matchers.upstream_ip_port.v3.UpstreamIpPortMatcher",
        "upstream_ip": _range(one),
    }
    return {"matcher": {"name": "envoy.rbac.matchers.upstream_ip_port", "typed_config": config}}


def _range(one: Network) -> dict[str, Any]:
    return {"address_prefix": _text(one.network_address), "prefix_len": one.prefixlen}


def _text(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> str:
    """An address in words that are the same in every version of Python; those of mapped ones changed in 3.13."""
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        high, low = divmod(int(address.ipv4_mapped), 1 << 16)
        return f"::ffff:{high:x}:{low:x}"
    return str(address)


def _dns_cache(mesh: Mesh, ranges: Iterable[Network]) -> dict[str, Any]:
    """One cache; Envoy wants the same words wherever it is named."""
    return {
        "name": DNS_CACHE,
        **_LOOKUP,
        "max_hosts": MAX_NAMES,
        "resolved_address_filter": {"ranges": [_range(one) for one in ranges]},
        **_resolver(mesh),
    }


def _resolver(mesh: Mesh) -> dict[str, Any]:
    if not mesh.outbound.resolvers:
        return {}
    config = {
        "@type": f"{_EXTENSIONS}.network.dns_resolver.cares.v3.CaresDnsResolverConfig",
        "resolvers": [socket(host, port) for host, port in mesh.outbound.resolvers],
        "dns_resolver_options": {"no_default_search_domain": True},
    }
    return {"typed_dns_resolver_config": {"name": "envoy.network.dns_resolver.cares", "typed_config": config}}


def _spot(one: OutsideEndpoint, port: OutsidePort) -> Spot:
    where: dict[str, Any] = {"address": socket(one.address, one.ports.get(port.name, port.target))}
    if not is_address(one.address):
        where["hostname"] = one.address
    place = parse_locality(one.locality) if one.locality else None
    return Spot({"endpoint": where}, place, one.labels, one.weight or 1)
