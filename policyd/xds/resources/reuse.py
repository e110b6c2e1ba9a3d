"""Snapshots: those of all proxies of a Mesh, made of what proxies share and of what is each one's own.

Law: what is equal is the very same Resource, within a Mesh and from one Mesh to the next; a proxy's Snapshot is laid
together when somebody asks for it, and everything that it can be made of was checked before.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from policyd.envoy_api import CLUSTER, Reference
from policyd.envoy_api.fill import content_key
from policyd.errors import InvalidInput, Problem
from policyd.xds.snapshot import Resource, Snapshot, check_snapshot, kind, lay, make_snapshot, resource

C = TypeVar("C")  # a class of proxies


class Kept:
    """Resources by content: what was made for one Mesh is not made again for the next."""

    def __init__(self) -> None:
        self._made: dict[bytes, Resource] = {}

    def make(self, type_url: str, fields: dict[str, Any]) -> Resource:
        """The Resource of a message's JSON form."""
        key = content_key((type_url, fields))
        found = self._made.get(key)
        if found is None:
            found = self._made[key] = resource(type_url, fields.get("cluster_name") or fields["name"], fields)
        return found

    def bound(self, in_use: int) -> None:
        """Forget all once most of it is used no longer."""
        if len(self._made) > 2 * in_use + 1000:
            self._made.clear()


@dataclass(frozen=True, slots=True, eq=False)
class Snapshots(Mapping[str, Snapshot], Generic[C]):
    """The Snapshot of every instance, by its name.

    `unrouted` is what all depends on besides the instances, and `routed` what the route tables do in addition; `parts`
    are the resources of a Service for a caller, `of_classes` what else a class shares; `shared` is both.
    """

    unrouted: tuple[Any, ...]
    routed: tuple[Any, ...]
    instances: Mapping[str, Any]
    classes: Mapping[str, C]
    shared: Mapping[C, Snapshot]
    own: Mapping[str, tuple[Resource, ...]]
    parts: Mapping[tuple[Any, str], tuple[Resource, ...]]
    of_classes: Mapping[C, tuple[Resource, ...]]
    kept: Kept
    switches: Mapping[str, Mapping[str, Any]] = field(default_factory=dict, repr=False)  # by instance and listener
    guards: Mapping[str, Mapping[str, Any]] = field(default_factory=dict, repr=False)  # and likewise
    _laid: dict[str, Snapshot] = field(default_factory=dict, repr=False)
    _gathered: dict[str, Snapshot] = field(default_factory=dict, repr=False)  # of what is an instance's own
    _last: dict[str, Snapshot] = field(default_factory=dict, repr=False)  # laid together before, of which much is kept
    _good: set[str] = field(default_factory=set, repr=False)  # instances whose references lead somewhere

    def __getitem__(self, name: str) -> Snapshot:
        """The Snapshot of an instance."""
        found = self._laid.get(name)
        if found is None:
            own = self._gathered.get(name) or self._gathered.setdefault(name, make_snapshot(self.own[name]))
            found = self._laid[name] = lay(own, self.shared[self.classes[name]], self._last.pop(name, None))
        return found

    def __iter__(self) -> Iterator[str]:
        """The names of the instances."""
        return iter(self.own)

    def __len__(self) -> int:
        """How many instances there are."""
        return len(self.own)

    def after(self, before: Snapshots[C]) -> Snapshots[C]:
        """Take over what was laid together before and is the same now, and what was found good."""
        alike = {one for one, now in self.shared.items() if _are_named_alike(now, before.shared.get(one))}
        for name in before._good:
            now = self.classes.get(name)
            if now in alike and now == before.classes[name] and self.own.get(name) is before.own[name]:
                self._good.add(name)
        for name, gathered in list(before._gathered.items()):
            if self.own.get(name) is not before.own[name]:
                continue
            self._gathered[name] = gathered
            laid = before._laid.get(name)
            if laid is None:
                continue
            same = self.shared[self.classes[name]] is before.shared[before.classes[name]]
            (self._laid if same else self._last)[name] = laid
        return self

    @property
    def config(self) -> str:
        """The name of what all proxies are sent."""
        digest = hashlib.sha256()
        shared = {proxies: one.version for proxies, one in self.shared.items()}
        for name, resources in sorted(self.own.items()):
            versions = " ".join(one.version for one in resources)
            digest.update(f"{name} {shared[self.classes[name]]} {versions}\n".encode())
        return digest.hexdigest()[:16]

    def check(self, static_clusters: Collection[str] = ()) -> Snapshots[C]:
        """Return it if every reference leads somewhere, else raise InvalidInput.

        `static_clusters` are the clusters that the proxies' bootstrap has.
        """
        problems: list[Problem] = []
        for shared in self.shared.values():
            check_snapshot(shared, static_clusters=static_clusters)
        for name, resources in self.own.items():
            if name not in self._good:
                problems += _dangling(resources, self.shared[self.classes[name]], static_clusters)
        if problems:
            raise InvalidInput(problems)
        self._good.update(self.own)
        return self


def _are_named_alike(one: Snapshot, other: Snapshot | None) -> bool:
    """Whether both have resources of the same types and names, so that the same references lead somewhere."""
    if one is other or other is None:
        return one is other
    alike = (one.of(url) is other.of(url) or one.of(url).keys() == other.of(url).keys() for url in one.resources)
    return one.resources.keys() == other.resources.keys() and all(alike)


def _dangling(own: tuple[Resource, ...], shared: Snapshot, static_clusters: Collection[str]) -> Iterator[Problem]:
    names = {Reference(one.type_url, one.name) for one in own}
    if len(names) < len(own):
        yield Problem("xds_duplicate", f"two resources of one type are called alike: {sorted(n.name for n in names)}")
    for one in own:
        if one.name in shared.of(one.type_url):
            yield Problem("xds_duplicate", f"two {kind(one.type_url)} are called `{one.name}`")
        for needed in sorted(one.references - names):
            static = needed.type_url == CLUSTER and needed.name in static_clusters
            if not static and needed.name not in shared.of(needed.type_url):
                missing = f"{kind(needed.type_url)} named `{needed.name}`"
                message = f"`{one.name}` of the {kind(one.type_url)} needs {missing}, and there are none"
                yield Problem("xds_reference", message)
