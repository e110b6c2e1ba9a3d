"""Two things compared as neighbours in time, on a machine that is never as fast as it was a moment ago.

In a round one thing runs, the other, that again and the first, a second each, or the other way round: what grows slower
by itself falls out. A ratio is the median of its rounds, and beside it stands by how much another such run may say
otherwise. An Envoy is a few hundredths faster or slower than the next one as long as it lives: where that matters,
what several of them come to are the rounds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean, median, quantiles
from typing import Final, NamedTuple

from bench.proxy import CONNECTIONS, Load, Rig
from bench.table import Row, row

ORDER: Final = (0, 1, 1, 0)  # of a round


class Pair(NamedTuple):
    """One thing without and with, measured one after the other."""

    early: Load
    late: Load


def compared(made: Rig, pair: tuple[str, str], first: int, connections: int = CONNECTIONS) -> Pair:
    """Both of a pair of variants, each twice; `first` is which begins and ends it."""
    loads: dict[int, list[Load]] = {0: [], 1: []}
    for which in ((first + at) % 2 for at in ORDER):
        loads[which].append(made.load(pair[which], connections, seconds=1))
    return Pair(*(_together(loads[which]) for which in (0, 1)))


def whole(pairs: Sequence[Pair]) -> Pair:
    """What the rounds at one Envoy come to."""
    return Pair(_together([early for early, _ in pairs]), _together([late for _, late in pairs]))


def _together(loads: Sequence[Load]) -> Load:
    """What several rounds come to; of CPU time by how many requests each had."""
    requests = sum(one.requests for one in loads)
    envoy, policyd = (
        sum(cost * one.requests for cost, one in zip(costs, loads, strict=True)) / requests
        for costs in ([one.envoy_cpu for one in loads], [one.policyd_cpu for one in loads])
    )
    per_second, p50, p99 = (fmean(values) for values in zip(*(one[:3] for one in loads), strict=True))
    return Load(per_second, p50, p99, envoy, policyd, requests)


def throughput(name: str, pairs: Sequence[Pair], at_least: float | None = None) -> list[Row]:
    """How much of the early one's throughput the late one has, and how sure that is."""
    return ratio(name, [late.per_second / early.per_second for early, late in pairs], at_least)


def ratio(name: str, kept: Sequence[float], at_least: float | None = None) -> list[Row]:
    """What rounds come to, each a ratio, and how sure that is."""
    lower, _, upper = quantiles(kept, n=4)
    return [
        row(name, median(kept), "ratio", at_least=at_least),
        row(f"{name}: its error", error(kept), "ratio"),
        row(f"{name}: lower quarter", lower, "ratio"),
        row(f"{name}: upper quarter", upper, "ratio"),
    ]


def added(name: str, pairs: Sequence[Pair], at_most: float | None = None) -> list[Row]:
    """What the late one adds to the early one's median latency, and how sure that is."""
    more = [late.p50 - early.p50 for early, late in pairs]
    return [row(name, median(more), "ms", at_most=at_most), row(f"{name}: its error", error(more), "ms")]


def error(values: Sequence[float]) -> float:
    """The standard error of a median, by the distance of the quarters, which a few bad rounds do not change."""
    lower, _, upper = quantiles(values, n=4)
    return 1.253 * (upper - lower) / 1.349 / math.sqrt(len(values))
