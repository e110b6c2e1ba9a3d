"""Is this token a JWT-SVID for us, and whose (JWT-SVID specification)?

Law: nothing that a token says counts before its signature was checked with the key that the bundle of its own trust
domain has under its `kid`. A token without an end, or for another audience, is refused.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from policyd.errors import IdentityError, SpiffeIdError
from policyd.spiffe import SpiffeId
from policyd.svid import jose
from policyd.svid.bundle import Bundle
from policyd.svid.clocks import check_times

HEADER: Final = frozenset({"alg", "kid", "typ"})
TYPES: Final = ("JWT", "JOSE")
MAX_AUDIENCES: Final = 16
MAX_AUDIENCE: Final = 2048  # characters, as a SPIFFE ID
_LATEST: Final = datetime(9999, 1, 1, tzinfo=UTC).timestamp()


@dataclass(frozen=True, slots=True)
class JwtSvid:
    """A JWT-SVID's content; `claims` has all of them, those that SPIFFE demands too."""

    spiffe_id: SpiffeId
    audiences: tuple[str, ...]
    expires: datetime
    kid: str
    claims: Mapping[str, Any]


def validate(token: str, bundle_of: Callable[[str], Bundle | None], audience: str, now: datetime) -> JwtSvid:
    """What `token` proves to somebody called `audience` at `now`; raises IdentityError.

    `bundle_of` gives the bundle of a trust domain, or None where that is not trusted.
    """
    if not audience:
        raise IdentityError("whoever is shown a token knows the audience that it is")
    parsed = jose.parse(token)
    svid = _content(parsed)
    trust_domain = svid.spiffe_id.trust_domain
    bundle = bundle_of(trust_domain)
    if bundle is None or bundle.trust_domain != trust_domain:
        raise IdentityError(f"the trust domain `{trust_domain}` is not trusted here")
    key = bundle.jwt_key(svid.kid)
    if key is None:
        raise IdentityError(f"no key of `{trust_domain}` has the `kid` `{svid.kid[:80]}`")
    jose.check_signature(parsed, parsed.header["alg"], key)
    if audience not in svid.audiences:
        raise IdentityError(f"the token is not for `{audience[:200]}`")
    _check_times(svid, now)
    return svid


def read(token: str) -> JwtSvid:
    """What a token says, true or not, for people to look at; raises IdentityError for one that is no JWT-SVID."""
    return _content(jose.parse(token))


def check_audiences(audiences: tuple[str, ...]) -> tuple[str, ...]:
    """Return the audiences of a token to make, each once; raises IdentityError."""
    if not 1 <= len(audiences) <= MAX_AUDIENCES:
        raise IdentityError(f"a token is for 1 to {MAX_AUDIENCES} audiences, not {len(audiences)}")
    for audience in audiences:
        if not 0 < len(audience) <= MAX_AUDIENCE or not audience.isprintable():
            raise IdentityError(f"an audience has 1 to {MAX_AUDIENCE} printable characters")
    return tuple(dict.fromkeys(audiences))


def _content(token: jose.Signed) -> JwtSvid:
    header, claims = token.header, token.claims
    foreign = sorted(header.keys() - HEADER)
    if foreign:
        raise IdentityError(f"the header member `{foreign[0][:40]}` is not accepted; a JWT-SVID has alg, kid and typ")
    algorithm, kid, kind = header.get("alg"), header.get("kid"), header.get("typ", "JWT")
    if algorithm not in jose.ALGORITHMS:
        raise IdentityError(f"the algorithm `{str(algorithm)[:20]}` is not accepted")
    if kind not in TYPES:
        raise IdentityError(f"the type `{str(kind)[:20]}` is not accepted; it is `JWT` or `JOSE`")
    if not isinstance(kid, str) or not kid:
        raise IdentityError("the token does not name its key with `kid`")
    return JwtSvid(_subject(claims), _audiences(claims), _time(claims, "exp"), kid, claims)


def _subject(claims: Mapping[str, Any]) -> SpiffeId:
    subject = claims.get("sub")
    if not isinstance(subject, str):
        raise IdentityError("the token has no `sub`, which names whose it is")
    try:
        spiffe_id = SpiffeId.parse(subject)
    except SpiffeIdError as error:
        raise IdentityError(error.message, remedy=error.remedy) from None
    if not spiffe_id.path:
        raise IdentityError(f"`{spiffe_id}` is a trust domain's own identity, a workload's has a path")
    return spiffe_id


def _audiences(claims: Mapping[str, Any]) -> tuple[str, ...]:
    value = claims.get("aud")
    audiences = [value] if isinstance(value, str) else value
    if not isinstance(audiences, list) or not audiences or not all(isinstance(a, str) and a for a in audiences):
        raise IdentityError("the token has no `aud`, which names whom it is for")
    return tuple(audiences)


def _time(claims: Mapping[str, Any], name: str) -> datetime:
    value = claims.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or value in (math.inf, -math.inf):
        raise IdentityError(f"the token has no `{name}` in seconds since 1970")
    if not 0 <= value < _LATEST:
        raise IdentityError(f"the token's `{name}` is no time")
    return datetime.fromtimestamp(value, UTC)


def _check_times(svid: JwtSvid, now: datetime) -> None:
    """`iat` is not judged: clocks differ, and it would prove nothing."""
    begins = _time(svid.claims, "nbf") if "nbf" in svid.claims else None
    check_times("the token", begins, svid.expires, now)
