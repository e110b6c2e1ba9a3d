"""A Mesh becomes one snapshot for each instance: all that its Envoy is sent.

Law: what a Service is to its callers follows from its own instances and from what is declared; what is a proxy's own
follows from its instance and from what is declared; what else a class of proxies shares, from what is declared and
from the addresses of the mesh. So an instance that changes touches its Services and itself only. VirtualServices are
in route tables only: those that a class shares, and a gateway's own.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, TypeVar

from policyd.envoy_api import CLUSTER, ENDPOINT, LISTENER, ROUTE, SECRET
from policyd.mesh.captured import captured
from policyd.mesh.destinations import Caller
from policyd.mesh.gateway_api.values import BackendTls
from policyd.mesh.model import Instance, Mesh, Role, Service
from policyd.mesh.scope import EVERYTHING, Scope, any_name_somewhere, scope_of, tls_of
from policyd.xds.resources import (
    ages,
    by_sni,
    certificates,
    clusters,
    collectors,
    edge_connections,
    edge_listeners,
    edges,
    egress,
    guard,
    inner,
    listeners,
    observing,
    outside_clusters,
    routes,
    sniffed,
)
from policyd.xds.resources.model import (
    CAPTURED,
    GUARD,
    GUARD_ANY,
    INNER,
    LEAVING,
    SERVED_ANY,
    SERVED_TLS,
    SNIFFED,
    Control,
    Guard,
    Switch,
)
from policyd.xds.resources.proxyless import build as proxyless
from policyd.xds.resources.proxyless.build import NO_GUARDS
from policyd.xds.resources.reuse import Kept, Snapshots
from policyd.xds.resources.scoped import known_routes, needed
from policyd.xds.snapshot import Resource, Snapshot, keeping, make_snapshot

# what of a Mesh follows from its instances; everything else in it is declared
_OF_INSTANCES: Final = frozenset({"instances", "workloads", "listeners"})
_ROUTES: Final = "virtual_services"

H = TypeVar("H", Switch, Guard)


View = tuple[Caller, bool]  # who calls, and whether by gRPC alone


@dataclass(frozen=True, slots=True)
class ProxyClass:
    """Proxies that are sent the same, apart from what is their own; and applications that have none (`proxyless`)."""

    caller: Caller
    role: Role
    scope: Scope = EVERYTHING
    captured: bool = False
    proxyless: bool = False

    @property
    def view(self) -> View:
        """Of what it depends what Services are to it."""
        return self.caller, self.proxyless


def class_of(mesh: Mesh, instance: Instance, caller: Caller) -> ProxyClass:
    """The class of an instance's proxy, which is a caller of this kind."""
    is_captured = bool(mesh.virtual) and captured(mesh.sidecars, instance).outbound
    return ProxyClass(caller, instance.role, scope_of(mesh, instance), is_captured, instance.proxyless)


def build_snapshots(
    mesh: Mesh,
    control: Control,
    before: Snapshots[ProxyClass] | None = None,
    switches: Mapping[str, Switch] = listeners.NO_SWITCHES,
    guards: Mapping[str, Guard] = NO_GUARDS,
) -> Snapshots[ProxyClass]:
    """The snapshot of every instance, by its name; `before` are those of an earlier Mesh, of which much can be kept.

    `switches` are the listeners at which sidecars may decide, `guards` those at which applications do.
    """
    return _Build(mesh, control, before, switches, guards).snapshots()


# ---- what is sent


def _of_service(mesh: Mesh, view: View, service: Service, kept: Kept) -> Iterator[Resource]:
    """What a Service is to callers: each port, and each port of its subsets."""
    caller, has_none = view
    if has_none:
        yield from proxyless.of_service(mesh, caller, service, kept)
        return
    for port in service.ports:
        for subset in ("", *mesh.destination(caller, service).subsets):
            yield kept.make(CLUSTER, clusters.outbound(mesh, caller, service, port.number, subset))
            yield kept.make(ENDPOINT, clusters.endpoints(mesh, caller, service, port.number, subset))


def _of_class(mesh: Mesh, control: Control, proxies: ProxyClass, kept: Kept) -> Iterator[Resource]:
    """What all proxies of a class are sent besides the Services."""
    if proxies.proxyless:
        yield from proxyless.of_class(mesh, proxies.caller, proxies.scope, kept)
        return
    yield kept.make(CLUSTER, clusters.authorization(control))
    yield from (kept.make(CLUSTER, one) for one in collectors.clusters(control))
    yield from (kept.make(SECRET, one) for one in collectors.secrets(mesh, control))
    if proxies.role == "gateway" and egress.is_guarded_at_gateways(mesh):
        yield from (kept.make(CLUSTER, inner.cluster(name)) for name in (GUARD, LEAVING))
    if proxies.role == "sidecar":
        outbound = routes.outbound(mesh, proxies.caller, any_name=proxies.scope.any_name, captured=proxies.captured)
        yield kept.make(ROUTE, known_routes(mesh, proxies.scope, outbound))
        yield from (kept.make(CLUSTER, inner.cluster(name)) for name in _inner(mesh, proxies))
    if _leaves(mesh, proxies.role):
        any_name = proxies.role == "sidecar" and proxies.scope.any_name
        for cluster in outside_clusters.clusters(mesh, control, proxies.caller, any_name=any_name):
            yield kept.make(CLUSTER, cluster)
    yield from (kept.make(SECRET, secret) for secret in _checked_by(mesh, proxies.role, proxies.caller).values())


def _checked_by(mesh: Mesh, role: Role, caller: Caller) -> dict[str, dict[str, Any]]:
    """What proxies of a class show backends, and the authorities that they check these by, by name (Secret)."""
    found = list(outside_clusters.secrets(mesh, caller)) if _leaves(mesh, role) else []
    for opened in mesh.opens_tls if role == "gateway" else ():
        found += certificates.held(mesh, None, opened.tls.ca_file, opened.tls.crl_file)
    if caller.shows:
        found += certificates.held(mesh, BackendTls(shows=caller.shows).own_files, None)
    return {secret["name"]: secret for secret in found}


def _inner(mesh: Mesh, proxies: ProxyClass) -> Iterator[str]:
    """The listeners inside a sidecar that others of its own lead to."""
    yield INNER
    if egress.is_guarded(mesh):
        yield from (GUARD, LEAVING)
    if any_name_somewhere(mesh):
        yield GUARD_ANY
    if mesh.is_sniffed:
        yield SNIFFED
    if proxies.captured:
        yield CAPTURED


def _leaves(mesh: Mesh, role: Role) -> bool:
    """Whether proxies of a role lead outside: sidecars, and gateways where a rule says so."""
    return role == "sidecar" or egress.is_by_gateways(mesh)


def _own(
    mesh: Mesh,
    control: Control,
    instance: Instance,
    kept: Kept,
    switches: Mapping[str, Switch],
) -> Iterator[Resource]:
    """What only the proxy of one instance is sent."""
    lookup = (
        [outside_clusters.lookup(mesh, control)] if egress.is_dynamic(mesh) and _leaves(mesh, instance.role) else []
    )
    if instance.role == "sidecar":
        for port in instance.ports:
            yield kept.make(CLUSTER, clusters.inbound(mesh, instance, port))
            yield from (kept.make(ROUTE, one) for one in listeners.tables(instance, port, switches))
        for inbound in listeners.of_served(mesh, instance, control, switches):
            yield kept.make(LISTENER, ages.listener(mesh, inbound))
        if any(port.protocol == "tls" for port in instance.ports):
            yield kept.make(CLUSTER, inner.cluster(SERVED_TLS))
            yield kept.make(LISTENER, guard.at_application())
        if any(port.protocol == "auto" for port in instance.ports):
            yield kept.make(CLUSTER, inner.cluster(SERVED_ANY))
            yield kept.make(LISTENER, sniffed.at_application())
        yield from (kept.make(SECRET, one) for one in _shown(mesh, instance).values())
        for outbound in listeners.outbound(mesh, instance, control, lookup):
            yield kept.make(LISTENER, ages.listener(mesh, outbound))
    for listen in instance.listens:
        for at_edge in edge_listeners.gateway(mesh, instance, listen, control, lookup):
            yield kept.make(LISTENER, ages.listener(mesh, at_edge))
        yield from (kept.make(ROUTE, table) for table in edges.tables(mesh, instance, listen))
        if edge_connections.opened(mesh, instance, listen):
            yield kept.make(LISTENER, edge_connections.listener(mesh, instance, listen, control))
            yield kept.make(CLUSTER, edge_connections.cluster(instance, listen))
            yield kept.make(ROUTE, edge_connections.table(mesh, instance, listen))
    if instance.listens and egress.is_guarded_at_gateways(mesh):
        observed = observing.seen(mesh, control, instance).outbound()
        yield from (
            kept.make(LISTENER, one)
            for one in guard.on_the_way_out(lookup, observed, by_proxy=egress.is_by_proxies(mesh))
        )
    passed_on = {one["name"]: one for listen in instance.listens for one in by_sni.ways(mesh, instance, listen)}
    yield from (kept.make(CLUSTER, one) for one in passed_on.values())
    if instance.listens:
        showing = [one.tls for one in edges.opened(mesh, instance) if one.tls.shows]
        # several servers may show one certificate, and those of its class are sent already
        shown = {one["name"]: one for tls in showing for one in certificates.secrets(mesh, tls)}
        shared = _checked_by(mesh, instance.role, mesh.caller(instance)) if shown else {}
        yield from (kept.make(SECRET, one) for name, one in shown.items() if name not in shared)


def _shown(mesh: Mesh, instance: Instance) -> dict[str, dict[str, Any]]:
    """What a sidecar shows who is not of the mesh, but for what its class has already."""
    showing = (shown for port in instance.ports if (shown := tls_of(mesh, instance, port)) is not None)
    found = {one["name"]: one for tls in showing for one in certificates.secrets(mesh, tls)}
    shared = _checked_by(mesh, instance.role, mesh.caller(instance)) if found else {}
    return {name: one for name, one in found.items() if name not in shared}


def tables_of(mesh: Mesh, control: Control, instance: Instance) -> dict[str, Resource]:
    """The route tables of one proxy by name, as they come out of a Mesh, for who wants no more than these."""
    kept = Kept()
    proxies = replace(class_of(mesh, instance, mesh.caller(instance)), proxyless=False)  # its routes mean the same
    made = (*_of_class(mesh, control, proxies, kept), *_own(mesh, control, instance, kept, listeners.NO_SWITCHES))
    return {one.name: one for one in made if one.type_url == ROUTE}


def by_instance(mesh: Mesh, switches: Mapping[str, H]) -> dict[str, dict[str, H]]:
    """The switches, or guards, of each instance that has one."""
    found: dict[str, dict[str, H]] = {}
    for name, switch in switches.items():
        found.setdefault(mesh.listeners[name].instance, {})[name] = switch
    return found


# ---- what is kept of it


class _Build:
    """One building of all snapshots."""

    def __init__(
        self,
        mesh: Mesh,
        control: Control,
        before: Snapshots[ProxyClass] | None,
        switches: Mapping[str, Switch] = listeners.NO_SWITCHES,
        guards: Mapping[str, Guard] = NO_GUARDS,
    ) -> None:
        declared = [one.name for one in dataclasses.fields(mesh) if one.init and one.name not in _OF_INSTANCES]
        # what leads outside keeps from every instance's address
        never = outside_clusters.never(mesh, control) if mesh.outside or egress.is_dynamic(mesh) else ()
        self._unrouted = (control, never, *(getattr(mesh, name) for name in declared if name != _ROUTES))
        self._mesh, self._control, self._before = mesh, control, before
        self._switches, self._guards = by_instance(mesh, switches), by_instance(mesh, guards)
        # of what was declared otherwise, only what comes out equal is kept
        self._alike = before if before is not None and before.unrouted == self._unrouted else None
        self._same = self._alike if self._alike and self._alike.routed == mesh.virtual_services else None
        self._kept = before.kept if before else Kept()
        self._touched = self._services_touched()

    def snapshots(self) -> Snapshots[ProxyClass]:
        """Gather all, and let go of what is no longer used."""
        mesh = self._mesh
        callers: dict[Caller, Caller] = {}
        classes = {}
        known = self._same
        for name, instance in mesh.instances.items():
            if known and known.instances.get(name) is instance:
                classes[name] = known.classes[name]
                callers.setdefault(classes[name].caller, classes[name].caller)
                continue
            caller = mesh.caller(instance)
            classes[name] = class_of(mesh, instance, callers.setdefault(caller, caller))
        views = dict.fromkeys(one.view for one in dict.fromkeys(classes.values()))
        parts = {
            (view, service.id): self._service(view, service) for view in views for service in mesh.services.values()
        }
        of_classes = {proxies: self._class(proxies) for proxies in dict.fromkeys(classes.values())}
        shared = {proxies: self._shared(proxies, parts, found) for proxies, found in of_classes.items()}
        own = {name: self._instance(name, instance) for name, instance in mesh.instances.items()}
        self._kept.bound(sum(map(len, parts.values())) + sum(map(len, own.values())))
        made_of = (self._unrouted, mesh.virtual_services)
        decides = (self._switches, self._guards)
        made = Snapshots(*made_of, mesh.instances, classes, shared, own, parts, of_classes, self._kept, *decides)
        return made.after(self._before) if self._before else made

    def _services_touched(self) -> frozenset[str]:
        """The Services of which an instance came, went or changed."""
        if self._alike is None:
            return frozenset()
        was: Mapping[str, Instance] = self._alike.instances
        now = self._mesh.instances
        changed = [name for name in was.keys() | now.keys() if _differ(was.get(name), now.get(name))]
        found = (one for name in changed for one in (was.get(name), now.get(name)) if one is not None)
        return frozenset(service for one in found for service in (one.service, *one.also))

    def _service(self, view: View, service: Service) -> tuple[Resource, ...]:
        before = self._alike if service.id not in self._touched else None
        known = before.parts.get((view, service.id)) if before else None
        return known or tuple(_of_service(self._mesh, view, service, self._kept))

    def _class(self, proxies: ProxyClass) -> tuple[Resource, ...]:
        known = self._same.of_classes.get(proxies) if self._same else None
        return known or tuple(_of_class(self._mesh, self._control, proxies, self._kept))

    def _shared(
        self, proxies: ProxyClass, parts: Mapping[tuple[Any, str], tuple[Resource, ...]], of_class: Iterable[Resource]
    ) -> Snapshot:
        known = self._same.shared.get(proxies) if self._same else None
        if known is not None and not self._touched:
            return known
        services = (one for service in self._mesh.services for one in parts[proxies.view, service])
        found = [*services, *of_class]
        made = make_snapshot(needed(found) if proxies.scope.hosts is not None else found)
        return keeping(made, self._before.shared.get(proxies) if self._before else None)

    def _instance(self, name: str, instance: Instance) -> tuple[Resource, ...]:
        before = self._alike if instance.role == "sidecar" else self._same
        switches = self._switches.get(name, listeners.NO_SWITCHES)
        guards = self._guards.get(name, NO_GUARDS)
        same = before is not None and (before.switches.get(name, {}), before.guards.get(name, {})) == (switches, guards)
        if before and same and not _differ(before.instances.get(name), instance):
            return before.own[name]
        if instance.proxyless:
            made = tuple(proxyless.own(instance, guards, self._kept))
        else:
            made = tuple(_own(self._mesh, self._control, instance, self._kept, switches))
        known = self._before.own.get(name) if self._before else None
        return known if known is not None and made == known else made


def _differ(one: Instance | None, other: Instance | None) -> bool:
    return one is not other and one != other
