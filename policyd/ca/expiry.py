"""All of the authority that can end, and what is said of it before it does.

Law: pure. Nothing ends in silence: each certificate of the chain is spoken of as its life passes, once for each share
of it, and an authority that could not let a certificate live its life out does not pretend to be ready.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes

from policyd.ca.jwt_keys import LIFE, JwtKeys
from policyd.ca.rotation import Authorities, Generation

SHARES: Final = ((0.5, "half"), (5 / 6, "five sixths"), (0.95, "nineteen twentieths"))
TOKEN_KEY: Final = "token key"  # noqa: S105 - what a key is for

_STATES: Final = {"active": "signs"}
_BEFORE: Final = {"active": "", "prepared": "next ", "retired": "old ", "tainted": "old "}


@dataclass(frozen=True, slots=True)
class Element:
    """One key or certificate: `id` is the SHA-256 of a certificate, the `kid` of a key of tokens."""

    name: str
    id: str
    state: str
    begins: datetime
    ends: datetime


def elements(held: Authorities, keys: JwtKeys, now: datetime) -> tuple[Element, ...]:
    """Roots, what signs certificates, and what signs tokens; what signs now is the first of its kind."""
    ordered = sorted(held.generations, key=lambda one: one is not held.active)
    roots = dict.fromkeys(one.material.root for one in ordered)
    owner = {root: next(one for one in ordered if one.material.root == root) for root in roots}
    found = [_certificate(f"{_BEFORE[owner[root].state]}root", root, "trusted") for root in roots]
    found += [element for one in ordered for element in (_intermediate(one), *_above(one))]
    signing = keys.signing(now)
    for one in keys.keys:
        state = "signs" if one is signing else "published"
        found.append(Element(TOKEN_KEY, one.kid, state, one.signs, one.signs + LIFE))
    return tuple(found)


def passed(element: Element, now: datetime) -> str:
    """The largest share of its life that is over, in words; "" before the first."""
    share = (now - element.begins) / (element.ends - element.begins)
    if share >= 1:
        return "all"
    return next((word for least, word in reversed(SHARES) if share >= least), "")


def trouble(held: Authorities, now: datetime, margin: timedelta) -> str:
    """Why the authority should issue nothing: it ends before what it issued would; "" where it does not."""
    for element in _chain(held.active):
        if element.ends - now < margin:
            return f"the {element.name} certificate ends at {element.ends:%FT%TZ}, too soon to issue any"
    return ""


class Notices:
    """Remembers what was said already."""

    def __init__(self) -> None:
        self._said: dict[str, str] = {}

    def news(self, found: Iterable[Element], now: datetime) -> list[tuple[Element, str]]:
        """The certificates of whose life a further share is over, and how much in words."""
        told = []
        for element in found:
            share = passed(element, now)
            if element.name != TOKEN_KEY and share and self._said.get(element.id) != share:
                self._said[element.id] = share
                told.append((element, share))
        return told


def _chain(one: Generation) -> tuple[Element, ...]:
    return _certificate("root", one.material.root, "trusted"), _intermediate(one), *_above(one)


def _above(one: Generation) -> tuple[Element, ...]:
    """What is between another's root and our intermediate."""
    found = one.material.above
    return tuple(
        _certificate(f"{_BEFORE[one.state]}upstream {number}", each, "signs") for number, each in enumerate(found, 1)
    )


def _intermediate(one: Generation) -> Element:
    name = f"{_BEFORE[one.state]}intermediate"
    return _certificate(name, one.material.intermediate, _STATES.get(one.state, one.state))


def _certificate(name: str, certificate: x509.Certificate, state: str) -> Element:
    return Element(
        name,
        certificate.fingerprint(hashes.SHA256()).hex(),
        state,
        certificate.not_valid_before_utc,
        certificate.not_valid_after_utc,
    )
