"""What an outsider who knows OpenID Connect and nothing of SPIFFE needs to verify our tokens (OIDC Discovery 1.0).

Law: pure. Nothing but verification is offered: there is no authorization endpoint, and no token is given out here.
"""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

from policyd.svid import jose
from policyd.svid.bundle import Bundle

WELL_KNOWN: Final = "/.well-known/openid-configuration"
KEYS: Final = "/keys"


def page(issuer: str, bundle: Bundle, path: str) -> bytes | None:
    """What stands at `path` of `issuer`, the URL that tokens bear as `iss`; None where nothing does."""
    below = urlsplit(issuer).path
    if path == below + WELL_KNOWN:
        return _configuration(issuer)
    return _keys(bundle) if path == below + KEYS else None


def _configuration(issuer: str) -> bytes:
    """Section 3: the members that are required, and of the optional ones none."""
    return jose.write_object(
        {
            "issuer": issuer,
            "jwks_uri": issuer + KEYS,
            "authorization_endpoint": "",
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["ES256"],
        }
    )


def _keys(bundle: Bundle) -> bytes:
    """The keys as OpenID Connect names their use; those that sign next are among them."""
    found = [{**jose.to_jwk(one.key), "use": "sig", "alg": "ES256", "kid": one.kid} for one in bundle.jwt_keys]
    return jose.write_object({"keys": found})
