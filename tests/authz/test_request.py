"""A check to facts: who is believed, about what, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from policyd.authz.context import http_context
from policyd.authz.request import Query, read_check
from policyd.cedar.http import Endpoint, HttpFacts
from policyd.cedar.model import Entity, Uid
from policyd.errors import IncompleteRequest
from policyd.mesh.model import Mesh
from policyd.spiffe import SpiffeId
from tests.authz.checks import INGRESS, PAGE, REVIEWS, address, at_gateway, check_of

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)


def test_a_check_is_read_whole(mesh: Mesh) -> None:
    assert read_check(check_of(), REVIEWS, mesh, NOW) == Query(
        facts=HttpFacts(
            principal=PAGE,
            service="reviews.default",
            method="GET",
            target="/reviews/0?full=1",
            host="reviews",
            time=NOW,
            source=Endpoint("10.0.0.1", 41000),
            destination=Endpoint("10.0.0.2", 9080),
            instance="reviews-v1",
            headers={"x-request-id": "r-1", "end-user": "jason"},
        ),
        listener=mesh.listeners["reviews-v1/inbound"],
        request_id="r-1",
    )


def test_a_forged_identity_at_a_gateway_stays_unauthenticated(mesh: Mesh) -> None:
    forged = at_gateway(source__principal=str(PAGE), destination__principal=str(INGRESS))
    assert read_check(forged, INGRESS, mesh, NOW).facts.principal is None
    assert read_check(at_gateway(), INGRESS, mesh, NOW).facts.principal is None


BEHIND = "ingress/gateway/8080"


@pytest.mark.parametrize(
    ("proxies", "forwarded", "client"),
    [
        (0, "203.0.113.9, 10.0.0.1", ""),
        (1, "203.0.113.9, 10.0.0.1", "203.0.113.9"),
        (1, "203.0.113.9,10.0.0.1", "203.0.113.9"),
        (1, "198.51.100.1, 203.0.113.9, 10.0.0.1", "203.0.113.9"),  # what the client itself wrote
        (2, "203.0.113.9, 10.0.0.7, 10.0.0.1", "203.0.113.9"),
        (2, "198.51.100.1, 2001:DB8::9, 10.0.0.7, 10.0.0.1", "2001:db8::9"),
        (1, "::ffff:203.0.113.9, 10.0.0.1", "203.0.113.9"),  # as a proxy writes it that listens on both
        (1, "10.0.0.1", ""),  # no proxy has said anything
        (2, "203.0.113.9, 10.0.0.1", ""),
        (1, "somebody, 10.0.0.1", ""),
        (1, "203.0.113.9:443, 10.0.0.1", ""),
        (1, ", 10.0.0.1", ""),
        (1, "", ""),
    ],
)
def test_the_client_is_whom_the_first_of_so_many_proxies_says(
    mesh: Mesh, proxies: int, forwarded: str, client: str
) -> None:
    listeners = {**mesh.listeners, BEHIND: replace(mesh.listeners[BEHIND], trusted_proxies=proxies)}
    check = at_gateway(request__http__headers={"x-forwarded-for": forwarded})
    facts = read_check(check, INGRESS, replace(mesh, listeners=listeners), NOW, ()).facts

    assert (facts.client, facts.source.ip) == (client, "10.0.0.1")
    context = http_context(facts, "/", Entity(Uid("Labels", "x")))
    assert context["client_ip"] == {"__extn": {"fn": "ip", "arg": client or "10.0.0.1"}}
    assert context["source"]["ip"] == {"__extn": {"fn": "ip", "arg": "10.0.0.1"}}


def test_the_host_chooses_no_service(mesh: Mesh) -> None:
    facts = read_check(check_of(request__http__host="RATINGS.default:1"), REVIEWS, mesh, NOW).facts
    assert (facts.service, facts.host) == ("reviews.default", "ratings.default")


def test_an_undeclared_workload_of_the_trust_domain_is_itself(mesh: Mesh) -> None:
    stranger = SpiffeId.workload("cluster.local", "shop", "cart")
    assert read_check(check_of(source__principal=str(stranger)), REVIEWS, mesh, NOW).facts.principal == stranger


@pytest.mark.parametrize(
    ("host", "seen"),
    [
        ("a", "a"),
        ("A.B", "a.b"),
        ("a:80", "a"),
        ("[::1]:80", "[::1]"),
        ("[::1]", "[::1]"),
        ("10.0.0.1:8080", "10.0.0.1"),
    ],
)
def test_a_host_is_lower_case_without_its_port(mesh: Mesh, host: str, seen: str) -> None:
    assert read_check(check_of(request__http__host=host), REVIEWS, mesh, NOW).facts.host == seen


def test_withheld_headers_are_not_kept_even_if_sent(mesh: Mesh) -> None:
    headers = {"cookie": "a", "Authorization": "b", "proxy-authorization": "c", "x": "d"}
    facts = read_check(check_of(request__http__headers=headers), REVIEWS, mesh, NOW).facts
    assert facts.headers == {"x": "d"}


def test_raw_headers_are_read_too(mesh: Mesh) -> None:
    raw = [{"key": "x", "raw_value": "YQ=="}, {"key": "X", "value": "b"}, {"key": ":path", "value": "/"}]
    check = check_of(request__http__headers=None, request__http__header_map={"headers": raw})
    assert read_check(check, REVIEWS, mesh, NOW).facts.headers == {"x": "a,b"}


@pytest.mark.parametrize(
    ("headers", "ids"),
    [
        ({"traceparent": f"00-{'a' * 32}-{'b' * 16}-01"}, ("a" * 32, "b" * 16)),
        ({"x-b3-traceid": "c" * 16, "x-b3-spanid": "d" * 16}, ("c" * 16, "d" * 16)),
        ({"traceparent": "00-zz"}, ("", "")),
        ({"x-b3-traceid": "c" * 16}, ("", "")),
    ],
)
def test_a_trace_is_followed(mesh: Mesh, headers: dict[str, str], ids: tuple[str, str]) -> None:
    query = read_check(check_of(request__http__headers=headers), REVIEWS, mesh, NOW)
    assert (query.trace_id, query.span_id) == ids


@pytest.mark.parametrize("request_id", ["a b", "x" * 129, "\t"])
def test_an_unusable_request_id_is_left_out(mesh: Mesh, request_id: str) -> None:
    check = check_of(request__http__headers={"x-request-id": request_id})
    assert read_check(check, REVIEWS, mesh, NOW).request_id == ""


def test_a_workload_of_a_trust_domain_that_is_known_is_who_it_says(mesh: Mesh) -> None:
    partner = "spiffe://partner.org/ns/shop/sa/web"
    known = replace(mesh, federated=frozenset({"partner.org"}))
    assert read_check(check_of(source__principal=partner), REVIEWS, known, NOW).facts.principal == SpiffeId.parse(
        partner
    )


@pytest.mark.parametrize("path", ["", "/agent/a", "/policyd/server"])
def test_but_what_is_no_workload_there_is_none_here(mesh: Mesh, path: str) -> None:
    known = replace(mesh, federated=frozenset({"partner.org"}))
    with pytest.raises(IncompleteRequest, match="is no workload"):
        read_check(check_of(source__principal=f"spiffe://partner.org{path}"), REVIEWS, known, NOW)


BAD: list[tuple[dict[str, Any], str]] = [
    ({"context_extensions": None}, "the check names no listener of the mesh: `''`"),
    (
        {"context_extensions": {"policyd.listener": "nobody\n"}},
        r"the check names no listener of the mesh: `'nobody\n'`",
    ),
    (
        {"context_extensions": {"policyd.listener": "ratings-v1/inbound"}},
        "the listener `ratings-v1/inbound` belongs to `spiffe://cluster.local/ns/default/sa/bookinfo-ratings`, "
        "not to the asking `spiffe://cluster.local/ns/default/sa/bookinfo-reviews`",
    ),
    (
        {"destination__principal": str(PAGE)},
        f"`{REVIEWS}` asks about a connection to `'{PAGE}'`",
    ),
    ({"source__principal": None}, "a peer without an identity on `reviews-v1/inbound`, which verifies them"),
    ({"source__principal": "CN=x"}, "a peer without an identity on `reviews-v1/inbound`, which verifies them"),
    (
        {"source__principal": "spiffe://partner.org/ns/shop/sa/web"},
        "`spiffe://partner.org/ns/shop/sa/web` is of no trust domain that `reviews-v1/inbound` verifies",
    ),
    ({"source__principal": "spiffe://cluster.local"}, "`spiffe://cluster.local` is no workload"),
    ({"source__principal": "spiffe://cluster.local/agent/a"}, "`spiffe://cluster.local/agent/a` is no workload"),
    (
        {"source__principal": "spiffe://cluster.local/policyd/server"},
        "`spiffe://cluster.local/policyd/server` is no workload",
    ),
    ({"source__address": None}, "the source of the connection has no address"),
    ({"source__address": {"pipe": {"path": "/x"}}}, "the source of the connection has no address"),
    ({"source__address": address("reviews", 1)}, "the source of the connection has no address"),
    ({"source__address": address("10.0.0.1%3", 1)}, "the source of the connection has no address"),
    ({"source__address": address("fe80::1%", 1)}, "the source of the connection has no address"),
    ({"destination__address": None}, "the destination of the connection has no address"),
    ({"request": None}, "the check has no usable method"),
    ({"request__http__method": None}, "the check has no usable method"),
    ({"request__http__method": "GET\0"}, "the check has no usable method"),
    ({"request__http__method": "X" * 65}, "the check has no usable method"),
    ({"request__http__method": "CONNECT"}, "`CONNECT` at `reviews-v1/inbound`, which is for requests"),
    ({"request__http__host": None}, "the check has no usable host"),
    ({"request__http__host": "a\0b"}, "the check has no usable host"),
    ({"request__http__host": "x" * 261}, "the check has no usable host"),
    ({"request__http__headers": {"x": "a\0b"}}, "a header has characters that no header has"),
    ({"request__http__headers": {"x": "a\r\nb: c"}}, "a header has characters that no header has"),
    ({"request__http__headers": {"x y": "a"}}, "a header has characters that no header has"),
    (
        {"request__http__headers": {f"x{number}": "" for number in range(129)}},
        "a check has at most 128 headers and 65536 bytes of them",
    ),
    ({"request__http__headers": {"x": "a" * 65536}}, "a check has at most 128 headers and 65536 bytes of them"),
]


@pytest.mark.parametrize(("changes", "message"), BAD)
def test_what_is_missing_or_contradictory_is_no_request(mesh: Mesh, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(IncompleteRequest) as caught:
        read_check(check_of(**changes), REVIEWS, mesh, NOW)
    assert str(caught.value) == message


def test_another_identity_may_not_ask_for_a_listener(mesh: Mesh) -> None:
    with pytest.raises(IncompleteRequest):
        read_check(check_of(), PAGE, mesh, NOW)
    with pytest.raises(IncompleteRequest):
        read_check(check_of(), replace(REVIEWS, trust_domain="partner.org"), mesh, NOW)


def test_at_a_gateway_neither_sides_certificate_is_an_identity(mesh: Mesh) -> None:
    check = at_gateway(source__principal=str(PAGE), destination__principal="shop.example")

    assert read_check(check, INGRESS, mesh, NOW).facts.principal is None


@pytest.mark.parametrize(
    ("told", "ip"),
    [
        ("::ffff:10.0.0.1", "10.0.0.1"),
        ("FE80:0::1", "fe80::1"),
        ("fe80::1%3", "fe80::1"),  # as Envoy writes the interface of a link-local one, which no range of a policy has
        ("fe80::1%eth0", "fe80::1"),
    ],
)
def test_ends_have_their_addresses_in_the_form_that_policies_compare(mesh: Mesh, told: str, ip: str) -> None:
    check = check_of(source__address=address(told, 1), destination__address=address(told, 9080))

    facts = read_check(check, REVIEWS, mesh, NOW).facts

    assert (facts.source, facts.destination.ip) == (Endpoint(ip, 1), ip)


def test_headers_that_nobody_reads_are_not_looked_at(mesh: Mesh) -> None:
    headers = {"x-read": "1", "x-other": "2", "x-request-id": "abc"}

    query = read_check(check_of(request__http__headers=headers), REVIEWS, mesh, NOW, frozenset({"x-read", "x-absent"}))

    assert query.facts.headers == {"x-read": "1", "x-request-id": "abc"}
    assert query.request_id == "abc"
