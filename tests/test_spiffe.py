"""SPIFFE IDs: what is one, what is none, and that text and value are the same thing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policyd.errors import SpiffeIdError
from policyd.spiffe import MAX_ID_BYTES, SpiffeId, check_trust_domain

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
