"""Snapshot: the whole configuration of one proxy, as one frozen value that names every content by its hash.

Law: equal content has an equal version, in every process and after every restart, and a Snapshot that passed
`check_snapshot` has no reference that leads nowhere.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

from policyd import envoy_api
from policyd.envoy_api import CLUSTER, ENDPOINT, LISTENER, ROUTE, TYPE_PREFIX, EnvoyApi
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
# maps of free keys, whose `cluster` means nothing to Envoy
_OPAQUE = frozenset({"metadata", "filter_metadata", "typed_filter_metadata", "context_extensions", "json_format"})


@dataclass(frozen=True, slots=True, order=True)
class Reference:
    """What a resource needs to work: a resource of another type, by name."""

    type_url: str
    name: str


@dataclass(frozen=True, slots=True)
class Resource:
    """One Envoy resource: `body` is the serialised message of `type_url`, `version` names its content."""

    name: str
    version: str
    type_url: str
    body: bytes
    references: frozenset[Reference] = frozenset()


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Resources by type URL and name; `versions` names the content of each type, `version` that of all."""

    version: str
    resources: Mapping[str, Mapping[str, Resource]]
    versions: Mapping[str, str] = field(default_factory=dict)

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
_NO_VERSION: Final = _hash(())


def resource(type_url: str, name: str, fields: Mapping[str, Any], *, api: EnvoyApi | None = None) -> Resource:
    """A Resource from its message's JSON form; `api` None is the wheel's Envoy.

    Raises EnvoyError for what Envoy does not know, InvalidInput if the message names itself otherwise.
    """
    known = api or envoy_api.shared()
    full_name = type_url.removeprefix(TYPE_PREFIX)
    body = known.pack(full_name, fields)
    declared = fields.get("cluster_name" if type_url == ENDPOINT else "name", "")
    if declared != name:
        raise InvalidInput([Problem("xds_name", f"the resource `{name}` calls itself `{declared}`")])
    return Resource(name, content_version(body), type_url, body, frozenset(_references(type_url, fields)))


def content_version(body: bytes) -> str:
    """The version of a resource: the beginning of the SHA-256 of its bytes, in hex."""
    return hashlib.sha256(body).hexdigest()[:_VERSION_LETTERS]


def _references(type_url: str, shown: Mapping[str, Any]) -> Iterator[Reference]:
    if type_url == CLUSTER and shown.get("type") == "EDS":
        yield Reference(ENDPOINT, shown.get("eds_cluster_config", {}).get("service_name") or shown["name"])
    if type_url != ENDPOINT:
        yield from _named(shown)


def _named(node: Any) -> Iterator[Reference]:
    """What a message's JSON form names, anywhere in it: routes by `rds`, clusters by several fields."""
    if isinstance(node, list):
        for item in node:
            yield from _named(item)
    if not isinstance(node, Mapping):
        return
    for key, value in node.items():
        if key == "cluster" and isinstance(value, str):
            yield Reference(CLUSTER, value)
        elif key == "envoy_grpc":
            yield Reference(CLUSTER, value["cluster_name"])
        elif key == "weighted_clusters":
            yield from (Reference(CLUSTER, one["name"]) for one in value["clusters"] if one.get("name"))
        elif key == "rds":
            yield Reference(ROUTE, value["route_config_name"])
        if key not in _OPAQUE:
            yield from _named(value)


def make_snapshot(resources: Iterable[Resource]) -> Snapshot:
    """Gather resources; raises InvalidInput when two of a type have one name (Envoy would refuse both)."""
    gathered: dict[str, dict[str, Resource]] = {}
    problems = []
    for one in resources:
        names = gathered.setdefault(one.type_url, {})
        if one.name in names:
            problems.append(Problem("xds_duplicate", f"two {kind(one.type_url)} are called `{one.name}`"))
        names[one.name] = one
    if problems:
        raise InvalidInput(problems)
    versions = {
        type_url: _hash(part.encode() for name in sorted(names) for part in (name, names[name].version))
        for type_url, names in gathered.items()
    }
    whole = _hash(part.encode() for type_url in sorted(versions) for part in (type_url, versions[type_url]))
    frozen = {type_url: MappingProxyType(names) for type_url, names in gathered.items()}
    return Snapshot(whole, MappingProxyType(frozen), MappingProxyType(versions))


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
