"""Which records are asked for."""

from __future__ import annotations

from typing import Any

import pytest

from policyd.audit.match import Match, entity_id, short_name
from policyd.audit.record import place
from tests.audit.samples import PRODUCTPAGE, WRITER, an_entry


@pytest.mark.parametrize(
    ("uid", "name", "short"),
    [
        (PRODUCTPAGE, "spiffe://cluster.local/ns/default/sa/productpage", "productpage"),
        ('Workload::"spiffe://a.b/ns/shop/sa/web"', "spiffe://a.b/ns/shop/sa/web", "web.shop"),
        ('Workload::"spiffe://a.b/agent/node-1"', "spiffe://a.b/agent/node-1", "agent/node-1"),
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
