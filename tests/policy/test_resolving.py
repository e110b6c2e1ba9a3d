"""`FROM METHOD URL`: what it means in a mesh."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from policyd.cedar.http import Endpoint, HttpFacts
from policyd.errors import InvalidInput
from policyd.mesh.build import build
from policyd.mesh.declare import declare
from policyd.mesh.model import Mesh
from policyd.mesh.placement import assumed
from policyd.policy.request_form import parse_form
from policyd.policy.resolving import nearest_of, resolve_at, resolve_form
from policyd.spiffe import SpiffeId
from tests.authz.checks import INGRESS, PAGE, RATINGS, REVIEWS

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)


def resolved(text: str, mesh: Mesh) -> HttpFacts:
    return resolve_form(parse_form(text), mesh, NOW)


def problem_of(text: str, mesh: Mesh) -> str:
    with pytest.raises(InvalidInput) as caught:
        resolved(text, mesh)
    return str(caught.value)


def test_a_request_is_what_a_sidecar_would_see(mesh: Mesh) -> None:
    assert resolved("productpage GET http://Reviews:9080/reviews/0?x=1", mesh) == HttpFacts(
        principal=PAGE,
        service="reviews.default",
        method="GET",
        target="/reviews/0?x=1",
        host="reviews",
        time=NOW,
        source=Endpoint("127.0.0.1", 0),
        destination=Endpoint("127.0.0.1", 9080),
        instance="reviews-v1",
    )


@pytest.mark.parametrize(
    ("caller", "id_"),
    [
        ("anonymous", None),
        ("productpage", PAGE),
        ("productpage.default", PAGE),
        ("reviews", REVIEWS),
        ("reviews-v2", REVIEWS),
        ("bookinfo-ratings", RATINGS),
        ("bookinfo-ratings.default", RATINGS),
        ("ingress", INGRESS),
        ("spiffe://cluster.local/vm/7", SpiffeId("cluster.local", "/vm/7")),
    ],
)
def test_callers_have_several_names(mesh: Mesh, caller: str, id_: SpiffeId | None) -> None:
    assert resolved(f"{caller} GET http://reviews/", mesh).principal == id_


@pytest.mark.parametrize(
    ("url", "service", "target", "port"),
    [
        ("http://reviews", "reviews.default", "/", 9080),
        ("http://reviews?x", "reviews.default", "/?x", 9080),
        ("http://reviews.default/a", "reviews.default", "/a", 9080),
        ("http://reviews.default.svc/a", "reviews.default", "/a", 9080),
        ("http://reviews.default.svc.cluster.local:9080/a", "reviews.default", "/a", 9080),
        ("http://ingress/productpage", "ingress.default", "/productpage", 8080),
    ],
)
def test_services_have_several_names(mesh: Mesh, url: str, service: str, target: str, port: int) -> None:
    facts = resolved(f"productpage GET {url}", mesh)
    assert (facts.service, facts.target, facts.destination.port) == (service, target, port)


def test_at_the_gateway_everybody_is_anonymous(mesh: Mesh) -> None:
    assert resolved("productpage GET http://ingress/", mesh).principal is None


def test_an_ambiguous_caller_is_refused(mesh: Mesh) -> None:
    instances = {**mesh.instances, "reviews-v2": replace(mesh.instances["reviews-v2"], workload=RATINGS)}
    message = "the instances of `reviews` have different identities; name one instance, or a SPIFFE ID"
    assert problem_of("reviews GET http://ratings/", replace(mesh, instances=instances)) == message


EXAMPLE = "write FROM METHOD URL, as in `productpage GET http://reviews/reviews/0`"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", f"`` is no request; {EXAMPLE}"),
        ("GET http://reviews/", f"`GET http://reviews/` is no request; {EXAMPLE}"),
        ("a  GET http://reviews/", f"`a  GET http://reviews/` is no request; {EXAMPLE}"),
        ("productpage G@T http://reviews/", f"`G@T` is no HTTP method; {EXAMPLE}"),
        ("productpage GET reviews/0", "`reviews/0` is no URL of the mesh; write http://<service>[:<port>]/<path>"),
        (
            "productpage GET http://u:p@reviews/",
            "`http://u:p@reviews/` is no URL of the mesh; write http://<service>[:<port>]/<path>",
        ),
        (
            "productpage GET http://reviews:99999/",
            "`http://reviews:99999/` is no URL of the mesh; write http://<service>[:<port>]/<path>",
        ),
        ("productpage GET http://reviews:81/", "the service `reviews.default` has no port 81; it has 9080"),
        (
            "productpage GET http://review/",
            "no service is called `review` for callers in `default`; did you mean `reviews`?",
        ),
        ("productpge GET http://reviews/", "`productpge` is nobody in the mesh; did you mean `productpage`?"),
        (
            "spiffe://A GET http://reviews/",
            "`A` is no trust domain name; use lower-case letters, digits, dots, dashes and underscores",
        ),
    ],
)
def test_what_means_nothing_is_refused_with_a_remedy(mesh: Mesh, text: str, problem: str) -> None:
    assert problem_of(text, mesh) == problem


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("web", "did you mean `web.shop`?"),
        ("orders", "did you mean `orders.old` or `orders.shop`?"),
        ("orders.shpo", "did you mean `orders.shop`?"),
        ("nobody", "there are orders.old, orders.shop, web.shop"),
    ],
)
def test_a_name_is_never_taken_for_itself(name: str, remedy: str) -> None:
    assert nearest_of(name, ["web.shop", "orders.shop", "orders.old"]) == remedy


def test_callers_and_services_elsewhere_are_named_with_their_namespace() -> None:
    texts = {"workloads.yaml": "workloads: {web-v1: {service: web, namespace: shop, serviceAccount: web, port: 8000}}"}
    declaration = declare(texts)
    shop = build(declaration, "cluster.local", assumed(declaration))
    assert problem_of("web GET http://web/", shop) == "`web` is nobody in the mesh; did you mean `web.shop`?"
    assert problem_of("anonymous GET http://web/", shop) == (
        "no service is called `web` for callers in `default`; did you mean `web.shop`?"
    )


def test_at_an_instance_it_is_that_one_that_is_asked(mesh: Mesh) -> None:
    first = resolved("productpage GET http://reviews/reviews/0", mesh)
    third = resolve_at(parse_form("productpage GET http://reviews/reviews/0"), "reviews-v3", mesh, NOW)
    assert third == first._replace(instance="reviews-v3")


def test_at_a_gateway_nobody_is_known(mesh: Mesh) -> None:
    found = resolve_at(parse_form("productpage GET http://ingress/"), "ingress", mesh, NOW)
    assert (found.principal, found.service, found.instance) == (None, "ingress.default", "ingress")


@pytest.mark.parametrize(
    ("instance", "text", "message"),
    [
        (
            "reviews-v9",
            "productpage GET http://reviews/",
            "no instance is called `reviews-v9`; did you mean `reviews-v3`?",
        ),
        (
            "details-v1",
            "productpage GET http://reviews/",
            "`reviews` is not served by `details-v1`; requests to it reach `reviews-v1`, `reviews-v2`, `reviews-v3`",
        ),
        (
            "reviews-v1",
            "productpage GET http://reveiws/",
            "no service is called `reveiws` for callers in `default`; did you mean `reviews`?",
        ),
    ],
)
def test_what_does_not_reach_an_instance_is_refused(mesh: Mesh, instance: str, text: str, message: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        resolve_at(parse_form(text), instance, mesh, NOW)
    assert str(refused.value) == message
