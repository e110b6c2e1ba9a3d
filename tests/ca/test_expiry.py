"""Nothing of the authority ends in silence."""

from __future__ import annotations

import os
from datetime import timedelta

import pytest

from policyd.ca import rotation
from policyd.ca.expiry import Element, Notices, elements, passed, trouble
from policyd.ca.jwt_keys import JwtKeys, turn
from policyd.ca.rotation import Authorities, Generation
from tests.ca.samples import NOW, a_key, a_material

DAY = timedelta(days=1)
YEAR = 365 * DAY
SHORT = Element("intermediate", "id", "signs", NOW, NOW + 100 * DAY)
FIRST = Authorities((Generation(a_material(), "active", NOW),))


def named(held: Authorities) -> list[tuple[str, str]]:
    keys = turn(JwtKeys(), NOW, a_key)
    return [(one.name, one.state) for one in elements(held, keys, NOW)]


def test_all_that_can_end_is_there_at_every_step_of_a_rotation() -> None:
    held, token = FIRST, ("token key", "signs")
    assert named(held) == [("root", "trusted"), ("intermediate", "signs"), token]
    held = rotation.prepare(held, "root", NOW, a_key, os.urandom)
    signs = ("intermediate", "signs")
    assert named(held) == [
        ("root", "trusted"), ("next root", "trusted"), signs, ("next intermediate", "prepared"), token,
    ]  # fmt: skip
    held = rotation.activate(held, {}, NOW)
    assert named(held) == [
        ("root", "trusted"), ("old root", "trusted"), signs, ("old intermediate", "retired"), token,
    ]  # fmt: skip
    held = rotation.taint(held, {}, NOW)
    assert ("old intermediate", "tainted") in named(held)


def test_a_root_that_stays_is_one_element() -> None:
    held = rotation.prepare(FIRST, "intermediate", NOW, a_key, os.urandom)
    assert [name for name, _ in named(held)] == ["root", "intermediate", "next intermediate", "token key"]


@pytest.mark.parametrize(
    ("days", "share"),
    [(0, ""), (49, ""), (50, "half"), (83, "half"), (84, "five sixths"), (95, "nineteen twentieths"), (100, "all")],
)
def test_how_much_of_a_life_has_passed(days: int, share: str) -> None:
    assert passed(SHORT, NOW + days * DAY) == share


def test_each_share_is_spoken_of_once_and_keys_of_tokens_which_come_and_go_are_not() -> None:
    notices = Notices()
    token = Element("token key", "kid", "signs", NOW, NOW + 7 * DAY)
    said = [
        (day, [(one.name, share) for one, share in notices.news([SHORT, token], NOW + day * DAY)]) for day in range(101)
    ]
    assert [(day, news) for day, news in said if news] == [
        (50, [("intermediate", "half")]),
        (84, [("intermediate", "five sixths")]),
        (95, [("intermediate", "nineteen twentieths")]),
        (100, [("intermediate", "all")]),
    ]


@pytest.mark.parametrize(
    ("after", "said"),
    [
        (DAY, ""),
        (YEAR - 2 * DAY, ""),
        (YEAR - timedelta(minutes=59), "the intermediate certificate ends at 2027-11-23"),
    ],
)
def test_an_authority_that_ends_before_what_it_would_issue_does_not_pretend(after: timedelta, said: str) -> None:
    found = trouble(FIRST, NOW + after, timedelta(hours=1))
    assert found.startswith(said)
    assert bool(found) == bool(said)
