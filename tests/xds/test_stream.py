"""The rules of the delta protocol, one by one, and the traps that Envoy was measured to have."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from policyd.envoy_api import CLUSTER, ENDPOINT, LISTENER, ROUTE, SECRET
from policyd.errors import StreamError
from policyd.xds import stream
from policyd.xds.stream import Request
from tests.xds.dialogue import Dialogue, cluster, endpoints, listener, route, secret, snapshot

A_AND_B = (cluster("a", eds=False), cluster("b", eds=False))
SMALL = (cluster("a"), endpoints("a"), listener("l", routes="r"), route("r", to=("a",)))


def talk(*resources: object) -> Dialogue:
    return Dialogue(snapshot(*resources))  # type: ignore[arg-type]


class TestSubscribing:
    def test_a_first_request_without_names_means_everything(self) -> None:
        assert talk(*A_AND_B).ask(CLUSTER) == ["clusters a=1 b=1"]

    def test_a_star_means_everything(self) -> None:
        assert talk(*A_AND_B).ask(CLUSTER, "*") == ["clusters a=1 b=1"]

    def test_names_mean_just_these(self) -> None:
        assert talk(*A_AND_B).ask(CLUSTER, "b") == ["clusters b=1"]

    def test_a_first_request_is_answered_even_with_nothing(self) -> None:
        assert talk().ask(LISTENER) == ["listeners"]

    def test_a_later_request_without_names_changes_nothing(self) -> None:
        proxy = talk(*A_AND_B)
        proxy.ask(CLUSTER, "b")
        proxy.ack(CLUSTER)
        assert proxy.ask(CLUSTER) == []
        assert proxy.change(cluster("a", "2"), cluster("b", "2")) == ["clusters b=2"]

    def test_a_name_added_to_everything_keeps_everything(self) -> None:
        proxy = talk(*A_AND_B)
        proxy.ask(CLUSTER)
        proxy.ack(CLUSTER)
        assert proxy.ask(CLUSTER, "a") == ["clusters a=1"]
        proxy.ack(CLUSTER)
        assert proxy.change(*A_AND_B, cluster("c")) == ["clusters c=1"]

    def test_giving_up_the_star_keeps_the_names(self) -> None:
        proxy = talk(*A_AND_B)
        proxy.ask(CLUSTER, "*", "a")
        proxy.ack(CLUSTER)
        assert proxy.ask(CLUSTER, without=("*",)) == []
        assert proxy.change(cluster("a", "2"), cluster("b", "2")) == ["clusters a=2"]

    def test_giving_up_the_last_name_is_no_wildcard(self) -> None:
        proxy = talk(*A_AND_B)
        proxy.ask(CLUSTER, "a")
        proxy.ack(CLUSTER)
        assert proxy.ask(CLUSTER, without=("a",)) == []
        assert proxy.change(cluster("a", "2"), cluster("b", "2")) == []

    def test_a_known_name_asked_for_again_is_answered_again(self) -> None:
        proxy = talk(*A_AND_B)
        proxy.ask(CLUSTER, "a")
        proxy.ack(CLUSTER)
        assert proxy.ask(CLUSTER, "a") == ["clusters a=1"]

    def test_a_name_that_is_nowhere_is_answered_as_removed_and_sent_when_it_appears(self) -> None:
        proxy = talk(*A_AND_B)
        assert proxy.ask(CLUSTER, "z") == ["clusters -z"]
        assert proxy.ack(CLUSTER) == []
        assert proxy.change(*A_AND_B, cluster("z", eds=False)) == ["clusters z=1"]

    def test_superfluous_unsubscribing_needs_no_answer(self) -> None:
        proxy = talk(*A_AND_B)
        proxy.ask(CLUSTER, "a")
        proxy.ack(CLUSTER)
        assert proxy.ask(CLUSTER, without=("b", "nothing")) == []

    @pytest.mark.parametrize(("name", "answer"), [("a", "clusters a=1"), ("z", "clusters -z")])
    def test_unsubscribing_under_a_star_is_answered(self, name: str, answer: str) -> None:
        proxy = talk(*A_AND_B)
        proxy.ask(CLUSTER, "*", name)
        proxy.ack(CLUSTER)
        assert proxy.ask(CLUSTER, without=(name,)) == [answer]

    def test_a_name_both_taken_and_given_up_is_taken(self) -> None:
        proxy = talk(*A_AND_B)
        assert proxy.ask(CLUSTER, "a", without=("a",)) == ["clusters a=1"]

    def test_what_was_given_up_while_on_its_way_is_not_held(self) -> None:
        proxy = talk(*A_AND_B)
        proxy.ask(CLUSTER, "a")
        proxy.ask(CLUSTER, "b", without=("a",))
        assert proxy.ack(CLUSTER) == ["clusters b=1"]
        assert proxy.state.types[CLUSTER].has == {}


class TestAnswering:
    def test_nonces_are_unique_on_a_stream(self) -> None:
        proxy = talk(*SMALL)
        proxy.start(CLUSTER, ENDPOINT, LISTENER, ROUTE)
        for version in "2345":
            proxy.change(cluster("a", version), endpoints("a", version), *SMALL[2:])
            proxy.settle()
        nonces = [push.nonce for push in proxy.pushes]
        assert len(nonces) == len(set(nonces)) == 8

    def test_one_response_a_type_is_unanswered_and_the_newest_wins(self) -> None:
        proxy = talk(cluster("a", "1"))
        proxy.ask(CLUSTER)
        assert proxy.change(cluster("a", "2")) == []
        assert proxy.change(cluster("a", "3")) == []
        assert proxy.ack(CLUSTER) == ["clusters a=3"]

    def test_a_stale_nonce_answers_nothing(self) -> None:
        proxy = talk(cluster("a", "1"))
        proxy.ask(CLUSTER)
        proxy.change(cluster("a", "2"))
        assert proxy.ask(CLUSTER, nonce="of another stream") == []
        assert proxy.ack(CLUSTER) == ["clusters a=2"]

    def test_a_stale_nonce_does_not_reject_the_request(self) -> None:
        proxy = talk(*A_AND_B)
        proxy.ask(CLUSTER, "a")
        proxy.ack(CLUSTER)
        assert proxy.ask(CLUSTER, "b", nonce="stale") == ["clusters b=1"]

    def test_an_ack_with_nothing_new_is_not_answered(self) -> None:
        proxy = talk(*A_AND_B)
        proxy.ask(CLUSTER)
        assert proxy.ack(CLUSTER) == []
        assert proxy.ack(CLUSTER) == []

    def test_an_ack_that_also_subscribes_does_both(self) -> None:
        proxy = talk(*A_AND_B)
        proxy.ask(CLUSTER, "a")
        assert proxy.ask(CLUSTER, "b", nonce=proxy.pushes[-1].nonce) == ["clusters b=1"]

    def test_the_version_is_that_of_the_type(self) -> None:
        proxy = talk(*A_AND_B, listener("l"))
        proxy.start(CLUSTER, LISTENER)
        proxy.change(*A_AND_B, listener("l", "2"))
        assert proxy.snapshot is not None
        assert [push.version for push in proxy.pushes] == [proxy.snapshot.version_of(LISTENER)]
        assert proxy.snapshot.version_of(CLUSTER) == snapshot(*A_AND_B).version_of(CLUSTER)

    def test_nothing_is_sent_before_there_is_a_snapshot(self) -> None:
        proxy = Dialogue(None)
        assert proxy.ask(CLUSTER) == []
        assert proxy.change(*A_AND_B) == ["clusters a=1 b=1"]


class TestReconnecting:
    def test_what_it_has_is_not_sent_and_what_vanished_is_removed(self) -> None:
        proxy = talk(cluster("same", eds=False), cluster("changed", "2", eds=False), cluster("new", eds=False))
        has = {"same": "1", "changed": "1", "vanished": "1"}
        assert proxy.ask(CLUSTER, has=has) == ["clusters changed=2 new=1"]
        proxy.ack(CLUSTER)
        assert proxy.wait(stream.GRACE) == ["clusters -vanished"]

    def test_one_that_has_everything_is_sent_nothing(self) -> None:
        assert talk(*A_AND_B).ask(CLUSTER, has={"a": "1", "b": "1"}) == []

    def test_a_name_of_its_subscription_that_vanished_is_removed(self) -> None:
        assert talk().ask(ROUTE, "r", has={"r": "1"}) == []
        proxy = talk()
        proxy.ask(ROUTE, "r", has={"r": "1"})
        assert proxy.wait(stream.GRACE) == ["routes -r"]

    def test_endpoints_are_sent_again_after_the_clusters_that_changed(self) -> None:
        proxy = talk(cluster("a", "2"), endpoints("a"), cluster("b"), endpoints("b"))
        both = {"a": "1", "b": "1"}
        assert proxy.ask(ENDPOINT, "a", "b", has=both) == []
        assert proxy.ask(LISTENER, has={"l": "1"}) == ["listeners -l"]
        assert proxy.ask(CLUSTER, has=both) == ["clusters a=2", "endpoints a=1"]

    def test_endpoints_are_sent_again_when_the_clusters_were_asked_for_first(self) -> None:
        proxy = talk(cluster("a", "2"), endpoints("a"))
        assert proxy.ask(CLUSTER, has={"a": "1"}) == ["clusters a=2"]
        assert proxy.ask(ENDPOINT, "a", has={"a": "1"}) == ["endpoints a=1"]

    def test_in_the_order_in_which_envoy_comes_back_routes_wait_for_the_clusters(self) -> None:
        proxy = talk(cluster("new"), endpoints("new"), listener("l", routes="r"), route("r", "2", to=("new",)))
        assert proxy.ask(ENDPOINT, "old", has={"old": "1"}) == []
        assert proxy.ask(LISTENER, has={"l": "1"}) == []
        assert proxy.ask(ROUTE, "r", has={"r": "1"}) == []
        assert proxy.ask(CLUSTER, has={"old": "1"}) == ["clusters new=1"]
        assert proxy.ask(ENDPOINT, "new") == ["endpoints new=1"]
        assert proxy.ack(CLUSTER) == ["routes r=2"]
        assert proxy.ack(ROUTE) == ["clusters -old"]

    def test_clusters_stay_while_the_proxy_has_not_said_which_routes_it_has(self) -> None:
        proxy = talk(cluster("a", eds=False))
        assert proxy.ask(CLUSTER, has={"a": "1", "old": "1"}) == []
        assert stream.due(proxy.state, proxy.now) == proxy.now + stream.GRACE
        assert proxy.wait(stream.GRACE) == ["clusters -old"]


class TestOrder:
    def test_all_that_changes_goes_clusters_endpoints_listeners_routes(self) -> None:
        proxy = talk(*SMALL)
        proxy.start(CLUSTER, ENDPOINT, LISTENER, ROUTE)
        assert proxy.change(
            cluster("a"), endpoints("a", "2"), listener("l", "2", routes="r"), route("r", "2", to=("a",))
        ) == ["endpoints a=2", "listeners l=2", "routes r=2"]

    def test_a_route_waits_until_its_new_cluster_is_warm_and_the_old_one_goes_last(self) -> None:
        proxy = talk(*SMALL)
        proxy.start(CLUSTER, ENDPOINT, LISTENER, ROUTE)
        after = (cluster("b"), endpoints("b"), listener("l", "2", routes="r"), route("r", "2", to=("b",)))
        assert proxy.change(*after) == ["clusters b=1", "endpoints b=1", "listeners l=2"]
        assert proxy.ack(LISTENER) == []
        assert proxy.ack(ENDPOINT) == []
        assert proxy.ack(CLUSTER) == ["routes r=2"]
        assert proxy.ack(ROUTE) == ["clusters -a"]
        assert proxy.ack(CLUSTER) == ["endpoints -a"]

    def test_a_listener_waits_for_the_clusters_it_names_itself(self) -> None:
        proxy = talk(*SMALL)
        proxy.start(CLUSTER, ENDPOINT, LISTENER, ROUTE)
        assert proxy.change(*SMALL, cluster("b", eds=False), listener("m", to=("b",))) == ["clusters b=1"]
        assert proxy.ack(CLUSTER) == ["listeners m=1"]

    def test_a_listener_waits_for_a_cluster_that_comes_back_while_its_removal_is_on_its_way(self) -> None:
        proxy = talk(cluster("a", eds=False))
        proxy.start(CLUSTER, ENDPOINT, LISTENER, ROUTE)
        assert proxy.change() == ["clusters -a"]
        assert proxy.change(cluster("a", eds=False), listener("l", to=("a",))) == []
        assert proxy.ack(CLUSTER) == ["clusters a=1"]
        assert proxy.ack(CLUSTER) == ["listeners l=1"]

    def test_a_listener_waits_for_a_cluster_that_is_as_it_was_while_another_version_is_on_its_way(self) -> None:
        proxy = talk(cluster("a", "1", eds=False))
        proxy.start(CLUSTER, ENDPOINT, LISTENER, ROUTE)
        assert proxy.change(cluster("a", "2", eds=False)) == ["clusters a=2"]
        assert proxy.change(cluster("a", "1", eds=False), listener("l", to=("a",))) == []
        assert proxy.ack(CLUSTER) == ["clusters a=1"]
        assert proxy.ack(CLUSTER) == ["listeners l=1"]

    def test_a_cluster_stays_while_the_removal_of_a_listener_that_uses_it_is_on_its_way_or_rejected(self) -> None:
        proxy = talk(cluster("a", eds=False), listener("l", to=("a",)))
        proxy.start(CLUSTER, ENDPOINT, LISTENER, ROUTE)
        assert proxy.change() == ["listeners -l"]
        assert proxy.nack(LISTENER) == []
        assert proxy.wait(stream.FIRST_BACKOFF) == ["listeners -l"]
        assert proxy.ack(LISTENER) == ["clusters -a"]

    def test_an_old_listener_stays_open_while_its_successor_waits(self) -> None:
        proxy = talk(listener("old"))
        proxy.start(CLUSTER, LISTENER)
        assert proxy.change(cluster("b", eds=False), listener("new", to=("b",))) == ["clusters b=1"]
        assert proxy.ack(CLUSTER) == ["listeners new=1 -old"]

    def test_the_first_listeners_come_all_at_once(self) -> None:
        proxy = talk(cluster("b", eds=False), listener("l", to=("b",)), listener("m"))
        assert proxy.ask(CLUSTER) == ["clusters b=1"]
        assert proxy.ask(LISTENER) == []
        assert proxy.ack(CLUSTER) == ["listeners l=1 m=1"]

    def test_a_cluster_stays_while_a_listener_that_may_use_it_is_rejected(self) -> None:
        proxy = talk(*SMALL)
        proxy.start(CLUSTER, ENDPOINT, LISTENER, ROUTE)
        assert proxy.change(listener("l", "2")) == ["listeners l=2"]
        assert proxy.nack(LISTENER) == []
        assert proxy.change(listener("l", "3")) == ["listeners l=3"]
        assert proxy.ack(LISTENER) == ["routes -r"]
        assert proxy.ack(ROUTE) == ["clusters -a"]

    def test_secrets_wait_for_nothing(self) -> None:
        proxy = talk()
        assert proxy.ask(SECRET, "default", has={"default": "1"}) == ["secrets -default"]


class TestSecrets:
    """Envoy's rejections name no secret, and of what it rejected it accepts the same again without using it."""

    def test_each_is_sent_alone(self) -> None:
        proxy = talk(secret("a"), secret("b"))
        assert proxy.ask(SECRET, "a", "b") == ["secrets a=1"]
        assert proxy.nack(SECRET, "bad") == ["secrets b=1"]
        assert proxy.ack(SECRET) == []
        assert texts(proxy) == {"a": "bad"}

    def test_those_that_go_do_so_after_those_that_come(self) -> None:
        proxy = talk(secret("a"), secret("b"), secret("c"))
        proxy.ask(SECRET, "a", "b", "c")
        proxy.settle()
        assert proxy.change(secret("a", "2")) == ["secrets a=2"]
        assert proxy.ack(SECRET) == ["secrets -b -c"]

    def test_what_was_rejected_is_not_tried_again_until_it_is_another(self) -> None:
        proxy = talk(secret("a"))
        proxy.ask(SECRET, "a")
        assert proxy.nack(SECRET, "bad") == []
        assert stream.due(proxy.state, proxy.now + stream.GRACE) is None
        assert proxy.wait(3600) == []
        assert proxy.change(secret("a", "2")) == ["secrets a=2"]
        assert proxy.ack(SECRET) == []
        assert texts(proxy) == {}

    def test_what_was_rejected_stays_so_though_it_is_accepted_when_it_is_asked_for_again(self) -> None:
        proxy = talk(secret("a"))
        proxy.ask(SECRET, "a")
        proxy.nack(SECRET, "bad")
        assert proxy.ask(SECRET, "a") == ["secrets a=1"]
        assert proxy.ack(SECRET) == []
        assert texts(proxy) == {"a": "bad"}

    def test_each_keeps_its_own_words(self) -> None:
        proxy = talk(secret("a"), secret("b"))
        proxy.ask(SECRET, "a", "b")
        proxy.nack(SECRET, "no key")
        proxy.nack(SECRET, "no chain")
        assert texts(proxy) == {"a": "no key", "b": "no chain"}
        proxy.ask(SECRET, without=("a",))
        assert texts(proxy) == {"b": "no chain"}


def texts(proxy: Dialogue) -> Mapping[str, str]:
    """What the proxy said of each secret that it rejected."""
    rejection = proxy.state.types[SECRET].rejection
    return rejection.texts if rejection else {}


class TestWarming:
    def test_endpoints_follow_each_changed_cluster_though_they_did_not_change(self) -> None:
        proxy = talk(*SMALL, cluster("b"), endpoints("b"))
        proxy.start(CLUSTER, ENDPOINT)
        after = (cluster("a", "2"), endpoints("a"), *SMALL[2:], cluster("b"), endpoints("b"))
        assert proxy.change(*after) == ["clusters a=2", "endpoints a=1"]

    def test_endpoints_on_their_way_before_the_cluster_are_sent_once_more_after_it(self) -> None:
        proxy = talk(*SMALL)
        proxy.start(CLUSTER, ENDPOINT)
        assert proxy.change(cluster("a"), endpoints("a", "2"), *SMALL[2:]) == ["endpoints a=2"]
        assert proxy.change(cluster("a", "2"), endpoints("a", "2"), *SMALL[2:]) == ["clusters a=2"]
        assert proxy.ack(ENDPOINT) == ["endpoints a=2"]

    def test_a_cold_start_asks_for_endpoints_before_it_accepts_the_clusters(self) -> None:
        proxy = talk(*SMALL)
        assert proxy.ask(CLUSTER) == ["clusters a=1"]
        assert proxy.ask(ENDPOINT, "a") == ["endpoints a=1"]
        assert proxy.ack(CLUSTER) == []
        assert proxy.ask(LISTENER) == ["listeners l=1"]
        assert proxy.ack(ENDPOINT) == []
        assert proxy.ask(ROUTE, "r") == ["routes r=1"]
        assert proxy.ack(LISTENER) == []
        assert proxy.ack(ROUTE) == []


class TestRejection:
    def test_the_same_content_is_not_sent_again_in_a_loop(self) -> None:
        proxy = talk(cluster("a"))
        proxy.ask(CLUSTER)
        assert proxy.nack(CLUSTER, "bad cluster") == []
        assert proxy.wait(stream.FIRST_BACKOFF - 0.1) == []
        assert stream.due(proxy.state, proxy.now) == pytest.approx(proxy.now + 0.1)
        assert proxy.wait(0.2) == ["clusters a=1"]

    def test_the_wait_doubles_up_to_a_minute(self) -> None:
        proxy = talk(cluster("a"))
        proxy.ask(CLUSTER)
        proxy.wait(stream.GRACE)
        waits = []
        for _ in range(6):
            proxy.nack(CLUSTER)
            at = stream.due(proxy.state, proxy.now)
            assert at is not None
            waits.append(at - proxy.now)
            proxy.wait(waits[-1])
        assert waits == [5, 10, 20, 40, 60, 60]

    def test_its_text_is_kept_and_bounded(self) -> None:
        proxy = talk(cluster("a"))
        proxy.ask(CLUSTER)
        proxy.nack(CLUSTER, "x" * 10_000)
        refused = proxy.state.types[CLUSTER].rejection
        assert refused is not None
        assert (refused.text, refused.at) == ("x" * stream.MAX_ERROR_LENGTH, 100.0)

    def test_newer_content_is_sent_at_once_and_without_the_rest(self) -> None:
        proxy = talk(cluster("bad"), cluster("good"))
        proxy.ask(CLUSTER)
        proxy.nack(CLUSTER)
        assert proxy.change(cluster("bad", "2"), cluster("good")) == ["clusters bad=2"]

    def test_it_is_over_when_all_of_it_was_accepted_or_left(self) -> None:
        proxy = talk(cluster("bad"), cluster("good"))
        proxy.ask(CLUSTER)
        proxy.wait(stream.GRACE)
        proxy.nack(CLUSTER)
        proxy.change(cluster("good", "2"))
        proxy.settle()
        assert proxy.state.types[CLUSTER].rejection is None
        assert proxy.state.types[CLUSTER].has == {"good": "2"}

    def test_what_it_may_have_taken_is_removed_when_it_vanishes(self) -> None:
        proxy = talk(cluster("bad"), cluster("good"))
        proxy.ask(CLUSTER)
        proxy.wait(stream.GRACE)
        proxy.nack(CLUSTER)
        assert proxy.change() == ["clusters -bad -good"]

    def test_going_back_to_what_it_had_is_said_to_it(self) -> None:
        proxy = talk(cluster("a", "1"))
        proxy.ask(CLUSTER)
        proxy.ack(CLUSTER)
        proxy.change(cluster("a", "2"))
        proxy.nack(CLUSTER)
        assert proxy.change(cluster("a", "1")) == ["clusters a=1"]

    def test_other_names_and_types_go_on(self) -> None:
        proxy = talk(*SMALL)
        proxy.ask(CLUSTER, "a")
        proxy.nack(CLUSTER)
        assert proxy.ask(LISTENER) == ["listeners l=1"]
        assert proxy.ask(CLUSTER, "other") == ["clusters -other"]

    def test_a_rejected_removal_is_tried_again(self) -> None:
        proxy = talk(cluster("a"))
        proxy.ask(CLUSTER)
        proxy.wait(stream.GRACE)
        proxy.ack(CLUSTER)
        assert proxy.change() == ["clusters -a"]
        proxy.nack(CLUSTER)
        assert proxy.wait(stream.FIRST_BACKOFF) == ["clusters -a"]

    def test_a_working_route_is_kept_while_its_new_cluster_is_rejected(self) -> None:
        proxy = talk(*SMALL)
        proxy.start(CLUSTER, ENDPOINT, LISTENER, ROUTE)
        after = (*SMALL[:3], cluster("b", eds=False), route("r", "2", to=("b",)), listener("m"))
        assert proxy.change(*after) == ["clusters b=1", "listeners m=1"]
        assert proxy.nack(CLUSTER) == []
        assert proxy.wait(stream.FIRST_BACKOFF) == ["clusters b=1"]
        assert proxy.ack(CLUSTER) == ["routes r=2"]

    def test_a_route_the_proxy_lacks_comes_though_a_cluster_of_it_is_rejected(self) -> None:
        proxy = talk(*SMALL)
        proxy.ask(CLUSTER)
        assert proxy.ask(ROUTE, "r") == []
        assert proxy.nack(CLUSTER) == ["routes r=1"]

    def test_an_empty_response_that_is_rejected_is_not_repeated(self) -> None:
        proxy = talk()
        proxy.ask(LISTENER)
        assert proxy.nack(LISTENER) == []
        assert proxy.wait(100) == []


@pytest.mark.parametrize(
    ("request_", "problem"),
    [
        (Request(CLUSTER, subscribe=("n" * 1025,)), "a name longer than 1024 characters"),
        (Request(CLUSTER, unsubscribe=("n" * 1025,)), "a name longer than 1024 characters"),
        (Request(CLUSTER, initial_versions={"n" * 1025: ""}), "a name longer than 1024 characters"),
        (Request(CLUSTER, tuple(map(str, range(20_001)))), "more than 20000 names of one type"),
    ],
)
def test_what_is_beyond_all_bounds_ends_the_stream(request_: Request, problem: str) -> None:
    with pytest.raises(StreamError) as raised:
        stream.receive(stream.start(), request_, snapshot())
    assert raised.value.message == problem


def test_names_do_not_pile_up_over_requests() -> None:
    proxy = talk()
    proxy.ask(CLUSTER, *map(str, range(15_000)))
    with pytest.raises(StreamError):
        proxy.ask(CLUSTER, *map(str, range(15_000, 25_000)))


def test_types_do_not_pile_up() -> None:
    proxy = talk()
    for number in range(stream.MAX_TYPES):
        proxy.ask(f"type.googleapis.com/{number}")
    with pytest.raises(StreamError) as raised:
        proxy.ask("type.googleapis.com/more")
    assert raised.value.message == "more than 16 types on one stream"


def test_what_was_only_asked_for_again_and_is_rejected_is_tried_again_later() -> None:
    proxy = talk(*A_AND_B)
    proxy.ask(CLUSTER)
    proxy.ack(CLUSTER)
    assert proxy.ask(CLUSTER, "a") == ["clusters a=1"]
    assert proxy.nack(CLUSTER, "no") == []

    assert proxy.wait(stream.FIRST_BACKOFF) == ["clusters a=1"]
