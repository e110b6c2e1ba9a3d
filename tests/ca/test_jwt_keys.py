"""Keys of tokens over time: published before they sign, gone only when nothing that they signed is left."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given, settings
from hypothesis import strategies as st

from policyd.ca.jwt_keys import (
    ACTIVATE,
    ALLOWANCE,
    LEAD,
    LIFE,
    LONGEST,
    PUT_OFF,
    JwtKeys,
    abort,
    activate,
    guarded,
    key_id,
    prepare,
    revoke,
    turn,
)
from policyd.errors import RotationError
from tests.ca.samples import NOW, a_key

POOL = [a_key() for _ in range(4)]


def make() -> ec.EllipticCurvePrivateKey:
    return a_key()


def turned(held: JwtKeys, now: datetime) -> JwtKeys:
    return turn(held, now, make)


def test_the_first_key_signs_at_once() -> None:
    keys = turned(JwtKeys(), NOW)
    [only] = keys.keys
    assert (only.published, only.signs, keys.signing(NOW)) == (NOW, NOW, only)
    assert keys.sequence == int(NOW.timestamp())
    assert only.kid == key_id(only.key)


def test_nothing_changes_before_half_of_its_life() -> None:
    first = turned(JwtKeys(), NOW)
    assert turned(first, NOW + LIFE / 2 - timedelta(seconds=1)) is first


def test_the_next_is_published_at_half_and_signs_at_five_sixths() -> None:
    first = turned(JwtKeys(), NOW)
    both = turned(first, NOW + LIFE / 2)
    old, new = both.keys
    assert (old, new.published, new.signs) == (first.keys[0], NOW + LIFE / 2, NOW + LIFE * ACTIVATE)
    assert both.sequence > first.sequence
    assert both.signing(new.signs - timedelta(seconds=1)) == old
    assert both.signing(new.signs) == new
    assert [key.kid for key in both.public] == [old.kid, new.kid]


def test_the_old_one_stays_until_its_last_token_has_ended() -> None:
    both = turned(turned(JwtKeys(), NOW), NOW + LIFE / 2)
    end = both.keys[1].signs + LONGEST + ALLOWANCE
    assert turned(both, end - timedelta(seconds=1)) is both
    assert turned(both, end).keys == both.keys[1:]


def test_after_a_long_absence_the_old_key_signs_until_the_new_one_is_known() -> None:
    first = turned(JwtKeys(), NOW)
    late = NOW + 10 * LIFE
    both = turned(first, late)
    assert both.signing(late) == first.keys[0]
    assert both.keys[1].signs == late + LEAD


def test_the_sequence_grows_even_if_the_clock_goes_back() -> None:
    first = turned(JwtKeys(), NOW)
    before = turned(JwtKeys(first.keys, first.sequence + 10**6), NOW + LIFE)
    assert before.sequence == first.sequence + 10**6 + 1


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0.001, 3.0), min_size=1, max_size=30))
def test_whenever_it_is_turned_no_verifier_is_surprised(steps: list[float]) -> None:
    pool = iter(POOL * 100)
    held, now = turn(JwtKeys(), NOW, lambda: next(pool)), NOW
    first = held.keys[0]
    signed: list[tuple[str, datetime]] = []
    for step in steps:
        key = held.signing(now)
        assert key == first or key.published + LEAD <= now
        signed.append((key.kid, now + LONGEST))
        now += LIFE * step
        before, held = held, turn(held, now, lambda: next(pool))
        assert (held.sequence > before.sequence) == (held.keys != before.keys)
        assert {kid for kid, end in signed if end > now} <= {key.kid for key in held.public}
        assert len(held.keys) <= 3


BOTH = prepare(turned(JwtKeys(), NOW), NOW, make)
KNOWN = NOW + LEAD
AWAY = {"laptop": "it holds bundle 1 of 2, and it is away"}


def test_a_key_is_prepared_before_its_time_published_and_signs_nothing() -> None:
    old, new = BOTH.keys
    assert (BOTH.prepared(NOW), BOTH.signing(KNOWN), len(BOTH.public)) == (new, old, 2)
    assert BOTH.sequence > turned(JwtKeys(), NOW).sequence
    assert turned(BOTH, NOW + LIFE / 2) is BOTH  # it is the next one


def test_an_activated_key_signs_at_once_and_the_old_one_stays_as_long_as_its_tokens() -> None:
    made = activate(BOTH, {}, KNOWN)
    assert (made.signing(KNOWN), made.sequence) == (made.keys[1], BOTH.sequence)  # nothing else is published
    assert turned(made, KNOWN + LONGEST).keys == made.keys
    assert turned(made, KNOWN + LONGEST + ALLOWANCE).keys == made.keys[1:]


def test_an_operator_names_who_is_not_waited_for() -> None:
    with pytest.raises(RotationError, match="`laptop` does not know the new key of tokens yet: it holds bundle 1 of 2"):
        activate(BOTH, AWAY, KNOWN)
    assert activate(BOTH, AWAY, KNOWN, without=["laptop"]).signing(KNOWN).kid == BOTH.keys[1].kid


def test_a_key_that_was_not_published_long_enough_signs_only_if_that_is_meant() -> None:
    with pytest.raises(RotationError, match="verifiers elsewhere may not have asked for it"):
        activate(BOTH, {}, KNOWN - timedelta(seconds=1))
    assert activate(BOTH, {}, NOW, early=True).signing(NOW).kid == BOTH.keys[1].kid


def test_a_step_back_forgets_what_has_signed_nothing() -> None:
    back = abort(BOTH, NOW)
    assert (back.keys, back.sequence) == (BOTH.keys[:1], BOTH.sequence + 1)


def test_a_key_that_was_lost_goes_at_once() -> None:
    made = activate(BOTH, {}, KNOWN)
    assert revoke(made, KNOWN).keys == made.keys[1:]


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (lambda: prepare(BOTH, NOW, make), "is prepared already"),
        (lambda: activate(turned(JwtKeys(), NOW), {}, NOW), "no key of tokens is prepared"),
        (lambda: abort(turned(JwtKeys(), NOW), NOW), "no key of tokens is prepared"),
        (lambda: revoke(BOTH, NOW), "no key of tokens but the one that signs"),
    ],
)
def test_a_step_that_does_not_follow_is_refused(step: Callable[[], JwtKeys], message: str) -> None:
    with pytest.raises(RotationError, match=message):
        step()


def test_a_key_whose_time_comes_is_put_off_while_an_agent_does_not_know_it() -> None:
    signs = BOTH.keys[1].signs
    assert guarded(BOTH, AWAY, signs - PUT_OFF) is BOTH
    assert guarded(BOTH, {}, signs - timedelta(seconds=1)) is BOTH
    held, now = BOTH, signs - timedelta(seconds=5)
    for _ in range(100):
        held, now = guarded(held, AWAY, now), now + timedelta(seconds=5)
        assert held.signing(now) == BOTH.keys[0]
    assert held.sequence == BOTH.sequence
    now += PUT_OFF
    assert guarded(held, {}, now).signing(now).kid == BOTH.keys[1].kid
