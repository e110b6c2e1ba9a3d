"""What Envoy's messages name: resources of other types, which have to be there before these.

Law: `told` knows each field that names one, and is asked of every message, either while it is filled (`fill`) or along
its JSON form (`named`); both find the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from policyd.envoy_api.type_urls import CLUSTER, ROUTE
from policyd.names import METADATA_CLUSTER, METADATA_LEAVES, METADATA_NAMESPACE, STATE_CLUSTER, STATE_TCP, STATE_TLS

TELLING: Final = frozenset({"cluster", "envoy_grpc", "weighted_clusters", "rds", "object_key", "metadata"})
# maps of free keys, whose `cluster` means nothing to Envoy
_OPAQUE = frozenset({"metadata", "filter_metadata", "typed_filter_metadata", "context_extensions", "json_format"})
_NESTED = (dict, list)


@dataclass(frozen=True, slots=True, order=True)
class Reference:
    """What a resource needs to work: a resource of another type, by name."""

    type_url: str
    name: str


def told(key: str, value: Any, node: Mapping[str, Any]) -> Iterator[Reference]:
    """What a TELLING field names in a message's JSON form, `node`: routes by `rds`, clusters by the others."""
    match key:
        case "cluster" if isinstance(value, str):
            yield Reference(CLUSTER, value)
        case "envoy_grpc" if value and "cluster_name" in value:
            yield Reference(CLUSTER, value["cluster_name"])
        case "weighted_clusters" if value:
            yield from (Reference(CLUSTER, one["name"]) for one in value.get("clusters", ()) if one.get("name"))
        case "rds" if value and "route_config_name" in value:
            yield Reference(ROUTE, value["route_config_name"])
        case "object_key" if value in (STATE_CLUSTER, STATE_TCP, STATE_TLS):
            yield from _noted(node)
        case "metadata" if isinstance(value, dict):
            yield from _marked(value)


def _marked(metadata: Mapping[str, Any]) -> Iterator[Reference]:
    """Where a tunnel goes that is looked into on its way."""
    marks = metadata.get("filter_metadata", {}).get(METADATA_NAMESPACE, {})
    yield from (Reference(CLUSTER, marks[key]) for key in (METADATA_CLUSTER, METADATA_LEAVES) if key in marks)


def _noted(note: Mapping[str, Any]) -> Iterator[Reference]:
    """Where a share of such tunnels goes."""
    text = note.get("format_string", {}).get("text_format_source", {}).get("inline_string", "")
    if "%" not in text:
        yield Reference(CLUSTER, text)


def named(shown: Mapping[str, Any]) -> Iterator[Reference]:
    """What a message's JSON form names, anywhere in it."""
    left: list[Any] = [shown]
    while left:  # no recursion: a listener holds hundreds of messages
        node = left.pop()
        if isinstance(node, list):
            left += [item for item in node if isinstance(item, _NESTED)]
            continue
        for key in TELLING & node.keys():
            yield from told(key, node[key], node)
        left += [value for key, value in node.items() if isinstance(value, _NESTED) and key not in _OPAQUE]
