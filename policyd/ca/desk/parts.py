"""What the desk works on, and how it notes what it did."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from policyd._pb import authority_pb2 as pb
from policyd.audit.operations import operation, owner
from policyd.audit.record import Entry
from policyd.ca.entries import Entries
from policyd.ca.expiry import Element
from policyd.ca.issuer import Issuer
from policyd.ca.ledger import Ledger
from policyd.ca.revocations import Revocations
from policyd.ca.revoked_serials import RevokedSerials
from policyd.ca.template import Random
from policyd.ca.tokens import Tokens
from policyd.config.authority import FederatedSettings
from policyd.mesh.model import Mesh


class Relations(Protocol):
    """The other trust domains that a command named; whatever is done is done once `record` is."""

    def all(self) -> Sequence[FederatedSettings]:
        """Every one."""

    def create(self, relation: FederatedSettings, record: Callable[[], object]) -> None:
        """Know another one; raises FederationError."""

    def delete(self, trust_domain: str, record: Callable[[], object]) -> None:
        """Let its workloads be strangers again; raises FederationError."""


class Federation(Protocol):
    """The other trust domains that are known here."""

    def all(self) -> Sequence[pb.Federated]:
        """What is at hand of each."""

    def brought(
        self, trust_domain: str, document: bytes, record: Callable[[str, Mapping[str, object]], object]
    ) -> pb.Federated:
        """Take a bundle that was brought by hand, once `record` is done; raises FederationError."""

    async def refreshed(self, trust_domain: str) -> pb.Federated:
        """Ask for one now; raises FederationError where there is nothing to ask."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What the desk works on; `uid` is the owner's.

    `changed` is called after agents have something new to hear; `elements` are all that can end; `enforce` puts
    revocations in force, and says why decisions do not know them yet, "" where they do; `crls` are the lists of revoked
    certificates, at which proxies look where `looks_at_serials`.
    """

    issuer: Issuer
    entries: Entries
    tokens: Tokens
    revocations: Revocations
    enforce: Callable[[], Awaitable[str]]
    ledger: Ledger
    elements: Callable[[], Iterable[Element]]
    mesh: Callable[[], Mesh]
    record: Callable[[Entry], object]
    changed: Callable[[], object]
    random: Random
    uid: int
    federation: Federation | None = None
    relations: Relations | None = None
    serials: RevokedSerials | None = None
    crls: Callable[[], Sequence[bytes]] = tuple
    looks_at_serials: Callable[[], bool] = lambda: False


class Clerk:
    """One of those at the desk, with what it works on."""

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self.issuer = parts.issuer

    def note(self, name: str, detail: Mapping[str, object]) -> None:
        """Put on record what the owner did."""
        self.parts.record(operation(self.issuer.now(), name, detail, by=owner(self.parts.uid)))
