"""The way out: routes of Hosts, each request asked about before it leaves.

Law: where a request goes is fixed by the route that it was asked for, never by a header or an SNI.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from policyd.mesh.destinations import Caller
from policyd.mesh.hosts import resolve
from policyd.mesh.istio.virtual_service import VirtualService, led_to
from policyd.mesh.model import Mesh
from policyd.mesh.outside import HTTP_PORT, HTTPS_PORT, Outside, OutsidePort, covers_name
from policyd.mesh.scope import any_name_somewhere
from policyd.mesh.virtual import Virtual
from policyd.xds.resources import connections, filters, guard, inner, rules, tcp
from policyd.xds.resources.forward import NO_TIMEOUT
from policyd.xds.resources.matches import EVERYTHING
from policyd.xds.resources.model import GUARD_ANY, outbound_cluster, tunnel_cluster
from policyd.xds.resources.outside_clusters import ANY_CLUSTER
from policyd.xds.resources.retries import retry_policy


def is_dynamic(mesh: Mesh) -> bool:
    """Whether names are looked up as they are asked for, which takes a filter of its own."""
    return any_name_somewhere(mesh) or any(one.is_dynamic for one in mesh.outside)


def is_guarded(mesh: Mesh) -> bool:
    """Whether some tunnels out are looked into before they leave."""
    return mesh.leaves_by_tunnel or any_name_somewhere(mesh)


def is_by_gateways(mesh: Mesh) -> bool:
    """Whether some rule of a gateway leads outside."""
    return any(
        (resolve(destination.host, owner.namespace) or "") not in mesh.services
        for owner in mesh.virtual_services
        if owner.gateway_ids()
        for _, destination in led_to(owner)
    )


def is_by_proxies(mesh: Mesh) -> bool:
    """Whether some connections leave by a forward proxy."""
    policies_ = (policy for rule in mesh.destination_rules for policy in rule.spec.policies())
    return any(policy.tunnel is not None for policy in policies_)


def is_guarded_at_gateways(mesh: Mesh) -> bool:
    """Whether gateways look into tunnels of workloads before they leave."""
    return is_by_gateways(mesh) and mesh.leaves_by_tunnel


# ---- routes


def virtual_hosts(
    mesh: Mesh, caller: Caller, ruled: Mapping[str, VirtualService], *, captured: bool = False
) -> list[dict[str, Any]]:
    """A virtual host for each port of each Host that a class of proxies knows; `ruled` are the VirtualServices by host.

    All of its requests are asked about, those too that a VirtualService leads into the mesh.
    """
    return [
        {
            "name": f"{outside.host}:{port.number}",
            "domains": list(_domains(outside, port, mesh.virtual.get(outside.host) if captured else None)),
            "routes": _routes(mesh, caller, _owner(ruled, outside.host), outside, port),
            "typed_per_filter_config": filters.asked_for_host(outside.host, port.number),
        }
        for outside in mesh.outside
        if outside.is_seen(caller.namespace)
        for port in outside.ports
    ]


def any_host() -> list[dict[str, Any]]:
    """The routes of a name that nothing declares, with ALLOW_ANY: asked about like any other (port 0: as asked)."""
    asked = {**tunnel(ANY_CLUSTER), "typed_per_filter_config": filters.asked_for_host("*", 0)}
    return [guard.leaving(asked, by=GUARD_ANY), _forward(ANY_CLUSTER)]


def any_unread() -> list[dict[str, Any]]:
    """And those of its ports where the server speaks first, so that nobody can wait for what the client says."""
    return [tunnel(ANY_CLUSTER), _forward(ANY_CLUSTER)]


def any_tls() -> list[dict[str, Any]]:
    """And those of its port 443, which is for TLS outside."""
    said = {"typed_per_filter_config": filters.asked_for_host("*", HTTPS_PORT, guarded="*")}
    return [guard.leaving({**tunnel(ANY_CLUSTER), **said}), _forward(ANY_CLUSTER)]


def _domains(outside: Outside, port: OutsidePort, virtual: Virtual | None) -> Iterable[str]:
    """What Host may be: every name with the port, and without it only where that is what it means outside."""
    declared = (f"[{vip}]" if ":" in vip else vip for vip in outside.vips)
    for name in (outside.host, *declared, *(virtual.spelled if virtual else ())):
        if port.number == HTTP_PORT:
            yield name
        yield f"{name}:{port.number}"


def _owner(ruled: Mapping[str, VirtualService], host: str) -> VirtualService | None:
    """The VirtualService that has a Host's rules: that of its very name, else of the longest pattern."""
    found = [pattern for pattern in ruled if covers_name(pattern, host)]
    return ruled[max(found, key=lambda pattern: (pattern == host, len(pattern)))] if found else None


def _routes(
    mesh: Mesh, caller: Caller, owner: VirtualService | None, outside: Outside, port: OutsidePort
) -> list[dict[str, Any]]:
    cluster = outbound_cluster(outside.host, port.number)
    if not port.is_http:
        view = rules.View(caller, port.number)
        asked = connections.Asked("" if "*" in outside.host else outside.host, port.is_tls)
        ruled = connections.of_name(mesh, owner, view, [outside.host], asked) if owner else []
        return ruled or [_to_itself(mesh, caller, outside, port, asked.name)]
    declared = rules.routes_of(mesh, owner, rules.View(caller, port.number)) if owner is not None else []
    return [*(declared or [_forward(cluster)]), inner.route()]


def _to_itself(mesh: Mesh, caller: Caller, outside: Outside, port: OutsidePort, name: str) -> dict[str, Any]:
    """A tunnel to a Host's port; one for TLS takes only who asks for the Host's name."""
    cluster = tunnel_cluster(outside.host, port.number)
    through = mesh.outside_policy(caller, outside.host, port.number).tunnel
    if not port.is_tls and through is None:
        return tunnel(cluster)
    guarded = (name or "*") if port.is_tls else ""
    return connections.leaving(cluster, (outside.host, port.number), through, guarded=guarded)


def _forward(cluster: str) -> dict[str, Any]:
    forward = {"cluster": cluster, "timeout": NO_TIMEOUT, "retry_policy": retry_policy(None, hashed=False)}
    return {"match": EVERYTHING, "route": forward}


def tunnel(cluster: str) -> dict[str, Any]:
    """CONNECT ends here, and its bytes go to the cluster of the name that was asked for."""
    return tcp.ending(cluster)
