"""What there can be in a mesh, for questions about all requests at once: which entities, under which ancestors, with
which labels.

Law: what it denies never occurs; of what the mesh does not know (other trust domains, hosts outside) it denies nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from policyd.cedar.model import Entity, Uid
from policyd.errors import SpiffeIdError
from policyd.mesh.model import Mesh
from policyd.spiffe import SpiffeId

PRINCIPALS = frozenset({"Workload", "Unauthenticated"})  # who asks, in the schema of the mesh
RESOURCES = frozenset({"Service", "Host"})  # what is asked for
MAX_NAME = 200  # characters of a name that are looked at for a slip

Values = frozenset[str | int | Uid]


@dataclass(frozen=True, slots=True)
class Universe:
    """One mesh. `above` are the ancestors of what is declared, `below` says which types are under an ancestor,
    `tags` the values of each label by type and name.
    """

    mesh: Mesh
    known: frozenset[Uid]
    above: Mapping[Uid, frozenset[Uid]]
    below: frozenset[tuple[str, Uid]]
    tags: Mapping[str, Mapping[str, Values]]
    attributes: Mapping[str, Mapping[str, Values]]
    decided_as: frozenset[str] = field(default_factory=frozenset)
    has_users: bool = False  # whether tokens are verified anywhere

    def ancestors(self, uid: Uid) -> frozenset[Uid]:
        """The ancestors of an entity that are certain."""
        if uid.type == "Namespace":
            domain, slash, _ = uid.id.rpartition("/")
            return frozenset({Uid("TrustDomain", domain if slash else self.mesh.trust_domain)})
        return self.above.get(uid, frozenset())

    def can_be(self, uid: Uid) -> bool:
        """Whether a request may come from or go to this one entity."""
        if uid.type == "Service":
            return uid.id in self.mesh.services
        if uid.type == "Workload":
            try:
                name = SpiffeId.parse(uid.id)
            except SpiffeIdError:
                return False
            return name.trust_domain != self.mesh.trust_domain or name in self.mesh.workloads
        return True

    def can_be_in(self, types: Collection[str], ancestor: Uid) -> bool:
        """Whether a request may come from or go to an entity of these types under `ancestor`, itself included."""
        if ancestor.type in types:
            return self.can_be(ancestor)
        if ancestor.type == "TrustDomain" and ancestor.id != self.mesh.trust_domain:
            return "Workload" in types
        domain, slash, _ = ancestor.id.rpartition("/")
        if ancestor.type == "Namespace" and slash and domain != self.mesh.trust_domain:
            return "Workload" in types
        return any((one, ancestor) in self.below for one in types)

    def tag_values(self, type_: str, name: str) -> Values:
        """The values that the label `name` has anywhere."""
        return self.tags.get(type_, {}).get(name, frozenset())

    def namespaces(self) -> list[str]:
        """The namespaces that have something in them."""
        return sorted({ancestor.id for _, ancestor in self.below if ancestor.type == "Namespace"})


def universe_of(mesh: Mesh, entities: Iterable[Entity]) -> Universe:
    """What there can be in `mesh`; `entities` are those of all that it declares, with all their ancestors."""
    above: dict[Uid, frozenset[Uid]] = {}
    tags: dict[str, dict[str, Values]] = {}
    attributes: dict[str, dict[str, Values]] = {}
    for one in entities:
        above[one.uid] = above.get(one.uid, frozenset()) | frozenset(one.parents)
        _collect(tags.setdefault(one.uid.type, {}), one.tags)
        _collect(attributes.setdefault(one.uid.type, {}), one.attrs)
    return Universe(
        mesh,
        frozenset(above),
        above,
        frozenset((uid.type, ancestor) for uid, ancestors in above.items() for ancestor in ancestors),
        tags,
        attributes,
        frozenset(listener.service for listener in mesh.listeners.values() if listener.service),
        any(listener.issuers for listener in mesh.listeners.values()),
    )


def nearest(name: str, known: Iterable[str], otherwise: str) -> str:
    """The remedy for a name that nothing has: the known one that is a slip of the finger away, if there is one."""
    slips = _slips(frozenset(known))
    near = min((slips[one] for one in _slipped(name) if one in slips), default="")
    return f"did you mean `{near}`?" if near else otherwise


@lru_cache(maxsize=16)
def _slips(known: frozenset[str]) -> Mapping[str, str]:
    """Every known name, and each with a character left out: of thousands of names the near one is found at once."""
    return {slip: name for name in sorted(known, reverse=True) for slip in _slipped(name)}


def _slipped(name: str) -> Iterable[str]:
    """Two names meet in these where one character is more, less, another one, or has changed places."""
    return {name, *(name[:at] + name[at + 1 :] for at in range(min(len(name), MAX_NAME)))}


def _collect(into: dict[str, Values], values: Mapping[str, object]) -> None:
    for name, value in values.items():
        if isinstance(value, str):
            into[name] = into.get(name, frozenset()) | {value}
