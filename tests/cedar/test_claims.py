"""Claims have one form each, or are refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policyd.cedar.claims import EXACT, MAX_CLAIMS, MAX_DEPTH, MAX_TEXT, MAX_VALUES, claims_of
from policyd.errors import UnacceptableToken


@pytest.mark.parametrize(
    ("payload", "claims"),
    [
        ({"name": "alice"}, {"name": ("alice",)}),
        ({"name": ""}, {"name": ("",)}),
        ({"scope": "write read  read"}, {"scope": ("read", "write")}),
        ({"scope": ["write read"]}, {"scope": ("write read",)}),
        ({"scope": ""}, {"scope": ()}),
        ({"n": 42, "m": 42.0, "f": 1.5, "z": -0.0}, {"n": ("42",), "m": ("42",), "f": ("1.5",), "z": ("0",)}),
        ({"yes": True, "no": False}, {"yes": ("true",), "no": ("false",)}),
        ({"roles": ["b", "a", "b", 1, True, None, [2], {"c": 3}]}, {"roles": ("1", "a", "b", "true")}),
        ({"roles": []}, {"roles": ()}),
        ({"gone": None, "empty": {}}, {}),
        ({"realm": {"roles": ["x"], "deep": {"er": 1}}}, {"realm.roles": ("x",), "realm.deep.er": ("1",)}),
        ({"https://example.com/roles": ["x"]}, {"https://example.com/roles": ("x",)}),
    ],
)
def test_a_claim_is_a_set_of_texts(payload: dict[str, Any], claims: dict[str, tuple[str, ...]]) -> None:
    assert claims_of(payload, {"scope"}) == claims


def nested(depth: int) -> dict[str, Any]:
    return {"a": nested(depth - 1)} if depth else {"a": 1}


@pytest.mark.parametrize(
    ("payload", "problem"),
    [
        ({"id": EXACT}, "the claim `id` is a number beyond 2^53; have its issuer write it as text"),
        ({"id": [-1e300]}, "the claim `id` is a number beyond 2^53; have its issuer write it as text"),
        ({"a.b": 1, "a": {"b": 2}}, "the claim `a.b` is there twice, by itself and inside another"),
        (nested(MAX_DEPTH + 1), f"claims are at most {MAX_DEPTH} deep"),
        ({f"c{at}": 1 for at in range(MAX_CLAIMS + 1)}, f"a token has at most {MAX_CLAIMS} claims"),
        ({"c": ["x"] * (MAX_VALUES + 1)}, f"a claim has at most {MAX_VALUES} values of {MAX_TEXT} characters"),
        ({"c": "x" * (MAX_TEXT + 1)}, f"a claim has at most {MAX_VALUES} values of {MAX_TEXT} characters"),
        ({"x" * (MAX_TEXT + 1): 1}, f"a claim has at most {MAX_VALUES} values of {MAX_TEXT} characters"),
    ],
)
def test_what_has_no_one_form_is_refused(payload: dict[str, Any], problem: str) -> None:
    with pytest.raises(UnacceptableToken) as error:
        claims_of(payload)
    assert str(error.value) == problem


def test_the_largest_that_is_taken_is_taken() -> None:
    assert claims_of(nested(MAX_DEPTH)) == {".".join("a" * (MAX_DEPTH + 1)): ("1",)}
    assert claims_of({"id": EXACT - 1}) == {"id": (str(EXACT - 1),)}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-EXACT + 1, EXACT - 1) | st.floats(-1e15, 1e15) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("abc", min_size=1), inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(st.text("abc", min_size=1), JSON, max_size=4))
def test_every_claim_is_a_sorted_set_of_texts_and_the_same_on_both_sides_of_the_wire(payload: dict[str, Any]) -> None:
    """Envoy reads JSON into doubles: what policyd gets says the same as what was written."""
    doubles = json.loads(json.dumps(payload), parse_int=float)
    try:
        claims = claims_of(payload)
    except UnacceptableToken:
        return
    assert claims == claims_of(doubles)
    assert all(list(values) == sorted(set(values)) for values in claims.values())
