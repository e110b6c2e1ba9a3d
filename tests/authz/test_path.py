"""The canonical path: a table, and the laws behind it."""

from __future__ import annotations

from contextlib import suppress
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from policyd.authz.path import MAX_PATH_BYTES, canonical_path, segment_count
from policyd.errors import UnacceptablePath


@pytest.mark.parametrize(
    ("target", "path", "segments"),
    [
        ("/", "/", 1),
        ("/a", "/a", 1),
        ("/a/", "/a/", 2),
        ("/users/7/orders", "/users/7/orders", 3),
        ("/a?x=/../b;y", "/a", 1),
        ("/a?", "/a", 1),
        ("/%7Euser/%41bc", "/~user/Abc", 2),
        ("/me%40home%2Adot%2E%2ex", "/me@home*dot..x", 1),
        ("/a%3Fb%23c", "/a%3Fb%23c", 1),
        ("/caf%c3%a9", "/caf%C3%A9", 1),
        ("/a%20b", "/a%20b", 1),
        ("/a%3bx", "/a%3Bx", 1),
        ("/a%25", "/a%25", 1),
        ("/100%25zz", "/100%25zz", 1),
        ("/.well-known/x", "/.well-known/x", 2),
        ("/a..b/...", "/a..b/...", 2),
        ("/!$&'()*+,=:@-._~", "/!$&'()*+,=:@-._~", 1),
        ("/payments.v1.Payments/Charge", "/payments.v1.Payments/Charge", 2),
        ("/" + "a" * (MAX_PATH_BYTES - 1), "/" + "a" * (MAX_PATH_BYTES - 1), 1),
    ],
)
def test_a_path_has_one_form(target: str, path: str, segments: int) -> None:
    assert (canonical_path(target), segment_count(path)) == (path, segments)


@pytest.mark.parametrize(
    "target",
    [
        "",
        "*",
        "a",
        "http://host/a",
        "?x=1",
        "//a",
        "/a//b",
        "/.",
        "/..",
        "/a/.",
        "/a/..",
        "/./a",
        "/a/../b",
        "/%2e%2E/a",
        "/a/%2e",
        "/a%2Fb",
        "/a%2fb",
        "/a%5Cb",
        "/a%5cb",
        "/a\\b",
        "/a;x=1",
        "/admin;/x",
        "/a%252Fb",
        "/a%2541",
        "/a%25%34%31",
        "/a%",
        "/a%4",
        "/a%zz",
        "/a%00",
        "/a%0d%0a",
        "/a%1F",
        "/a%7F",
        "/a\0",
        "/a\n",
        "/a?x=\0",
        "/a b",
        "/é",
        "/a#b",
        "/a?b#c",
        '/a"b',
        "/a<b",
        "/a{b}",
        "/a|b",
        "/a^b",
        "/a`b",
        "/a[b]",
        "/" + "a" * MAX_PATH_BYTES,
        "/a?" + "b" * 70000,
    ],
)
def test_a_path_without_a_form_is_refused(target: str) -> None:
    with pytest.raises(UnacceptablePath):
        canonical_path(target)


def test_a_service_may_take_path_parameters() -> None:
    assert canonical_path("/a;x=1/b", parameters=True) == "/a;x=1/b"
    assert canonical_path("/a%3Bx", parameters=True) == "/a%3Bx"
    for target in ("/a/..;x/b", "/.;/b", "/a/%2e%2e;"):
        with pytest.raises(UnacceptablePath):
            canonical_path(target, parameters=True)


_pieces = st.sampled_from([" ", *"/ a B . - é @ * % %2 %41 %2e %40 %c3 %C3 %25 %2f ; ?".split()])  # noqa: SIM905
_targets = st.builds("/{}".format, st.lists(_pieces, max_size=12).map("".join))


@given(_targets)
@example("/%25%41a")
def test_the_form_of_a_form_is_itself(target: str) -> None:
    with suppress(UnacceptablePath):
        path = canonical_path(target)
        assert canonical_path(path) == path


@given(_targets)
def test_the_application_and_the_policy_see_the_same_path(target: str) -> None:
    with suppress(UnacceptablePath):
        assert unquote_to_bytes(canonical_path(target)) == unquote_to_bytes(target.partition("?")[0])


@given(st.text(alphabet='abé/.-~@*+ :%"', max_size=8), st.randoms(use_true_random=False))
def test_what_an_application_cannot_tell_apart_has_one_form(text: str, random) -> None:  # type: ignore[no-untyped-def]
    def spelt() -> str:
        """Some way to write the path: any byte but a slash may be an escape, in either case."""
        out = ""
        for byte in text.encode():
            escape = random.choice([f"%{byte:02x}", f"%{byte:02X}"])
            plain = chr(byte)
            out += plain if plain == "/" or (plain in "ab.-~@*+:" and random.random() < 0.5) else escape
        return "/" + out

    def form(target: str) -> str | None:
        try:
            return canonical_path(target)
        except UnacceptablePath:
            return None

    assert form(spelt()) == form(spelt())
