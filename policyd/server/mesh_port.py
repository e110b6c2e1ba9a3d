"""What the port of proxies and agents serves: configuration, certificates, and an ear for what they tell of requests.

Law: who asks is the identity of the connection; a proxy may be any instance of it, and tell of its Services, no others.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Final

from policyd.audit.record import Entry
from policyd.authz.record import Include
from policyd.ca.revocations import Revocations
from policyd.ca.serving.agents import AgentsService
from policyd.ca.serving.levels import Levels
from policyd.ca.serving.signing import Signing
from policyd.config.addresses import Address
from policyd.errors import IdentityError
from policyd.server.ground import Ground
from policyd.server.in_force import InForce
from policyd.server.issuing import Issuing
from policyd.server.liveness import Liveness
from policyd.server.local_decisions import LocalDecisions, Rulings
from policyd.server.on_record import lines_so_far
from policyd.server.pausing_tasks import PausingTasks
from policyd.server.push_log import PushLog
from policyd.server.refused_tokens import RefusedTokens
from policyd.spiffe import SpiffeId
from policyd.telemetry.service import TracesService
from policyd.telemetry.traces_window import Window
from policyd.xds.cache import SnapshotCache
from policyd.xds.inspection.service import InspectionsService
from policyd.xds.service import DiscoveryService, peer_of

LED_SECONDS: Final = 1.5  # an agent that is to end waits no longer for callers' Envoys
LED_LOOK: Final = 0.01


@dataclass(frozen=True, slots=True)
class MeshPort:
    """The services of the port; `window` holds the traces that were told, `levels` what agents are to log."""

    discovery: DiscoveryService
    agents: AgentsService
    inspections: InspectionsService
    traces: TracesService
    refused: RefusedTokens
    decisions: LocalDecisions
    window: Window
    levels: Levels


def mesh_port(
    ground: Ground,
    in_force: InForce,
    issuing: Issuing,
    signing: Signing,
    *,
    cache: SnapshotCache,
    rulings: Rulings,
    liveness: Liveness,
) -> MeshPort:
    """Make them, for the running loop; nobody is served yet."""
    revocations, window = ground.stores.revocations, Window(ground.settings.tracing.window)
    discovery = DiscoveryService(
        cache,
        partial(_authorize_proxy, in_force, revocations),
        PushLog(ground.metrics),
        clock=time.monotonic,
        wall=time.time,
    )
    levels = Levels(ground.changes.announce)
    agents = _agents(ground, in_force, issuing, signing, levels, liveness, discovery)
    ground.metrics.window(window.fill())
    served_by = partial(_served_by, in_force, revocations)
    return MeshPort(
        discovery=discovery,
        agents=agents,
        inspections=InspectionsService(agents.admit),
        traces=TracesService(window, served_by, ground.metrics, peer=peer_of, clock=time.monotonic),
        refused=_refused(ground, in_force),
        decisions=_decisions(ground, in_force, agents, rulings),
        window=window,
        levels=levels,
    )


def _agents(
    ground: Ground,
    in_force: InForce,
    issuing: Issuing,
    signing: Signing,
    levels: Levels,
    liveness: Liveness,
    discovery: DiscoveryService,
) -> AgentsService:
    return AgentsService(
        signing,
        ground.stores.tokens,
        mesh=in_force.mesh,
        changes=ground.changes,
        xds_address=str(ground.addresses["xds"]),
        signing_address=signing_address(ground.addresses),
        clock=time.monotonic,
        wall=ground.clock,
        hear=liveness.hear,
        turn=partial(_lead, liveness, discovery),
        run=PausingTasks(asyncio.get_running_loop()).run,
        federated=ground.stores.federation.bundles,
        hold=ground.stores.holdings.hear,
        tainted=lambda: issuing.rotator.held.tainted,
        crls=issuing.authority.published_lists,
        levels=levels.of,
    )


def _refused(ground: Ground, in_force: InForce) -> RefusedTokens:
    """What Envoys refuse for its token is on record, as a task that may wait for the medium."""
    loop = asyncio.get_running_loop()

    async def keep(entry: Entry) -> object:
        return await PausingTasks(loop).run(partial(ground.journal.append, entry))

    return RefusedTokens(in_force.mesh_and_revision, keep, clock=time.monotonic, wall=ground.clock)


def _decisions(ground: Ground, in_force: InForce, agents: AgentsService, rulings: Rulings) -> LocalDecisions:
    loop, include = asyncio.get_running_loop(), ground.settings.audit.include

    def distrust(workload: SpiffeId, revision: str) -> None:
        if in_force.distrusts(workload, revision):
            loop.call_soon_threadsafe(in_force.show)

    return LocalDecisions(
        agents.runs,
        in_force=in_force.mesh_and_revision,
        rulings=rulings,
        positions=ground.stores.positions,
        journal=ground.journal,
        earlier=lines_so_far(ground.journal.directory, ground.journal.writer),
        counts=ground.metrics,
        clock=ground.clock,
        distrust=distrust,
        include=Include(frozenset(include.headers), frozenset(include.claims)),
    )


def signing_address(at: Mapping[str, Address]) -> str:
    """Where agents are to have their keys certified; "": where they are configured, for one of the two is this
    machine's alone.
    """
    return "" if at["signing"].is_loopback and not at["xds"].is_loopback else str(at["signing"])


async def _lead(
    liveness: Liveness, discovery: DiscoveryService, leaving: Collection[str], back: Collection[str]
) -> None:
    """Lead callers away from who leaves, and to who is back; returns when their Envoys know, or soon."""
    with suppress(TimeoutError):
        async with asyncio.timeout(LED_SECONDS):
            news = await liveness.turn(leaving, back)
            while news and discovery.is_behind():  # noqa: ASYNC110 - each confirms in its own time
                await asyncio.sleep(LED_LOOK)


def _authorize_proxy(in_force: InForce, revocations: Revocations, peer: SpiffeId, node_id: str) -> None:
    """A proxy may be any instance of the identity that it has proved, and no other."""
    instance = in_force.mesh().instances.get(node_id)
    if instance is None or instance.workload != peer:
        raise IdentityError(f"`{peer}` is not the identity of an instance `{node_id[:80]}`")
    if revocations.holds(peer):
        raise IdentityError(f"`{peer}` is revoked")


def _served_by(in_force: InForce, revocations: Revocations, peer: SpiffeId) -> frozenset[str]:
    """The Services of which an identity may tell."""
    if revocations.holds(peer):
        return frozenset()
    return frozenset(one.service for one in in_force.mesh().instances.values() if one.workload == peer)
