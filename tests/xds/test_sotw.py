"""The state-of-the-world variant: what its requests say to the stream, and what its answers hold."""

from __future__ import annotations

import pytest

from policyd.envoy_api import CLUSTER, ENDPOINT, LISTENER, ROUTE
from policyd.xds import sotw, stream
from policyd.xds.snapshot import Resource, kind
from policyd.xds.sotw import Conversation, Told, Wish
from policyd.xds.stream import Push, Request
from tests.xds.dialogue import cluster, endpoints, listener, route, snapshot

SMALL = (listener("l", routes="r"), route("r", to=("a",)), cluster("a"), endpoints("a"))
A_AND_B = (cluster("a", eds=False), cluster("b", eds=False))
NAMED: Conversation = {CLUSTER: Told(frozenset("a"), named=True, nonce="7")}


class Client:
    """Speaks by hand; each method returns what came back as lines, a whole response each."""

    def __init__(self, *resources: Resource) -> None:
        self.snapshot = snapshot(*resources)
        self.state, self.so_far, self.now = stream.start(), sotw.START, 100.0
        self.nonces: dict[str, str] = {}
        self.names: dict[str, tuple[str, ...]] = {}

    def ask(self, type_url: str, *names: str, nonce: str | None = None, error: str | None = None) -> list[str]:
        self.names[type_url] = names
        wish = Wish(type_url, names, self.nonces.get(type_url, "") if nonce is None else nonce, error)
        self.so_far, request = sotw.heard(self.so_far, wish)
        if request is None:
            return []
        self.state, pushes = stream.receive(self.state, request, self.snapshot, self.now)
        return self._heard(pushes)

    def ack(self, type_url: str) -> list[str]:
        return self.ask(type_url, *self.names[type_url])

    def nack(self, type_url: str) -> list[str]:
        return self.ask(type_url, *self.names[type_url], error="no")

    def change(self, *resources: Resource, after: float = 0.0) -> list[str]:
        self.snapshot, self.now = snapshot(*resources), self.now + after
        self.state, pushes = stream.update(self.state, self.snapshot, self.now)
        return self._heard(pushes)

    def _heard(self, pushes: tuple[Push, ...]) -> list[str]:
        lines = []
        for push in pushes:
            self.so_far, whole = sotw.completed(self.so_far, push)
            self.nonces[whole.type_url] = whole.nonce
            held = (f"{one.name}={one.version}" for one in whole.resources)
            lines.append(" ".join((kind(whole.type_url), *held)))
        return lines


@pytest.mark.parametrize(
    ("so_far", "wish", "expected"),
    [
        pytest.param({}, Wish(CLUSTER), Request(CLUSTER, ("*",)), id="no name at first means all clusters"),
        pytest.param({}, Wish(LISTENER), Request(LISTENER, ("*",)), id="and all listeners"),
        pytest.param({}, Wish(ROUTE), None, id="but no route"),
        pytest.param({}, Wish(ENDPOINT), None, id="and no endpoints"),
        pytest.param({}, Wish(CLUSTER, ("b", "a", "a")), Request(CLUSTER, ("a", "b")), id="names mean just these"),
        pytest.param({}, Wish(ROUTE, ("r",), "9"), Request(ROUTE, ("r",)), id="a nonce of a stream that broke"),
        pytest.param(
            NAMED, Wish(CLUSTER, ("b",), "7"), Request(CLUSTER, ("b",), ("a",), nonce="7"), id="names replace names"
        ),
        pytest.param(NAMED, Wish(CLUSTER, (), "7"), Request(CLUSTER, (), ("a",), nonce="7"), id="no longer any"),
        pytest.param(NAMED, Wish(CLUSTER, ("a",), "7"), Request(CLUSTER, nonce="7"), id="accepted"),
        pytest.param(NAMED, Wish(CLUSTER, ("a",), "7", "x"), Request(CLUSTER, nonce="7", error="x"), id="rejected"),
        pytest.param(NAMED, Wish(CLUSTER, ("b",), "6"), None, id="stale: it answers a response of before"),
        pytest.param(NAMED, Wish(CLUSTER, ("b",)), None, id="stale: it was sent before our first response came"),
        pytest.param(
            {CLUSTER: Told(frozenset("*"), named=False, nonce="7")},
            Wish(CLUSTER, ("a",), "7"),
            Request(CLUSTER, ("a",), ("*",), nonce="7"),
            id="who wanted everything wants one",
        ),
        pytest.param(
            {CLUSTER: Told(frozenset("*"), named=False, nonce="7")},
            Wish(CLUSTER, (), "7"),
            Request(CLUSTER, nonce="7"),
            id="who wants everything still does",
        ),
    ],
)
def test_a_request_says_what_is_different(so_far: Conversation, wish: Wish, expected: Request | None) -> None:
    assert sotw.heard(so_far, wish)[1] == expected


def test_a_client_that_names_its_listener_is_led_from_there_and_waits_for_nothing() -> None:
    client = Client(*SMALL, cluster("other"), listener("other"))
    assert client.ask(LISTENER, "l") == ["listeners l=1"]
    assert client.ack(LISTENER) == []
    assert client.ask(ROUTE, "r") == ["routes r=1"]
    assert client.ask(CLUSTER, "a") == ["clusters a=1"]
    assert client.ask(ENDPOINT, "a") == ["endpoints a=1"]


def test_a_response_holds_what_was_accepted_and_what_is_new() -> None:
    client = Client(*A_AND_B)
    assert client.ask(CLUSTER, "a", "b") == ["clusters a=1 b=1"]
    assert client.ack(CLUSTER) == []
    assert client.change(cluster("a", "2", eds=False), A_AND_B[1]) == ["clusters a=2 b=1"]
    assert client.ack(CLUSTER) == []
    # what is not there is gone, once the client has had time to name listeners
    assert client.change(A_AND_B[1], after=stream.GRACE) == ["clusters b=1"]


def test_a_name_that_is_nowhere_is_answered_and_sent_when_it_appears() -> None:
    client = Client(*A_AND_B)
    assert client.ask(CLUSTER, "a", "z") == ["clusters a=1"]
    assert client.ack(CLUSTER) == []
    assert client.change(*A_AND_B, cluster("z", eds=False)) == ["clusters a=1 z=1"]


def test_a_name_given_up_is_said_no_more_and_a_new_one_is_beside_the_old() -> None:
    client = Client(*A_AND_B, cluster("c", eds=False))
    client.ask(CLUSTER, "a", "b")
    client.ack(CLUSTER)
    assert client.ask(CLUSTER, "b", "c") == ["clusters b=1 c=1"]
    client.ack(CLUSTER)
    assert client.change(cluster("a", "2", eds=False), *A_AND_B[1:], cluster("c", eds=False)) == []


def test_what_was_rejected_is_said_as_before_until_it_is_tried_again() -> None:
    client = Client(*A_AND_B)
    client.ask(CLUSTER, "a", "b")
    client.ack(CLUSTER)
    bad = cluster("a", "bad", eds=False)
    assert client.change(bad, A_AND_B[1]) == ["clusters a=bad b=1"]
    assert client.nack(CLUSTER) == []
    assert client.change(bad, cluster("b", "2", eds=False)) == ["clusters a=1 b=2"]
    assert client.ack(CLUSTER) == []
    assert client.change(bad, cluster("b", "2", eds=False), after=stream.FIRST_BACKOFF) == ["clusters a=bad b=2"]


def test_endpoints_and_routes_bring_only_what_is_new() -> None:
    client = Client(endpoints("a"), endpoints("b"))
    assert client.ask(ENDPOINT, "a", "b") == ["endpoints a=1 b=1"]
    client.ack(ENDPOINT)
    assert client.change(endpoints("a"), endpoints("b", "2")) == ["endpoints b=2"]


def test_a_listener_that_waits_for_its_cluster_is_said_as_it_was() -> None:
    client = Client(listener("l", to=("a",)), listener("m"), cluster("a", eds=False))
    client.ask(CLUSTER)
    client.ack(CLUSTER)
    assert client.ask(LISTENER) == ["listeners l=1 m=1"]
    client.ack(LISTENER)
    client.now += stream.GRACE
    newer = (listener("l", "2", to=("n",)), listener("m", "2"), cluster("n", eds=False))
    assert client.change(*newer) == ["clusters a=1 n=1", "listeners l=1 m=2"]
    client.ack(LISTENER)
    assert client.ack(CLUSTER) == ["listeners l=2 m=2"]
    assert client.ack(LISTENER) == ["clusters n=1"]
