"""JWT-SVIDs are made here, and checked as their verifiers will before they leave.

Law: a token has an end, an audience and the name of its key, and nothing in it was asked for but the audience.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

from policyd.ca.jwt_keys import LONGEST, SigningKey
from policyd.ca.template import SERIAL_BYTES, Random
from policyd.errors import IdentityError
from policyd.spiffe import SpiffeId
from policyd.svid import jose
from policyd.svid.bundle import Bundle
from policyd.svid.jwt import check_audiences, validate

DEFAULT_LIFE: Final = timedelta(minutes=5)
LEAST_LIFE: Final = timedelta(seconds=5)


@dataclass(frozen=True, slots=True)
class Token:
    """A signed JWT-SVID; `jti` names it in records, `text` is the secret itself."""

    spiffe_id: SpiffeId
    text: str = field(repr=False)
    jti: str
    kid: str
    not_after: datetime


def sign(
    spiffe_id: SpiffeId,
    audiences: tuple[str, ...],
    key: SigningKey,
    *,
    now: datetime,
    ttl: timedelta,
    random: Random,
    issuer: str = "",
) -> Token:
    """A token for `spiffe_id` from `now` (UTC) until `ttl` after it; raises IdentityError.

    `issuer` is the URL by which outsiders find the keys, "" for none: SPIFFE needs none.
    """
    audiences = check_audiences(audiences)
    if not LEAST_LIFE <= ttl <= LONGEST:
        raise IdentityError(
            f"a token lives {LEAST_LIFE.seconds} seconds to {LONGEST.seconds // 60} minutes, not {ttl}",
            remedy="five minutes are the default; ask again instead of asking for more",
        )
    begins = now.replace(microsecond=0)
    ends, jti = begins + ttl, random(SERIAL_BYTES).hex()
    claims: dict[str, Any] = {
        "sub": str(spiffe_id),
        "aud": audiences[0] if len(audiences) == 1 else list(audiences),
        "exp": int(ends.timestamp()),
        "iat": int(begins.timestamp()),
        "jti": jti,
        **({"iss": issuer} if issuer else {}),
    }
    text = jose.sign_es256({"alg": "ES256", "kid": key.kid, "typ": "JWT"}, claims, key.key)
    _check(text, spiffe_id, audiences, key, begins)
    return Token(spiffe_id, text, jti, key.kid, ends)


def _check(text: str, spiffe_id: SpiffeId, audiences: tuple[str, ...], key: SigningKey, now: datetime) -> None:
    bundle = Bundle(spiffe_id.trust_domain, jwt_keys=(key.public,))
    checked = validate(text, lambda _: bundle, audiences[0], now)
    if checked.spiffe_id != spiffe_id or checked.audiences != audiences:
        raise IdentityError("the signed token says something else than was ordered")
