"""A request to the outside: who asks, and for which Host, whatever the request says of itself."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from policyd.authz.record import Outcome, entry_of
from policyd.authz.request import read_check
from policyd.authz.ruling import Ruling
from policyd.cedar.http import Endpoint
from policyd.cedar.model import Entity, Uid
from policyd.cedar.schema import Schema
from policyd.errors import IncompleteRequest, PolicydError
from policyd.mesh.model import Listener, Mesh
from tests.authz.checks import PAGE, RATINGS, REVIEWS, address, check_of, ruling_of

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
OUT = {"policyd.host": "www.googleapis.com", "policyd.port": "80"}


def asked(**changes: Any) -> Any:
    """reviews-v1 asks the outside for books, as Envoy tells it: in plain HTTP, from its own loopback."""
    defaults: dict[str, Any] = {
        "source": {"address": address("127.0.0.1", 41000)},
        "destination": {"address": address("127.0.0.1", 15001)},
        "request__http__host": "www.googleapis.com",
        "request__http__path": "/books/v1",
        "context_extensions": OUT,
        "metadata_context": {"filter_metadata": {"policyd": {"listener": "reviews-v1/egress"}}},
    }
    return check_of(**(defaults | changes))


def test_the_owner_of_the_proxy_asks_for_the_host_of_the_route(mesh: Mesh) -> None:
    query = read_check(asked(), REVIEWS, mesh, NOW)

    facts = query.facts
    assert (facts.principal, facts.service, facts.outside, facts.instance) == (
        REVIEWS,
        "",
        "www.googleapis.com",
        "reviews-v1",
    )
    assert facts.destination == Endpoint("127.0.0.1", 80)
    assert query.listener == mesh.listeners["reviews-v1/egress"]


@pytest.mark.parametrize(
    ("extensions", "sni"),
    [
        ({}, ""),
        ({"policyd.tls": "www.googleapis.com"}, "www.googleapis.com"),
        ({"policyd.tls": "*", "policyd.host": "*"}, "a.example.com"),
        # a rule leads elsewhere: what clients ask for is what the tunnel was asked for
        ({"policyd.tls": "*"}, "a.example.com"),
    ],
)
def test_what_a_guarded_tunnel_asks_for_is_its_name(extensions: dict[str, str], sni: str, mesh: Mesh) -> None:
    tunnel = asked(
        request__http__method="CONNECT",
        request__http__host="A.example.com:443",
        request__http__headers={"x-policyd-sni": "forged.example.com"},
        context_extensions={**OUT, **extensions},
    )
    assert read_check(tunnel, REVIEWS, mesh, NOW).facts.sni == sni


def test_a_forged_principal_changes_nothing(mesh: Mesh) -> None:
    forged = asked(source={"principal": str(PAGE), "address": address("127.0.0.1", 41000)})
    assert read_check(forged, REVIEWS, mesh, NOW).facts.principal == REVIEWS


def test_a_forged_host_changes_nothing_where_the_route_leads_to_one(mesh: Mesh) -> None:
    facts = read_check(asked(request__http__host="allowed.example.com"), REVIEWS, mesh, NOW).facts
    assert (facts.outside, facts.host) == ("www.googleapis.com", "allowed.example.com")


@pytest.mark.parametrize(
    ("pattern", "port", "authority", "outside"),
    [
        ("*.example.com", "80", "WWW.Example.com", ("www.example.com", 80)),
        ("*.example.com", "8080", "a.b.example.com:8080", ("a.b.example.com", 8080)),
        ("*", "0", "www.example.com", ("www.example.com", 80)),
        ("*", "0", "www.example.com:8443", ("www.example.com", 8443)),
        ("*", "0", "[2001:db8::1]:8443", ("2001:db8::1", 8443)),
        ("*", "0", "192.0.2.1", ("192.0.2.1", 80)),
    ],
)
def test_where_a_route_leads_to_what_is_asked_for_the_name_is_read(
    mesh: Mesh, pattern: str, port: str, authority: str, outside: tuple[str, int]
) -> None:
    extensions = {"policyd.host": pattern, "policyd.port": port}
    facts = read_check(asked(context_extensions=extensions, request__http__host=authority), REVIEWS, mesh, NOW).facts
    assert (facts.outside, facts.destination.port) == outside


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"context_extensions": {}}, "a check of a request to the outside names no host"),
        (
            {"context_extensions": {"policyd.host": "*.example.com", "policyd.port": "80"}},
            "`'www.googleapis.com'` is no name under `*.example.com`, where the route leads",
        ),
        (
            {"context_extensions": {"policyd.host": "*", "policyd.port": "0"}, "request__http__host": "a@b"},
            "`'a@b'` is no name under `*`, where the route leads",
        ),
        (
            {"context_extensions": {"policyd.host": "*", "policyd.port": "0"}, "request__http__host": "a.b."},
            "`'a.b.'` is no name under `*`, where the route leads",
        ),
        (
            {"context_extensions": {"policyd.host": "*", "policyd.port": "0"}, "request__http__host": "a.b:0"},
            "`'a.b:0'` has no port that can be",
        ),
        (
            {"context_extensions": {"policyd.host": "www.googleapis.com"}},
            "a check of a request to the outside names no port",
        ),
        (
            {"metadata_context": None},
            "the check names no listener of the mesh: `''`",
        ),
        (
            {"metadata_context": {"filter_metadata": {"policyd": {"listener": "ratings-v1/egress"}}}},
            f"the listener `ratings-v1/egress` belongs to `{RATINGS}`, not to the asking `{REVIEWS}`",
        ),
    ],
)
def test_a_check_that_does_not_say_what_it_is_about_is_no_request(
    mesh: Mesh, changes: dict[str, Any], message: str
) -> None:
    given = {name: value for name, value in changes.items() if value is not None}
    check = asked(**given)
    if "metadata_context" in changes and changes["metadata_context"] is None:
        check.attributes.ClearField("metadata_context")
    with pytest.raises(IncompleteRequest) as caught:
        read_check(check, REVIEWS, mesh, NOW)
    assert str(caught.value) == message


def test_a_route_of_a_service_does_not_ask_as_the_way_out(mesh: Mesh) -> None:
    both = asked(context_extensions={**OUT, "policyd.listener": "reviews-v1/inbound"})
    with pytest.raises(IncompleteRequest) as caught:
        read_check(both, REVIEWS, mesh, NOW)
    assert "a peer without an identity" in str(caught.value)


POLICIES = """
@id("books")
permit (principal == Workload::"spiffe://cluster.local/ns/default/sa/bookinfo-reviews", action == Action::"GET",
  resource == Host::"www.googleapis.com")
  when { context.request.path like "/books/*" && context.destination.port == 80 };
@id("tunnels")
permit (principal, action == Action::"connect", resource in Group::"google")
  when { context.destination.port == 443 };
"""


@pytest.fixture(scope="module")
def permitting(mesh: Mesh, schema: Schema) -> Ruling:
    return ruling_of(mesh, schema, {"policies/out.cedar": POLICIES})


def decided(ruling: Ruling, check: Any) -> tuple[bool, tuple[str, ...]]:
    decision = ruling.decide(ruling.request(read_check(check, REVIEWS, ruling.mesh, NOW).facts))
    return decision.allowed, decision.reasons


CONNECT = {
    "request__http__method": "CONNECT",
    "request__http__path": "",
    "request__http__host": "www.googleapis.com:443",
}


@pytest.mark.parametrize(
    ("changes", "answer"),
    [
        ({}, (True, ("books",))),
        ({"request__http__method": "POST"}, (False, ())),
        ({"request__http__path": "/maps"}, (False, ())),
        ({"context_extensions": {**OUT, "policyd.port": "8080"}}, (False, ())),
        ({"context_extensions": {**OUT, "policyd.host": "other.example.com"}}, (False, ())),
        ({**CONNECT, "context_extensions": {**OUT, "policyd.port": "443"}}, (True, ("tunnels",))),
        (CONNECT, (False, ())),
        (
            {**CONNECT, "context_extensions": {"policyd.host": "other.example.com", "policyd.port": "443"}},
            (False, ()),
        ),
    ],
)
def test_policies_decide(permitting: Ruling, changes: dict[str, Any], answer: tuple[bool, tuple[str, ...]]) -> None:
    assert decided(permitting, asked(**changes)) == answer


def test_without_a_policy_nothing_leaves(mesh: Mesh, schema: Schema) -> None:
    assert decided(ruling_of(mesh, schema, {}), asked()) == (False, ())


def test_a_host_that_a_condition_names_is_there_with_its_groups(mesh: Mesh, schema: Schema, root: Path) -> None:
    text = (
        '@id("x") permit (principal, action, resource is Host) when { Host::"www.googleapis.com" in Group::"google" };'
    )
    assert decided(ruling_of(mesh, schema, {"policies/x.cedar": text}), asked()) == (True, ("x",))


def test_the_record_has_the_host(permitting: Ruling) -> None:
    query = read_check(asked(**CONNECT), REVIEWS, permitting.mesh, NOW)
    question = permitting.engine.question(permitting.request(query.facts))
    decision = permitting.engine.answer(question)
    entry = entry_of(Outcome("deny", 403, "r", query, question.request, decision), "d", NOW, 1)

    assert (entry.principal, entry.action, entry.resource, entry.proxy) == (
        f'Workload::"{REVIEWS}"',
        'Action::"connect"',
        'Host::"www.googleapis.com"',
        "reviews-v1",
    )
    assert entry.context["request"] == {"method": "CONNECT", "host": "www.googleapis.com"}
    before = Outcome("error", 503, "r", query, error=PolicydError("x"))
    assert entry_of(before, "d", NOW, 1).resource == 'Host::"www.googleapis.com"'
    assert before.side == "egress"


def test_a_host_outside_has_a_name_and_its_groups_and_nothing_else(ruling: Ruling) -> None:
    assert ruling.entities.host("www.googleapis.com") == Entity(
        Uid("Host", "www.googleapis.com"), {"name": "www.googleapis.com"}, (Uid("Group", "google"),)
    )
    assert ruling.entities.host("x.y").parents == ()


def test_a_tunnel_with_its_sni_is_decided_by_it(mesh: Mesh, schema: Schema) -> None:
    text = (
        '@id("sni") permit (principal, action == Action::"connect", resource)'
        ' when { context has sni && context.sni == "www.googleapis.com" };'
    )
    ruling = ruling_of(mesh, schema, {"policies/x.cedar": text})
    facts = read_check(asked(**CONNECT), REVIEWS, mesh, NOW).facts

    assert not ruling.decide(ruling.request(facts)).allowed
    assert ruling.decide(ruling.request(facts._replace(sni="www.googleapis.com"))).allowed


def at_the_edge(mesh: Mesh, listener: str, peers: bool, **changes: Any) -> Any:
    """The facts of a request at a gateway, whose route may lead outside."""
    [edge] = [one for one in mesh.instances.values() if one.role == "gateway"]
    own = Listener(listener, "gateway", edge.name, edge.workload, edge.service, 8080, verifies_peers=peers)
    known = replace(mesh, listeners={**mesh.listeners, listener: own})
    extensions = {**OUT, "policyd.listener": listener}
    check = asked(context_extensions=extensions, metadata_context={}, **changes)
    return read_check(check, edge.workload, known, NOW).facts


def test_at_a_gateway_on_the_way_out_the_certificate_says_who_asks(mesh: Mesh) -> None:
    source = {"principal": str(REVIEWS), "address": address("192.0.2.9", 41000)}
    facts = at_the_edge(mesh, "ingress/gateway/8080/peers", True, source=source)

    assert (facts.principal, facts.service, facts.outside, facts.destination.port) == (
        REVIEWS,
        "",
        "www.googleapis.com",
        80,
    )


def test_a_stranger_who_leaves_by_a_gateway_is_nobody(mesh: Mesh) -> None:
    source = {"principal": str(REVIEWS), "address": address("192.0.2.9", 41000)}
    facts = at_the_edge(mesh, "ingress/gateway/8080", False, source=source)

    assert (facts.principal, facts.outside) == (None, "www.googleapis.com")


def test_a_sidecar_is_never_asked_for_a_host_by_who_comes_in(mesh: Mesh) -> None:
    """The names of a route to the outside mean nothing where the application's own requests arrive."""
    check = check_of(context_extensions={**OUT, "policyd.listener": "reviews-v1/inbound"})
    facts = read_check(check, REVIEWS, mesh, NOW).facts

    assert (facts.service, facts.outside) == ("reviews.default", "")
