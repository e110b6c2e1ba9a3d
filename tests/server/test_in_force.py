"""A change that cannot be put on record takes no effect at all: neither now nor at the next start."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from policyd.audit.record import Entry
from policyd.errors import JournalError
from policyd.mesh.placement import Placement
from policyd.offline.loaded import NOWHERE
from policyd.server.in_force import InForce, Parts
from policyd.server.local_decisions import Rulings
from policyd.server.state import Placer
from policyd.server.stores import open_stores
from policyd.sources import placement as placements
from policyd.sources.files import read_folder
from policyd.sources.revision_store import RevisionStore
from policyd.sources.revisions import history, read
from policyd.sources.state import prepare_state
from policyd.telemetry.metrics import Metrics
from policyd.xds.cache import SnapshotCache

ONE = "workloads: {web-v1: {service: web, port: 80}, api-v1: {service: api, port: 8080}}\n"
OTHER = "workloads: {shop-v1: {service: shop, port: 80}}\n"
POLICY = '@id("reads")\npermit (principal, action, resource == Service::"%s.default");\n'


@dataclass
class World:
    """A server's Live in a folder of its own, and a journal that keeps records unless it is full."""

    folder: Path
    stack: ExitStack
    entries: list[Entry] = field(default_factory=list)
    decided: list[str] = field(default_factory=list)
    full: bool = False

    def __post_init__(self) -> None:
        self.paths = prepare_state(self.folder, os.getuid())
        self.now = datetime(2026, 11, 29, 12, tzinfo=UTC)
        self.write(ONE, "api")
        self.revisions = RevisionStore(self.paths.revisions, self.clock, retain=86_400, version="1")
        self.force = InForce(self._parts(), None)
        self.force.begin()

    def _parts(self) -> Parts:
        return Parts(
            read=lambda: read_folder(self.folder),
            stores=open_stores(self.stack, self.paths),
            placer=Placer(self.paths, (), resumed=False),
            control=NOWHERE,
            living=lambda mesh: mesh,
            rulings=Rulings(),
            revisions=self.revisions,
            cache=SnapshotCache(),
            metrics=Metrics(),
            record=self._record,
            decide=lambda ruling: self.decided.append(ruling.revision),
            taken=lambda _: None,
            clock=self.clock,
        )

    def clock(self) -> datetime:
        self.now += timedelta(seconds=1)
        return self.now

    def _record(self, entry: Entry) -> None:
        if self.full:
            raise JournalError("no space left on the device")
        self.entries.append(entry)

    def write(self, workloads: str, service: str) -> None:
        (self.folder / "workloads.yaml").write_text(workloads)
        (self.folder / "policies").mkdir(exist_ok=True)
        (self.folder / "policies/p.cedar").write_text(POLICY % service)

    def kept(self) -> tuple[Placement, list[tuple[str, int]], list[str]]:
        """What the next start finds: where instances are, what was in force and how often, the texts of the last."""
        known = history(self.paths.revisions).kept
        return (
            placements.load(self.paths.placement, os.getuid()),
            [(one.revision, len(one.since)) for one in known],
            sorted(path.name for path in self.paths.revisions.iterdir() if path.suffix == ".json"),
        )


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with ExitStack() as stack:
        yield World(tmp_path, stack)


def test_a_change_that_cannot_be_put_on_record_leaves_what_the_next_start_finds_as_it_was(world: World) -> None:
    before, live = world.kept(), world.force.live
    world.full = True
    world.write(OTHER, "shop")
    world.force.keeper.look()

    assert (world.force.live, world.decided) == (live, [])
    assert "no space left" in str(world.force.keeper.refused)
    assert world.kept() == before


def test_a_change_back_that_cannot_be_put_on_record_does_not_come_before_what_is_in_force(world: World) -> None:
    world.write(OTHER, "shop")
    world.force.keeper.look()
    before, live = world.kept(), world.force.live
    world.full = True
    world.write(ONE, "api")
    world.force.keeper.look()

    assert (world.force.live, world.kept()) == (live, before)


def test_once_there_is_room_it_takes_effect_and_is_what_the_next_start_finds(world: World) -> None:
    world.full = True
    world.write(OTHER, "shop")
    world.force.keeper.look()
    world.full = False
    world.force.keeper.look()

    live = world.force.live
    assert list(live.mesh.instances) == ["shop-v1"]
    assert read(world.paths.revisions, history(world.paths.revisions).kept[-1]).texts == live.texts
    placement, known, _ = world.kept()
    assert (placement, known[-1]) == (live.placement, (live.ruling.revision, 1))
    assert [(one.kind, one.decision, one.revision) for one in world.entries] == [
        ("change", "allow", live.ruling.revision)
    ]


def test_a_revision_that_cannot_be_kept_moves_no_instance(world: World) -> None:
    before = world.kept()[0]
    world.paths.revisions.rename(world.folder / "away")
    world.paths.revisions.touch()
    world.write(OTHER, "shop")
    world.force.keeper.look()

    assert placements.load(world.paths.placement, os.getuid()) == before
    assert [one.decision for one in world.entries] == ["deny"]
