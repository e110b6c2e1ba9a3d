"""What the server does with the bundles of others: asks when it is time, tells agents, answers the owner."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from policyd._pb import authority_pb2 as pb
from policyd.config.authority import FederatedSettings
from policyd.errors import FederationError, JournalError, NotFound
from policyd.server.federating import Federating
from policyd.sources.federation import Federation
from policyd.svid import bundle as bundles
from policyd.svid.bundle import Bundle
from tests.fakes.toy_ca import ToyCa

RELATION = FederatedSettings(
    trust_domain="partner.org", bundle_endpoint="https://p/", endpoint_id="spiffe://partner.org/policyd/server"
)
BUNDLE = Bundle("partner.org", (ToyCa("partner.org").root.der,), sequence=7)


TOLD = {
    "trust_domain": "partner.org", "sequence": 7, "jwt_keys": [],
    "roots": [hashlib.sha256(BUNDLE.roots[0]).hexdigest()],
}  # fmt: skip


class World:
    """An endpoint whose answers are a test's, and who heard of changes."""

    def __init__(self, folder: Path) -> None:
        self.answers: list[bytes | FederationError] = []
        self.asked: list[tuple[FederatedSettings, Bundle | None]] = []
        self.changes = 0
        self.now = 0.0
        self.known = Federation(folder)
        self.recorded: list[tuple[str, dict[str, object]]] = []
        self.full = False
        self.meanwhile: Callable[[], object] = lambda: None
        self.failing: list[int] = []
        self.federating = Federating(
            self.known,
            self.changed,
            self.record,
            failing=self.failing.append,
            fetch=self.fetch,
            clock=lambda: self.now,
        )

    def record(self, operation: str, told: Mapping[str, object]) -> None:
        if self.full:
            raise JournalError("the disk is full")
        self.recorded.append((operation, dict(told)))

    def changed(self) -> None:
        self.changes += 1

    async def fetch(self, relation: FederatedSettings, held: Bundle | None) -> bytes:
        self.asked.append((relation, held))
        self.meanwhile()
        answer = self.answers.pop(0)
        if isinstance(answer, FederationError):
            raise answer
        return answer


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "federation")


def shown(**changes: object) -> pb.Federated:
    whole: dict[str, object] = {
        "trust_domain": "partner.org", "bundle_endpoint": "https://p/", "profile": "https_spiffe",
        "endpoint_id": "spiffe://partner.org/policyd/server",
    }  # fmt: skip
    whole |= {"document": bundles.write(BUNDLE)} if changes.get("known") else {}
    return pb.Federated(**(whole | changes))  # type: ignore[arg-type]


async def test_a_trust_domain_that_becomes_known_is_asked_at_once_and_agents_are_told(world: World) -> None:
    world.answers = [bundles.write(BUNDLE)]
    running = asyncio.create_task(world.federating.run())
    await asyncio.sleep(0)
    world.federating.want([RELATION])
    async with asyncio.timeout(30):
        while not world.changes:
            await asyncio.sleep(0)
    running.cancel()
    assert (world.asked, world.known.bundles()) == ([(RELATION, None)], (BUNDLE,))
    assert world.federating.all() == [shown(known=True, sequence=7, roots=1)]
    assert world.recorded == [("bundle.fetch", TOLD)]
    world.federating.want([])
    assert (world.changes, world.federating.all()) == (2, [])


async def test_the_owner_asks_now_and_hears_what_came_of_it(world: World) -> None:
    world.answers = [FederationError("the answer is 500"), bundles.write(BUNDLE), bundles.write(BUNDLE), b"{}"]
    world.federating.want([RELATION])
    assert await world.federating.refreshed("partner.org") == shown(problem="the answer is 500")
    for _ in range(2):
        assert await world.federating.refreshed("partner.org") == shown(known=True, sequence=7, roots=1)
    assert (world.changes, world.failing) == (1, [1, 0, 0])
    told = await world.federating.refreshed("partner.org")
    assert (told.known, told.sequence, told.problem.startswith("a bundle has a list `keys`")) == (True, 7, True)


async def test_a_trust_domain_that_is_let_go_while_it_is_asked_is_not_known(world: World) -> None:
    world.answers, world.meanwhile = [bundles.write(BUNDLE)], lambda: world.federating.want([])
    world.federating.want([RELATION])
    with pytest.raises(NotFound, match="is no trust domain that is known here"):
        await world.federating.refreshed("partner.org")
    assert (world.known.bundles(), world.recorded) == ((), [])


async def test_nobody_is_trusted_anew_before_that_is_on_record(world: World) -> None:
    world.full, world.answers = True, [bundles.write(BUNDLE)]
    world.federating.want([RELATION])
    assert (await world.federating.refreshed("partner.org")).problem == "the disk is full"
    with pytest.raises(JournalError):
        world.federating.brought("partner.org", bundles.write(BUNDLE), world.record)
    assert (world.known.bundles(), world.changes) == ((), 0)


async def test_the_owner_brings_a_bundle(world: World) -> None:
    world.federating.want([FederatedSettings(trust_domain="partner.org")])
    assert world.federating.brought("partner.org", bundles.write(BUNDLE), world.record) == pb.Federated(
        trust_domain="partner.org", known=True, sequence=7, roots=1, document=bundles.write(BUNDLE)
    )
    assert (world.changes, world.recorded) == (1, [("bundle.import", TOLD)])
    with pytest.raises(NotFound, match="is no trust domain that is known here"):
        world.federating.brought("other.org", bundles.write(BUNDLE), world.record)
    with pytest.raises(FederationError, match="this is no JSON"):
        world.federating.brought("partner.org", b"x", world.record)
    with pytest.raises(FederationError, match="has no bundle endpoint"):
        await world.federating.refreshed("partner.org")
