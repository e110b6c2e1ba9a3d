"""Names sealed into cookies."""

from __future__ import annotations

import base64

import pytest
from bookinfo.session import LIFETIME, Sessions, check_user
from hypothesis import given
from hypothesis import strategies as st

KEY = b"k" * 32
NAMES = st.from_regex(r"[!-~]([ -~]{0,62}[!-~])?", fullmatch=True)


@given(NAMES)
def test_what_is_sealed_opens_again(name: str) -> None:
    sessions = Sessions(KEY, lambda: 1000.0)
    assert sessions.open(sessions.seal(check_user(name))) == name


@given(st.text(max_size=300))
def test_nothing_else_opens(text: str) -> None:
    assert Sessions(KEY, lambda: 1000.0).open(text) is None


@given(NAMES, st.integers(min_value=0), st.integers(min_value=0, max_value=5))
def test_a_changed_cookie_does_not_open(name: str, place: int, bit: int) -> None:
    sessions = Sessions(KEY, lambda: 1000.0)
    payload, signature = (
        base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)) for part in sessions.seal(name).split(".")
    )
    changed = bytearray(payload)
    changed[place % len(changed)] ^= 1 << bit
    encoded = [base64.urlsafe_b64encode(part).decode().rstrip("=") for part in (changed, signature)]
    assert sessions.open(".".join(encoded)) is None


def test_a_cookie_of_another_key_does_not_open() -> None:
    assert Sessions(b"x" * 32, lambda: 0.0).open(Sessions(KEY, lambda: 0.0).seal("jason")) is None


@pytest.mark.parametrize(("now", "user"), [(LIFETIME - 1.0, "jason"), (LIFETIME + 0.0, None)])
def test_a_cookie_lives_for_half_a_day(now: float, user: str | None) -> None:
    assert Sessions(KEY, lambda: now).open(Sessions(KEY, lambda: 0.0).seal("jason")) == user


@pytest.mark.parametrize(("text", "name"), [("jason", "jason"), ("  jason ", "jason"), ("a b", "a b"), ("<b>", "<b>")])
def test_a_name_is_what_a_header_may_hold(text: str, name: str) -> None:
    assert check_user(text) == name


@pytest.mark.parametrize("text", ["", " ", "a\r\nb: c", "a\tb", "jürgen", "\x00", "\x7f", "a" * 65, "jason\n"])
def test_anything_else_is_no_name(text: str) -> None:
    with pytest.raises(ValueError) as refused:
        check_user(text)
    assert str(refused.value) == "a user name is 1 to 64 printable ASCII characters"
