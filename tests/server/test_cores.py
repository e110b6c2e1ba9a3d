"""How the machine's cores are shared."""

from __future__ import annotations

import pytest

from policyd.server.cores import core_of, default_count


@pytest.mark.parametrize(("cores", "count"), [(1, 1), (2, 1), (3, 2), (5, 4), (64, 4)])
def test_one_core_is_left_to_the_proxies(cores: int, count: int) -> None:
    assert default_count(cores) == count


def test_each_process_has_a_core_the_last_one_first() -> None:
    assert [core_of(number, [0, 1, 5]) for number in (1, 2, 3, 4)] == [5, 1, 0, 5]
    assert core_of(1, [0]) is None
