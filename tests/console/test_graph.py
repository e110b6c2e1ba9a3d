"""The picture: who called whom, added up as it should be; nobody stands on anybody; what is drawn says what is so."""

from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policyd.console.graph.drawing import draw, layout_of, milliseconds, rate, share
from policyd.console.graph.layout import FEW, lay_out
from policyd.console.graph.picture import (
    MAX_NODES,
    Picture,
    default_by,
    focused,
    of_namespace,
    picture,
    without_idle,
)
from policyd.telemetry.graph import OUTSIDE, Look, look
from tests.console.conftest import PLACES, place
from tests.fakes.proxies import Calls, page


def seen(*calls: Calls) -> Look:
    return look({"all": page(calls)}, frozenset())


def shown(*calls: Calls, by: str = "version", places: tuple = PLACES) -> Picture:
    return picture({}, seen(*calls), 10.0, places, by)  # type: ignore[arg-type]


def facts(found: Picture) -> dict[str, tuple[str, float, float, float]]:
    each = {one.key: one for one in found.links}
    return {
        key: (one.state, one.traffic.rate, one.traffic.denied, one.traffic.failed) for key, one in sorted(each.items())
    }


def test_an_edge_is_as_bad_as_the_worst_of_it() -> None:
    found = shown(
        Calls("productpage-v1", "details-v1", 20),
        Calls("productpage-v1", "reviews-v1", 10, failed=10),
        Calls("reviews-v1", "details-v1", 10, denied=5, failed=5),
        Calls("reviews-v2", "details-v1"),
    )

    assert facts(found) == {
        "productpage-v1~details-v1": ("busy", 2.0, 0.0, 0.0),
        "productpage-v1~reviews-v1": ("failing", 2.0, 0.0, 1.0),
        "reviews-v1~details-v1": ("denied", 2.0, 0.5, 0.5),
        "reviews-v2~details-v1": ("idle", 0.0, 0.0, 0.0),
    }
    assert [node.version for node in found.nodes] == ["v1", "", "v1", "v1", "v2"]


def test_versions_fall_together_into_services_before_quantiles_are_taken() -> None:
    found = shown(
        Calls("productpage-v1", "reviews-v1", 90, milliseconds=0.5),
        Calls("productpage-v1", "reviews-v2", 10, milliseconds=80),
        by="service",
    )

    [one] = found.links
    assert one.key == "productpage.default~reviews.default"
    assert one.traffic.rate == 10.0
    assert one.traffic.p50 is not None
    assert one.traffic.p50 < 1.0
    assert one.traffic.p95 is not None
    assert 25.0 <= one.traffic.p95 <= 100.0
    assert found.node("reviews.default").versions == ("reviews-v1", "reviews-v2")  # type: ignore[union-attr]


def test_an_edge_of_which_some_is_in_the_clear_is_not_locked() -> None:
    found = shown(Calls("productpage-v1", "details-v1", 10), Calls("productpage-v1", "details-v1", 10, security="none"))

    [one] = found.links
    assert (one.traffic.rate, one.is_mutual) == (2.0, False)


def test_who_is_no_instance_is_shown_as_what_it_is() -> None:
    found = shown(
        Calls(OUTSIDE, "details-v1", 1), Calls("", "details-v1", 1), Calls("api.example.com", "details-v1", 1)
    )

    kinds = {node.key: node.kind for node in found.nodes if node.key not in {one.name for one in PLACES}}
    assert kinds == {OUTSIDE: "outside", "(unknown)": "outside", "api.example.com": "host"}


def test_a_graph_has_a_bound_and_says_what_it_leaves_out() -> None:
    found = shown(*(Calls(f"stranger-{at}", "details-v1", 1) for at in range(MAX_NODES)))

    assert (len(found.nodes), found.omitted) == (MAX_NODES, len(PLACES))
    assert {link.target for link in found.links} == {"details-v1"}


def test_parts_of_it_keep_what_belongs_to_them() -> None:
    whole = shown(Calls("productpage-v1", "details-v1", 5), Calls("reviews-v1", "details-v1"))

    assert {node.key for node in focused(whole, "productpage-v1").nodes} == {"productpage-v1", "details-v1"}
    assert {link.key for link in without_idle(whole).links} == {"productpage-v1~details-v1"}
    assert of_namespace(whole, "shop").nodes == ()
    assert len(of_namespace(whole, "default").nodes) == len(PLACES)


def test_many_instances_are_shown_as_services_first() -> None:
    assert default_by(PLACES) == "version"
    assert default_by([place(f"a-{at}", "a") for at in range(41)]) == "service"


@st.composite
def graphs(draws: st.DrawFn) -> tuple[list[str], list[tuple[str, str]]]:
    nodes = [f"n{at}" for at in range(draws(st.integers(0, 90)))]
    if not nodes:
        return [], []
    return nodes, draws(st.lists(st.tuples(st.sampled_from(nodes), st.sampled_from(nodes)), max_size=160))


@settings(max_examples=60, deadline=None)
@given(graphs())
def test_every_node_has_a_place_of_its_own_and_the_same_graph_looks_the_same(
    graph: tuple[list[str], list[tuple[str, str]]],
) -> None:
    nodes, edges = graph

    found = lay_out(nodes, edges)

    assert set(found.at) == set(nodes)
    scale = found.scale
    for (ax, ay), (bx, by) in combinations(found.at.values(), 2):
        assert abs(ax - bx) >= scale.width or abs(ay - by) >= scale.height, "one node is on another"
    for x, y in found.at.values():
        assert scale.width / 2 <= x <= found.width - scale.width / 2
        assert scale.height / 2 <= y <= found.height - scale.height / 2
    assert lay_out(nodes, edges) == found


def test_callers_are_to_the_left_of_whom_they_call_and_long_edges_go_around() -> None:
    found = lay_out(["a", "b", "c"], [("a", "b"), ("b", "c"), ("a", "c")])

    assert found.at["a"][0] < found.at["b"][0] < found.at["c"][0]
    [(x, y)] = found.ways["a", "c"]
    assert x == found.at["b"][0]
    assert abs(y - found.at["b"][1]) >= found.scale.height


def test_what_is_wrong_is_drawn_last_and_said_in_words() -> None:
    drawing = draw(
        shown(
            Calls("reviews-v1", "details-v1", 10, denied=30), Calls("productpage-v1", "details-v1", 5, milliseconds=900)
        )
    )

    assert [arrow.link.state for arrow in drawing.arrows] == ["busy", "denied"]
    assert [arrow.more for arrow in drawing.arrows] == ["p95 100 ms", "75 % denied"]
    [box] = [one for one in drawing.boxes if one.node.key == "details-v1"]
    assert box.state == "denied"


def test_of_many_only_what_is_pointed_at_has_words() -> None:
    calls = [Calls(f"n{at}-v1", f"n{at + 1}-v1", 5) for at in range(FEW + 5)]
    drawing = draw(shown(*calls, places=()))

    assert drawing.is_small
    assert not any(arrow.is_labelled for arrow in drawing.arrows)
    assert all("requests" in arrow.title for arrow in drawing.arrows)


def test_the_layout_depends_on_who_is_there_alone() -> None:
    quiet, busy = (shown(Calls("productpage-v1", "details-v1", count)) for count in (1, 900))
    assert layout_of(quiet) == layout_of(busy)


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (rate(0), "–"), (rate(0.05), "3/min"), (rate(2.34), "2.3/s"), (rate(1234.5), "1,234/s"),
        (milliseconds(None), "–"), (milliseconds(0.84), "0.8 ms"), (milliseconds(350.2), "350 ms"),
        (milliseconds(12_345), "12.3 s"), (share(1, 0), "–"), (share(1, 3), "33.3 %"), (share(3, 3), "100 %"),
    ],
)  # fmt: skip
def test_figures_are_short(found: str, words: str) -> None:
    assert found == words
