"""Where a rule leads requests: to which clusters, in which shares, rewritten how, with what patience (RouteAction)."""

from __future__ import annotations

from typing import Any

from policyd.mesh.destinations import Caller
from policyd.mesh.hosts import resolve
from policyd.mesh.istio.destination import Destination, MirrorPolicy, RouteDestination
from policyd.mesh.istio.http_route import HttpRoute
from policyd.mesh.istio.matches import HttpMatch
from policyd.mesh.istio.traffic_policy import Sections, Tunnel
from policyd.mesh.model import Mesh, Service
from policyd.mesh.service_names import default_port
from policyd.xds.resources import filters, headers
from policyd.xds.resources.faults import share
from policyd.xds.resources.model import outbound_cluster, seconds, tunnel_cluster
from policyd.xds.resources.retries import retry_policy

NO_TIMEOUT = "0s"


def to_service(mesh: Mesh, caller: Caller, service: Service, port: int) -> dict[str, Any]:
    """Everything to the service, with Istio's default retries: what holds where nothing is declared."""
    hashed = _is_hashed(mesh, caller, service, port, "")
    return {
        "cluster": outbound_cluster(service.id, port),
        "timeout": NO_TIMEOUT,
        "retry_policy": retry_policy(None, hashed=hashed),
    }


class Forward:
    """The destinations of a rule, as a caller reaches them from the namespace in which it was written."""

    def __init__(self, mesh: Mesh, caller: Caller, namespace: str) -> None:
        self._mesh = mesh
        self._caller = caller
        self._namespace = namespace

    def action(self, rule: HttpRoute, match: HttpMatch) -> dict[str, Any]:
        """The RouteAction of a rule for one of its matches."""
        forward: dict[str, Any] = {"timeout": NO_TIMEOUT, **self.clusters(rule)}
        # as in Istio, patience is not tried on requests that are made to fail
        if rule.fault is None:
            forward |= self._patience(rule)
        mirrors = [mirror for policy in rule.copies() if (mirror := self._mirror(policy))]
        if mirrors:
            forward["request_mirror_policies"] = mirrors
        return forward | _rewrite(rule, match)

    def asked(self, rule: HttpRoute) -> dict[str, Any]:
        """What a route to a Host says to the filter that asks for decisions."""
        outside = self.leaves(rule.route[0].destination) if len(rule.route) == 1 else None
        return {} if outside is None else filters.asked_for_host(*outside)

    def leaves(self, destination: Destination) -> tuple[str, int] | None:
        """The Host and port that a destination is; None for a Service."""
        if (resolve(destination.host, self._namespace) or "") in self._mesh.services:
            return None
        declared = self._mesh.host(destination.host, self._namespace)
        if declared is None:
            return None
        return declared.host, destination.port.number if destination.port else declared.ports[0].number

    def leaves_as_tls(self, destination: Destination) -> bool:
        """Whether a destination is a port of a Host that is declared to speak TLS."""
        declared = self._mesh.host(destination.host, self._namespace)
        outside = self.leaves(destination)
        if outside is None or declared is None:
            return False
        return any(port.is_tls for port in declared.ports if port.number == outside[1])

    def tunnel(self, destination: Destination) -> str:
        """The cluster that a tunnel to a destination takes."""
        outside = self.leaves(destination)
        if outside is None:
            return self._cluster(destination)
        return tunnel_cluster(*outside, destination.subset or "")

    def through(self, destination: Destination) -> Tunnel | None:
        """What a destination is asked to CONNECT to, if it is a forward proxy."""
        if (outside := self.leaves(destination)) is None:
            return None
        return self._mesh.outside_policy(self._caller, *outside, destination.subset or "").tunnel

    def clusters(self, rule: HttpRoute) -> dict[str, Any]:
        """The cluster of a rule, or those that share its requests."""
        if len(rule.route) == 1:
            return {"cluster": self._cluster(rule.route[0].destination)}
        return {"weighted_clusters": {"clusters": [self._share(one) for one in rule.route if one.weight]}}

    def _share(self, one: RouteDestination) -> dict[str, Any]:
        found = {"name": self._cluster(one.destination), "weight": one.weight, **headers.fields(one.headers)}
        if host := headers.authority(one.headers):
            found["host_rewrite_literal"] = host
        if (outside := self.leaves(one.destination)) is not None:
            found["typed_per_filter_config"] = filters.asked_for_host(*outside)
        return found

    def _patience(self, rule: HttpRoute) -> dict[str, Any]:
        found: dict[str, Any] = {"timeout": seconds(rule.timeout)} if rule.timeout else {}
        if rule.retries is None or rule.retries.attempts > 0:
            hashed = any(self._is_hashed(one.destination) for one in rule.route)
            found["retry_policy"] = retry_policy(rule.retries, hashed=hashed)
        return found

    def _mirror(self, policy: MirrorPolicy) -> dict[str, Any] | None:
        if policy.percentage is not None and policy.percentage.value == 0:
            return None
        fraction = {"default_value": share(policy.percentage, 100.0)}
        return {"cluster": self._cluster(policy.destination), "runtime_fraction": fraction}

    def _cluster(self, destination: Destination) -> str:
        if (outside := self.leaves(destination)) is not None:
            return outbound_cluster(*outside, destination.subset or "")
        service, port, subset = self._meant(destination)
        return outbound_cluster(service.id, port, subset)

    def policy(self, destination: Destination) -> Sections:
        """What DestinationRules say of a destination inside the mesh."""
        service, port, subset = self._meant(destination)
        return self._mesh.destination(self._caller, service).policy_of(port, subset)

    def _is_hashed(self, destination: Destination) -> bool:
        if (outside := self.leaves(destination)) is None:
            return _is_hashed(self._mesh, self._caller, *self._meant(destination))
        balancer = self._mesh.outside_policy(self._caller, *outside, destination.subset or "").load_balancer
        return balancer is not None and balancer.consistent_hash is not None

    def _meant(self, destination: Destination) -> tuple[Service, int, str]:
        service = self._mesh.services[resolve(destination.host, self._namespace) or ""]
        port = destination.port.number if destination.port else default_port(service)
        return service, port, destination.subset or ""


def _is_hashed(mesh: Mesh, caller: Caller, service: Service, port: int, subset: str) -> bool:
    balancer = mesh.destination(caller, service).policy_of(port, subset).load_balancer
    return balancer is not None and balancer.consistent_hash is not None


def _rewrite(rule: HttpRoute, match: HttpMatch) -> dict[str, Any]:
    found: dict[str, Any] = {}
    rewrite = rule.rewrite
    only = (rule.route[0].headers,) if len(rule.route) == 1 else ()
    host = headers.authority(*only, rule.headers) or (rewrite.authority if rewrite else None)
    if host is not None:
        found["host_rewrite_literal"] = host
    if rewrite is None:
        return found
    if rewrite.uri_regex_rewrite is not None:
        regex = rewrite.uri_regex_rewrite
        found["regex_rewrite"] = {"pattern": {"regex": regex.match}, "substitution": regex.rewrite}
    if rewrite.uri is not None:
        # without a path of its own the rule matched the prefix `/`, which the new one must end with too
        all_paths = match.uri is None and not rewrite.uri.endswith("/")
        found["prefix_rewrite"] = rewrite.uri + ("/" if all_paths else "")
    return found
