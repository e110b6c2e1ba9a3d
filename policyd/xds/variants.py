"""How one stream of aggregated discovery speaks: in differences, or in the whole state of the world.

Law: in either variant the stream sees a Request and sends a Push; nothing past this file knows which it is.
"""

from __future__ import annotations

from typing import Protocol

from policyd.envoy_api import EnvoyApi
from policyd.xds import sotw, wire
from policyd.xds.anew import anew
from policyd.xds.snapshot import SHORT_NAMES
from policyd.xds.sotw import Whole
from policyd.xds.stream import Push, Request

Said = Push | Whole


class Variant(Protocol):
    """What a stream is read and written with; one for each stream. `alone`: who speaks so has one stream."""

    alone: bool

    def read(self, data: bytes) -> tuple[Request | None, wire.Node | None]:
        """What a message says to the stream, None if nothing, and the node; raises StreamError for what is none."""

    def say(self, push: Push) -> Said:
        """What is to be written for it; called in the order of the pushes, before anything else is read."""

    def write(self, said: Said) -> bytes:
        """The serialised response."""


class Differences:
    """The incremental variant (`DeltaAggregatedResources`), which Envoy speaks."""

    alone = True

    def __init__(self, api: EnvoyApi | None = None, stream: str = "") -> None:
        """`stream` is a line that no other stream of the same Envoy has."""
        self._api = api
        self._stream = stream

    def read(self, data: bytes) -> tuple[Request | None, wire.Node | None]:
        """A request is what it says."""
        return wire.decode(data, self._api)

    def say(self, push: Push) -> Said:
        """The push itself, its secrets as they are written on this stream."""
        return anew(push, self._stream, self._api)

    def write(self, said: Said) -> bytes:
        """The serialised DeltaDiscoveryResponse."""
        assert isinstance(said, Push), "it comes from `say`"
        return wire.encode(said, self._api)


class StateOfTheWorld:
    """The variant that gRPC speaks (`StreamAggregatedResources`), on a stream for each target and one for a server."""

    alone = False

    def __init__(self, api: EnvoyApi | None = None) -> None:
        self._api = api
        self._so_far = sotw.START

    def read(self, data: bytes) -> tuple[Request | None, wire.Node | None]:
        """A request is the difference to what was wanted before."""
        wish, node = wire.decode_wish(data, self._api)
        self._so_far, request = sotw.heard(self._so_far, wish)
        if request is None and wish.type_url not in SHORT_NAMES:
            return Request(wish.type_url), node  # who asks for what is not served is told so, even without a name
        return request, node

    def say(self, push: Push) -> Said:
        """The push, completed from what the client accepted before."""
        self._so_far, whole = sotw.completed(self._so_far, push)
        return whole

    def write(self, said: Said) -> bytes:
        """The serialised DiscoveryResponse."""
        assert isinstance(said, Whole), "it comes from `say`"
        return wire.encode_whole(said, self._api)
