"""What is known of one delta xDS stream, as values.

Law: nothing here decides; `stream` takes requests in, `plan` says what to send. One or two of each are made for each
response to each proxy, which is why they are msgspec's: a dataclass takes ten times as long to make, or to change.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from msgspec import Struct, field

from policyd.envoy_api import CLUSTER, ENDPOINT, LISTENER, ROUTE, SECRET
from policyd.xds.snapshot import Resource

ORDER: Final = (CLUSTER, ENDPOINT, LISTENER, ROUTE)  # then every other type
# sent one at a time and each content once: Envoy's rejection does not name a secret, and it accepts what it rejected
# when that is sent again, though it does not use it
ALONE: Final = frozenset((SECRET,))
UNKNOWN: Final = ""  # the version of a resource of which the proxy rejected a change


class Request(Struct, frozen=True):
    """A DeltaDiscoveryRequest; `error` is Envoy's text if it rejects the response of `nonce`."""

    type_url: str
    subscribe: tuple[str, ...] = ()
    unsubscribe: tuple[str, ...] = ()
    initial_versions: Mapping[str, str] = field(default_factory=dict)
    nonce: str = ""
    error: str | None = None


class Push(Struct, frozen=True):
    """A DeltaDiscoveryResponse; `version` is that of the type's resources in the Snapshot."""

    type_url: str
    nonce: str
    version: str
    resources: tuple[Resource, ...]
    removed: tuple[str, ...]

    def touched(self) -> set[str]:
        """The names of all that it brings or takes away."""
        return {*self.removed, *(one.name for one in self.resources)}


class Rejection(Struct, frozen=True):
    """What the proxy refused: `text` is its own; `content` is version by name, "" for a removal.

    `texts` has what it said of each secret, by name; `retry_at` is infinite where nothing is tried again.
    """

    text: str
    at: float
    retry_at: float
    attempts: int
    content: Mapping[str, str]
    texts: Mapping[str, str] = field(default_factory=dict)


class TypeState(Struct, frozen=True):
    """What is known of one type on one stream.

    `has` is version by name of what the proxy holds for certain; `perhaps` are names that were in a rejected
    response and that it may hold. `asked` are names to answer whatever it holds; `owed` is that the first
    request is still to be answered, with nothing if need be. `pending` is the unanswered response. `compared` are the
    Snapshot's resources that it was last compared with, and only names in `behind` may not be as these say; without
    `compared` any may be.
    """

    wildcard: bool = False
    names: frozenset[str] = frozenset()
    has: Mapping[str, str] = field(default_factory=dict)
    perhaps: frozenset[str] = frozenset()
    asked: frozenset[str] = frozenset()
    owed: bool = False
    pending: Push | None = None
    rejection: Rejection | None = None
    sent_at: float | None = None
    answered_at: float | None = None
    compared: Mapping[str, Resource] | None = None
    behind: frozenset[str] = frozenset()

    def wants(self, name: str) -> bool:
        """Whether the proxy is subscribed to the name."""
        return self.wildcard or name in self.names

    def has_all(self, there: Mapping[str, Resource]) -> bool:
        """Whether it was found before that these are what the proxy has, and nothing came since."""
        return self.compared is there and not (self.behind or self.asked or self.owed)


class StreamState(Struct, frozen=True):
    """One stream: its types in the order in which they are sent, and until when the proxy is telling what it has."""

    types: Mapping[str, TypeState] = field(default_factory=dict)
    prefix: str = ""
    sent: int = 0
    grace_until: float = 0.0


def _place(entry: tuple[str, TypeState]) -> tuple[int, str]:
    """Where a type comes among all: those of `ORDER` first, then by name."""
    type_url = entry[0]
    return (ORDER.index(type_url), "") if type_url in ORDER else (len(ORDER), type_url)


def in_step(known: TypeState, resources: Mapping[str, Resource]) -> bool:
    """Whether the proxy has, and has confirmed, exactly what it wants of a type's resources."""
    if known.pending or known.owed or known.asked or known.rejection or known.perhaps:
        return False
    wanted = {name: one.version for name, one in resources.items() if known.wants(name)}
    return wanted == known.has


def with_type(state: StreamState, type_url: str, known: TypeState, *, sent: int = 0) -> StreamState:
    """The stream with this known of a type, and so many responses more."""
    types = {**state.types, type_url: known}
    if type_url not in state.types:
        types = dict(sorted(types.items(), key=_place))
    return StreamState(MappingProxyType(types), state.prefix, state.sent + sent, state.grace_until)
