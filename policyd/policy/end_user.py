"""The end user of a request asked offline: `<issuer>/<subject>`, with the claims that the token is said to have.

Law: believed exactly where a token would be: at an instance that has a rule for the issuer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from policyd.cedar.claims import claims_of
from policyd.cedar.http import EndUser
from policyd.errors import InvalidInput, Problem, UnacceptableToken


@dataclass(frozen=True, slots=True)
class Shown:
    """What a token is said to say: its user, and claims as JSON has them."""

    user: str
    claims: Mapping[str, Any] = field(default_factory=dict)


def end_user(shown: Shown, service: str, issuers: Mapping[str, frozenset[str]]) -> EndUser:
    """Whom a listener of `service` that believes `issuers` takes that for; raises InvalidInput."""
    issuer = next((one for one in issuers if shown.user.startswith(f"{one}/")), None)
    if issuer is None or shown.user == f"{issuer}/":
        believed = f"it believes {', '.join(f'`{one}`' for one in issuers)}; write `<issuer>/<subject>`"
        message = f"no token makes `{shown.user[:120]}` known to `{service}`"
        raise _refused(message, believed if issuers else "declare a RequestAuthentication for it")
    if taken := {"iss", "sub"} & shown.claims.keys():
        raise _refused(f"the claim `{min(taken)}` is in the name of the user already", "take it out")
    subject = shown.user.removeprefix(f"{issuer}/")
    payload = {**shown.claims, "iss": issuer, "sub": subject}
    try:
        return EndUser(issuer, subject, claims_of(payload, issuers[issuer]))
    except UnacceptableToken as error:
        raise _refused(error.message, error.remedy) from error


def _refused(message: str, remedy: str) -> InvalidInput:
    return InvalidInput([Problem("user", message, remedy=remedy)])
