"""RequestAuthentications: read whole, checked against the mesh, refused by name where they could not hold."""

from __future__ import annotations

import json

import pytest

from policyd.mesh.declare import declare
from policyd.mesh.istio.common import Metadata, WorkloadSelector
from policyd.mesh.istio.request_authentication import (
    ClaimToHeader,
    JwtHeader,
    JwtRule,
    RequestAuthentication,
    RequestAuthenticationSpec,
)
from policyd.mesh.jwks import parse_jwks
from policyd.mesh.tokens import fetched, rules_of
from tests.fakes.issuer import Issuer
from tests.mesh.sample import GOOD, meshed, problems

KEYS = Issuer("https://login.example.com").jwks
RULE = f"""\
    - issuer: https://login.example.com
      jwks: '{KEYS}'
"""
TOKENS = f"""\
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {{name: people}}
spec:
  selector: {{matchLabels: {{app: api}}}}
  jwtRules:
{RULE}"""
EVERYTHING = """\
apiVersion: security.istio.io/v1beta1
kind: RequestAuthentication
metadata: {name: all, namespace: istio-system}
spec:
  jwtRules:
    - issuer: https://login.example.com
      audiences: [api, web]
      jwksUri: https://login.example.com/keys
      fromHeaders: [{name: X-Token, prefix: "Token "}]
      fromParams: [token]
      fromCookies: [session]
      outputPayloadToHeader: X-Payload
      outputClaimToHeaders: [{header: X-Roles, claim: realm.roles}]
      forwardOriginalToken: true
      timeout: 2s
      spaceDelimitedClaims: [groups]
"""


def folder(tokens: str = TOKENS) -> dict[str, str]:
    return {**GOOD, "mesh/tokens.yaml": tokens}


def test_a_request_authentication_is_read_whole() -> None:
    (declared,) = declare({"mesh/a.yaml": EVERYTHING}).of(RequestAuthentication)

    assert declared.resource == RequestAuthentication(
        api_version="security.istio.io/v1beta1",
        metadata=Metadata(name="all", namespace="istio-system"),
        spec=RequestAuthenticationSpec(
            selector=WorkloadSelector(),
            jwt_rules=(
                JwtRule(
                    issuer="https://login.example.com",
                    audiences=("api", "web"),
                    jwks_uri="https://login.example.com/keys",
                    from_headers=(JwtHeader(name="x-token", prefix="Token "),),
                    from_params=("token",),
                    from_cookies=("session",),
                    output_payload_to_header="x-payload",
                    output_claim_to_headers=(ClaimToHeader(header="x-roles", claim="realm.roles"),),
                    forward_original_token=True,
                    timeout=2.0,
                    space_delimited_claims=("groups",),
                ),
            ),
        ),
    )


@pytest.mark.parametrize(
    ("namespace", "selector", "holds"),
    [
        ("default", "{app: api}", {"api-v1", "api-v2"}),
        ("default", "{app: api, version: v2}", {"api-v2"}),
        ("default", "{}", {"web-v1", "api-v1", "api-v2", "edge"}),
        ("default", "{istio: ingressgateway}", {"edge"}),
        ("istio-system", "{}", {"web-v1", "api-v1", "api-v2", "edge"}),
        ("istio-system", "{version: v1}", {"api-v1"}),
    ],
)
def test_it_holds_for_what_its_namespace_and_labels_select(namespace: str, selector: str, holds: set[str]) -> None:
    text = TOKENS.replace("{app: api}", selector).replace("{name: people}", f"{{name: p, namespace: {namespace}}}")
    mesh = meshed(folder(text))

    believing = {one.instance for one in mesh.listeners.values() if one.issuers}
    assert (
        believing == holds == {name for name, i in mesh.instances.items() if rules_of(mesh.request_authentications, i)}
    )


def test_a_listener_knows_which_claims_are_words() -> None:
    mesh = meshed(folder(EVERYTHING))

    assert mesh.listeners["web-v1/inbound"].issuers == {
        "https://login.example.com": frozenset({"scope", "permission", "groups"})
    }


def test_keys_come_from_the_folder_or_from_where_they_were_fetched() -> None:
    by_file = TOKENS.replace(f"jwks: '{KEYS}'", "jwksUri: jwks/login.json")

    mesh = meshed({**folder(by_file), "jwks/login.json": KEYS})
    assert mesh.key_sets == {"jwks/login.json": parse_jwks(KEYS)}
    assert fetched(mesh.request_authentications) == {}

    uri = "https://login.example.com/keys"
    assert meshed(folder(EVERYTHING)).key_sets == {}
    mesh = meshed({**folder(EVERYTHING), uri: KEYS})
    assert (mesh.key_sets, fetched(mesh.request_authentications)) == ({uri: parse_jwks(KEYS)}, {uri: 2.0})


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("matchLabels: {app: api}", "matchLabels: {app: apo}",
         "5: the RequestAuthentication `default/people` holds for no instance; compare its namespace (`istio-system` "
         "is all of them) and its labels with workloads.yaml"),
        ("  selector:", "  targetRefs: []\n  selector:",
         "5: field `targetRefs` of RequestAuthentication is not supported in `spec`; waypoints and Kubernetes' "
         "Gateways are not here; name instances by `selector`"),
        (RULE, "    []\n", "6: `spec.jwtRules` must have at least 1 entries, not an empty list"),
        ("issuer: https://login.example.com", "issuer: ''",
         "7: `spec.jwtRules[0].issuer` must have at least 1 characters, not the text ``"),
        ("issuer: https://login.example.com", "issuer: a b",
         "7: `spec.jwtRules[0].issuer`: `'a b'` is no issuer; write the `iss` of its tokens, without spaces"),
        ("      jwks:", "      jwksUri: https://x.example/\n      jwks:",
         "7: `spec.jwtRules[0]`: both `jwks` and `jwksUri`; write one of them"),
        (f"jwks: '{KEYS}'", "jwksUri: https://login.example.com/.well-known/openid-configuration",
         "8: `spec.jwtRules[0].jwksUri`: `https://login.example.com/.well-known/openid-configuration` has no keys, it "
         "names their place; leave it out, and policyd looks there"),
        (KEYS, "{}", "8: `spec.jwtRules[0].jwks`: the key set has no list `keys`; write it as in "
         '`{"keys": [{"kty": "RSA", …}]}`'),
        (f"jwks: '{KEYS}'", "jwksUri: http://login.example.com/keys",
         "8: `spec.jwtRules[0].jwksUri`: `http://login.example.com/keys` is no place of keys; write an `https://` URI "
         "(`http://` on loopback only), or a file of the folder as in `jwks/keys.json`"),
        (f"jwks: '{KEYS}'", "jwksUri: jwks/../policyd.yaml",
         "8: `spec.jwtRules[0].jwksUri`: `jwks/../policyd.yaml` is no place of keys; write an `https://` URI "
         "(`http://` on loopback only), or a file of the folder as in `jwks/keys.json`"),
        (f"jwks: '{KEYS}'", "jwksUri: jwks/gone.json",
         "8: there is no file `jwks/gone.json`; write it, or correct the name"),
        ("      jwks:", "      timeout: 5m\n      jwks:",
         "8: `spec.jwtRules[0].timeout` must be at most 60, not the text `5m`"),
        ("      jwks:", "      outputPayloadToHeader: x-forwarded-for\n      jwks:",
         "8: `spec.jwtRules[0].outputPayloadToHeader`: `x-forwarded-for` is no header to write a claim into; use "
         "another name"),
        ("      jwks:", "      outputClaimToHeaders: [{header: x-a, claim: a..b}]\n      jwks:",
         "8: `spec.jwtRules[0].outputClaimToHeaders[0].claim`: `a..b` is no name of a claim; write `name`, or "
         "`outer.inner` for one inside another"),
        ("      jwks:", "      fromHeader: []\n      jwks:",
         "8: unknown field `fromHeader` in `spec.jwtRules[0]`; did you mean `fromHeaders`?"),
        (RULE, RULE + RULE,
         "9: the issuer `https://login.example.com` has a rule for `api-v1` already, in `default/people`; make one "
         "rule of both"),
        (RULE, RULE + RULE.replace("example.com", "example.com/tenant"),
         "9: users of `https://login.example.com` could be taken for users of `https://login.example.com/tenant`; no "
         "issuer's name may begin with another's and a slash; take one out"),
    ],
)  # fmt: skip
def test_what_could_not_hold_is_refused_with_its_line(old: str, new: str, problem: str) -> None:
    assert old in TOKENS
    assert problems(folder(TOKENS.replace(old, new))) == [f"mesh/tokens.yaml:{problem}"]


def test_two_of_one_name_are_refused() -> None:
    other = TOKENS.replace("app: api", "app: web")

    assert problems(folder(TOKENS + "---\n" + other)) == [
        "mesh/tokens.yaml:12: the RequestAuthentication `default/people` is declared twice, first in "
        "mesh/tokens.yaml:3; rename or remove one"
    ]


def test_a_bad_file_of_keys_is_told_where_it_is_named() -> None:
    by_file = TOKENS.replace(f"jwks: '{KEYS}'", "jwksUri: jwks/login.json")
    secret = json.dumps({"keys": [{"kty": "oct", "k": "AA"}]})

    assert problems({**folder(by_file), "jwks/login.json": secret}) == [
        "mesh/tokens.yaml:8: `jwks/login.json`: `keys[0]` is a shared secret, with which anybody who verifies could "
        "sign; use a key pair"
    ]


def test_without_a_place_of_keys_the_issuer_is_asked_for_it() -> None:
    mesh = meshed({**GOOD, "mesh/tokens.yaml": TOKENS.replace(f"      jwks: '{KEYS}'\n", "")})
    assert fetched(mesh.request_authentications) == {"https://login.example.com/.well-known/openid-configuration": 5.0}


@pytest.mark.parametrize("issuer", ["people", "http://login.example.com", "login.example.com"])
def test_an_issuer_that_cannot_be_asked_needs_a_place_of_keys(issuer: str) -> None:
    text = TOKENS.replace(f"      jwks: '{KEYS}'\n", "").replace(
        "issuer: https://login.example.com", f"issuer: {issuer}"
    )
    assert problems({**GOOD, "mesh/tokens.yaml": text}) == [
        f"mesh/tokens.yaml:7: `spec.jwtRules[0]`: neither `jwks` nor `jwksUri`, and `{issuer}` is no `https://` URI by "
        "which keys are discovered; write one of them"
    ]


def test_connections_carry_no_token() -> None:
    workloads = GOOD["workloads.yaml"].replace("{service: web, port: 80,", "{service: web, port: 80, protocol: tcp,")
    text = TOKENS.replace("app: api", "app: web")
    found = problems({**GOOD, "workloads.yaml": workloads, "mesh/tokens.yaml": text})
    assert [one for one in found if "tokens.yaml" in one] == [
        "mesh/tokens.yaml:5: the RequestAuthentication `default/people` is for connections only, which carry no token; "
        "select workloads that take requests, or remove it"
    ]
