"""Which routes are at which listeners, for which hosts, and at which Services.

Law: of two routes that cannot share a host or a Service the older one has it, so that routes are attached in the order
of their age.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from policyd.mesh.declaration import Declared
from policyd.mesh.gateway_api import connections
from policyd.mesh.gateway_api import rules as requests
from policyd.mesh.gateway_api.attach import AnyRoute, AtListener, AtService, Attaching
from policyd.mesh.gateway_api.backends import Backends
from policyd.mesh.gateway_api.conditions import ACCEPTED, RESOLVED, Fault, ParentStatus, Status, judged
from policyd.mesh.gateway_api.sharing import REQUEST_ROUTES, TAKEN, Attached, may_have, share


class Attachments:
    """By the id of a listener, and by the name of a Service."""

    def __init__(self, attaching: Attaching, backends: Backends) -> None:
        self.listeners: defaultdict[str, list[Attached]] = defaultdict(list)
        self.services: defaultdict[str, list[tuple[Declared[Any], AtService]]] = defaultdict(list)
        self._attaching = attaching
        self._backends = backends

    def attach(self, declared: Declared[AnyRoute]) -> Status:
        """Give a route what it asks for, of what no older one has; whether it is accepted, and finds its backends."""
        route = declared.resource
        if isinstance(route, REQUEST_ROUTES):
            resolved = requests.reference_fault(route, self._backends)
        else:
            resolved = connections.reference_fault(route, self._backends)
        parents = []
        for parent in route.spec.parent_refs:
            found = self._attaching.of(route, parent)
            if isinstance(found, AtService):
                fault = self._to_service(declared, found)
            else:
                fault = found if isinstance(found, Fault) else self._to_listeners(declared, found)
            parents.append(ParentStatus(parent, (judged(ACCEPTED, fault), judged(RESOLVED, resolved))))
        return Status(parents=tuple(parents))

    def _to_listeners(self, declared: Declared[AnyRoute], found: Sequence[AtListener]) -> Fault | None:
        """Give it the hosts that no older route has that cannot share them.

        Routes for requests and routes for calls have no host in common: of two that would, the younger has none at all.
        """
        route, taken = declared.resource, []
        for at in found:
            id_ = at.opening.id
            before = self.listeners[id_]
            if any(one.route is declared for one in before):
                taken.append(at)  # by another of its parents
                continue
            hosts = tuple(host for host in at.hosts if may_have(route, host, before))
            if isinstance(route, REQUEST_ROUTES) and hosts != at.hosts:
                hosts = ()
            if hosts:
                before.append(Attached(declared, hosts))
                taken.append(at)
        if not taken:
            return Fault("NotAllowedByListeners", TAKEN)
        return None

    def _to_service(self, declared: Declared[AnyRoute], at: AtService) -> Fault | None:
        rivals = [
            one.resource
            for one, other in self.services[at.service]
            if other.own is at.own
            and (at.own or one.resource.namespace == declared.resource.namespace)
            and (None in (at.port, other.port) or at.port == other.port)
        ]
        if any(not share(declared.resource, one) for one in rivals):
            return Fault("NotAllowedByListeners", TAKEN)
        self.services[at.service].append((declared, at))
        return None
