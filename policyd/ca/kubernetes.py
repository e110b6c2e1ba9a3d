"""A pod's projected service-account token as evidence: who vouches for it, and what it says of the pod.

Law: a token counts only if it was made for us (its audience), by the cluster that the settings name, and has not ended;
what it says comes from its verified claims, or from the cluster's own review of it, never from who shows it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Protocol

from policyd.ca.web import Service
from policyd.errors import IdentityError
from policyd.svid import jose
from policyd.svid.clocks import check_times

KIND: Final = "kubernetes"  # the word of the schema
MAX_KEYS_BYTES: Final = 256 * 1024
MAX_REVIEW_BYTES: Final = 256 * 1024
MAX_KEYS: Final = 64
JSON: Final = "application/json"

_SUBJECT: Final = re.compile(r"system:serviceaccount:([a-z0-9.-]{1,63}):([a-z0-9.-]{1,253})")
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9.-]{0,252}")
_POD: Final = "authentication.kubernetes.io/pod-name"


class Cluster(Protocol):
    """Who knows whether a token is one of a cluster's pods."""

    def selectors(self, token: str, now: datetime) -> tuple[str, ...]:
        """What is known of the pod that bears it; raises IdentityError for a token that proves nothing."""


@dataclass(frozen=True, slots=True)
class ByKeys:
    """Verifies tokens of `issuer` for `audience` itself, with the keys that the cluster publishes (a JWK set)."""

    issuer: str
    audience: str
    keys: Callable[[], bytes]

    def selectors(self, token: str, now: datetime) -> tuple[str, ...]:
        """As for every Cluster."""
        signed = jose.parse(token)
        algorithm, kid = signed.header.get("alg"), signed.header.get("kid")
        if not isinstance(algorithm, str) or not isinstance(kid, str) or "crit" in signed.header:
            raise IdentityError("the token does not say which key has signed it")
        jose.check_signature(signed, algorithm, _key(self.keys(), kid))
        claims = signed.claims
        if claims.get("iss") != self.issuer:
            raise IdentityError("the token is another issuer's")
        audiences = claims.get("aud")
        if self.audience not in (audiences if isinstance(audiences, list) else [audiences]):
            raise IdentityError("the token is for another audience")
        _check_times(claims, now)
        return _of_claims(claims)


@dataclass(frozen=True, slots=True)
class ByReview:
    """Asks the cluster's API whether a token for `audience` is good (TokenReview): it knows of pods that are gone."""

    audience: str
    service: Service

    def selectors(self, token: str, now: datetime) -> tuple[str, ...]:
        """As for every Cluster."""
        jose.parse(token)  # what is no token is not passed on
        spec = {"token": token, "audiences": [self.audience]}
        asked = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": spec}
        answer = self.service.ask("POST", jose.write_object(asked), JSON, MAX_REVIEW_BYTES)
        status = jose.read_object(answer).get("status")
        if not isinstance(status, dict) or status.get("authenticated") is not True or status.get("error"):
            raise IdentityError("the cluster does not accept the token")
        audiences = status.get("audiences")
        if not isinstance(audiences, list) or self.audience not in audiences:
            raise IdentityError("the token is for another audience")
        user = status.get("user")
        if not isinstance(user, dict):
            raise IdentityError("the cluster does not say whose the token is")
        extra = user.get("extra")
        pods = extra.get(_POD) if isinstance(extra, dict) else None
        return _selectors(user.get("username"), pods[0] if isinstance(pods, list) and len(pods) == 1 else None)


def _key(document: bytes, kid: str) -> jose.PublicKey:
    keys = jose.read_object(document).get("keys")
    if not isinstance(keys, list) or len(keys) > MAX_KEYS:
        raise IdentityError("the cluster's keys are no key set")
    found = [one for one in keys if isinstance(one, dict) and one.get("kid") == kid and one.get("use", "sig") == "sig"]
    if len(found) != 1:
        raise IdentityError("the token was signed with a key that the cluster does not publish")
    return jose.from_jwk(found[0])


def _check_times(claims: Mapping[str, Any], now: datetime) -> None:
    ends, begins = _time(claims, "exp"), _time(claims, "nbf") if "nbf" in claims else None
    check_times("the token", begins, ends, now)


def _time(claims: Mapping[str, Any], name: str) -> datetime:
    value = claims.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or value in (math.inf, -math.inf):
        raise IdentityError(f"the token has no `{name}`")
    if not 0 <= value < 253_402_300_800:  # the year 10000
        raise IdentityError(f"the token's `{name}` is no time")
    return datetime.fromtimestamp(value, UTC)


def _of_claims(claims: Mapping[str, Any]) -> tuple[str, ...]:
    """The subject, and what stands beside it, say the same."""
    said = claims.get("kubernetes.io")
    if not isinstance(said, dict):
        raise IdentityError("the token is no projected one: it says nothing of a pod")
    account, pod = said.get("serviceaccount"), said.get("pod")
    name = account.get("name") if isinstance(account, dict) else None
    if claims.get("sub") != f"system:serviceaccount:{said.get('namespace')}:{name}":
        raise IdentityError("the token's subject is not what it says of its pod")
    return _selectors(claims.get("sub"), pod.get("name") if isinstance(pod, dict) else None)


def _selectors(subject: object, pod: object) -> tuple[str, ...]:
    match = _SUBJECT.fullmatch(subject) if isinstance(subject, str) else None
    if match is None:
        raise IdentityError("the token is no service account's")

    def found() -> Iterator[str]:
        yield f"k8s:ns:{match[1]}"
        yield f"k8s:sa:{match[2]}"
        if isinstance(pod, str) and _NAME.fullmatch(pod):
            yield f"k8s:pod:{pod}"

    return tuple(found())
