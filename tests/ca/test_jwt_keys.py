"""Keys of tokens over time: published before they sign, gone only when nothing that they signed is left."""

from __future__ import annotations

from datetime import datetime, timedelta

from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given, settings
from hypothesis import strategies as st

from policyd.ca.jwt_keys import ACTIVATE, ALLOWANCE, LEAD, LIFE, LONGEST, JwtKeys, key_id, turn
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
