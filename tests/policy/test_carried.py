"""What is said to be carried by no request is carried by none: the path's own law, asked backwards."""

from __future__ import annotations

from cedarpy import pst
from hypothesis import given
from hypothesis import strategies as st

from policyd.authz.path import canonical_path
from policyd.authz.request import host_asked
from policyd.errors import IncompleteRequest, UnacceptablePath
from policyd.policy.carried import why_never

targets = st.lists(
    st.sampled_from(["/", "a", "B", ".", "..", "%", "%61", "%2F", "%C3", "%c3", "?", " ", ";", "*", "é"])
)
cuts = st.lists(st.tuples(st.integers(0, 12), st.integers(0, 3)), max_size=3)


def never_like(chain: tuple[str, ...], text: str, cuts: list[tuple[int, int]]) -> str | None:
    """Of a pattern that `text` matches: stretches of it are left to wildcards."""
    base: pst.Expr = pst.Var("context")
    for name in chain:
        base = pst.GetAttr(base, name)
    pattern: list[pst.PatternElem] = [pst.Char(one) for one in text]
    for start, width in cuts:
        pattern[start : start + width] = [pst.Wildcard()]
    return why_never(pst.Like(base, tuple(pattern)))


@given(targets, cuts)
def test_every_path_that_policies_see_can_be_asked_for(words: list[str], cuts: list[tuple[int, int]]) -> None:
    try:
        path = canonical_path("/" + "".join(words), parameters=True)
    except UnacceptablePath:
        return
    assert never_like(("request", "path"), path, cuts) is None


@given(st.text("aB.:[]é"), cuts)
def test_every_host_that_policies_see_can_be_asked_for(text: str, cuts: list[tuple[int, int]]) -> None:
    try:
        host = host_asked(text)
    except IncompleteRequest:
        return
    assert never_like(("request", "host"), host, cuts) is None
