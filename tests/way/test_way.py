"""The ways of requests through Bookinfo: the rule with its line, the change, where it goes, what policies say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pytest

from policyd.errors import InvalidInput
from policyd.policy.end_user import Shown
from policyd.way.model import Hop, is_denied, is_lost
from policyd.way.text import as_json, lines
from tests.way.folders import BOOKINFO, loaded, shared, task, way

CHANGES = """\
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews}
spec:
  hosts: [reviews]
  http:
    - name: stars
      match: [{uri: {prefix: /stars/}}]
      rewrite: {uri: /reviews/, authority: reviews.internal}
      headers: {request: {set: {x-from: stars}}}
      route: [{destination: {host: reviews}}]
    - match: [{uri: {exact: /old}}]
      redirect: {uri: /new}
    - match: [{uri: {exact: /tea}}]
      directResponse: {status: 418}
    - match: [{uri: {prefix: /d/}}]
      delegate: {name: detailed}
    - route: [{destination: {host: reviews}}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: detailed}
spec:
  http:
    - match: [{uri: {exact: /d/x}}]
      route: [{destination: {host: details}}]
    - route: [{destination: {host: ratings}}]
"""
NO_IDENTITY = "mesh/peers.yaml"
PERMISSIVE = """\
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: all}
spec: {mtls: {mode: PERMISSIVE}}
"""
TOKENS = """\
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: users}
spec:
  selector: {matchLabels: {istio: ingressgateway}}
  jwtRules:
    - issuer: https://login.example.com
      jwksUri: https://login.example.com/keys.json
"""
OUTSIDE = """\
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: books}
spec:
  hosts: [books.example.com]
  ports: [{number: 80, name: http, protocol: HTTP}]
  resolution: STATIC
  endpoints: [{address: 192.0.2.7}]
"""


@dataclass(frozen=True, slots=True)
class Told:
    """A way in short: each hop's instance, the line of its rule, its decision and its answer; then where it ends."""

    hops: tuple[str, ...]
    outcome: str


def told(found: Hop) -> Told:
    """The short form of a way."""
    outcome = "denied" if is_denied(found) else "lost" if is_lost(found) else "through"
    return Told(tuple(hops_of(found, (found.instance,))), outcome)


def hops_of(hop: Hop, instances: tuple[str, ...]) -> list[str]:
    words = ["+".join(instances)]
    if hop.place:
        words.append(f"{hop.place.file.removeprefix('mesh/')}:{hop.place.line}")
    if hop.decided:
        words.append(" ".join([hop.decided.decision.word, *hop.decided.decision.reasons]))
    if hop.answer:
        words.append(str(hop.answer.status))
    if hop.refused:
        words.append("refused")
    shown = [" ".join(words)]
    for one in hop.destinations:
        if not one.is_application:
            share = "copy" if one.copy else f"{one.percent:g}%"
            word = f" {one.decided.decision.word}" if one.decided else ""
            shown.append(f"{share} {one.cluster}{word} {one.asked.method} {one.asked.host}{one.asked.path}")
        for arrival in one.arrivals:
            shown += hops_of(arrival.hop, arrival.instances)
    return shown


REVIEWS = "outbound|9080||reviews.default"
AT_REVIEWS = "allow reviews-from-productpage"


@pytest.mark.parametrize(
    ("files", "request_", "headers", "expected"),
    [
        pytest.param(
            {}, "productpage GET http://reviews/reviews/0", {},
            Told(("productpage-v1", f"100% {REVIEWS} GET reviews/reviews/0",
                  f"reviews-v1+reviews-v2+reviews-v3 {AT_REVIEWS}"), "through"),
            id="without a rule it goes to all instances of the service",
        ),
        pytest.param(
            task("subsets", "reviews-by-user"), "productpage GET http://reviews/reviews/0", {"end-user": "jason"},
            Told(("productpage-v1 reviews-by-user.yaml:8",
                  "100% outbound|9080|v2|reviews.default GET reviews/reviews/0", f"reviews-v2 {AT_REVIEWS}"),
                 "through"),
            id="a header chooses the rule",
        ),
        pytest.param(
            task("subsets", "reviews-by-user"), "productpage GET http://reviews/reviews/0", {},
            Told(("productpage-v1 reviews-by-user.yaml:10",
                  "100% outbound|9080|v1|reviews.default GET reviews/reviews/0", f"reviews-v1 {AT_REVIEWS}"),
                 "through"),
            id="and its absence the other",
        ),
        pytest.param(
            task("subsets", "reviews-half-v3"), "productpage GET http://reviews/reviews/0", {},
            Told(("productpage-v1 reviews-half-v3.yaml:8",
                  "50% outbound|9080|v1|reviews.default GET reviews/reviews/0", f"reviews-v1 {AT_REVIEWS}",
                  "50% outbound|9080|v3|reviews.default GET reviews/reviews/0", f"reviews-v3 {AT_REVIEWS}"), "through"),
            id="shares are each followed",
        ),
        pytest.param(
            task("subsets", "reviews-mirror"), "productpage GET http://reviews/reviews/0", {},
            Told(("productpage-v1 reviews-mirror.yaml:8",
                  "100% outbound|9080|v1|reviews.default GET reviews/reviews/0", f"reviews-v1 {AT_REVIEWS}",
                  "copy outbound|9080|v3|reviews.default GET reviews-shadow/reviews/0", f"reviews-v3 {AT_REVIEWS}"),
                 "through"),
            id="a copy is decided as well",
        ),
        pytest.param(
            {"mesh/changes.yaml": CHANGES}, "productpage GET http://reviews/stars/0", {},
            Told(("productpage-v1 changes.yaml:8", f"100% {REVIEWS} GET reviews.internal/reviews/0",
                  f"reviews-v1+reviews-v2+reviews-v3 {AT_REVIEWS}"), "through"),
            id="policies see what a rewrite makes of it",
        ),
        pytest.param(
            {"mesh/changes.yaml": CHANGES}, "productpage GET http://reviews/old", {},
            Told(("productpage-v1 changes.yaml:12 301",), "through"),
            id="a redirect is an answer",
        ),
        pytest.param(
            {"mesh/changes.yaml": CHANGES}, "productpage GET http://reviews/tea", {},
            Told(("productpage-v1 changes.yaml:14 418",), "through"),
            id="an answer that a rule gives was meant",
        ),
        pytest.param(
            {"mesh/changes.yaml": CHANGES}, "productpage GET http://reviews/d/x", {},
            Told(("productpage-v1 changes.yaml:25", "100% outbound|9080||details.default GET reviews/d/x",
                  "details-v1 deny"), "denied"),
            id="a rule of a delegate has the delegate's line",
        ),
        pytest.param(
            {}, "reviews-v1 GET http://details/details/0", {},
            Told(("reviews-v1", "100% outbound|9080||details.default GET details/details/0", "details-v1 deny"),
                 "denied"),
            id="a denial at the other end",
        ),
        pytest.param(
            {}, "anonymous GET http://ingress/productpage", {},
            Told(("ingress gateway.yaml:16 allow world-to-ingress",
                  "100% outbound|9080||productpage.default GET ingress/productpage",
                  "productpage-v1 allow productpage-from-ingress"), "through"),
            id="a stranger is decided about at the gateway, and the gateway at the service",
        ),
        pytest.param(
            {}, "anonymous GET http://ingress/nope", {},
            Told(("ingress allow world-to-ingress 404",), "lost"),
            id="no route of a gateway",
        ),
        pytest.param(
            {}, "productpage GET http://nowhere.example.com/", {}, Told(("productpage-v1 502",), "lost"),
            id="a name that nothing declares",
        ),
        pytest.param(
            {}, "productpage GET http://reviews/a%2Fb", {}, Told(("productpage-v1 400",), "lost"),
            id="a path that no proxy takes",
        ),
        pytest.param(
            {}, "productpage GET http://reviews/./x/../reviews//0", {},
            Told(("productpage-v1", f"100% {REVIEWS} GET reviews/reviews/0",
                  f"reviews-v1+reviews-v2+reviews-v3 {AT_REVIEWS}"), "through"),
            id="a path is put straight first",
        ),
        pytest.param(
            {"mesh/outside.yaml": OUTSIDE}, "productpage GET http://books.example.com/", {},
            Told(("productpage-v1 deny", "100% outbound|80||books.example.com GET books.example.com/"), "denied"),
            id="who leaves the mesh is decided about at the own sidecar",
        ),
    ],
)  # fmt: skip
def test_the_way_of_a_request(
    files: Mapping[str, str], request_: str, headers: Mapping[str, str], expected: Told
) -> None:
    assert told(way(loaded(files), request_, headers)) == expected


def test_of_a_route_by_chance_each_share_is_told() -> None:
    backends = "[{name: reviews, port: 9080, weight: 3}, {name: nobody, port: 80, weight: 1}]"
    live = loaded({"mesh/shared.yaml": shared(backends)})

    found = way(live, "productpage GET http://reviews/reviews/0")

    assert [
        (one.percent, one.hop.answer and one.hop.answer.status, [to.service for to in one.hop.destinations])
        for one in found.shares
    ] == [(75, None, ["reviews.default"]), (25, 500, [])]
    shown = [line.strip() for line in lines(found, live.mesh)]
    assert [line for line in shown if line.endswith("such requests") or line.startswith(("answer", "100 %"))] == [
        "75 % of such requests",
        "100 %     to reviews.default:9080",
        "25 % of such requests",
        "answer    500",
    ]
    assert [one["percent"] for one in as_json(found)["way"]["shares"]] == [75, 25]


def test_a_stranger_is_refused_by_a_sidecar_that_wants_certificates() -> None:
    found = way(loaded(), "anonymous GET http://details/details/0")

    assert (found.instance, found.refused) == ("details-v1", "it takes mutual TLS only, with a certificate of the mesh")


def test_in_plain_text_everybody_is_anonymous() -> None:
    found = way(loaded({NO_IDENTITY: PERMISSIVE}), "anonymous GET http://details/details/0")

    assert told(found) == Told(("details-v1 deny",), "denied")
    assert found.decided is not None
    assert found.decided.request.principal.type == "Unauthenticated"


def test_a_token_is_believed_where_it_is_verified_and_goes_no_further() -> None:
    user = Shown("https://login.example.com/alice")
    found = way(loaded({"mesh/tokens.yaml": TOKENS}), "anonymous GET http://ingress/productpage", user=user)

    (destination,) = found.destinations
    (arrival,) = destination.arrivals
    at_gateway, at_service = found.decided, arrival.hop.decided
    assert at_gateway is not None
    assert at_service is not None
    assert "user" in at_gateway.request.context
    assert "user" not in at_service.request.context


@pytest.mark.parametrize(
    ("user", "claims", "expected"),
    [
        ("https://login.example.com/alice", {"role": "editor"}, "details-v1"),
        ("https://login.example.com/alice", {"role": ["reader", "editor"]}, "details-v1"),
        ("https://login.example.com/alice", {"role": "reader"}, "productpage-v1"),
        ("https://login.example.com/alice", {}, "productpage-v1"),
        ("https://other.example.com/alice", {"role": "editor"}, "productpage-v1"),
    ],
)
def test_a_gateway_goes_by_claims_of_tokens_that_it_verifies(
    user: str, claims: dict[str, object], expected: str
) -> None:
    text = (BOOKINFO / "mesh" / "gateway.yaml").read_text()
    rule = (
        '  http:\n    - match: [{headers: {"@request.auth.claims.role": {exact: editor}}}]\n'
        "      route: [{destination: {host: details}}]\n"
    )
    live = loaded({"mesh/tokens.yaml": TOKENS, "mesh/gateway.yaml": text.replace("  http:\n", rule)})

    (destination,) = way(live, "anonymous GET http://ingress/productpage", user=Shown(user, claims)).destinations

    assert destination.arrivals[0].instances == (expected,)


def test_faults_and_patience_are_told_as_envoy_has_them() -> None:
    delayed = way(
        loaded(task("subsets", "ratings-delay")), "reviews-v2 GET http://ratings/ratings/0", {"end-user": "jason"}
    )
    timed = way(loaded(task("subsets", "reviews-timeout")), "productpage GET http://reviews/reviews/0")

    assert delayed.faults["delay"]["fixed_delay"] == "7s"
    assert delayed.retries == {}
    assert (timed.timeout, timed.retries["num_retries"]) == ("0.500s", 2)


def test_a_host_that_no_gateway_serves_is_refused_with_the_nearest() -> None:
    gateway = (BOOKINFO / "mesh" / "gateway.yaml").read_text()
    live = loaded({"mesh/gateway.yaml": gateway.replace('hosts: ["*"]', "hosts: [bookinfo.example.com]")})

    with pytest.raises(InvalidInput) as refused:
        way(live, "anonymous GET http://bokinfo.example.com/")

    assert str(refused.value) == "no gateway serves `bokinfo.example.com`; did you mean `bookinfo.example.com`?"
    assert told(way(live, "anonymous GET http://bookinfo.example.com/productpage")).outcome == "through"


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ("nobody GET http://reviews/", "`nobody` is nobody in the mesh; there are anonymous, "),
        ("productpage GET https://reviews/", "an application speaks plain HTTP to its sidecar, which opens TLS "),
        ("ingress GET http://reviews/", "`ingress` is a gateway, which only passes on what comes in; ask as "),
        ("productpage GET ftp://reviews/", "`ftp://reviews/` is no URL of the mesh; write "),
    ],
)  # fmt: skip
def test_a_request_that_means_nothing_is_refused(request_: str, message: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        way(loaded(), request_)

    assert str(refused.value).startswith(message)
