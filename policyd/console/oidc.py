"""Login by OpenID Connect (Core 1.0, the authorization code flow with PKCE): what is sent, and what is believed.

Law: pure. A login is bound to the browser that began it, by `state`; its token to this login, by `nonce`; its code to
us, by the verifier. A token is believed only if its issuer's own key signed it, for us, now; an algorithm that needs a
shared secret, or none, is no signature.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import GuestProtocol, KeySet

from policyd.errors import PolicydError
from policyd.svid.jose import encode

ALGORITHMS: Final = ("RS256", "PS256", "ES256", "ES384", "EdDSA")
KEY_TYPES: Final = ("RSA", "EC", "OKP")
LOGIN_SECONDS: Final = 600
SKEW_SECONDS: Final = 60  # that clocks may differ
MAX_PENDING: Final = 1_000  # logins that have begun and not ended
MAX_TOKEN: Final = 16 << 10  # characters
FOREVER: Final = float("inf")
MAX_WHO: Final = 200
_RANDOM_BYTES: Final = 32


class LoginFailed(PolicydError):
    """Somebody is not logged in; the message says why, and holds no secret."""

    code = "login"


class NotSigned(LoginFailed):
    """A token that no key of those at hand has signed."""


@dataclass(frozen=True, slots=True)
class Places:
    """Where an issuer says that it is asked."""

    authorization: str
    token: str
    keys: str


@dataclass(frozen=True, slots=True)
class Login:
    """One that has begun; `back` is where its browser comes back to."""

    state: str
    nonce: str
    verifier: str = field(repr=False)
    browser: str = field(repr=False)  # what its cookie holds
    back: str
    ends: int


@dataclass(slots=True)
class Logins:
    """Those that have begun: each ends once, in time and in its own browser; of too many the oldest are given up."""

    random: Callable[[int], bytes]
    _pending: OrderedDict[str, Login] = field(default_factory=OrderedDict)

    def begin(self, back: str, now: int) -> Login:
        """Begin one."""
        state, nonce, verifier, browser = (encode(self.random(_RANDOM_BYTES)) for _ in range(4))
        made = Login(state, nonce, verifier, browser, back, now + LOGIN_SECONDS)
        self._pending[state] = made
        while len(self._pending) > MAX_PENDING:
            self._pending.popitem(last=False)
        return made

    def end(self, state: str, browser: str, now: int) -> Login:
        """End one; raises LoginFailed where it is not this browser's, not in time, or had ended."""
        found = self._pending.get(state)
        if found is None or not hmac.compare_digest(found.browser.encode(), browser.encode()):
            raise LoginFailed("this login was not begun in this browser, or has ended", remedy="begin again")
        del self._pending[state]
        if now >= found.ends:
            raise LoginFailed("this login took too long", remedy="begin again")
        return found


def places_of(document: Any, issuer: str, may_ask: Callable[[str], bool]) -> Places:
    """Read an issuer's discovery document; raises LoginFailed for one that is not its own, or leads elsewhere."""
    value = document if isinstance(document, Mapping) else {}
    if value.get("issuer") != issuer:
        raise LoginFailed(f"what is published for `{issuer}` is of another issuer")
    names = ("authorization_endpoint", "token_endpoint", "jwks_uri")
    found = [str(value.get(name, "")) for name in names]
    for name, url in zip(names, found, strict=True):
        if not may_ask(url):
            raise LoginFailed(f"the `{name}` of `{issuer}` is no `https://` address")
    return Places(*found)


def authorization_url(places: Places, client_id: str, login: Login) -> str:
    """Where the browser is sent."""
    asked = {
        "response_type": "code",
        "client_id": client_id,
        "redirect_uri": login.back,
        "scope": "openid",
        "state": login.state,
        "nonce": login.nonce,
        "code_challenge": challenge_of(login.verifier),
        "code_challenge_method": "S256",
    }
    return f"{places.authorization}{'&' if urlsplit(places.authorization).query else '?'}{urlencode(asked)}"


def challenge_of(verifier: str) -> str:
    """What shows later that a verifier is ours (RFC 7636, S256)."""
    return encode(hashlib.sha256(verifier.encode("ascii")).digest())


def subject_of(token: str, keys: str, issuer: str, client_id: str, nonce: str, now: int) -> str:
    """Whom an ID token is of; raises LoginFailed for one that is not to be believed."""
    claims = _claims(token, keys)
    audiences = claims["aud"] if isinstance(claims.get("aud"), list) else [claims.get("aud")]
    has_party = len(audiences) > 1 or "azp" in claims
    subject = claims.get("sub")
    wrong = {
        "is of another issuer": claims.get("iss") != issuer,
        "is for somebody else": client_id not in audiences or (has_party and claims.get("azp") != client_id),
        "is of another login": claims.get("nonce") != nonce,
        "has ended": _time(claims, "exp", 0) <= now - SKEW_SECONDS,
        "is from the future; clocks differ": _time(claims, "iat", FOREVER) > now + SKEW_SECONDS,
        "names nobody": not isinstance(subject, str) or not subject,
    }
    for why, is_so in wrong.items():
        if is_so:
            raise LoginFailed(f"the issuer's token {why}")
    return str(subject)


def operator_of(issuer: str, subject: str) -> str:
    """The id of an Operator; raises LoginFailed for a name that policies could not tell from another."""
    who = f"oidc:{issuer}/{subject}"
    if len(who) > MAX_WHO or not all("!" <= char < "~" for char in who):
        raise LoginFailed("the issuer's name for you has characters, or a length, that no operator's name can have")
    return who


def _claims(token: str, keys: str) -> Mapping[str, Any]:
    if len(token) > MAX_TOKEN:
        raise LoginFailed("the issuer's token is too long")
    try:
        known = [one for one in json.loads(keys)["keys"] if one.get("kty") in KEY_TYPES and "d" not in one]

        def chosen(guest: GuestProtocol) -> KeySet:
            if "kid" not in guest.headers() and len(known) > 1:
                raise ValueError("which key signed it cannot be told")
            return KeySet.import_key_set({"keys": known})

        found = jwt.decode(token, chosen, algorithms=ALGORITHMS)
        claims: Any = found.claims
    except (JoseError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise NotSigned("the issuer's token is not signed by a key that the issuer publishes") from None
    return claims if isinstance(claims, Mapping) else {}


def _time(claims: Mapping[str, Any], name: str, without: float) -> float:
    value = claims.get(name)
    return value if isinstance(value, int | float) and not isinstance(value, bool) else without
