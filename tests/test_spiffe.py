"""SPIFFE IDs: what is one, what is none, and that text and value are the same thing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policyd.errors import SpiffeIdError
from policyd.spiffe import MAX_ID_BYTES, MAX_TRUST_DOMAIN_BYTES, SpiffeId, check_trust_domain

TRUST_DOMAINS = st.from_regex(r"[a-z0-9._-]{1,40}", fullmatch=True)
SEGMENTS = st.from_regex(r"[a-zA-Z0-9._-]{1,20}", fullmatch=True).filter(lambda text: text not in (".", ".."))


@given(TRUST_DOMAINS, st.lists(SEGMENTS, max_size=6))
def test_an_id_reads_back_as_it_is_written(trust_domain: str, segments: list[str]) -> None:
    id_ = SpiffeId(trust_domain, "".join(f"/{segment}" for segment in segments))
    assert SpiffeId.parse(str(id_)) == id_


@given(st.text(max_size=60))
def test_any_text_is_an_id_that_writes_itself_or_refused(text: str) -> None:
    try:
        id_ = SpiffeId.parse("spiffe://" + text)
    except SpiffeIdError:
        return
    assert str(id_) == "spiffe://" + text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "spiffe://",
        "spiffe:///ns/default/sa/web",
        "SPIFFE://cluster.local/a",
        "spiffe://Cluster.local/a",
        "spiffe://cluster.local/",
        "spiffe://cluster.local/a/",
        "spiffe://cluster.local//a",
        "spiffe://cluster.local/./a",
        "spiffe://cluster.local/../a",
        "spiffe://cluster.local/a\n",
        "spiffe://cluster.local/a%2fb",
        "spiffe://cluster.local/a?b",
        "spiffe://cluster.local/a#b",
        "spiffe://user@cluster.local/a",
        "spiffe://cluster.local:8080/a",
        "spiffe://cluster.local/ä",
        "spiffe://clüster.local/a",
        "spiffe://cluster.local/a\0",
        "https://cluster.local/a",
        " spiffe://cluster.local/a",
        "spiffe://" + "a" * 256 + "/b",
        "spiffe://cluster.local/" + "a" * MAX_ID_BYTES,
    ],
)
def test_what_is_no_id_is_refused(text: str) -> None:
    with pytest.raises(SpiffeIdError):
        SpiffeId.parse(text)


@given(TRUST_DOMAINS, st.lists(SEGMENTS, min_size=1, max_size=4), st.data())
def test_one_foreign_character_anywhere_makes_it_none(
    trust_domain: str, segments: list[str], data: st.DataObject
) -> None:
    text = str(SpiffeId(trust_domain, "".join(f"/{segment}" for segment in segments)))
    at = data.draw(st.integers(len("spiffe://"), len(text)))
    foreign = data.draw(st.sampled_from("%?#@:\\ \n\r\t\0äé\u2028\u0660\uff0e+*~!$&'()[],;=\"<>^`{|}"))
    with pytest.raises(SpiffeIdError):
        SpiffeId.parse(text[:at] + foreign + text[at:])


@given(TRUST_DOMAINS, st.lists(SEGMENTS, max_size=3), st.sampled_from(["", ".", ".."]), st.lists(SEGMENTS, max_size=3))
def test_an_empty_or_dot_segment_anywhere_makes_it_none(
    trust_domain: str, before: list[str], odd: str, after: list[str]
) -> None:
    with pytest.raises(SpiffeIdError):
        SpiffeId.parse(f"spiffe://{trust_domain}/" + "/".join([*before, odd, *after]))


@pytest.mark.parametrize("path", ["/...", "/.a", "/a..b", "/-", "/_", "/A", "/0", "/ns/.../sa/..a"])
def test_segments_that_only_look_odd_are_good(path: str) -> None:
    assert SpiffeId.parse(f"spiffe://cluster.local{path}").path == path


@pytest.mark.parametrize("name", ["10.0.0.1", "localhost", "_", "-", ".", "a..b", "xn--a"])
def test_names_that_look_like_addresses_or_dns_are_trust_domains_as_any(name: str) -> None:
    assert SpiffeId.parse(f"spiffe://{name}/a").trust_domain == name


def test_lengths_are_counted_to_the_byte() -> None:
    longest = SpiffeId("a" * MAX_TRUST_DOMAIN_BYTES, "/b")
    assert SpiffeId.parse(str(longest)) == longest
    with pytest.raises(SpiffeIdError, match="at most 255 bytes, this one 256"):
        SpiffeId("a" * (MAX_TRUST_DOMAIN_BYTES + 1), "/b")
    fill = "c" * (MAX_ID_BYTES - len("spiffe://cluster.local/"))
    assert len(str(SpiffeId("cluster.local", f"/{fill}"))) == MAX_ID_BYTES
    with pytest.raises(SpiffeIdError, match="at most 2048 bytes"):
        SpiffeId("cluster.local", f"/{fill}c")


def test_a_workload_has_a_namespace_and_a_service_account() -> None:
    id_ = SpiffeId.workload("cluster.local", "default", "bookinfo-reviews")
    assert str(id_) == "spiffe://cluster.local/ns/default/sa/bookinfo-reviews"
    assert (id_.namespace, id_.service_account, id_.agent_name) == ("default", "bookinfo-reviews", None)


@pytest.mark.parametrize("path", ["", "/ns/default", "/ns/default/sa/web/more", "/NS/default/sa/web", "/agent/a"])
def test_other_paths_have_neither(path: str) -> None:
    id_ = SpiffeId("cluster.local", path)
    assert (id_.namespace, id_.service_account) == (None, None)


def test_an_agent_has_a_name() -> None:
    id_ = SpiffeId.agent("cluster.local", "laptop")
    assert (str(id_), id_.agent_name) == ("spiffe://cluster.local/agent/laptop", "laptop")


def test_the_server_is_neither_workload_nor_agent() -> None:
    id_ = SpiffeId.server("cluster.local")
    assert (str(id_), id_.namespace, id_.agent_name) == ("spiffe://cluster.local/policyd/server", None, None)


def test_a_name_cannot_smuggle_in_a_longer_path() -> None:
    assert SpiffeId.workload("cluster.local", "a/sa/b", "c").service_account is None
    with pytest.raises(SpiffeIdError):
        SpiffeId.workload("cluster.local", "default", "../admin")


def test_a_trust_domain_is_returned_or_refused_with_what_to_do() -> None:
    assert check_trust_domain("cluster.local") == "cluster.local"
    with pytest.raises(SpiffeIdError) as refused:
        check_trust_domain("Cluster.Local")
    assert str(refused.value) == (
        "`Cluster.Local` is no trust domain name; use lower-case letters, digits, dots, dashes and underscores"
    )
