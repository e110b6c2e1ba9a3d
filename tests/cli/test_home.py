"""A folder says whose workloads go by their short names, in whatever way its settings are written."""

from __future__ import annotations

from pathlib import Path

import pytest

from policyd.instance import trust_domain_of


@pytest.mark.parametrize(
    ("settings", "found"),
    [
        (None, "cluster.local"),
        ("", "cluster.local"),
        ("trustDomain: bank.test\n", "bank.test"),
        ("{trustDomain: 'bank.test'}", "bank.test"),
        ("trustDomain: [", ""),  # who is home nowhere has every name shown whole
        ("trustDomain: BANK\n", ""),
    ],
)
def test_the_settings_say_whose_workloads_are_our_own(settings: str | None, found: str, tmp_path: Path) -> None:
    if settings is not None:
        (tmp_path / "policyd.yaml").write_text(settings)
    assert trust_domain_of(tmp_path) == found
