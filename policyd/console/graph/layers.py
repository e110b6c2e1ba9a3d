"""Who is in which layer, and in which order: callers before whom they call, with few crossings.

Law: pure, and the same for the same graph. The steps are Sugiyama's: cycles are broken, each node is one layer behind
the last of its callers, and layers are put in the order of the middles of their neighbours, to and fro; the order with
the fewest crossings stays. Our own, since what was tried for it, igraph 1.0.0, ends the process on some graphs.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from graphlib import TopologicalSorter
from itertools import pairwise
from typing import Final

SWEEPS: Final = 16

Pair = tuple[int, int]


def levels_of(nodes: Sequence[int], pairs: Sequence[Pair]) -> dict[int, int]:
    """The layer of each node: behind all of its callers, but for those that close a cycle."""
    callers: dict[int, set[int]] = {node: set() for node in nodes}
    for a, b in set(pairs) - _closing(nodes, pairs):
        callers[b].add(a)
    level: dict[int, int] = {}
    for node in TopologicalSorter(callers).static_order():
        level[node] = max((level[one] + 1 for one in callers[node]), default=0)
    return level


def ordered(layers: Iterable[Sequence[int]], pairs: Iterable[Pair]) -> list[list[int]]:
    """The layers, each in an order with few crossings; pairs are of neighbouring layers, others count for nothing."""
    now = [list(layer) for layer in layers]
    layer_of = {node: at for at, layer in enumerate(now) for node in layer}
    above: dict[int, list[int]] = defaultdict(list)
    below: dict[int, list[int]] = defaultdict(list)
    for a, b in pairs:
        if layer_of[b] == layer_of[a] + 1:
            below[a].append(b)
            above[b].append(a)
    best, fewest = [list(layer) for layer in now], crossings(now, below)
    for sweep in range(SWEEPS):
        if not fewest:
            break
        down = sweep % 2 == 0
        for at in range(1, len(now)) if down else range(len(now) - 2, -1, -1):
            beside = now[at - 1] if down else now[at + 1]
            now[at] = _by_middles(now[at], beside, above if down else below)
        found = crossings(now, below)
        if found < fewest:
            best, fewest = [list(layer) for layer in now], found
    return best


def crossings(layers: Sequence[Sequence[int]], below: Mapping[int, Sequence[int]]) -> int:
    """How many edges between neighbouring layers cross."""
    count = 0
    for upper, lower in pairwise(layers):
        place = {node: at for at, node in enumerate(lower)}
        ends: list[int] = []
        for node in upper:
            arriving = sorted(place[one] for one in below.get(node, ()))
            count += sum(len(ends) - bisect_right(ends, one) for one in arriving)
            for one in arriving:
                insort(ends, one)
    return count


def _by_middles(layer: Sequence[int], beside: Sequence[int], neighbours: Mapping[int, Sequence[int]]) -> list[int]:
    """A layer in the order of the middles of its neighbours; who has none stays about where it was."""
    place = {node: float(at) for at, node in enumerate(beside)}
    scale = len(beside) / max(len(layer), 1)
    middle = {
        node: sum(place[one] for one in neighbours[node]) / len(neighbours[node])
        if neighbours.get(node)
        else at * scale
        for at, node in enumerate(layer)
    }
    return sorted(layer, key=middle.__getitem__)  # stable: equals stay in their order


def _closing(nodes: Sequence[int], pairs: Sequence[Pair]) -> set[Pair]:
    """The pairs that close a cycle, as a walk finds them that begins with those nobody calls."""
    called: dict[int, list[int]] = defaultdict(list)
    for a, b in pairs:
        called[a].append(b)
    targets = {b for _, b in pairs}
    open_: set[int] = set()  # on the way to where the walk is
    seen: set[int] = set()
    closing: set[Pair] = set()
    for start in sorted(nodes, key=lambda node: (node in targets, node)):
        walk = [] if start in seen else [(start, iter(sorted(called[start])))]
        seen.add(start)
        open_ |= {node for node, _ in walk}
        while walk:
            node, rest = walk[-1]
            following = next(rest, None)
            if following is None:
                open_.discard(node)
                walk.pop()
            elif following in open_:
                closing.add((node, following))
            elif following not in seen:
                seen.add(following)
                open_.add(following)
                walk.append((following, iter(sorted(called[following]))))
    return closing
