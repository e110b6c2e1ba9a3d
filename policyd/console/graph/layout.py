"""Where nodes stand: callers to the left of whom they call, in columns with few crossings.

Law: pure, and the same for the same nodes and edges; no node is on another. A layer of very many is parted into
columns, so that a wide mesh does not become a tall one.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from math import ceil, sqrt
from typing import Final

from policyd.console.graph.layers import levels_of, ordered

FEW: Final = 60  # nodes that are drawn at full size
ROUNDS: Final = 12
TALLEST: Final = 9  # nodes in a column at least, before it is parted
MARGIN: Final = 28.0

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Scale:
    """Sizes in the picture's own units."""

    width: float
    height: float
    column: float  # from one column to the next
    row: float  # from one node to the next below it


LARGE: Final = Scale(160.0, 50.0, 282.0, 88.0)
SMALL: Final = Scale(148.0, 28.0, 216.0, 40.0)


@dataclass(frozen=True, slots=True)
class Layout:
    """The middles of nodes, by key, how large all of it is, and by which points long edges go."""

    scale: Scale
    at: Mapping[str, Point]
    width: float
    height: float
    ways: Mapping[tuple[str, str], tuple[Point, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Layers:
    """Who is in which column, from top to bottom, and of each long edge what keeps room for it on its way."""

    columns: list[list[int]]
    chains: dict[tuple[int, int], list[int]]


def lay_out(nodes: Sequence[str], edges: Iterable[tuple[str, str]]) -> Layout:
    """Place the nodes."""
    scale = LARGE if len(nodes) <= FEW else SMALL
    index = {node: number for number, node in enumerate(nodes)}
    pairs = sorted({(index[a], index[b]) for a, b in edges if a != b})
    joined = sorted({end for pair in pairs for end in pair})
    alone = [node for number, node in enumerate(nodes) if number not in set(joined)]
    layers = _layers(joined, pairs, len(nodes))
    rows = _rows(layers, pairs, scale.row)
    column = {number: at for at, some in enumerate(layers.columns) for number in some}
    placed = {number: (column[number] * scale.column, rows[number]) for number in column}
    at = {nodes[number]: place for number, place in placed.items() if number < len(nodes)}
    at |= _below(alone, at, scale, len(layers.columns))
    ways = {(nodes[a], nodes[b]): tuple(placed[number] for number in chain) for (a, b), chain in layers.chains.items()}
    return _shifted(at, ways, scale)


def _layers(joined: Sequence[int], pairs: Sequence[tuple[int, int]], count: int) -> _Layers:
    """Who is in which column; where there are few, with room for long edges on their way."""
    level = levels_of(joined, pairs)
    most = max(TALLEST, ceil(sqrt(count) * 1.3))
    if count > FEW or any(times > most for times in Counter(level.values()).values()):
        order = ordered(_by_level(level), pairs)
        parted = (some[part :: ceil(len(some) / most)] for some in order for part in range(ceil(len(some) / most)))
        return _Layers(list(parted), {})
    chains: dict[tuple[int, int], list[int]] = {}
    stops: dict[int, int] = {}  # numbers from `count` on, and their layers
    for a, b in pairs:
        between = range(level[a] + 1, level[b])
        chains[a, b] = [count + len(stops) + at for at in range(len(between))]
        stops |= zip(chains[a, b], between, strict=True)
    steps = [step for pair, chain in chains.items() for step in pairwise((pair[0], *chain, pair[1]))]
    order = ordered(_by_level(level | stops), steps)
    return _Layers(order, {pair: chain for pair, chain in chains.items() if chain})


def _by_level(level: Mapping[int, int]) -> list[list[int]]:
    layers: dict[int, list[int]] = defaultdict(list)
    for node, at in level.items():
        layers[at].append(node)
    return [layers[at] for at in sorted(layers)]


def _rows(layers: _Layers, pairs: Sequence[tuple[int, int]], gap: float) -> dict[int, float]:
    """How far down each stands: as near as may be to the middle of its neighbours, in the order of its column."""
    beside: dict[int, list[int]] = defaultdict(list)
    for pair in pairs:
        stops = [pair[0], *layers.chains.get(pair, ()), pair[1]]
        for a, b in pairwise(stops):
            beside[a].append(b)
            beside[b].append(a)
    columns = layers.columns
    rows = {node: (at - (len(some) - 1) / 2) * gap for some in columns for at, node in enumerate(some)}
    for _ in range(ROUNDS):
        for some in columns:
            wanted = [sum(rows[one] for one in beside[node]) / len(beside[node]) for node in some]
            rows |= zip(some, _apart(wanted, gap), strict=True)
    return rows


def _apart(wanted: Sequence[float], gap: float) -> list[float]:
    """The nearest to `wanted`, in order and no closer than `gap`: what is too close is moved as one block."""
    blocks: list[tuple[float, int]] = []  # the sum of where each wants the block to begin, and how many there are
    for at, one in enumerate(wanted):
        total, count = one - at * gap, 1
        while blocks and blocks[-1][0] / blocks[-1][1] > total / count:
            before = blocks.pop()
            total, count = total + before[0], count + before[1]
        blocks.append((total, count))
    starts = [total / count for total, count in blocks for _ in range(count)]
    return [start + at * gap for at, start in enumerate(starts)]


def _below(alone: Sequence[str], placed: Mapping[str, Point], scale: Scale, columns: int) -> dict[str, Point]:
    """Who has part in nothing stands in rows of their own."""
    across = max(columns, ceil(sqrt(len(alone)) * 0.9), 1)
    top = max((y for _, y in placed.values()), default=-scale.row) + scale.row * 1.4
    return {node: ((at % across) * scale.column, top + (at // across) * scale.row) for at, node in enumerate(alone)}


def _shifted(at: Mapping[str, Point], ways: Mapping[tuple[str, str], tuple[Point, ...]], scale: Scale) -> Layout:
    """All of it from the corner on."""
    if not at:
        return Layout(scale, {}, scale.column, scale.row)
    every = [*at.values(), *(point for way in ways.values() for point in way)]
    left, top = min(x for x, _ in every), min(y for _, y in every)
    across, down = scale.width / 2 + MARGIN - left, scale.height / 2 + MARGIN - top

    def moved(point: Point) -> Point:
        return round(point[0] + across, 1), round(point[1] + down, 1)

    right, bottom = (max(one[axis] for one in map(moved, every)) for axis in (0, 1))
    return Layout(
        scale,
        {node: moved(point) for node, point in sorted(at.items())},
        right + scale.width / 2 + MARGIN,
        bottom + scale.height / 2 + MARGIN,
        {pair: tuple(map(moved, way)) for pair, way in ways.items()},
    )
