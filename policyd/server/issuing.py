"""What a server issues by: the issuer, the rotator that gives it new keys, and the authority that looks after both.

Law: what they decide by, they ask of the mesh and the policies in force at that moment.
"""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import timedelta

import structlog

from policyd.authz.operators import may
from policyd.ca import rotator
from policyd.ca.issuer import Issuer, Ports
from policyd.ca.rotator import Rotator
from policyd.ca.server_identity import ServerIdentity
from policyd.cedar.model import Decision, Request
from policyd.errors import PolicydError
from policyd.keeper import Keeper
from policyd.server import authority
from policyd.server.authority import Authority
from policyd.server.ground import Ground
from policyd.server.opening import upstream_of
from policyd.server.revoked_lists import RevokedLists

_log = structlog.get_logger("policyd.server")


@dataclass(frozen=True, slots=True)
class Issuing:
    """Each as it is made once; `own` is the certificate that the server shows itself."""

    issuer: Issuer
    rotator: Rotator
    authority: Authority
    own: ServerIdentity


def issuing(ground: Ground, keeper: Keeper, present: Callable[[], Collection[str]]) -> Issuing:
    """Make them; `present` are the agents that are connected. Raises what issuing raises, for the server's own."""
    loop = asyncio.get_running_loop()

    def changed() -> None:
        loop.call_soon_threadsafe(looked_after.changed)

    issuer = _issuer(ground, keeper)
    turned = _rotator(ground, keeper, issuer, present, changed)
    looked_after = _authority(ground, keeper, issuer, turned, present)
    return Issuing(issuer, turned, looked_after, ServerIdentity(issuer, ground.clock, _not_renewed))


def _issuer(ground: Ground, keeper: Keeper) -> Issuer:
    stores, metrics = ground.stores, ground.metrics

    def decide(request: Request) -> Decision:
        return keeper.live.issuance.engine.decide(request)

    def count(kind: str) -> None:
        stores.ledger.add(kind)
        metrics.issued(kind)

    ports = Ports(
        mesh=lambda: keeper.live.mesh,
        decide=decide,
        record=ground.journal.keep,
        count=count,
        clock=ground.clock,
        random=secrets.token_bytes,
        jwt_keys=lambda: ground.jwt_keys.keys,
        revision=lambda: keeper.live.issuance.revision,
        ttl=lambda: timedelta(seconds=keeper.live.settings.ca.ttl),
        refused=metrics.refused,
        revoked=stores.revocations.holds,
        revoked_serial=stores.serials.holds,
        token_issuer=lambda: keeper.live.settings.ca.token_issuer or "",
    )
    return Issuer(ground.opened.authority, ports)


def _rotator(
    ground: Ground,
    keeper: Keeper,
    issuer: Issuer,
    present: Callable[[], Collection[str]],
    changed: Callable[[], object],
) -> Rotator:
    """The operators' policies in force decide about each step."""

    def decide() -> Decision:
        live = keeper.live
        return may(live.operators, live.ruling.entities, live.mesh.trust_domain, os.getuid(), "rotate", ground.clock())

    ports = rotator.Ports(
        clock=ground.clock,
        random=secrets.token_bytes,
        decide=decide,
        record=ground.journal.append,
        present=present,
        holdings=ground.stores.holdings.all,
        changed=changed,
        life=lambda: timedelta(seconds=keeper.live.settings.ca.ttl),
    )
    return Rotator(ground.paths.ca, issuer, ground.opened.held, ports, ground.passphrase, ground.jwt_keys)


def _authority(
    ground: Ground, keeper: Keeper, issuer: Issuer, turned: Rotator, present: Callable[[], Collection[str]]
) -> Authority:
    return Authority(
        authority.Parts(
            issuer=issuer,
            rotator=turned,
            jwt_keys=ground.jwt_keys,
            lists=RevokedLists(ground.stores.serials.all, ground.clock),
            metrics=ground.metrics,
            settings=lambda: keeper.live.settings.ca,
            upstream=lambda: upstream_of(ground.directory, keeper.live.settings),
            passphrase=ground.passphrase,
            credentials=lambda: keeper.live.mesh.credentials,
            present=present,
            seen=ground.stores.holdings.seen,
            announce=ground.changes.announce,
            note=ground.note,
            clock=ground.clock,
        )
    )


def _not_renewed(error: PolicydError) -> None:
    _log.error("server.certificate_not_renewed", error=str(error))
