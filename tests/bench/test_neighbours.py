"""How benchmarks compare neighbours in time, and with what error."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import neighbours
from bench.proxy import Load, Rig


class Slowing(Rig):
    """Whatever is loaded, each second a request less is answered, and of `late` a tenth less."""

    def load(self, variant: str, connections: int = 0, seconds: int = 1) -> Load:
        """Nothing real."""
        del connections
        self.policyd.append(seconds)
        per_second = (1000.0 - len(self.policyd)) * (0.9 if variant == "late" else 1.0)
        return Load(per_second, 1.0, 2.0, 10.0, len(self.policyd), 100 * len(self.policyd))


@pytest.mark.parametrize("first", [0, 1])
def test_in_a_round_what_grows_slower_by_itself_falls_out(first: int) -> None:
    early, late = neighbours.compared(Slowing(Path(), 0, [], {}), ("early", "late"), first)

    assert late.per_second / early.per_second == pytest.approx(0.9, abs=1e-9)
    # of CPU time by how many requests each second had
    assert {early.policyd_cpu, late.policyd_cpu} == {(1 * 100 + 4 * 400) / 500, (2 * 200 + 3 * 300) / 500}
    assert early.requests == late.requests == 500


def test_the_rounds_at_one_envoy_come_to_one_pair() -> None:
    fast, slow = Load(900.0, 1.0, 2.0, 10.0, 0.0, 300), Load(300.0, 3.0, 4.0, 30.0, 0.0, 100)

    whole = neighbours.whole([neighbours.Pair(fast, slow), neighbours.Pair(slow, slow)])
    assert whole == (Load(600.0, 2.0, 3.0, 15.0, 0.0, 400), Load(300.0, 3.0, 4.0, 30.0, 0.0, 200))


def test_the_error_of_a_median_falls_with_the_root_of_how_many_there_are() -> None:
    few = [0.9, 0.95, 1.0, 1.05, 1.1] * 4

    assert neighbours.error(few * 4) == pytest.approx(neighbours.error(few) / 2, rel=0.05)
    assert neighbours.error([1.0] * 8) == 0
