"""Which records are asked for."""

from __future__ import annotations

from typing import Any

import pytest

from policyd.audit.match import Match, entity_id, names, short_name
from policyd.audit.record import place
from policyd.home import Home
from tests.audit.samples import PRODUCTPAGE, WRITER, an_entry


@pytest.mark.parametrize(
    ("uid", "name", "short"),
    [
        (PRODUCTPAGE, "spiffe://cluster.local/ns/default/sa/productpage", "productpage"),
        ('Workload::"spiffe://cluster.local/ns/shop/sa/web"', "spiffe://cluster.local/ns/shop/sa/web", "web.shop"),
        ('Workload::"spiffe://cluster.local/agent/node-1"', "spiffe://cluster.local/agent/node-1", "agent/node-1"),
        ('Workload::"spiffe://a.b/ns/default/sa/web"', "spiffe://a.b/ns/default/sa/web", "a.b/web"),
        ('Workload::"spiffe://a.b/ns/shop/sa/web"', "spiffe://a.b/ns/shop/sa/web", "a.b/web.shop"),
        ('Workload::"spiffe://a.b/agent/node-1"', "spiffe://a.b/agent/node-1", "a.b/agent/node-1"),
        ('Workload::"spiffe://a.b"', "spiffe://a.b", "spiffe://a.b"),
        ('Workload::"spiffe://NO"', "spiffe://NO", "spiffe://NO"),
        ('Service::"reviews.default"', "reviews.default", "reviews"),
        ('Service::"reviews.shop"', "reviews.shop", "reviews.shop"),
        ('Host::"www.default"', "www.default", "www.default"),
        ('Unauthenticated::"anonymous"', "anonymous", "anonymous"),
        ('Host::"a\\"b\\\\"', 'a"b\\', 'a"b\\'),
        ("", "", ""),
        ("bare", "bare", "bare"),
    ],
)
def test_an_entity_has_an_id_and_a_short_name(uid: str, name: str, short: str) -> None:
    assert (entity_id(uid), short_name(uid)) == (name, short)


@pytest.mark.parametrize(
    ("home", "short"), [("a.b", "web"), ("cluster.local", "a.b/web"), ("", "a.b/web"), ("x.a.b", "a.b/web")]
)
def test_who_is_of_another_trust_domain_is_not_shown_as_one_of_ours(home: str, short: str) -> None:
    assert short_name('Workload::"spiffe://a.b/ns/default/sa/web"', home) == short


def test_a_process_says_once_whose_workloads_are_its_own() -> None:
    asked: list[str] = []
    home = Home()
    assert home.trust_domain == "cluster.local"
    home.moved(lambda: asked.append("a.b") or "a.b")
    assert (home.trust_domain, home.trust_domain, asked) == ("a.b", "a.b", ["a.b"])


@pytest.mark.parametrize("wanted", ["a.b/web.shop", "web.shop", "sa/web", "spiffe://a.b/ns/shop/sa/web"])
def test_who_is_of_another_trust_domain_is_found_by_the_name_that_is_shown(wanted: str) -> None:
    uid = 'Workload::"spiffe://a.b/ns/shop/sa/web"'
    assert (names(uid, wanted), names(uid.replace("a.b", "c.d"), "a.b/web.shop")) == (True, False)


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ({}, True),
        ({"decision": "allow"}, True),
        ({"decision": "deny"}, False),
        ({"kind": "decision"}, True),
        ({"kind": "issuance"}, False),
        ({"principal": "productpage"}, True),
        ({"principal": "sa/productpage"}, True),
        ({"principal": "spiffe://cluster.local/ns/default/sa/productpage"}, True),
        ({"principal": PRODUCTPAGE}, True),
        ({"principal": "page"}, False),
        ({"principal": ""}, False),
        ({"resource": "reviews"}, True),
        ({"resource": "reviews.default"}, True),
        ({"resource": "reviews.shop"}, False),
        ({"decision": "allow", "resource": "reviews", "principal": "productpage", "kind": "decision"}, True),
        ({"decision": "allow", "resource": "ratings"}, False),
    ],
)
def test_a_record_is_all_that_is_asked(asked: dict[str, Any], found: bool) -> None:
    assert Match(**asked)(place(an_entry(), WRITER, 1, "")) is found
