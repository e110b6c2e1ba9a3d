"""The Mesh as Cedar's entities: who and what a policy can speak of.

Law: made once a Mesh, and only looked up afterwards; what is the same as in the Mesh before is not made again. An
identity of the mesh's trust domain that nobody declared is an entity too, from what its id says. Ancestors are
transitive, so that a slice needs no groups' entities.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import msgspec

from policyd.cedar.http import EndUser
from policyd.cedar.model import ANONYMOUS, Entity, Uid
from policyd.errors import SpiffeIdError
from policyd.mesh.model import Group, Mesh, Service
from policyd.spiffe import SpiffeId

K = TypeVar("K")
V = TypeVar("V")


class MeshEntities:
    """The entities of one Mesh, with much of those of an earlier one. Safe for concurrent use."""

    def __init__(self, mesh: Mesh, before: MeshEntities | None = None) -> None:
        self._mesh = mesh
        self._trust_domain = mesh.trust_domain
        self._groups = mesh.groups
        self._above = _groups_above(mesh.groups)
        self._anonymous = Entity(ANONYMOUS)
        same = before if before is not None and before._is_among(mesh.trust_domain, self._above) else None
        was = same._mesh if same else None
        self._workloads: dict[SpiffeId, Entity] = _made(
            mesh.workloads,
            was.workloads if was else {},
            same._workloads if same else {},
            lambda id_, one: self._workload(id_, one.labels),
        )
        self._services: dict[str, Entity] = _made(
            mesh.services,
            was.services if was else {},
            same._services if same else {},
            lambda _, service: self._service(service),
        )
        self._labels: dict[str, Entity] = _made(
            mesh.instances,
            was.instances if was else {},
            same._labels if same else {},
            lambda name, instance: Entity(Uid("Labels", name), tags=instance.labels),
        )
        known = (*self._workloads.values(), *self._services.values(), *self._labels.values())
        self._by_uid = {one.uid: one for one in known}
        self._texts = self._written(same)

    def _is_among(self, trust_domain: str, above: Mapping[Uid, tuple[Uid, ...]]) -> bool:
        return self._trust_domain == trust_domain and self._above == above

    def _written(self, before: MeshEntities | None) -> dict[Uid, str]:
        """Each entity that was declared, as JSON."""
        known, texts = (before._by_uid, before._texts) if before else ({}, {})
        return {
            uid: texts[uid] if known.get(uid) is one else msgspec.json.encode(one, order="sorted").decode()
            for uid, one in self._by_uid.items()
        }

    def principal(self, id_: SpiffeId | None) -> Entity:
        """The caller with this identity; None is the unauthenticated one."""
        if id_ is None:
            return self._anonymous
        return self._workloads.get(id_) or self._workload(id_, {})

    def service(self, id_: str) -> Entity | None:
        """The Service with this id, or None."""
        return self._services.get(id_)

    def host(self, name: str) -> Entity:
        """The name outside the mesh, in the groups that list it."""
        uid = Uid("Host", name)
        return Entity(uid, {"name": name}, self._above.get(uid, ()))

    def labels(self, instance: str) -> Entity:
        """The labels of an instance; without one there are none."""
        return self._labels.get(instance) or Entity(Uid("Labels", instance))

    def user(self, user: EndUser) -> Entity:
        """An end user; the groups are those that the mesh declares, whatever the token says."""
        uid = Uid("User", user.id)
        attrs = {"issuer": user.issuer, "subject": user.subject}
        return Entity(uid, attrs, self._above.get(uid, ()), user.claims)

    def operator(self, id_: str, via: str) -> Entity:
        """Who operates the mesh, in the groups that list them."""
        own = [Uid("Group", group.name) for group in self._groups.values() if id_ in group.operators]
        above = {one for group in own for one in (group, *self._above.get(group, ()))}
        return Entity(Uid("Operator", id_), {"via": via}, tuple(sorted(above)))

    def named(self, uid: Uid) -> Entity | None:
        """The entity that a policy names, or None where the mesh has none such."""
        known = self._by_uid.get(uid)
        if known is None and uid.type == "Host":
            return self.host(uid.id)
        if known is None and uid.type in ("Group", "User") and uid in self._above:
            return Entity(uid, parents=self._above[uid])
        if known is not None or uid.type != "Workload":
            return known
        try:
            return self._workload(SpiffeId.parse(uid.id), {})
        except SpiffeIdError:
            return None

    def content(self) -> Iterator[Entity]:
        """All that was declared, in one order: two Meshes with the same content have the same entities."""
        yield Entity(Uid("TrustDomain", self._trust_domain))
        yield from self._by_uid.values()
        yield from self._grouped()

    def texts(self) -> list[str]:
        """The content as JSON, each entity for itself, in the order of the texts."""
        others = (Entity(Uid("TrustDomain", self._trust_domain)), *self._grouped())
        return sorted([*self._texts.values(), *(msgspec.json.encode(one, order="sorted").decode() for one in others)])

    def _grouped(self) -> Iterator[Entity]:
        yield from (Entity(uid, parents=above) for uid, above in sorted(self._above.items()))

    def _workload(self, id_: SpiffeId, labels: Mapping[str, str]) -> Entity:
        attrs = {"trust_domain": id_.trust_domain, "path": id_.path}
        parents = [Uid("TrustDomain", id_.trust_domain)]
        if id_.namespace is not None and id_.service_account is not None:
            attrs |= {"namespace": id_.namespace, "service_account": id_.service_account}
            own = id_.trust_domain == self._trust_domain
            parents.append(Uid("Namespace", id_.namespace if own else f"{id_.trust_domain}/{id_.namespace}"))
        uid = Uid("Workload", str(id_))
        return Entity(uid, attrs, (*parents, *self._above.get(uid, ())), labels)

    def _service(self, service: Service) -> Entity:
        uid = Uid("Service", service.id)
        parents = (
            Uid("Namespace", service.namespace),
            Uid("TrustDomain", self._trust_domain),
            *self._above.get(uid, ()),
        )
        return Entity(uid, {"name": service.name, "namespace": service.namespace}, parents, service.labels)


def _made(
    now: Mapping[K, V], was: Mapping[K, V], made: Mapping[K, Entity], make: Callable[[K, V], Entity]
) -> dict[K, Entity]:
    """An entity for each, in one order; the one that was `made` before, of what is the same as it `was`."""
    return {
        key: made[key] if (old := was.get(key)) is one or (old is not None and old == one) else make(key, one)
        for key, one in sorted(now.items(), key=_first)
    }


def _first(pair: tuple[Any, object]) -> Any:
    return pair[0]


def _groups_above(groups: Mapping[str, Group]) -> dict[Uid, tuple[Uid, ...]]:
    """Every group that a member is in, by way of other groups too; the Mesh has no cycles."""
    direct: dict[Uid, set[Uid]] = {}
    for group in groups.values():
        for member in _members(group):
            direct.setdefault(member, set()).add(Uid("Group", group.name))

    def above(uid: Uid) -> set[Uid]:
        found, waiting = set[Uid](), [uid]
        while waiting:
            more = direct.get(waiting.pop(), set()) - found
            found |= more
            waiting += more
        return found

    return {member: tuple(sorted(above(member))) for member in direct}


def _members(group: Group) -> Iterator[Uid]:
    yield from (Uid("Workload", str(id_)) for id_ in group.workloads)
    yield from (Uid("User", id_) for id_ in group.users)
    yield from (Uid("Host", id_) for id_ in group.hosts)
    yield from (Uid("Service", id_) for id_ in group.services)
    yield from (Uid("Group", name) for name in group.groups)
