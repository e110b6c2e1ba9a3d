"""Which rule of which VirtualService a route comes from.

Law: the tables are made once more of the same Mesh, whose rules are called by their places; so a route and its mark
stand at the same place, whatever the tables are made like. Rules for connections have no names: they are known by
weights.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, TypeVar

from policyd.mesh.declaration import Declaration, Declared
from policyd.mesh.gateway_api.values import AttachedRules
from policyd.mesh.istio.connection_route import TcpRoute, TlsRoute
from policyd.mesh.istio.http_route import HttpRoute
from policyd.mesh.istio.virtual_service import VirtualService
from policyd.mesh.model import Instance, Mesh
from policyd.way.model import Place
from policyd.xds.resources.build import tables_of
from policyd.xds.resources.model import Control
from policyd.xds.walk.match import Chosen
from policyd.xds.walk.sent import shown

AnyRule = TypeVar("AnyRule", TcpRoute, TlsRoute)

_MARK = re.compile(r"(?P<owner>[^#]+)#(?P<rule>[0-9]+)(?:\.#(?P<match>[0-9]+))?")


class Marks:
    """The places of all routes of a Mesh's proxies, found as they are asked for."""

    def __init__(self, mesh: Mesh, declaration: Declaration, control: Control) -> None:
        self._connections = tuple(_connection_rules(mesh.virtual_services))
        numbers = {place: number for number, place in enumerate(self._connections, 1)}
        marked = tuple(_marked(one, numbers) for one in mesh.virtual_services)
        self._marked = replace(mesh, virtual_services=marked)
        self._plain = {one.id: one for one in mesh.virtual_services}
        self._declared = {one.resource.id: one for one in declaration.of(VirtualService)}
        self._control = control
        self._tables: dict[str, dict[str, Any]] = {}

    def of(self, instance: Instance, table: str, chosen: Chosen | None) -> Place | None:
        """The place of the route that was chosen from a table of an instance; None where no rule made it."""
        if chosen is None or chosen.route is None:
            return None
        if instance.name not in self._tables:
            made = tables_of(self._marked, self._control, instance)
            self._tables[instance.name] = {name: shown(one) for name, one in made.items()}
        found = self._tables[instance.name].get(table)
        if found is None:
            return None
        hosts = [one for one in found["virtual_hosts"] if one["name"] == chosen.virtual_host["name"]]
        route = hosts[0]["routes"][chosen.route_at] if hosts else {}
        shares = route.get("route", {}).get("weighted_clusters", {}).get("clusters", ())
        if shares and "connect_matcher" in route["match"]:
            return self._connection(int(shares[0]["weight"]))
        name = route.get("name", "")
        mark = _MARK.fullmatch(name)
        return self._place(mark["owner"], int(mark["rule"]), int(mark["match"] or -1)) if mark else None

    def _connection(self, number: int) -> Place:
        owner, section, rule = self._connections[number - 1]
        written = self._declared[owner]
        if isinstance(written.resource, AttachedRules):
            return _routed(written.resource, len(written.resource.spec.http) + rule)
        line = written.document.find(("spec", section, rule)).line
        return Place(owner, rule + 1, 0, section, written.document.file, line)

    def _place(self, owner: str, rule: int, match: int) -> Place:
        # where it was written: in the resource itself, or in the one that it delegates to
        written, at, of = list(_sources(self._declared[owner], self._declared, match))[rule]
        path = ("spec", "http", at, *(("match", of) if of >= 0 else ()))
        if isinstance(written.resource, AttachedRules):
            return _routed(written.resource, at)
        name = self._plain[owner].spec.http[rule].name or ""
        line = written.document.find(path).line
        return Place(written.resource.id, at + 1, of + 1, name, written.document.file, line)


def _routed(attached: AttachedRules, at: int) -> Place:
    """Where a rule of a route stands, which is attached somewhere with those of others."""
    document, path = attached.source(at)
    metadata = document.value["metadata"]
    route = f"{metadata.get('namespace', attached.namespace)}/{metadata['name']}"
    number = next((int(step) for step in path if isinstance(step, int)), -1)
    of = int(path[-1]) + 1 if len(path) > 3 else 0
    name = str(document.value["kind"])
    return Place(route, number + 1, of, name, document.file, document.find(path).line)


def _sources(
    root: Declared[VirtualService], known: Mapping[str, Declared[VirtualService]], match: int
) -> Iterator[tuple[Declared[VirtualService], int, int]]:
    """As mesh.delegates puts the rules in their order."""
    for at, rule in enumerate(root.resource.spec.http):
        if rule.delegate is None:
            yield root, at, match
            continue
        leaf = known[f"{rule.delegate.namespace or root.resource.namespace}/{rule.delegate.name}"]
        for of in range(len(leaf.resource.spec.http)):
            yield leaf, of, -1  # its blocks are narrowed by those that delegate


def _connection_rules(owners: Iterable[VirtualService]) -> Iterator[tuple[str, str, int]]:
    """Every rule for connections: whose it is, in which section, and at which place there."""
    for owner in owners:
        for section in ("tcp", "tls"):
            yield from ((owner.id, section, at) for at in range(len(getattr(owner.spec, section))))


def _marked(owner: VirtualService, numbers: Mapping[tuple[str, str, int], int]) -> VirtualService:
    rules: dict[str, Any] = {
        "http": tuple(_called(rule, f"{owner.id}#{at}") for at, rule in enumerate(owner.spec.http)),
        **{
            section: tuple(
                _weighed(rule, numbers[owner.id, section, at]) for at, rule in enumerate(getattr(owner.spec, section))
            )
            for section in ("tcp", "tls")
        },
    }
    return owner.model_copy(update={"spec": owner.spec.model_copy(update=rules)})


def _weighed(rule: AnyRule, number: int) -> AnyRule:
    """A rule whose first destination has all connections, in two shares of a weight that is the rule's own."""
    first = rule.route[0].model_copy(update={"weight": number})
    return rule.model_copy(update={"route": (first, first)})


def _called(rule: HttpRoute, mark: str) -> HttpRoute:
    matches = tuple(match.model_copy(update={"name": f"#{at}"}) for at, match in enumerate(rule.match))
    return rule.model_copy(update={"name": mark, "match": matches})
