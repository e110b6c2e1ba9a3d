"""The state-of-the-world variant of one stream: its requests name all that is wanted, its answers bring all of it.

Law: the stream of `stream` decides what a client needs; what is said to it beside that of listeners and clusters is
what it accepted before, so nothing comes or goes earlier for being said in this variant.

A request is told to the stream as the difference to the one before, and a response completed from what was accepted.
Source: the xDS protocol, its sections on the state-of-the-world variant; gRPC speaks no other.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from policyd.envoy_api import CLUSTER, LISTENER
from policyd.xds.snapshot import Resource
from policyd.xds.state import Push, Request

WILDCARD: Final = "*"
NOTHING: Final[Mapping[str, Resource]] = MappingProxyType({})
_WHOLE: Final = frozenset((CLUSTER, LISTENER))  # what such a response does not hold is gone; of other types it stays


class Wish(Struct, frozen=True):
    """A DiscoveryRequest: all names wanted of a type; `error` rejects the response of `nonce`."""

    type_url: str
    names: tuple[str, ...] = ()
    nonce: str = ""
    error: str | None = None


class Whole(Struct, frozen=True):
    """A DiscoveryResponse: of listeners and clusters everything wanted, of other types what is new."""

    type_url: str
    nonce: str
    version: str
    resources: tuple[Resource, ...]


class Told(Struct, frozen=True):
    """What was said of one type: by the client the names, by us the newest nonce and what came with it.

    `offered` is what the client has if it accepts the unanswered response; `named` that it ever named anything.
    """

    wanted: frozenset[str]
    named: bool
    nonce: str = ""
    accepted: Mapping[str, Resource] = NOTHING
    offered: Mapping[str, Resource] | None = None

    def wants(self, name: str) -> bool:
        """Whether the client asked for the name."""
        return WILDCARD in self.wanted or name in self.wanted


Conversation = Mapping[str, Told]
START: Final[Conversation] = MappingProxyType({})


def heard(so_far: Conversation, wish: Wish) -> tuple[Conversation, Request | None]:
    """What a request says to the stream; None where it says nothing: it is stale, or wants nothing yet."""
    before = so_far.get(wish.type_url)
    if before is None:
        return _first(so_far, wish)
    if wish.nonce != before.nonce:
        return so_far, None  # it was sent before our newest response came, which it will answer with all names
    wanted = _wanted(wish, named=before.named)
    after = replace(_answered(before, wish), wanted=wanted, named=before.named or bool(wish.names))
    kept = {name: one for name, one in after.accepted.items() if after.wants(name)}
    came, went = tuple(sorted(wanted - before.wanted)), tuple(sorted(before.wanted - wanted))
    request = Request(wish.type_url, came, went, nonce=wish.nonce, error=wish.error)
    return {**so_far, wish.type_url: replace(after, accepted=kept)}, request


def completed(so_far: Conversation, push: Push) -> tuple[Conversation, Whole]:
    """The response that says what the stream sends, and as before what else it must hold."""
    told = so_far[push.type_url]
    resources = {one.name: one for one in push.resources}
    if push.type_url in _WHOLE:
        resources = {name: one for name, one in {**told.accepted, **resources}.items() if name not in push.removed}
    offered = resources if push.type_url in _WHOLE else NOTHING
    whole = Whole(push.type_url, push.nonce, push.version, tuple(resources[name] for name in sorted(resources)))
    return {**so_far, push.type_url: replace(told, nonce=push.nonce, offered=offered)}, whole


def _first(so_far: Conversation, wish: Wish) -> tuple[Conversation, Request | None]:
    """The first request of a type answers nothing: its nonce, if any, is of a stream that broke."""
    wanted = _wanted(wish, named=False)
    if not wanted:
        return so_far, None
    return {**so_far, wish.type_url: Told(wanted, bool(wish.names))}, Request(wish.type_url, tuple(sorted(wanted)))


def _wanted(wish: Wish, *, named: bool) -> frozenset[str]:
    """No name means all listeners or clusters to who never named one, else nothing."""
    if wish.names or named or wish.type_url not in _WHOLE:
        return frozenset(wish.names)
    return frozenset((WILDCARD,))


def _answered(told: Told, wish: Wish) -> Told:
    """What was offered is had once it is accepted; of what is rejected, the client is told as before."""
    if told.offered is None:
        return told
    return replace(told, accepted=told.accepted if wish.error is not None else told.offered, offered=None)
