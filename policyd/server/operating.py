"""What the owner is served on the administration socket: the administration API, the authority's desk, rotation."""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime

from policyd.admin.facts import ADDRESSES, Addresses
from policyd.admin.mesh import MeshDesk, MeshParts
from policyd.admin.parts import Parts
from policyd.admin.policies import applied
from policyd.admin.service import AdminService
from policyd.amend import Amender
from policyd.ca.desk.parts import Parts as DeskParts
from policyd.ca.desk.service import Desk
from policyd.ca.rotation_desk import RotationDesk
from policyd.ca.rotator import Step
from policyd.environment import Level
from policyd.mesh.placement import assumed
from policyd.reload.live import Live, shipped_schemas
from policyd.reload.load import load
from policyd.server.deciders import Deciders
from policyd.server.facts import Facts
from policyd.server.federating import Federating
from policyd.server.ground import Ground
from policyd.server.in_force import InForce
from policyd.server.issuing import Issuing
from policyd.server.liveness import Liveness
from policyd.server.mesh_port import MeshPort
from policyd.sources.files import Folder
from policyd.sources.shadow import FolderReader
from policyd.spiffe import SpiffeId
from policyd.xds.resources.model import Control
from policyd.xds.snapshot import Snapshot


@dataclass(frozen=True, slots=True)
class Operating:
    """The three services."""

    admin: AdminService
    desk: Desk
    rotation: RotationDesk


def operating(
    ground: Ground,
    issuing: Issuing,
    port: MeshPort,
    deciders: Deciders,
    facts: Facts,
    *,
    changes: MeshParts,
    desk: DeskParts,
    sent: Callable[[str], Snapshot | None],
    started_at: datetime,
    stop: Callable[[], None],
    speak: Callable[[Level | None], Awaitable[Level]],
) -> Operating:
    """Make them; `stop` ends the server, `speak` has it log from a level on, `sent` is what a proxy is sent."""
    shown = ground.shown()
    parts = Parts(
        facts=facts,
        addresses=Addresses(**{name: shown[name] for name in ADDRESSES}),
        issuer=issuing.issuer,
        tokens=ground.stores.tokens,
        ledger=ground.stores.ledger,
        record=ground.journal.append,
        random=secrets.token_bytes,
        started_at=started_at,
        stop=stop,
        restart=deciders.restart,
        inspect=port.inspections.ask,
        mesh=MeshDesk(changes),
        policies=lambda request: applied(request, changes),
        sent=sent,
        window=port.window,
        speak=speak,
        levels=port.levels,
    )

    async def rotate(step: Step) -> None:
        await issuing.authority.do(step)
        await deciders.refresh()

    return Operating(AdminService(parts), Desk(desk), RotationDesk(issuing.rotator, rotate))


def changes_of(ground: Ground, in_force: InForce, read: FolderReader, facts: Facts) -> MeshParts:
    """How operators change the folder: what comes of it is looked at as a whole before it is written."""
    return MeshParts(
        live=lambda: in_force.live,
        refused=lambda: in_force.keeper.refused,
        amender=Amender(ground.directory, read, _checked),
        change=in_force.keeper.change,
        record=ground.journal.append,
        now=ground.clock,
        proxies=facts.proxies,
    )


def desk_of(
    ground: Ground, in_force: InForce, issuing: Issuing, federating: Federating, liveness: Liveness
) -> DeskParts:
    """How operators have identities registered, revoked and federated."""
    stores, authority = ground.stores, issuing.authority

    async def enforce() -> str:
        """Put what is revoked now in force everywhere; returns why decisions do not know it yet, "" where they do."""
        await asyncio.to_thread(in_force.keeper.look)
        await authority.turn_lists()
        liveness.wake()
        ground.changes.announce()
        return str(in_force.keeper.refused[0]) if in_force.keeper.refused else ""

    return DeskParts(
        issuer=issuing.issuer,
        entries=stores.entries,
        tokens=stores.tokens,
        ledger=stores.ledger,
        elements=authority.elements,
        mesh=in_force.mesh,
        record=ground.journal.append,
        changed=ground.changes.announce,
        revocations=stores.revocations,
        enforce=enforce,
        random=secrets.token_bytes,
        uid=os.getuid(),
        federation=federating,
        relations=stores.relations,
        serials=stores.serials,
        crls=authority.published_lists,
        looks_at_serials=authority.looks_at_serials,
    )


def _checked(folder: Folder) -> Live:
    """Check a folder as a whole, without taking a port; raises InvalidInput."""
    nowhere = Control("127.0.0.1", (1,), SpiffeId.server("cluster.local"))
    return load(folder, shipped_schemas(), assumed, nowhere)
