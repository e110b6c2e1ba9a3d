"""An outsider who knows OpenID Connect alone finds the keys of our tokens; nothing else is offered."""

from __future__ import annotations

import json

import pytest

from policyd.ca.jwt_keys import LIFE, turn
from policyd.mesh.jwks import parse_jwks
from policyd.sources.key_sets import place_of_keys
from policyd.svid import jose, oidc
from tests.ca.samples import NOW, REVIEWS, Office, a_key
from tests.ca.test_jwt import UNIX

ISSUER = "https://mesh.example.org/tokens"
DISCOVERY = ISSUER + oidc.WELL_KNOWN


def test_an_outsider_verifies_a_token_by_what_is_published() -> None:
    office = Office(token_issuer=ISSUER)
    token = office.issuer.issue_jwt(office.issuer.order_jwt(REVIEWS, None, UNIX, ("shop",)), kind="workload")
    configuration = oidc.page(ISSUER, office.issuer.bundle, "/tokens/.well-known/openid-configuration")
    assert configuration is not None
    assert place_of_keys(DISCOVERY, configuration.decode()) == f"{ISSUER}/keys"
    published = oidc.page(ISSUER, office.issuer.bundle, "/tokens/keys")
    assert published is not None
    parse_jwks(published.decode())  # Envoy's filter takes it
    [jwk] = json.loads(published)["keys"]
    signed = jose.parse(token.text)
    assert (jwk["kid"], jwk["use"], jwk["alg"]) == (signed.header["kid"], "sig", "ES256")
    jose.check_signature(signed, "ES256", jose.from_jwk(jwk))
    assert (signed.claims["iss"], signed.claims["sub"]) == (ISSUER, str(REVIEWS))


def test_a_key_is_published_before_it_signs() -> None:
    office = Office(token_issuer=ISSUER)
    office.jwt_keys = turn(office.jwt_keys, NOW + LIFE / 2, a_key)
    published = json.loads(oidc.page(ISSUER, office.issuer.bundle, "/tokens/keys") or b"")
    assert [one["kid"] for one in published["keys"]] == [key.kid for key in office.jwt_keys.keys]
    assert office.jwt_keys.signing(NOW + LIFE / 2).kid == published["keys"][0]["kid"]


def test_the_configuration_is_the_one_of_the_specification() -> None:
    assert json.loads(oidc.page("https://a.org", Office().issuer.bundle, oidc.WELL_KNOWN) or b"") == {
        "issuer": "https://a.org",
        "jwks_uri": "https://a.org/keys",
        "authorization_endpoint": "",
        "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["ES256"],
    }


@pytest.mark.parametrize("path", ["/", "", "/keys", "/tokens", "/tokens/keys/", "/tokens/../keys", "//tokens/keys"])
def test_nothing_else_stands_there(path: str) -> None:
    assert oidc.page(ISSUER, Office().issuer.bundle, path) is None


def test_without_an_issuer_tokens_name_none() -> None:
    office = Office()
    token = office.issuer.issue_jwt(office.issuer.order_jwt(REVIEWS, None, UNIX, ("shop",)), kind="workload")
    assert "iss" not in jose.parse(token.text).claims
