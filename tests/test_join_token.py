"""A join token goes out as text and comes back as the same value, or not at all."""

from __future__ import annotations

import base64
import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policyd.errors import TokenError
from policyd.join_token import MAX_TEXT, PREFIX, JoinToken, encode_secret, format_token, parse_token

GOOD = JoinToken("127.0.0.1:8443", "ab" * 32, "laptop", "cluster.local", encode_secret(bytes(range(32))))
FIELDS = {"a": GOOD.address, "r": GOOD.root_sha256, "n": GOOD.agent, "t": GOOD.trust_domain, "s": GOOD.secret}


def text_of(body: object) -> str:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return PREFIX + base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def test_a_token_comes_back_as_it_went_out() -> None:
    text = format_token(GOOD)
    assert text.startswith("policyd1.")
    assert parse_token(f"  {text}\n") == GOOD


def test_the_secret_shows_in_no_repr() -> None:
    assert GOOD.secret not in repr(GOOD)


@pytest.mark.parametrize(
    "address", ["127.0.0.1:1", "policyd.example.org:65535", "[::1]:8443", "[fe80::1]:443", "localhost:8443"]
)
def test_any_host_and_port_is_an_address(address: str) -> None:
    token = dataclasses.replace(GOOD, address=address)
    assert parse_token(format_token(token)) == token


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "that is no join token, which starts with `policyd1.`"),
        ("policyd2.abc", "that is no join token"),
        (PREFIX, "cut short or changed"),
        (PREFIX + "!!!!", "cut short or changed"),
        (PREFIX + "é", "cut short or changed"),
        (format_token(GOOD)[:-9], "cut short or changed"),
        (format_token(GOOD) + "A" * MAX_TEXT, f"at most {MAX_TEXT} characters"),
        (text_of(b"\xff\xfe"), "cut short or changed"),
        (text_of(b"[" * 1000), "cut short or changed"),
        (text_of([]), "cut short or changed"),
        (text_of(b'{"a":"x","a":"y"}'), "cut short or changed"),
        (text_of({}), "lacks fields or has foreign ones"),
        (text_of(FIELDS | {"x": "y"}), "lacks fields or has foreign ones"),
        (text_of(FIELDS | {"a": 1}), "lacks fields or has foreign ones"),
        (text_of(FIELDS | {"a": "nowhere"}), "no address of the form `host:port`"),
        (text_of(FIELDS | {"a": "host:0"}), "no address"),
        (text_of(FIELDS | {"a": "host:65536"}), "no address"),
        (text_of(FIELDS | {"a": "host:80\n"}), "no address"),
        (text_of(FIELDS | {"a": "unix:/tmp/x"}), "no address"),
        (text_of(FIELDS | {"r": "AB" * 32}), "no SHA-256"),
        (text_of(FIELDS | {"r": "ab"}), "no SHA-256"),
        (text_of(FIELDS | {"n": ""}), "`` is no name for an agent"),
        (text_of(FIELDS | {"n": "../etc"}), "is no name for an agent"),
        (text_of(FIELDS | {"n": "a" * 64}), "is no name for an agent"),
        (text_of(FIELDS | {"n": "a/b"}), "is no name for an agent"),
        (text_of(FIELDS | {"n": ".."}), "is no name for an agent"),
        (text_of(FIELDS | {"t": "Cluster.Local"}), "names no trust domain"),
        (text_of(FIELDS | {"s": "short"}), "no secret of 32 bytes"),
    ],
)
def test_what_is_no_token_is_refused_without_quoting_a_secret(text: str, message: str) -> None:
    with pytest.raises(TokenError) as caught:
        parse_token(text)
    assert message in caught.value.message
    assert caught.value.remedy
    assert GOOD.secret not in str(caught.value)


@given(st.text(max_size=200))
def test_any_other_text_is_an_error_of_ours(text: str) -> None:
    with pytest.raises(TokenError):
        parse_token(PREFIX + text)
