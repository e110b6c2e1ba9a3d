"""Laws of the state-of-the-world variant, for any order of changes, answers, rejections and reconnects."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from policyd.envoy_api import CLUSTER, ENDPOINT, LISTENER, ROUTE
from policyd.xds import sotw, stream
from policyd.xds.snapshot import Resource, Snapshot
from policyd.xds.sotw import Whole, Wish
from tests.xds.test_stream_laws import snapshots

FOLLOWED = ((ROUTE, (LISTENER,)), (CLUSTER, (LISTENER, ROUTE)), (ENDPOINT, (CLUSTER,)))
NAMES = st.frozensets(st.sampled_from("lm"))


class Client:
    """A gRPC client as the protocol defines it: it names listeners, and asks for what these lead to."""

    def __init__(self) -> None:
        self.hates: set[tuple[str, str, str]] = set()
        self.held: dict[str, dict[str, Resource]] = {}
        self.names: dict[str, frozenset[str]] = {}
        self.connect()

    def connect(self) -> None:
        """Open a stream, and ask for everything that is wanted."""
        self.inbox: list[Whole] = []
        self.outbox: list[Wish] = []
        self.nonces: dict[str, str] = {}
        for type_url, names in self.names.items():
            if names:
                self._ask(type_url)

    def want(self, listeners: frozenset[str]) -> None:
        """Name other listeners."""
        self._name(LISTENER, listeners)
        self._follow()

    def take(self, whole: Whole) -> None:
        """Have a response on its way."""
        assert whole.type_url not in {other.type_url for other in self.inbox}, "two unanswered responses of a type"
        self.inbox.append(whole)

    def read(self) -> None:
        """Apply what is good in the next response, and answer it."""
        whole = self.inbox.pop(0)
        held = self.held.setdefault(whole.type_url, {})
        bad = [one.name for one in whole.resources if (one.type_url, one.name, one.version) in self.hates]
        if whole.type_url in (LISTENER, CLUSTER):
            for name in held.keys() - {one.name for one in whole.resources}:
                del held[name]
        wanted = self.names.get(whole.type_url, frozenset())
        held.update((one.name, one) for one in whole.resources if one.name in wanted and one.name not in bad)
        self.nonces[whole.type_url] = whole.nonce
        self._ask(whole.type_url, "; ".join(bad) or None)
        self._follow()

    def _follow(self) -> None:
        for type_url, by in FOLLOWED:
            holding = (one for other in by for one in self.held.get(other, {}).values())
            self._name(
                type_url,
                frozenset(needs.name for one in holding for needs in one.references if needs.type_url == type_url),
            )

    def _name(self, type_url: str, names: frozenset[str]) -> None:
        if names != self.names.get(type_url, frozenset()):
            self.names[type_url] = names
            held = self.held.get(type_url, {})
            self.held[type_url] = {name: one for name, one in held.items() if name in names}
            self._ask(type_url)

    def _ask(self, type_url: str, error: str | None = None) -> None:
        names = tuple(sorted(self.names[type_url]))
        self.outbox.append(Wish(type_url, names, self.nonces.get(type_url, ""), error))


class Conversation(RuleBasedStateMachine):
    """A stream and a client, whose messages are delivered one by one in any interleaving."""

    def __init__(self) -> None:
        super().__init__()
        self.client = Client()
        self.now = 0.0

    @initialize(first=snapshots(), names=NAMES)
    def begin(self, first: Snapshot, names: frozenset[str]) -> None:
        self.snapshot = first
        self.the_stream_breaks()
        self.client.want(names)

    @rule()
    def the_stream_breaks(self) -> None:
        self.state, self.so_far = stream.start(), sotw.START
        self.client.connect()

    @rule(names=NAMES)
    def other_listeners_are_named(self, names: frozenset[str]) -> None:
        self.client.want(names)

    @rule(newer=snapshots(), seconds=st.sampled_from((0.0, 0.5, 6.0)))
    def change(self, newer: Snapshot, seconds: float) -> None:
        self.snapshot = newer
        self.now += seconds
        self.tick()

    @precondition(lambda self: self.client.outbox)
    @rule()
    def a_request_arrives(self) -> None:
        self.so_far, request = sotw.heard(self.so_far, self.client.outbox.pop(0))
        if request is not None:
            self.state, pushes = stream.receive(self.state, request, self.snapshot, self.now)
            self.deliver(pushes)

    @precondition(lambda self: self.client.inbox)
    @rule()
    def a_response_arrives(self) -> None:
        self.client.read()

    @rule(
        type_url=st.sampled_from((CLUSTER, ENDPOINT, LISTENER, ROUTE)),
        name=st.sampled_from("abrlm"),
        version=st.sampled_from(("1", "1e", "2", "2e", "1a", "2r")),
    )
    def the_client_begins_to_hate(self, type_url: str, name: str, version: str) -> None:
        self.client.hates.add((type_url, name, version))

    @rule()
    def the_end_is_what_was_asked_for(self) -> None:
        """Once nothing is rejected and nothing changes, the client holds the newest of all that it is led to."""
        self.client.hates.clear()
        for _ in range(200):
            while self.client.outbox or self.client.inbox:
                if self.client.inbox:
                    self.client.read()
                else:
                    self.a_request_arrives()
            due = stream.due(self.state, self.now)
            if due is None:
                break
            self.now = due
            self.tick()
        led = {LISTENER: self.client.names.get(LISTENER, frozenset()) & self.snapshot.of(LISTENER).keys()}
        for type_url, by in FOLLOWED:
            holding = [self.snapshot.of(other)[name] for other in by for name in led[other]]
            led[type_url] = frozenset(
                needs.name for one in holding for needs in one.references if needs.type_url == type_url
            )
        for type_url, names in led.items():
            there = self.snapshot.of(type_url)
            held = {name: one.version for name, one in self.client.held.get(type_url, {}).items()}
            assert held == {name: there[name].version for name in names}
        assert stream.update(self.state, self.snapshot, self.now + 1000)[1] == ()

    def tick(self) -> None:
        self.state, pushes = stream.update(self.state, self.snapshot, self.now)
        self.deliver(pushes)

    def deliver(self, pushes: tuple[stream.Push, ...]) -> None:
        for push in pushes:
            self.so_far, whole = sotw.completed(self.so_far, push)
            self.client.take(whole)


TestConversation = Conversation.TestCase
TestConversation.settings = settings(max_examples=25, stateful_step_count=30, deadline=None)
