"""An Envoy as its protocol defines it: what it holds, what it asks for, what it withholds. For tests of the stream."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from policyd.envoy_api import CLUSTER, ENDPOINT, LISTENER, ROUTE
from policyd.xds.snapshot import Resource
from policyd.xds.stream import Push, Request


@dataclass
class EnvoyModel:
    """Applies each good resource of a response at once, accepts clusters when they are warm, follows references.

    `hates` are (type, name, version) that it rejects.
    """

    hates: set[tuple[str, str, str]] = field(default_factory=set)
    held: dict[str, dict[str, Resource]] = field(default_factory=dict)
    cold: set[str] = field(default_factory=set)  # clusters that wait for endpoints
    names: dict[str, set[str]] = field(default_factory=dict)  # subscribed, of endpoints and routes
    unanswered: dict[str, Push] = field(default_factory=dict)
    refused_ever: set[str] = field(default_factory=set)  # clusters of which some content was rejected
    inbox: list[Push] = field(default_factory=list)
    outbox: list[Request] = field(default_factory=list)

    def connect(self, order: Sequence[str]) -> None:
        """Open a stream, and ask for the types in some order: two were measured of Envoy 1.40."""
        self.inbox, self.outbox, self.unanswered, self.cold = [], [], {}, set()
        for type_url in order:
            names = tuple(sorted(self.names.get(type_url, ())))
            if type_url in (CLUSTER, LISTENER) or names:
                self.outbox.append(Request(type_url, names, initial_versions=self.versions(type_url)))

    def versions(self, type_url: str) -> dict[str, str]:
        """Version by name of what it holds."""
        return {name: one.version for name, one in self.held.get(type_url, {}).items()}

    def take(self, push: Push) -> None:
        """Have a response on its way."""
        assert push.type_url not in {other.type_url for other in self.inbox}, "two unanswered responses of a type"
        assert push.type_url not in self.unanswered, "two unanswered responses of a type"
        names = [one.name for one in push.resources] + list(push.removed)
        assert len(names) == len(set(names)), "a name twice in one response"
        self.inbox.append(push)

    def read(self) -> None:
        """Apply the next response, and answer it unless clusters of it are cold."""
        push = self.inbox.pop(0)
        held = self.held.setdefault(push.type_url, {})
        for name in push.removed:
            held.pop(name, None)
            if push.type_url in (CLUSTER, ENDPOINT):
                self.cold.discard(name)  # endpoints that are nowhere end the wait too, after Envoy's own timer
        bad = [one for one in push.resources if (push.type_url, one.name, one.version) in self.hates]
        for one in push.resources:
            if one not in bad and self._wants(one):
                held[one.name] = one
                self._warm(one)
        if push.type_url == CLUSTER:
            self.refused_ever |= {one.name for one in bad}
        self.unanswered[push.type_url] = push
        self._follow()
        self._answer(push.type_url, "; ".join(one.name for one in bad) or None)

    def _wants(self, one: Resource) -> bool:
        return one.type_url in (CLUSTER, LISTENER) or one.name in self.names.get(one.type_url, ())

    def _warm(self, one: Resource) -> None:
        if one.type_url == CLUSTER and any(needs.type_url == ENDPOINT for needs in one.references):
            self.cold.add(one.name)
        if one.type_url == ENDPOINT:
            self.cold.discard(one.name)

    def _follow(self) -> None:
        """Subscribe to what is referred to now, and to nothing else."""
        for by, type_url in ((CLUSTER, ENDPOINT), (LISTENER, ROUTE)):
            needed = {
                needs.name
                for one in self.held.get(by, {}).values()
                for needs in one.references
                if needs.type_url == type_url
            }
            before = self.names.get(type_url, set())
            if needed == before:
                continue
            self.names[type_url] = needed
            held = self.held.setdefault(type_url, {})
            for name in before - needed:
                held.pop(name, None)
            self.outbox.append(Request(type_url, tuple(sorted(needed - before)), tuple(sorted(before - needed))))

    def _answer(self, type_url: str, error: str | None) -> None:
        push = self.unanswered[type_url]
        if type_url == CLUSTER and self.cold and error is None:
            return  # Envoy accepts clusters only when they are warm
        del self.unanswered[type_url]
        self.outbox.append(Request(type_url, nonce=push.nonce, error=error))
        if type_url == ENDPOINT and CLUSTER in self.unanswered and not self.cold:
            self._answer(CLUSTER, None)
