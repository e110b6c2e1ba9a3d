"""A journal folder that is sealed with a key of a real authority."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from policyd.audit.appender import Limits
from policyd.audit.journal import Journal
from policyd.audit.pack import pack
from policyd.audit.retention import Keep
from policyd.audit.sealer import Sealer
from policyd.audit.verify import How, Verdict, verify
from policyd.ca.authority import Authority, Svid, authority_of, new_material
from policyd.ca.sealing import JournalTrust, SealingKeys
from policyd.spiffe import SpiffeId
from tests.audit.samples import NOON, WRITER, an_entry
from tests.fakes.clock import FakeClock

DOMAIN = "cluster.local"
JOURNAL = SpiffeId.journal(DOMAIN)
SMALL = Limits(max_bytes=2000, max_age=3600.0)  # three records a segment


def an_authority() -> Authority:
    material = new_material(DOMAIN, now=NOON, random=secrets.token_bytes)
    return authority_of(material, DOMAIN, now=NOON)


AUTHORITY = an_authority()


def issuer(
    authority: Authority, clock: Callable[[], Any], identity: SpiffeId = JOURNAL
) -> Callable[[ec.EllipticCurvePublicKey], Svid]:
    return lambda key: authority.sign(identity, key, now=clock(), random=secrets.token_bytes)


def signing_key() -> bytes:
    """The key that AUTHORITY signs with, and its intermediate, in PEM: another process can go on with them."""
    key = AUTHORITY.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return key + AUTHORITY.intermediate.public_bytes(Encoding.PEM)


class Sealed:
    """A journal folder, its clock and its sealer."""

    def __init__(self, folder: Path, clock: FakeClock, authority: Authority = AUTHORITY, **options: Any) -> None:
        self.folder = folder
        self.clock = clock
        self.taken: Mapping[str, int] | None = None
        self.keep = Keep()
        self.authority = authority
        self.options = {"pack": pack, **options}
        self.sealer = self.new_sealer()

    def new_sealer(self, **options: Any) -> Sealer:
        """One that begins anew, as after a restart."""
        given: dict[str, Any] = {
            "signer": SealingKeys(issuer(self.authority, self.clock), self.clock),
            "finish": self.finish,
            "keep": self.keep,
            "max_age": SMALL.max_age,
            "taken": lambda: self.taken,
        }
        return Sealer(self.folder, self.clock, **{**given, **self.options, **options})

    def finish(self, writer: str) -> None:
        journal = self.journal(writer)
        journal.turn()
        journal.close()

    def journal(self, writer: str = WRITER, **options: Any) -> Journal:
        return Journal(self.folder, writer, self.clock, limits=SMALL, **options)

    def write(self, count: int, writer: str = WRITER) -> None:
        """So many records, one a second."""
        journal = self.journal(writer)
        for number in range(count):
            journal.append(an_entry(time=self.clock(), request_id=f"{writer}-{number}"))
            self.clock.advance(1)
        journal.close()

    def verify(self, **options: Any) -> Verdict:
        return verify(self.folder, How(**{"trust": JournalTrust(AUTHORITY.root), **options}))
