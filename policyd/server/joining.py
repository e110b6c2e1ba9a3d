"""How keys of agents and workloads come to be certified: who joins, and what is signed for those who have."""

from __future__ import annotations

import asyncio
import secrets
import time
from datetime import timedelta

from policyd.ca.issuer import Issuer
from policyd.ca.possession import Challenges
from policyd.ca.serving.attestation import AttestationService
from policyd.ca.serving.proving import Proving
from policyd.ca.serving.signing import Signing
from policyd.server.evidence import Believed
from policyd.server.ground import Ground
from policyd.server.in_force import InForce


def attestation(ground: Ground, in_force: InForce, issuer: Issuer) -> AttestationService:
    """Agents join by a token, or by what they can prove."""
    proving = Proving(
        issuer,
        mesh=in_force.mesh,
        entries=ground.stores.entries.all,
        evidences=Believed(lambda: in_force.live.settings.ca.evidence, ground.directory, time.monotonic),
        challenges=Challenges(secrets.token_bytes),
    )

    def come_back_within() -> timedelta:
        return timedelta(seconds=in_force.live.settings.ca.come_back_within)

    return AttestationService(
        issuer,
        ground.stores.tokens,
        agents_address=str(ground.addresses["xds"]),
        clock=time.monotonic,
        within=come_back_within,
        proving=proving,
        beside=asyncio.to_thread,
    )


def signing(ground: Ground, in_force: InForce, issuer: Issuer) -> Signing:
    """Those who have joined get what their registration grants, at the port of agents and at that of signing."""
    return Signing(
        issuer,
        ground.stores.tokens,
        mesh=in_force.mesh,
        clock=time.monotonic,
        wall=ground.clock,
        entries=ground.stores.entries.all,
    )
