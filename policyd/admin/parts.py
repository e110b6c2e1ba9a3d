"""What the administration API works on."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from policyd._pb import admin_pb2 as pb
from policyd.admin.facts import Addresses, Facts
from policyd.admin.mesh import MeshDesk
from policyd.audit.operations import operation, owner
from policyd.audit.record import Entry
from policyd.ca.issuer import Issuer
from policyd.ca.ledger import Ledger
from policyd.ca.serving.levels import Levels
from policyd.ca.tokens import Tokens
from policyd.environment import Level
from policyd.telemetry.traces_window import Window
from policyd.xds.snapshot import Snapshot


@dataclass(frozen=True, slots=True)
class Parts:
    """Each as the server gives it."""

    facts: Facts
    addresses: Addresses
    issuer: Issuer
    tokens: Tokens
    ledger: Ledger
    record: Callable[[Entry], object]
    random: Callable[[int], bytes] = field(repr=False)
    started_at: datetime
    stop: Callable[[], None]
    restart: Callable[[], Awaitable[None]]
    inspect: Callable[[str, str, str], Awaitable[bytes]]  # agent, instance, kind; raises NotShown
    sent: Callable[[str], Snapshot | None]  # what an instance's proxy is sent
    mesh: MeshDesk
    policies: Callable[[pb.ApplyPoliciesRequest], Awaitable[pb.ApplyPoliciesReply]]  # as policies.applied
    window: Window
    speak: Callable[[Level | None], Awaitable[Level]]  # log from a level on; None: from that of the settings
    levels: Levels  # of agents

    def note(self, name: str, detail: Mapping[str, object]) -> None:
        """Put on record what the owner does; raises JournalError."""
        self.record(operation(self.issuer.now(), name, detail, by=owner(os.getuid())))
