"""Eras: from one revocation to the next. What was opened in an era that is over does not go on.

Law: pure, and the same after a restart. Nobody is revoked: there is no era, and nothing to be ended.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from policyd.spiffe import SpiffeId

_DIGITS: Final = 16  # of a name; equal ones would mean that connections go on which should not


@dataclass(frozen=True, slots=True, order=True)
class Lost:
    """A certificate that is revoked by its serial number, and whose it is; the identity goes on with another one."""

    serial: str
    spiffe_id: SpiffeId


@dataclass(frozen=True, slots=True)
class Eras:
    """`now` is the era of the whole mesh, by a name; "": nobody is revoked."""

    now: str = ""
    _of: Mapping[SpiffeId, str] = field(default_factory=dict)

    @classmethod
    def of(cls, revoked: Iterable[SpiffeId], lost: Iterable[Lost]) -> Eras:
        """The eras after these identities and these certificates were revoked."""
        serials: dict[SpiffeId, list[str]] = {}
        for one in sorted(lost):
            serials.setdefault(one.spiffe_id, []).append(one.serial)
        names = {spiffe_id: _name(found) for spiffe_id, found in serials.items()}
        return cls(
            _name([*map(str, sorted(revoked)), *(f"{one} {name}" for one, name in sorted(names.items()))]), names
        )

    def of_peers(self, peers: Iterable[SpiffeId]) -> str:
        """The era of those who may be one of these peers; "": none of them has lost a certificate."""
        return _name(sorted(self._of[one] for one in peers if one in self._of))


def _name(parts: list[str]) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:_DIGITS] if parts else ""
