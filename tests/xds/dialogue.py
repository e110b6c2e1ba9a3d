"""A proxy's side of one stream, spoken by a test, and short spellings of resources."""

from __future__ import annotations

from dataclasses import dataclass, field

from policyd.envoy_api import CLUSTER, ENDPOINT, LISTENER, ROUTE, SECRET, Reference
from policyd.xds import stream
from policyd.xds.snapshot import Resource, Snapshot, kind, make_snapshot
from policyd.xds.stream import Push, Request


def cluster(name: str, version: str = "1", *, eds: bool = True) -> Resource:
    """A cluster, whose endpoints come by EDS unless said otherwise."""
    needs = frozenset({Reference(ENDPOINT, name)}) if eds else frozenset()
    return Resource(name, version, CLUSTER, b"", needs)


def endpoints(name: str, version: str = "1") -> Resource:
    """The endpoints of a cluster."""
    return Resource(name, version, ENDPOINT, b"")


def listener(name: str, version: str = "1", *, routes: str = "", to: tuple[str, ...] = ()) -> Resource:
    """A listener that needs routes, or clusters."""
    needs = {Reference(ROUTE, routes)} if routes else set()
    return Resource(name, version, LISTENER, b"", frozenset(needs | {Reference(CLUSTER, one) for one in to}))


def route(name: str, version: str = "1", *, to: tuple[str, ...] = ()) -> Resource:
    """A route configuration to clusters."""
    return Resource(name, version, ROUTE, b"", frozenset(Reference(CLUSTER, one) for one in to))


def secret(name: str, version: str = "1") -> Resource:
    """A certificate and its key, or authorities."""
    return Resource(name, version, SECRET, b"")


def snapshot(*resources: Resource) -> Snapshot:
    """A Snapshot of just these."""
    return make_snapshot(resources)


def shown(pushes: tuple[Push, ...]) -> list[str]:
    """Each push as a line, such as `clusters a=1 b=2 -c`."""
    return [
        " ".join(
            (
                kind(push.type_url),
                *(f"{one.name}={one.version}" for one in push.resources),
                *(f"-{name}" for name in push.removed),
            )
        )
        for push in pushes
    ]


@dataclass
class Dialogue:
    """Speaks to a stream; each method returns what came back as lines."""

    snapshot: Snapshot | None
    state: stream.StreamState = field(default_factory=stream.start)
    now: float = 100.0
    pushes: list[Push] = field(default_factory=list)

    def ask(
        self,
        type_url: str,
        *subscribe: str,
        without: tuple[str, ...] = (),
        has: dict[str, str] | None = None,
        nonce: str = "",
    ) -> list[str]:
        """A request that answers nothing."""
        return self._say(Request(type_url, subscribe, without, has or {}, nonce))

    def ack(self, type_url: str) -> list[str]:
        """Accept the newest response of the type."""
        return self._say(Request(type_url, nonce=self._nonce(type_url)))

    def nack(self, type_url: str, text: str = "no") -> list[str]:
        """Reject the newest response of the type."""
        return self._say(Request(type_url, nonce=self._nonce(type_url), error=text))

    def change(self, *resources: Resource) -> list[str]:
        """Put another Snapshot in force."""
        self.snapshot = snapshot(*resources)
        return self.wait(0)

    def wait(self, seconds: float) -> list[str]:
        """Let time pass."""
        self.now += seconds
        assert self.snapshot is not None
        self.state, pushes = stream.update(self.state, self.snapshot, self.now)
        return self._heard(pushes)

    def start(self, *types: str) -> None:
        """Subscribe to all of the types and accept what comes."""
        for type_url in types:
            self.ask(type_url, *(() if type_url in (CLUSTER, LISTENER) else ("*",)))
            self.settle()
        self.pushes.clear()

    def settle(self) -> list[str]:
        """Accept whatever is unanswered until nothing more comes; returns all that came meanwhile."""
        heard: list[str] = []
        while waiting := [type_url for type_url, known in self.state.types.items() if known.pending]:
            heard += self.ack(waiting[0])
        return heard

    def _nonce(self, type_url: str) -> str:
        return next(push.nonce for push in reversed(self.pushes) if push.type_url == type_url)

    def _say(self, request: Request) -> list[str]:
        self.state, pushes = stream.receive(self.state, request, self.snapshot, self.now)
        return self._heard(pushes)

    def _heard(self, pushes: tuple[Push, ...]) -> list[str]:
        self.pushes += pushes
        return shown(pushes)
