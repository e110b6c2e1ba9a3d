"""policyd's own certificate with its key, as a value: what a TLS server needs, without the authority that made it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime


@dataclass(frozen=True, slots=True)
class ServerCertificate:
    """What a TLS server needs, in PEM; `chain` is leaf, intermediate and root, `roots` what clients are verified by."""

    key: bytes = field(repr=False)
    chain: bytes
    roots: bytes
    not_after: datetime
    renew_at: datetime
