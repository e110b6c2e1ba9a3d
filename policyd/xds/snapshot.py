"""Snapshot: the whole configuration of one proxy, as one frozen value that names every content by its hash.

Law: equal content has an equal version, in every process and after every restart, however it is laid together; and a
Snapshot that passed `check_snapshot` has no reference that leads nowhere.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Final

from policyd import envoy_api
from policyd.envoy_api import CLUSTER, ENDPOINT, LISTENER, ROUTE, TYPE_PREFIX, EnvoyApi, Reference
from policyd.errors import InvalidInput, Problem

SHORT_NAMES: Final[Mapping[str, str]] = MappingProxyType(
    {
        CLUSTER: "clusters",
        ENDPOINT: "endpoints",
        LISTENER: "listeners",
        ROUTE: "routes",
        envoy_api.SECRET: "secrets",
    }
)
_VERSION_LETTERS = 16


@dataclass(frozen=True, slots=True)
class Resource:
    """One Envoy resource: `body` is the serialised message of `type_url`, `version` names its content."""

    name: str
    version: str
    type_url: str
    body: bytes
    references: frozenset[Reference] = frozenset()


class Laid(Mapping[str, Resource]):
    """Resources of one proxy on top of those that many share, without a copy of these."""

    __slots__ = ("own", "shared")

    def __init__(self, own: Mapping[str, Resource], shared: Mapping[str, Resource]) -> None:
        """No name may be in both."""
        self.own, self.shared = own, shared

    def __getitem__(self, name: str) -> Resource:
        """One of them; its own come first."""
        found = self.own.get(name)
        return self.shared[name] if found is None else found

    def __contains__(self, name: object) -> bool:
        """Whether the name is there."""
        return name in self.own or name in self.shared

    def __iter__(self) -> Iterator[str]:
        """The names."""
        yield from self.own
        yield from self.shared

    def __len__(self) -> int:
        """How many there are."""
        return len(self.own) + len(self.shared)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Resources by type URL and name; `versions` names the content of each type, `version` that of all.

    `sums` are the versions as numbers, from which those of a Snapshot on top of this one follow.
    """

    resources: Mapping[str, Mapping[str, Resource]]
    versions: Mapping[str, str] = field(default_factory=dict)
    sums: Mapping[str, int] = field(default_factory=dict, repr=False, compare=False)

    @property
    def version(self) -> str:
        """The name of all its content; made when asked for, since most are laid together to be compared by type."""
        return _hash(f"{type_url} {self.versions[type_url]}".encode() for type_url in sorted(self.versions))

    def of(self, type_url: str) -> Mapping[str, Resource]:
        """The resources of a type, by name; empty where there are none."""
        return self.resources.get(type_url, _NOTHING)

    def version_of(self, type_url: str) -> str:
        """The version of a type's resources; that of no resources where there are none."""
        return self.versions.get(type_url, _NO_VERSION)


def _hash(parts: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(4) + part)
    return digest.hexdigest()[:_VERSION_LETTERS]


_NOTHING: Final[Mapping[str, Resource]] = MappingProxyType({})
_NUMBERS: Final = 2**256
_NO_VERSION: Final = _hash(((0).to_bytes(32),))


def resource(type_url: str, name: str, fields: Mapping[str, Any], *, api: EnvoyApi | None = None) -> Resource:
    """A Resource from its message's JSON form; `api` None is the wheel's Envoy.

    Raises EnvoyError for what Envoy does not know, InvalidInput if the message names itself otherwise.
    """
    known = api or envoy_api.shared()
    full_name = type_url.removeprefix(TYPE_PREFIX)
    body, named = known.pack_naming(full_name, fields)
    declared = fields.get("cluster_name" if type_url == ENDPOINT else "name", "")
    if declared != name:
        raise InvalidInput([Problem("xds_name", f"the resource `{name}` calls itself `{declared}`")])
    return Resource(name, content_version(body), type_url, body, _needed(type_url, fields, named))


def content_version(body: bytes) -> str:
    """The version of a resource: the beginning of the SHA-256 of its bytes, in hex."""
    return hashlib.sha256(body).hexdigest()[:_VERSION_LETTERS]


def _needed(type_url: str, shown: Mapping[str, Any], named: frozenset[Reference]) -> frozenset[Reference]:
    """What a resource needs, of what its message names."""
    if type_url == ENDPOINT:
        return frozenset()
    if type_url == CLUSTER and shown.get("type") == "EDS":
        endpoints = shown.get("eds_cluster_config", {}).get("service_name") or shown["name"]
        return named | {Reference(ENDPOINT, endpoints)}
    return named


def make_snapshot(resources: Iterable[Resource], shared: Snapshot | None = None) -> Snapshot:
    """Gather resources on top of `shared`; raises InvalidInput when two of a type have one name, as Envoy would."""
    gathered: dict[str, dict[str, Resource]] = {}
    sums: dict[str, int] = {}
    problems = []
    for one in resources:
        names = gathered.setdefault(one.type_url, {})
        if one.name in names:
            problems.append(_twice(one))
        names[one.name] = one
        sums[one.type_url] = (sums.get(one.type_url, 0) + _number(one)) % _NUMBERS
    if problems:
        raise InvalidInput(problems)
    frozen = {type_url: MappingProxyType(names) for type_url, names in gathered.items()}
    own = _snapshot(frozen, {type_url: _text(total) for type_url, total in sums.items()}, sums)
    return own if shared is None else lay(own, shared)


def lay(own: Snapshot, shared: Snapshot, before: Snapshot | None = None) -> Snapshot:
    """One Snapshot on top of another; raises InvalidInput when both have a resource of one type and name.

    Of a type that only one of them has, the mapping is the very one of it; of both, that of `before` where it was
    laid together of the same.
    """
    below = shared.resources
    laid = {**below, **own.resources}
    sums, versions = {**shared.sums, **own.sums}, {**shared.versions, **own.versions}
    twice: list[Problem] = []
    for url in own.resources.keys() & below.keys():
        known = before.of(url) if before else None
        if before and isinstance(known, Laid) and known.own is own.resources[url] and known.shared is below[url]:
            laid[url], sums[url], versions[url] = known, before.sums[url], before.versions[url]
            continue
        twice += (_twice(one) for name, one in own.resources[url].items() if name in below[url])
        laid[url] = Laid(own.resources[url], below[url])
        sums[url] = (own.sums[url] + shared.sums[url]) % _NUMBERS
        versions[url] = _text(sums[url])
    if twice:
        raise InvalidInput(twice)
    return _snapshot(laid, versions, sums)


def keeping(now: Snapshot, before: Snapshot | None) -> Snapshot:
    """The same Snapshot, with the very mappings of `before` of the types of which both have the same."""
    if before is None:
        return now
    same = {url: before.of(url) for url, version in now.versions.items() if before.versions.get(url) == version}
    return replace(now, resources=MappingProxyType({**now.resources, **same}))


def _snapshot(
    resources: Mapping[str, Mapping[str, Resource]], versions: Mapping[str, str], sums: Mapping[str, int]
) -> Snapshot:
    return Snapshot(MappingProxyType(resources), MappingProxyType(versions), MappingProxyType(sums))


def _twice(one: Resource) -> Problem:
    return Problem("xds_duplicate", f"two {kind(one.type_url)} are called `{one.name}`")


def _number(one: Resource) -> int:
    """A number for a resource under its name; the sum of several does not depend on their order."""
    return int.from_bytes(hashlib.sha256(f"{one.name}\0{one.version}".encode()).digest())


def _text(total: int) -> str:
    return _hash((total.to_bytes(32),))


def differences(before: Mapping[str, Resource], after: Mapping[str, Resource]) -> frozenset[str]:
    """The names whose resource is another one, or there in one of the two only."""
    if before is after:
        return frozenset()
    if isinstance(before, Laid) and isinstance(after, Laid):
        own = frozenset() if before.own is after.own else _compare(before.own, after.own)
        return own | _KNOWN.between(before.shared, after.shared)
    return _KNOWN.between(before, after)


class _Differences:
    """The last differences that were asked for: a change is the same one for all proxies that share it."""

    def __init__(self, kept: int = 32) -> None:
        self._kept = kept
        self._found: dict[tuple[int, int], tuple[Mapping[str, Resource], Mapping[str, Resource], frozenset[str]]] = {}

    def between(self, before: Mapping[str, Resource], after: Mapping[str, Resource]) -> frozenset[str]:
        """As `differences`; the mappings are kept, so that no other one gets their place in memory."""
        if before is after:
            return frozenset()
        key = (id(before), id(after))
        known = self._found.get(key)
        if known is None:
            known = (before, after, _compare(before, after))
            while len(self._found) >= self._kept:
                self._found.pop(next(iter(self._found)), None)
            self._found[key] = known
        return known[2]


def _compare(before: Mapping[str, Resource], after: Mapping[str, Resource]) -> frozenset[str]:
    changed = {name for name, one in after.items() if (old := before.get(name)) is not one and old != one}
    return frozenset(changed | (before.keys() - after.keys()))


_KNOWN: Final = _Differences()


def check_snapshot(snapshot: Snapshot, *, static_clusters: Collection[str] = ()) -> Snapshot:
    """Return the snapshot if each of its references leads to a resource of it, else raise InvalidInput.

    `static_clusters` are the clusters that the proxy's bootstrap has.
    """
    problems = []
    for type_url, names in snapshot.resources.items():
        for one in names.values():
            for needed in sorted(one.references):
                known = needed.type_url == CLUSTER and needed.name in static_clusters
                if not known and needed.name not in snapshot.of(needed.type_url):
                    missing = f"{kind(needed.type_url)} named `{needed.name}`"
                    place = f"`{one.name}` of the {kind(type_url)}"
                    problems.append(Problem("xds_reference", f"{place} needs {missing}, and there are none"))
    if problems:
        raise InvalidInput(problems)
    return snapshot


def kind(type_url: str) -> str:
    """A type's everyday name, such as `clusters`."""
    return SHORT_NAMES.get(type_url, type_url.rpartition(".")[2])
