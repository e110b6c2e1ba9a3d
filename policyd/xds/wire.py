"""Between the messages of `envoy.service.discovery.v3` and the values of the stream.

Law: a message becomes a value here, once, and nothing past this room sees protobuf.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from google.protobuf.message import DecodeError

from policyd import envoy_api
from policyd.envoy_api import EnvoyApi
from policyd.errors import StreamError
from policyd.xds.snapshot import Resource
from policyd.xds.sotw import Whole, Wish
from policyd.xds.stream import Push, Request

REQUEST: Final = "envoy.service.discovery.v3.DeltaDiscoveryRequest"
RESPONSE: Final = "envoy.service.discovery.v3.DeltaDiscoveryResponse"
WISH: Final = "envoy.service.discovery.v3.DiscoveryRequest"
WHOLE: Final = "envoy.service.discovery.v3.DiscoveryResponse"
MAX_REQUEST_BYTES: Final = 1 << 20  # the first one holds 61 KB of node, the one after a reconnect all names
MAX_NODE_ID: Final = 256
FEW: Final = 8  # resources of a response that is remembered: many are what a proxy gets once, in the beginning
REMEMBERED: Final = 16


@dataclass(frozen=True, slots=True)
class Node:
    """Who a proxy says it is; `version` is that of its Envoy, "" where it is not said."""

    id: str
    cluster: str = ""
    version: str = ""


def decode(data: bytes, api: EnvoyApi | None = None) -> tuple[Request, Node | None]:
    """A request, and the node where there is one; raises StreamError for what is none or too large."""
    message = _read(data, REQUEST, api)
    request = Request(
        message.type_url,
        tuple(message.resource_names_subscribe),
        tuple(message.resource_names_unsubscribe),
        dict(message.initial_resource_versions),
        message.response_nonce,
        _error(message),
    )
    return request, _node(message.node) if message.HasField("node") else None


def decode_wish(data: bytes, api: EnvoyApi | None = None) -> tuple[Wish, Node | None]:
    """The same of the state-of-the-world variant."""
    message = _read(data, WISH, api)
    wish = Wish(message.type_url, tuple(message.resource_names), message.response_nonce, _error(message))
    return wish, _node(message.node) if message.HasField("node") else None


def _read(data: bytes, name: str, api: EnvoyApi | None) -> Any:
    if len(data) > MAX_REQUEST_BYTES:
        raise StreamError(f"a request has at most {MAX_REQUEST_BYTES} bytes, this one {len(data)}")
    known = api or envoy_api.shared()
    try:
        return known.message(name).FromString(data)
    except DecodeError as error:
        raise StreamError(f"what was sent is no {name.rpartition('.')[2]}") from error


def _error(message: Any) -> str | None:
    return str(message.error_detail.message) if message.HasField("error_detail") else None


def _node(node: object) -> Node:
    id_, cluster = str(getattr(node, "id", "")), str(getattr(node, "cluster", ""))
    if len(id_) > MAX_NODE_ID or len(cluster) > MAX_NODE_ID:
        raise StreamError(f"a node id has at most {MAX_NODE_ID} characters")
    number = node.user_agent_build_version.version  # type: ignore[attr-defined]
    version = f"{number.major_number}.{number.minor_number}.{number.patch}"
    return Node(id_, cluster, "" if version == "0.0.0" else version)


def encode(push: Push, api: EnvoyApi | None = None) -> bytes:
    """The serialised response."""
    # of a change many proxies are told the same, but for the nonce; what stands behind another message is part of it
    content = _shared if len(push.resources) <= FEW else _content
    known = api or envoy_api.shared()
    nonce: bytes = known.message(RESPONSE)(nonce=push.nonce).SerializeToString()
    return content(push.version, push.type_url, push.resources, push.removed, known) + nonce


def encode_whole(whole: Whole, api: EnvoyApi | None = None) -> bytes:
    """The serialised response of the state-of-the-world variant."""
    known = api or envoy_api.shared()
    message = known.message(WHOLE)(version_info=whole.version, type_url=whole.type_url, nonce=whole.nonce)
    message.control_plane.identifier = "policyd"
    for one in whole.resources:
        message.resources.add(type_url=one.type_url, value=one.body)
    packed: bytes = message.SerializeToString()
    return packed


def _content(
    version: str, type_url: str, resources: tuple[Resource, ...], removed: tuple[str, ...], api: EnvoyApi
) -> bytes:
    message = api.message(RESPONSE)(system_version_info=version, type_url=type_url, removed_resources=removed)
    message.control_plane.identifier = "policyd"
    for one in resources:
        resource = message.resources.add(name=one.name, version=one.version)
        resource.resource.type_url = one.type_url
        resource.resource.value = one.body
    packed: bytes = message.SerializeToString()
    return packed


_shared: Final = lru_cache(REMEMBERED)(_content)
