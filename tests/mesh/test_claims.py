"""Routes by claims: what a match may be called, and where it could never hold."""

from __future__ import annotations

import pytest

from policyd.mesh.matching import claim_of
from tests.fakes.issuer import Issuer
from tests.mesh.sample import GOOD, meshed, problems

TOKENS = f"""\
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {{name: people, namespace: istio-system}}
spec: {{jwtRules: [{{issuer: https://a, jwks: '{Issuer("https://a").jwks}'}}]}}
"""
CLAIM = '"@request.auth.claims.role": {exact: x}'


def routes(spec: str) -> str:
    return f"""\
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: web}}
spec:
  {spec}
"""


def rule(match: str) -> str:
    return f"http: [{{match: [{{{match}}}], route: [{{destination: {{host: web}}}}]}}]"


AT_EDGE = f"hosts: [www.example.com]\n  gateways: [edge]\n  {rule(f'headers: {{{CLAIM}}}')}"


@pytest.mark.parametrize(
    ("name", "claim"),
    [
        (".role", ("role",)),
        (".realm.roles", ("realm", "roles")),
        ("[realm.x][roles]", ("realm.x", "roles")),
        ("[https://a/b]", ("https://a/b",)),
    ],
)
def test_a_claim_is_named_by_dots_or_brackets(name: str, claim: tuple[str, ...]) -> None:
    assert claim_of(f"@request.auth.claims{name}") == claim


@pytest.mark.parametrize("name", ["", ".", ".a..b", "a", "[a", "[]", "[a]b", ".a[b]", ". a", ".a" * 9])
def test_what_is_no_claim_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="is no claim; write"):
        claim_of(f"@request.auth.claims{name}")


def test_at_a_gateway_that_verifies_tokens_routes_may_go_by_claims() -> None:
    mesh = meshed({**GOOD, "mesh/tokens.yaml": TOKENS, "mesh/routes.yaml": routes(AT_EDGE)})
    assert mesh.virtual_services[0].spec.http[0].match[0].claims[0][0] == ("role",)


@pytest.mark.parametrize(
    ("spec", "tokens", "problem"),
    [
        (f"hosts: [web]\n  {rule(f'headers: {{{CLAIM}}}')}", TOKENS,
         "6: the claims of a token are matched at gateways only; a sidecar chooses a route before it knows a token; "
         "write `gateways` without `mesh`"),
        (f"hosts: [web, www.example.com]\n  gateways: [edge, mesh]\n  {rule(f'withoutHeaders: {{{CLAIM}}}')}", TOKENS,
         "7: the claims of a token are matched at gateways only; a sidecar chooses a route before it knows a token; "
         "write `gateways` without `mesh`"),
        (AT_EDGE, "",
         "7: nobody verifies tokens at the gateway `default/edge`; write a RequestAuthentication whose selector its "
         "labels have, or take the match out"),
        (AT_EDGE, TOKENS.replace("spec: {", "spec: {selector: {matchLabels: {app: web}}, ").replace(
            "istio-system", "default"),
         "7: nobody verifies tokens at the gateway `default/edge`; write a RequestAuthentication whose selector its "
         "labels have, or take the match out"),
    ],
)  # fmt: skip
def test_a_match_that_could_never_hold_is_refused_with_its_line(spec: str, tokens: str, problem: str) -> None:
    files = {**GOOD, "mesh/tokens.yaml": tokens, "mesh/routes.yaml": routes(spec)}
    assert problems(files) == [f"mesh/routes.yaml:{problem}"]


def test_those_that_are_delegated_to_are_for_the_gateways_of_who_delegates() -> None:
    root = routes("hosts: [web]\n  http: [{delegate: {name: part}}]")
    part = routes(rule(f"headers: {{{CLAIM}}}")).replace("name: web", "name: part")
    files = {**GOOD, "mesh/tokens.yaml": TOKENS, "mesh/routes.yaml": f"{root}---\n{part}"}
    assert problems(files) == [
        "mesh/routes.yaml:12: the claims of a token are matched at gateways only; a sidecar chooses a route before it "
        "knows a token; write `gateways` without `mesh`"
    ]
