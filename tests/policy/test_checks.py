"""The checks file."""

from __future__ import annotations

from pathlib import Path

import pytest

from policyd.errors import InvalidInput
from policyd.policy.checks import Check, parse_checks
from policyd.policy.request_form import Form


def test_the_samples_checks_are_read(root: Path) -> None:
    checks = parse_checks((root / "examples/bookinfo/checks.yaml").read_text(), "checks.yaml")
    assert checks[0] == Check(
        name="the product page",
        form=Form("anonymous", "GET", "http://ingress/productpage", "ingress", 0, "/productpage"),
        expect=200,
        body=checks[0].body,
        line=checks[0].line,
    )


@pytest.mark.parametrize("text", ["", "# nothing yet\n"])
def test_no_checks_are_fine(text: str) -> None:
    assert parse_checks(text, "checks.yaml") == ()


def test_bad_checks_are_refused_at_their_places() -> None:
    text = "- {name: a, request: x, expect: 200}\n- {name: b, expect: 20}\n- c\n"
    with pytest.raises(InvalidInput) as caught:
        parse_checks(text, "checks.yaml")
    assert [(problem.line, problem.message) for problem in caught.value.problems] == [
        (1, "`x` is no request"),
        (2, "`request` is missing"),
        (2, "`expect` must be at least 100, not the number 20"),
        (3, "the document must be a mapping, not the text `c`"),
    ]


def test_a_check_may_name_the_address_of_its_client() -> None:
    text = "- {name: a, request: anonymous GET http://edge/, expect: 200, client: 2001:DB8::9}\n"
    assert parse_checks(text, "checks.yaml")[0].client == "2001:db8::9"
    with pytest.raises(InvalidInput) as caught:
        parse_checks(text.replace("2001:DB8::9", "somebody"), "checks.yaml")
    [problem] = caught.value.problems
    assert str(problem) == "checks.yaml:1: `client`: `somebody` is no IP address; write one, as in `127.0.0.1`"
