"""Layers: callers before whom they call, cycles or not, and never more crossings than there were."""

from __future__ import annotations

from itertools import combinations

from hypothesis import given, settings
from hypothesis import strategies as st

from policyd.console.graph.layers import crossings, levels_of, ordered

pairs_of = st.lists(
    st.tuples(st.integers(0, 20), st.integers(0, 20)).filter(lambda pair: pair[0] != pair[1]), max_size=70
)


def below(pairs: list[tuple[int, int]]) -> dict[int, list[int]]:
    return {a: [b for one, b in pairs if one == a] for a, _ in pairs}


@settings(deadline=None)
@given(pairs_of)
def test_without_cycles_callers_are_before_whom_they_call(pairs: list[tuple[int, int]]) -> None:
    forward = sorted({(min(pair), max(pair)) for pair in pairs})
    level = levels_of(range(21), forward)

    assert set(level) == set(range(21))
    assert all(level[a] < level[b] for a, b in forward)
    assert all(at == 0 or any(level[a] == at - 1 for a, b in forward if b == node) for node, at in level.items())


@settings(deadline=None)
@given(pairs_of)
def test_cycles_are_broken_and_everybody_has_a_layer(pairs: list[tuple[int, int]]) -> None:
    level = levels_of(range(21), pairs)

    assert set(level) == set(range(21))
    assert max(level.values()) < 21


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 7), st.integers(8, 15)), max_size=30, unique=True))
def test_an_order_has_no_more_crossings_than_before_and_they_are_counted_right(pairs: list[tuple[int, int]]) -> None:
    layers = [list(range(8)), list(range(8, 16))]
    found = ordered(layers, pairs)

    assert [sorted(layer) for layer in found] == layers
    place = {node: at for layer in found for at, node in enumerate(layer)}
    crossing = sum((place[a] - place[c]) * (place[b] - place[d]) < 0 for (a, b), (c, d) in combinations(pairs, 2))
    assert crossings(found, below(pairs)) == crossing <= crossings(layers, below(pairs))


def test_what_can_be_untangled_is() -> None:
    assert crossings(ordered([[0, 1, 2], [3, 4, 5]], [(0, 5), (1, 4), (2, 3)]), below([(0, 5), (1, 4), (2, 3)])) == 0
