"""Istio's RequestAuthentication: whose tokens (JWT) prove who the end user of a request is."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field, model_validator

from policyd.mesh.istio.common import HeaderName, Resource, Security, WorkloadSelector
from policyd.mesh.jwks import parse_jwks
from policyd.strict import Duration, Many, Model

LATER: Final[Mapping[str, str]] = dict.fromkeys(
    ("targetRef", "targetRefs"), "waypoints and Kubernetes' Gateways are not here; name instances by `selector`"
)
DISCOVERY: Final = "/.well-known/openid-configuration"  # behind an issuer's name (OpenID Connect Discovery, 4)

MAX_RULES: Final = 32
# headers by which Envoys and policyd speak to one another, or that carry credentials
_RESERVED: Final = re.compile(r"(?:x-forwarded-|x-envoy-|x-request-id$|authorization$|cookie$|proxy-|connection$|te$)")
_CLAIM: Final = re.compile(r"[^\s.]{1,256}(?:\.[^\s.]{1,256}){0,8}")
_FILE: Final = re.compile(r"jwks/[^/\x00-\x1f]{1,200}\.json")
_LOOPBACK: Final = re.compile(r"http://(?:localhost|127\.0\.0\.1|\[::1\])(?::[0-9]{1,5})?(?:/[\x21-\x7e]*)?")
_HTTPS: Final = re.compile(r"https://[A-Za-z0-9.\-\[\]:]{1,260}(?:/[\x21-\x7e]*)?")


def _check_keys(text: str) -> str:
    return parse_jwks(text)


def is_fetchable(uri: str) -> bool:
    """Whether something may be fetched from a URI: by https, or on this machine."""
    return len(uri) <= 2048 and (_HTTPS.fullmatch(uri) or _LOOPBACK.fullmatch(uri)) is not None


def _check_uri(uri: str) -> str:
    if uri.endswith(DISCOVERY):
        raise ValueError(f"`{uri[:120]}` has no keys, it names their place; leave it out, and policyd looks there")
    if not (_FILE.fullmatch(uri) or is_fetchable(uri)):
        raise ValueError(
            f"`{uri[:120]}` is no place of keys; write an `https://` URI (`http://` on loopback only), or a file of "
            "the folder as in `jwks/keys.json`"
        )
    return uri


def _check_issuer(issuer: str) -> str:
    if not issuer.isprintable() or " " in issuer:
        raise ValueError(f"`{issuer[:80]!a}` is no issuer; write the `iss` of its tokens, without spaces")
    return issuer


def _check_written(name: str) -> str:
    if _RESERVED.match(name):
        raise ValueError(f"`{name[:80]}` is no header to write a claim into; use another name")
    return name


def _check_claim(name: str) -> str:
    if not _CLAIM.fullmatch(name):
        raise ValueError(f"`{name[:80]}` is no name of a claim; write `name`, or `outer.inner` for one inside another")
    return name


Written = Annotated[HeaderName, AfterValidator(_check_written)]
Audience = Annotated[str, Field(min_length=1, max_length=512)]
ParamName = Annotated[str, Field(pattern=r"^[A-Za-z0-9._~-]{1,128}$")]


class JwtHeader(Model):
    """A header that holds the token behind `prefix`, which includes its space."""

    name: HeaderName
    prefix: Annotated[str, Field(max_length=128)] = ""


class ClaimToHeader(Model):
    """A verified claim that the application gets as a header; what a caller sent under that name is removed."""

    header: Written
    claim: Annotated[str, AfterValidator(_check_claim)]


class JwtRule(Model):
    """One issuer: its keys, for whom its tokens are meant, and where they stand.

    Without `jwks` and `jwksUri` the keys are where the issuer's own `/.well-known/openid-configuration` says. Without
    `fromHeaders`, `fromParams` and `fromCookies` a token stands in `authorization: Bearer …` or in the query
    parameter `access_token`.
    """

    issuer: Annotated[str, Field(min_length=1, max_length=512), AfterValidator(_check_issuer)]
    audiences: Many[Audience] = ()
    jwks: Annotated[str, AfterValidator(_check_keys)] | None = None
    jwks_uri: Annotated[str, AfterValidator(_check_uri)] | None = None
    from_headers: Many[JwtHeader] = ()
    from_params: Many[ParamName] = ()
    from_cookies: Many[ParamName] = ()
    output_payload_to_header: Written | None = None
    output_claim_to_headers: Many[ClaimToHeader] = ()
    forward_original_token: bool = False
    timeout: Annotated[Duration, Field(ge=0.001, le=60)] = 5.0
    space_delimited_claims: Many[Annotated[str, Field(min_length=1, max_length=256)]] = ()

    @model_validator(mode="after")
    def _one_place(self) -> JwtRule:
        if self.jwks is not None and self.jwks_uri is not None:
            raise ValueError("both `jwks` and `jwksUri`; write one of them")
        if self.jwks is None and self.jwks_uri is None and not is_fetchable(self.source):
            raise ValueError(
                f"neither `jwks` nor `jwksUri`, and `{self.issuer[:80]}` is no `https://` URI by which keys are "
                "discovered; write one of them"
            )
        return self

    @property
    def source(self) -> str:
        """Where the keys are, unless they are written here: a file, or the URI that has them or tells their place."""
        return self.jwks_uri or f"{self.issuer.removesuffix('/')}{DISCOVERY}"

    @property
    def fetched(self) -> str | None:
        """The URI that policyd fetches the keys from, or by; None where they are in the folder."""
        return self.source if self.jwks is None and "://" in self.source else None

    @property
    def split_claims(self) -> frozenset[str]:
        """The claims whose text is words with spaces between them."""
        return frozenset({"scope", "permission", *self.space_delimited_claims})


class RequestAuthenticationSpec(Model):
    """The instances (of this namespace; all of them without a selector) and the issuers that they believe."""

    selector: WorkloadSelector = WorkloadSelector()
    jwt_rules: Annotated[Many[JwtRule], Field(min_length=1, max_length=MAX_RULES)]


class RequestAuthentication(Resource):
    """Istio's RequestAuthentication."""

    api_version: Security = "security.istio.io/v1"
    kind: Literal["RequestAuthentication"] = "RequestAuthentication"
    spec: RequestAuthenticationSpec
