"""Laws of the stream, for any order of changes, answers, rejections and reconnects."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from msgspec.structs import replace

from policyd.envoy_api import CLUSTER, ENDPOINT, LISTENER, ROUTE
from policyd.xds import stream
from policyd.xds.snapshot import Resource, Snapshot, check_snapshot, make_snapshot
from policyd.xds.state import in_step
from tests.xds.dialogue import cluster, endpoints, listener, route
from tests.xds.envoy_model import EnvoyModel

ORDERS = st.permutations((CLUSTER, ENDPOINT, LISTENER, ROUTE))
VERSIONS = st.sampled_from("12")
CLUSTERS = st.dictionaries(st.sampled_from("abc"), st.tuples(VERSIONS, VERSIONS, st.booleans()), max_size=3)


@st.composite
def snapshots(draw: st.DrawFn) -> Snapshot:
    """A small, consistent Snapshot: versions also depend on references, as hashes of content do."""
    made: list[Resource] = []
    clusters = draw(CLUSTERS)
    for name, (version, of_endpoints, eds) in clusters.items():
        made.append(cluster(name, f"{version}{'e' if eds else ''}", eds=eds))
        made += [endpoints(name, of_endpoints)] if eds else []
    some_clusters = st.frozensets(st.sampled_from(sorted(clusters))) if clusters else st.just(frozenset())
    routes = draw(st.dictionaries(st.sampled_from("rs"), st.tuples(VERSIONS, some_clusters), max_size=2))
    for name, (version, to) in routes.items():
        made.append(route(name, version + "".join(sorted(to)), to=tuple(to)))
    for name in draw(st.frozensets(st.sampled_from("lm"))):
        version, to = draw(VERSIONS), draw(some_clusters)
        by = draw(st.sampled_from(sorted(routes))) if routes else ""
        made.append(listener(name, f"{version}{by}{''.join(sorted(to))}", routes=by, to=tuple(to)))
    many = draw(st.integers(0, len(made)))
    return check_snapshot(make_snapshot(made[many:], make_snapshot(made[:many])))


def _without_notes(state: stream.StreamState) -> stream.StreamState:
    """The state but for what it notes only to spare itself work."""
    types = {url: replace(known, compared=None, behind=frozenset()) for url, known in state.types.items()}
    return replace(state, types=types)


class Conversation(RuleBasedStateMachine):
    """A stream and an Envoy, whose messages are delivered one by one in any interleaving."""

    def __init__(self) -> None:
        super().__init__()
        self.envoy = EnvoyModel()
        self.now = 0.0
        self.nonces: set[str] = set()

    @initialize(first=snapshots(), order=ORDERS)
    def begin(self, first: Snapshot, order: list[str]) -> None:
        self.snapshot = first
        self.the_stream_breaks(order)

    @rule(order=ORDERS)
    def the_stream_breaks(self, order: list[str]) -> None:
        self.state = stream.start()
        self.nonces = set()
        self.envoy.connect(order)

    def deliver(self, pushes: tuple[stream.Push, ...]) -> None:
        for push in pushes:
            assert push.nonce not in self.nonces
            self.nonces.add(push.nonce)
            self.envoy.take(push)

    def to_server(self) -> None:
        request = self.envoy.outbox.pop(0)
        self.state, pushes = stream.receive(self.state, request, self.snapshot, self.now)
        self.deliver(pushes)

    def tick(self) -> None:
        self.state, pushes = stream.update(self.state, self.snapshot, self.now)
        self.deliver(pushes)

    @rule(newer=snapshots())
    def change(self, newer: Snapshot) -> None:
        self.snapshot = newer
        self.tick()

    @precondition(lambda self: self.envoy.outbox)
    @rule()
    def a_request_arrives(self) -> None:
        self.to_server()

    @precondition(lambda self: self.envoy.inbox)
    @rule()
    def a_response_arrives(self) -> None:
        self.envoy.read()

    @precondition(lambda self: all(one.type_url in self.state.types for one in self.envoy.outbox))
    @rule(seconds=st.sampled_from((0.5, 6.0)))
    def time_passes_once_it_has_told_what_it_has(self, seconds: float) -> None:
        self.now += seconds
        self.tick()

    @rule(
        type_url=st.sampled_from((CLUSTER, ENDPOINT, LISTENER, ROUTE)),
        name=st.sampled_from("abrlm"),
        version=st.sampled_from(("1", "1e", "2", "2e", "1a", "2r")),
    )
    def envoy_begins_to_hate(self, type_url: str, name: str, version: str) -> None:
        self.envoy.hates.add((type_url, name, version))

    @rule()
    def the_end_is_what_was_asked_for(self) -> None:
        """Once nothing is rejected and nothing changes, Envoy holds exactly the newest of what it wants."""
        self.envoy.hates.clear()
        for _ in range(200):
            while self.envoy.outbox or self.envoy.inbox:
                if self.envoy.inbox:
                    self.envoy.read()
                else:
                    self.to_server()
                self.no_route_leads_nowhere()
            due = stream.due(self.state, self.now)
            if due is None:
                break
            self.now = due
            self.tick()
        assert not self.envoy.unanswered
        assert not self.envoy.cold
        for type_url in (CLUSTER, LISTENER):
            assert self.envoy.versions(type_url) == self.wanted(type_url, None)
        for type_url in (ENDPOINT, ROUTE):
            assert self.envoy.versions(type_url) == self.wanted(type_url, self.envoy.names.get(type_url, set()))
        assert all(in_step(known, self.snapshot.of(type_url)) for type_url, known in self.state.types.items())
        self.state, pushes = stream.update(self.state, self.snapshot, self.now + 1000)
        assert pushes == ()

    def wanted(self, type_url: str, names: set[str] | None) -> dict[str, str]:
        there = self.snapshot.of(type_url)
        return {name: one.version for name, one in there.items() if names is None or name in names}

    @invariant()
    def only_what_is_behind_is_looked_at_and_nothing_is_missed(self) -> None:
        """To compare everything anew leads to the same as to compare what may have changed."""
        forgetful = {type_url: replace(known, compared=None) for type_url, known in self.state.types.items()}
        for now in (self.now, self.now + 1000):
            after, pushes = stream.update(self.state, self.snapshot, now)
            anew, pushed = stream.update(replace(self.state, types=forgetful), self.snapshot, now)
            assert (_without_notes(after), pushes) == (_without_notes(anew), pushed)

    @invariant()
    def no_route_leads_nowhere(self) -> None:
        """But to a cluster that this Envoy itself rejected."""
        clusters = self.envoy.held.get(CLUSTER, {}).keys() | self.envoy.refused_ever
        for type_url in (LISTENER, ROUTE):
            for one in self.envoy.held.get(type_url, {}).values():
                missing = {needs.name for needs in one.references if needs.type_url == CLUSTER} - clusters
                assert not missing, f"{one.name} leads to {missing}"


TestConversation = Conversation.TestCase
TestConversation.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
