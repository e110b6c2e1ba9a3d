"""Which requests to ratings go wrong, by version."""

from __future__ import annotations

import pytest
from bookinfo.faults import Fault, fault


@pytest.mark.parametrize(
    ("version", "uptime", "chance", "expected"),
    [
        ("v1", 90.0, 0.0, Fault()),
        ("v-faulty", 0.0, 0.49, Fault(unavailable=True)),
        ("v-faulty", 0.0, 0.5, Fault()),
        ("v-delayed", 0.0, 0.49, Fault(delay=7.0)),
        ("v-delayed", 0.0, 0.5, Fault()),
        ("v-unavailable", 59.9, 0.0, Fault()),
        ("v-unavailable", 60.0, 0.0, Fault(unavailable=True)),
        ("v-unavailable", 120.0, 0.0, Fault()),
        ("v-unhealthy", 899.9, 0.0, Fault()),
        ("v-unhealthy", 900.0, 0.0, Fault(unavailable=True, unhealthy=True)),
    ],
)
def test_a_version_decides_what_goes_wrong(version: str, uptime: float, chance: float, expected: Fault) -> None:
    assert fault(version, uptime, chance) == expected
