"""Which records are asked for, and how people name who is in them.

Law: pure. A name that a person types matches the whole Cedar text, the id in it, or the short form shown.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from policyd.audit.record import Kind, Outcome, Record
from policyd.errors import SpiffeIdError
from policyd.home import HOME
from policyd.spiffe import SCHEME, SpiffeId

DEFAULT_NAMESPACE: Final = "default"
_UID: Final = re.compile(r'(?P<type>[A-Za-z_:]+)::"(?P<id>.*)"', re.DOTALL)
_ESCAPE: Final = re.compile(r'\\(["\\])')


def entity_id(uid: str) -> str:
    """The id in a Uid's text: `reviews.default` of `Service::"reviews.default"`; other text as it is."""
    found = _UID.fullmatch(uid)
    return _ESCAPE.sub(r"\1", found["id"]) if found else uid


def short_name(uid: str, home: str | None = None) -> str:
    """A workload or service as people call it: `reviews` in the default namespace, else `reviews.shop`.

    What is of another trust domain than `home` (None: that of this process) bears it: `partner.org/reviews`.
    """
    name = entity_id(uid)
    if name.startswith(SCHEME):
        return _short_spiffe_id(name, HOME.trust_domain if home is None else home)
    return name.removesuffix(f".{DEFAULT_NAMESPACE}") if uid.startswith("Service::") else name


def _short_spiffe_id(text: str, home: str) -> str:
    try:
        spiffe_id = SpiffeId.parse(text)
    except SpiffeIdError:
        return text
    account = spiffe_id.service_account
    if account is None and not spiffe_id.path:
        return text
    short = spiffe_id.path.removeprefix("/") if account is None else account
    if account is not None and spiffe_id.namespace != DEFAULT_NAMESPACE:
        short = f"{account}.{spiffe_id.namespace}"
    return short if spiffe_id.trust_domain == home else f"{spiffe_id.trust_domain}/{short}"


def names(uid: str, wanted: str) -> bool:
    """Whether `wanted` names `uid`: whole, by its id, by the last parts of its path, or by a short form of it."""
    name = entity_id(uid)
    domain = name.removeprefix(SCHEME).partition("/")[0] if name.startswith(SCHEME) else ""
    shorts = (short_name(uid, home) for home in ("", domain))
    return wanted in (uid, name, *shorts) or name.endswith(f"/{wanted}")


@dataclass(frozen=True, slots=True)
class Match:
    """What a record must be; None asks nothing."""

    decision: Outcome | None = None
    principal: str | None = None
    resource: str | None = None
    kind: Kind | None = None

    def __call__(self, record: Record) -> bool:
        """Whether `record` is all that."""
        return (
            (self.decision is None or record.decision == self.decision)
            and (self.kind is None or record.kind == self.kind)
            and (self.principal is None or names(record.principal, self.principal))
            and (self.resource is None or names(record.resource, self.resource))
        )
