"""Credentials stay out of the journal."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policyd.audit.masking import MASK, SECRET_NAMES, mask, mask_text, may_hold_secret
from policyd.audit.record import Entry, Fault, Shadow, encode, place
from tests.audit.samples import NOON, WRITER, an_entry

JWT = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJqYXNvbiJ9.c2lnbmF0dXJl"
SECRETS = [
    JWT,
    "Bearer dG9wLXNlY3JldA123",
    "basic dXNlcjpwYXNz",
    "BASIC%20dXNlcjpwYXNz",
    "policyd1.eyJhIjoiMTI3LjAuMC4xOjEifQ",
    "-----BEGIN EC PRIVATE KEY-----\nMHcCAQEE\n-----END EC PRIVATE KEY-----",
    "-----BEGIN PRIVATE KEY-----\nMHcCAQEE",
]


def line_of(entry: Entry) -> bytes:
    return encode(place(entry, WRITER, 1, ""))


@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize(
    ("entry", "masked"),
    [
        (lambda text: an_entry(context={"request": {"path": f"/a/{text}"}}), ("request.path",)),
        (lambda text: an_entry(context={"list": ["a", {"b": text}]}), ("list.1.b",)),
        (lambda text: an_entry(context={text: 1}), (MASK,)),
        (lambda text: an_entry(request_id=text), ()),
        (lambda text: an_entry(errors=(Fault("decision", f"no: {text}"),)), ()),
        (lambda text: an_entry(shadow=Shadow(decision="error", errors=(Fault("odd", f"no: {text}"),))), ()),
        (lambda text: an_entry(resource=f'Host::"{text}"'), ()),
        (lambda text: an_entry(detail={"text": text}), ()),
    ],
)
def test_a_token_is_masked_wherever_it_stands(secret: str, entry: Any, masked: tuple[str, ...]) -> None:
    planted = entry(secret)
    assert may_hold_secret(planted)
    clean = mask(planted)
    assert clean.masked == masked
    assert MASK.encode() in line_of(clean)
    assert secret[-8:].encode() not in line_of(clean)


@pytest.mark.parametrize("name", sorted(SECRET_NAMES))
def test_a_secret_name_gives_its_value_away_nowhere(name: str) -> None:
    planted = an_entry(context={"deep": [{name.title(): "hunter2"}]}, detail={name: {"a": "hunter2"}})
    assert may_hold_secret(planted)
    assert b"hunter2" not in line_of(mask(planted))


@pytest.mark.parametrize(
    "text", ["basic authentication is refused", "bearer of bad news", "/reviews/0", "eyJ", "[masked]"]
)
def test_plain_words_stay(text: str) -> None:
    assert mask_text(text) == text


NAMES = st.text(max_size=6) | st.sampled_from(sorted(SECRET_NAMES))
TEXTS = st.text(max_size=12) | st.builds(
    lambda before, secret, after: f"{before}{secret}{after}",
    st.text(max_size=4),
    st.sampled_from(SECRETS),
    st.text(max_size=4),
)
VALUES = st.recursive(
    st.none() | st.integers(0, 9) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=6,
)


@given(context=st.dictionaries(NAMES, VALUES, max_size=3), request_id=TEXTS)
def test_the_cheap_look_misses_nothing_and_masking_twice_changes_nothing(
    context: dict[str, Any], request_id: str
) -> None:
    entry = Entry(time=NOON, kind="decision", context=context, request_id=request_id)
    clean = mask(entry)
    assert clean == mask(clean)
    assert may_hold_secret(entry) or clean == entry
