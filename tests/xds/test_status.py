"""What `policyd proxy status` shows of a stream."""

from __future__ import annotations

import pytest

from policyd.envoy_api import CLUSTER, LISTENER
from policyd.xds.status import MAX_REJECTION, ProxyStatus, TypeStatus, taken, together, troubles, type_statuses, waiting
from policyd.xds.stream import StreamState
from tests.xds.dialogue import Dialogue, cluster, listener, snapshot

EPOCH = 1_000_000.0


def lines(proxy: Dialogue) -> tuple[TypeStatus, ...]:
    return type_statuses(proxy.state, proxy.snapshot, EPOCH)


def test_a_proxy_that_asked_for_nothing_has_nothing() -> None:
    kinds = ("clusters", "endpoints", "listeners", "routes")
    assert type_statuses(StreamState(), snapshot()) == tuple(TypeStatus(kind, "none") for kind in kinds)


def test_each_type_is_told_apart() -> None:
    proxy = Dialogue(snapshot(cluster("a", eds=False), cluster("b", eds=False), listener("l")))
    proxy.ask(CLUSTER)
    proxy.now += 1
    proxy.ack(CLUSTER)
    proxy.now += 1
    proxy.ask(LISTENER)
    assert lines(proxy) == (
        TypeStatus("clusters", "synced", changed_at=EPOCH + 101, resources=2),
        TypeStatus("endpoints", "none"),
        TypeStatus("listeners", "sent", changed_at=EPOCH + 102),
        TypeStatus("routes", "none"),
    )


def test_a_rejection_is_shown_until_it_is_mended() -> None:
    proxy = Dialogue(snapshot(cluster("a", eds=False)))
    proxy.ask(CLUSTER)
    proxy.nack(CLUSTER, "bad\x1b[2J\nthing")
    assert lines(proxy)[0] == TypeStatus("clusters", "rejected", "bad [2J thing", EPOCH + 100)
    proxy.change(cluster("a", "2", eds=False))
    assert lines(proxy)[0].state == "rejected"
    proxy.ack(CLUSTER)
    assert lines(proxy)[0] == TypeStatus("clusters", "synced", "", EPOCH + 100, 1)


def test_long_words_are_cut() -> None:
    proxy = Dialogue(snapshot(cluster("a")))
    proxy.ask(CLUSTER)
    proxy.nack(CLUSTER, "x" * 1500)
    assert lines(proxy)[0].rejection == "x" * (MAX_REJECTION - 1) + "…"


def test_a_proxy_without_a_snapshot_is_sent_nothing() -> None:
    proxy = Dialogue(None)
    proxy.ask(CLUSTER)
    assert lines(proxy)[0] == TypeStatus("clusters", "none")


def test_a_port_that_is_taken_is_said_by_its_number_and_any_other_rejection_in_envoys_own_words() -> None:
    both = (
        "Error adding/updating listener(s) a: cannot bind '127.0.0.1:8080': Address already in use, "
        "b: cannot bind '[::1]:8081': Address already in use"
    )
    a, b = (
        ProxyStatus(name, types=(TypeStatus("listeners", "rejected", text),))
        for name, text in (("a", both), ("b", "no such filter"))
    )

    assert taken(both) == ("127.0.0.1:8080", "[::1]:8081")
    assert taken("cannot bind '127.0.0.1:80': Permission denied") == ()
    assert list(troubles([a, ProxyStatus("well", types=(TypeStatus("listeners", "synced"),)), b])) == [
        "`a` cannot open 127.0.0.1:8080 and [::1]:8081, which another program has open; "
        "end that one, and it is opened within a minute",
        "the proxy of `b` rejected listeners and goes on with what it had: no such filter",
    ]


BOUND = "Error adding/updating listener(s) edge/gateway/80: cannot bind '127.0.0.1:80': Address already in use"


@pytest.mark.parametrize(
    ("types", "why"),
    [
        ({"clusters": "synced", "listeners": "synced", "routes": "synced"}, ""),
        ({"listeners": "synced", "endpoints": "sent"}, ""),
        ({"listeners": "sent"}, "the proxy of `edge` has not confirmed listeners yet"),
        ({"listeners": "none"}, "the proxy of `edge` has not confirmed listeners yet"),
        ({"listeners": "synced", "routes": "sent"}, "the proxy of `edge` has not confirmed routes yet"),
        ({"listeners": BOUND}, f"the proxy of `edge` rejected listeners and goes on with what it had: {BOUND}"),
        ({"listeners": BOUND.replace("/80", "/8080")}, ""),
        ({"listeners": BOUND.replace("edge/", "redge/")},
         f"the proxy of `edge` rejected listeners and goes on with what it had: {BOUND.replace('edge/', 'redge/')}"),
        ({"clusters": "no such thing", "listeners": "synced"},
         "the proxy of `edge` rejected clusters and goes on with what it had: no such thing"),
    ],
)  # fmt: skip
def test_a_listener_waits_until_its_proxy_has_confirmed_it(types: dict[str, str], why: str) -> None:
    told = tuple(
        TypeStatus(name, said) if said in ("synced", "sent", "none") else TypeStatus(name, "rejected", said)  # type: ignore[arg-type]
        for name, said in types.items()
    )

    assert waiting({"edge": ProxyStatus("edge", connected=True, types=told)}, "edge/gateway/80") == why


def test_a_listener_of_a_proxy_that_is_away_waits() -> None:
    for proxies in ({}, {"edge": ProxyStatus("edge")}):
        assert waiting(proxies, "edge/gateway/80") == "the proxy of `edge` is not connected"


def test_of_several_streams_the_worst_of_each_type_is_shown() -> None:
    fine = TypeStatus("clusters", "synced", "", 1.0, 2)
    bad = TypeStatus("clusters", "rejected", "bad", 0.5, 1)
    quiet = TypeStatus("routes", "none")
    assert together([[fine, quiet]]) == (fine, quiet)
    assert together([[fine, quiet], [bad, TypeStatus("routes", "sent", "", 2.0)]]) == (
        TypeStatus("clusters", "rejected", "bad", 1.0, 3),
        TypeStatus("routes", "sent", "", 2.0),
    )
