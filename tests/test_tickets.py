"""Tickets: what opens the console once, and what keeps it open."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policyd.tickets import LINK_SECONDS, SESSION_SECONDS, Ticket, link, proof, read, session

KEY = bytes(range(32))
NONCE = b"n" * 16
NOW = 1_795_000_000


def test_what_was_written_is_read_until_it_ends() -> None:
    written = link(KEY, "unix:0", NOW, NONCE)

    assert read(KEY, "link", written, NOW) == Ticket("link", "unix:0", NOW, NOW + LINK_SECONDS, NONCE.hex())
    assert read(KEY, "link", written, NOW + LINK_SECONDS - 1) is not None
    assert read(KEY, "link", written, NOW + LINK_SECONDS) is None
    assert read(KEY, "link", written, NOW - 1) is None


@pytest.mark.parametrize(
    "spoil",
    [
        lambda text: text.replace("unix:0", "unix:1"),
        lambda text: text.replace(str(NOW), str(NOW - 9)),
        lambda text: text.replace(str(NOW + LINK_SECONDS), str(NOW + SESSION_SECONDS)),
        lambda text: text[:-1] + ("0" if text[-1] != "0" else "1"),
        lambda text: text + "~",
        lambda text: text.rpartition("~")[0],
        lambda text: text + "\n",
        lambda text: "~" * 400,
        lambda text: "",
        lambda text: "ü" + text,
    ],
)
def test_what_was_changed_is_no_ticket(spoil: object) -> None:
    assert read(KEY, "link", spoil(link(KEY, "unix:0", NOW, NONCE)), NOW) is None  # type: ignore[operator]


def test_a_link_is_no_session_and_another_key_opens_nothing() -> None:
    assert read(KEY, "session", link(KEY, "unix:0", NOW, NONCE), NOW) is None
    assert read(KEY, "link", session(KEY, "unix:0", NOW, NONCE), NOW) is None
    assert read(b"x" * 32, "link", link(KEY, "unix:0", NOW, NONCE), NOW) is None


@given(st.text(max_size=320))
def test_any_other_text_is_no_ticket(text: str) -> None:
    assert read(KEY, "session", text, NOW) is None


def test_each_session_has_a_proof_of_its_own() -> None:
    one, other = (read(KEY, "session", session(KEY, "unix:0", NOW, nonce), NOW) for nonce in (NONCE, b"m" * 16))
    assert one is not None
    assert other is not None
    assert proof(KEY, one) != proof(KEY, other)


@pytest.mark.parametrize(("key", "who"), [(b"short", "unix:0"), (KEY, "a~b")])
def test_a_ticket_that_could_be_misread_is_never_written(key: bytes, who: str) -> None:
    with pytest.raises(ValueError, match="a whole key"):
        link(key, who, NOW, NONCE)
