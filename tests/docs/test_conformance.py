"""The page of SPIFFE's rules names every rule once, and tests that are there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "concepts" / "spiffe-conformance.md").read_text(encoding="utf-8")
RULES = {"ID": 7, "X": 11, "B": 7, "F": 8, "E": 6, "W": 7, "J": 7}
ROW = re.compile(r"^\| ([A-Z]+-\d+): .+ \| .+ \| (.+) \|$", re.MULTILINE)
TEST = re.compile(r"`([\w/]+\.py)::(test_\w+)`")


def test_every_rule_stands_there_once_with_a_test() -> None:
    rows = ROW.findall(PAGE)
    assert [rule for rule, _ in rows] == [f"{kind}-{n}" for kind, most in RULES.items() for n in range(1, most + 1)]
    assert [rule for rule, tests in rows if not TEST.findall(tests)] == []


def test_each_test_that_is_named_is_there() -> None:
    named = TEST.findall(PAGE)
    gone = [
        f"{file}::{test}"
        for file, test in named
        if not re.search(rf"^(async )?def {test}\(", (ROOT / "tests" / file).read_text(encoding="utf-8"), re.MULTILINE)
    ]
    assert gone == []
