"""Expressions over what the proxy has, against policyd's own canonical path: the same for every target."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policyd.authz.path import MAX_PATH_BYTES, canonical_path
from policyd.authz.request import host_asked, name_served
from policyd.errors import IncompleteRequest, NotCompilable, UnacceptablePath
from policyd.local.expressions import (
    ACCEPTABLE_PATH,
    NAME_OF_TUNNEL,
    PLAIN_PATH,
    TOO_LONG_PATH,
    UNACCEPTABLE_PATH,
    host_expressions,
    path_expression,
    segments_expression,
)
from policyd.mesh.model import Listener
from policyd.spiffe import SpiffeId

# Envoy has resolved dots and slashes and decoded letters; it has not: %40 and the like
UNITS = (
    "/", "/", "a", "A", "9", "C", "5", ".", "~", "@", "'", "(", "%40", "%3a", "%3A", "%27", "%C3", "%c3", "%a9", "%A9",
    "%25", "%20", "%5b", "%3B", "%3b", "?", "%", ";", "%2F", "%09", "%zz", "40", "C3", "<", "#", "//", "/..", "/.",
)  # fmt: skip
GOOD = (
    "/a", "/a", "a", "A", "9", "C", "5", "~", "@", "'", "%40", "%3a", "%3A", "%27", "%C3", "%c3", "%a9", "%A9", "%25/",
    "%20", "%5b", "%3B", "%3b", "40", "C3", "3",
)  # fmt: skip
ENVOY_DECODES = re.compile("%(?:2[eEdD]|3[0-9]|[46][1-9a-fA-F]|[57][0-9aA]|5[fF]|7[eE])")
often = settings(max_examples=400, deadline=None)

targets = st.lists(st.sampled_from(UNITS), max_size=8).map(lambda units: "/" + "".join(units))
good_targets = st.tuples(st.lists(st.sampled_from(GOOD), max_size=8), st.sampled_from(("", "?", "?/a@b"))).map(
    lambda parts: "/" + "".join(parts[0]).replace("//", "/").lstrip("/") + parts[1]
)
pieces = st.lists(
    st.lists(st.sampled_from(("/", "a", "A", "9", "C", "5", "@", "'", "%", "%C3", "%25", "3", "40", "é")), max_size=3),
    min_size=1,
    max_size=4,
).map(lambda found: ["".join(one) for one in found])


def canonical(target: str) -> str | None:
    try:
        return canonical_path(target)
    except UnacceptablePath:
        return None


def is_refused(target: str) -> bool:
    if re.fullmatch(TOO_LONG_PATH, target):
        return True
    return not re.fullmatch(PLAIN_PATH, target) and has_no_meaning(target)


def has_no_meaning(target: str) -> bool:
    return not re.fullmatch(ACCEPTABLE_PATH, target) or any(
        text in target and re.fullmatch(one, target) for text, one in UNACCEPTABLE_PATH
    )


def like(text: str, found: list[str]) -> bool:
    return re.fullmatch(".*".join(map(re.escape, found)), text) is not None


@often
@given(targets)
def test_what_policyd_refuses_is_refused(target: str) -> None:
    if not ENVOY_DECODES.search(target):
        assert is_refused(target) is (canonical(target) is None)


@often
@given(targets | st.text("/.aA9~@'-?%", max_size=12))
def test_a_plain_path_is_one_that_need_not_be_looked_at_further(target: str) -> None:
    if re.fullmatch(PLAIN_PATH, target):
        assert not has_no_meaning(target)


@pytest.mark.parametrize("target", ["/", "/a", "/api/v1/things.json/", "/a?b=%2F/..", "/~me/@here"])
def test_most_paths_are_plain(target: str) -> None:
    assert re.fullmatch(PLAIN_PATH, target)


@pytest.mark.parametrize("over", [0, 1])
def test_a_path_is_as_long_as_policyd_takes(over: int) -> None:
    target = "/" + "a" * (MAX_PATH_BYTES - 1 + over)
    assert is_refused(target) is (canonical(target) is None) is bool(over)
    assert not is_refused("/a?" + "a" * MAX_PATH_BYTES)


@pytest.mark.parametrize("target", ["/%41", "/%2e%2e/b", "/%7Ea", "/a%2D"])
def test_what_envoy_did_not_normalise_is_refused(target: str) -> None:
    assert is_refused(target)


@often
@given(good_targets, pieces)
def test_a_pattern_matches_where_it_matches_the_canonical_path(target: str, found: list[str]) -> None:
    path = canonical(target)
    try:
        expression = path_expression(found)
    except NotCompilable:
        return
    matched = expression is not None and re.fullmatch(expression, target) is not None
    assert path is None or matched is like(path, found)


@often
@given(good_targets, st.lists(st.tuples(st.integers(0, 12), st.integers(0, 2)), max_size=4))
def test_a_pattern_that_is_cut_out_of_a_path_matches_it(target: str, cuts: list[tuple[int, int]]) -> None:
    path = canonical(target)
    if path is None:
        return
    found, at = [], 0
    for start, length in sorted(cuts):
        end = max(at, min(start, len(path)))
        found.append(path[at:end])
        at = min(end + length, len(path))
    try:
        expression = path_expression([*found, path[at:]])
    except NotCompilable:
        return
    assert expression is not None
    assert re.fullmatch(expression, target)


@often
@given(good_targets, st.integers(0, 6), st.integers(0, 6))
def test_segments_are_counted_as_policyd_counts_them(target: str, least: int, more: int) -> None:
    path = canonical(target)
    matched = re.fullmatch(segments_expression(least, least + more), target) is not None
    assert path is None or matched is (least <= path.count("/") <= least + more)


@pytest.mark.parametrize("found", [["/a%", "3"], ["/a%C", "3"], ["", "C", "3"], ["/a%2", "", "5"]])
def test_pieces_that_might_lie_in_one_escape_are_not_compiled(found: list[str]) -> None:
    with pytest.raises(NotCompilable, match=r"^a pattern that may divide an escape$"):
        path_expression(found)


def test_wildcards_in_a_row_are_one() -> None:
    assert path_expression(["/a", "", "", "b", ""]) == path_expression(["/a", "b", ""])
    assert path_expression(["", "", ""]) == path_expression(["", ""])


@pytest.mark.parametrize("found", [["/é"], ["/a b"], ["/a%c3"], ["/a%4"], ["/a%40"], ["/a;b"], ["/a%zz", ""]])
def test_what_stands_in_no_canonical_path_never_matches(found: list[str]) -> None:
    assert path_expression(found) is None


def test_hosts_are_compared_in_any_case() -> None:
    assert host_expressions(["a.b", "c"]) == (r"[aA]\x2e[bB].*[cC]", r"[aA]\x2e[bB].*[cC]:[0-9]*")
    assert host_expressions(["A"]) is None
    assert host_expressions(["é"]) is None


@pytest.mark.parametrize(
    ("host", "is_one"),
    [
        ("shop", True), ("shop:", True), ("SHOP:443", True), (":443", True), ("[::1]:443", True), ("[::1]", True),
        ("shop:1:2", False), ("shop:1:", False), ("shop:a", False), ("::1", False), (":1:2", False),
        ("shop.", False), ("shop.:443", False), (".", False), (".:443", False), ("a.shop:443", True), ("[::1].", True),
    ],
)  # fmt: skip
def test_a_tunnel_is_for_a_name_where_policyd_takes_it_for_one(host: str, is_one: bool) -> None:
    owner = SpiffeId.parse("spiffe://a/db")
    listener = Listener("db-v1/inbound", "inbound", "db-v1", owner, "db.default", 443, True, protocol="tls")

    def is_taken() -> bool:
        try:
            name_served("", listener, host_asked(host))
        except IncompleteRequest:
            return False
        return True

    assert (is_taken(), re.fullmatch(NAME_OF_TUNNEL, host) is not None) == (is_one, is_one)
