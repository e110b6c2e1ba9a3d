"""The pages of SPIFFE's and of the Gateway API's rules name every rule once, and tests that are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = {
    "spiffe": {"ID": 7, "X": 11, "B": 7, "F": 8, "E": 6, "W": 7, "J": 7},
    "gateway-api": {"G": 10, "R": 15, "S": 5},
}
ROW = re.compile(r"^\| ([A-Z]+-\d+): .+ \| .+ \| (.+) \|$", re.MULTILINE)
TEST = re.compile(r"`([\w/]+\.py)::(test_\w+)`")


def text(page: str) -> str:
    return (ROOT / "docs" / "concepts" / f"{page}-conformance.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("page", PAGES)
def test_every_rule_stands_there_once_with_a_test(page: str) -> None:
    rows = ROW.findall(text(page))
    assert [rule for rule, _ in rows] == [
        f"{kind}-{n}" for kind, most in PAGES[page].items() for n in range(1, most + 1)
    ]
    assert [rule for rule, tests in rows if not TEST.findall(tests)] == []


@pytest.mark.parametrize("page", PAGES)
def test_each_test_that_is_named_is_there(page: str) -> None:
    named = TEST.findall(text(page))
    gone = [
        f"{file}::{test}"
        for file, test in named
        if not re.search(rf"^(async )?def {test}\(", (ROOT / "tests" / file).read_text(encoding="utf-8"), re.MULTILINE)
    ]
    assert gone == []
