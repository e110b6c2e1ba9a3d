"""Batches of local decisions: in the journal once, whole, or again; compared, and what is lost is said."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import pytest

from policyd._pb import agent_pb2, agent_pb2_grpc
from policyd.audit.journal import Journal
from policyd.audit.record import Entry
from policyd.audit.stencil import Own, Stencil
from policyd.authz.record import NOTHING
from policyd.authz.ruling import Ruling
from policyd.cedar.schema import parse_schema
from policyd.errors import JournalError, StateError
from policyd.mesh.build import build
from policyd.mesh.declare import declare
from policyd.mesh.placement import assumed
from policyd.server.distrust import Distrust
from policyd.server.local_decisions import MAX_OF_AGENT, MAX_SPOOLS, LocalDecisions, Positions, Rulings
from policyd.server.on_record import lines_so_far
from policyd.sources.files import read_folder
from policyd.spiffe import SpiffeId
from tests.authz.checks import REVIEWS, ruling_of
from tests.authz.lines import LISTENER, line
from tests.authz.test_local_record import POLICIES

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)


@pytest.fixture(scope="module")
def ruling(root: Path) -> Ruling:
    """Bookinfo's mesh with one policy."""
    declaration = declare(read_folder(root / "examples/bookinfo").texts)
    mesh = build(declaration, "cluster.local", assumed(declaration))
    return ruling_of(mesh, parse_schema((root / "policies/mesh.cedarschema").read_text()), {"p.cedar": POLICIES})


class Counts:
    """What was counted."""

    def __init__(self) -> None:
        self.decided: list[str] = []
        self.lost = 0
        self.compares: list[bool] = []

    def decided_by_proxy(self, decision: str, _revision: str, count: int) -> None:
        self.decided += [decision] * count

    def local_lost(self, count: int) -> None:
        self.lost += count

    def compared(self, *, differs: bool) -> None:
        self.compares.append(differs)


class Desk:
    """The service on a loopback port, called by one agent; `full` is a journal that takes no more entries than that.

    It keeps entries itself, or in `journal`; `agent` is who calls, about instances that it `runs`.
    """

    def __init__(self, ruling: Ruling, folder: Path, journal: Journal | None = None) -> None:
        self.agent, self.runs = "node-1", {"reviews-v1"}
        self.entries: list[Entry] = []
        self.full: int | None = None
        self.counts = Counts()
        self.distrusted: list[tuple[SpiffeId, str]] = []
        self.ruling = ruling
        rulings = Rulings()
        rulings.know(ruling)
        self.service = LocalDecisions(
            self._runs,
            in_force=lambda: (ruling.mesh, ruling.revision),
            rulings=rulings,
            positions=Positions(folder / "spools.json"),
            journal=journal or self,
            earlier=lines_so_far(journal.directory, journal.writer) if journal else lambda: (),
            counts=self.counts,
            clock=lambda: NOW,
            distrust=lambda workload, revision: self.distrusted.append((workload, revision)),
            include=NOTHING,
        )

    async def _runs(self, context: Any, instance: str) -> str:
        if instance not in self.runs:
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, "this agent does not run that instance")
        return self.agent

    def stencil(self, entry: Entry) -> Stencil:
        return Stencil(entry)

    def keep_filled(self, filled: Sequence[tuple[Stencil, Own]]) -> None:
        if self.full is not None and len(self.entries) + len(filled) > self.full:
            raise JournalError("no space left on the device")
        self.entries += [stencil.entry_of(own) for stencil, own in filled]

    def told(self, *lines: bytes) -> agent_pb2.Told:
        """A message of these, of an allowed request where none is given."""
        return agent_pb2.Told(lines=b"".join(one + b"\n" for one in lines or (line(self.ruling.revision),)))

    async def say(self, seq: int, *told: agent_pb2.Told, instance: str = "reviews-v1", spool: str = "s") -> int | str:
        """How far the spool is on record then, or the status."""
        server = grpc.aio.server()
        agent_pb2_grpc.add_DecisionsServicer_to_server(self.service, server)  # type: ignore[no-untyped-call]
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        try:
            async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
                stub = agent_pb2_grpc.DecisionsStub(channel)  # type: ignore[no-untyped-call]
                kept = await stub.Keep(agent_pb2.Batch(instance=instance, spool=spool, seq=seq, told=told), timeout=60)
                return int(kept.seq)
        except grpc.aio.AioRpcError as error:
            return error.code().name
        finally:
            await server.stop(None)

    @property
    def said(self) -> list[Any]:
        """Decisions on record by their policies, and what was said besides."""
        return [one.reasons if one.kind == "decision" else dict(one.detail) for one in self.entries]


@pytest.fixture
def desk(ruling: Ruling, tmp_path: Path) -> Desk:
    """A service that has kept nothing yet."""
    return Desk(ruling, tmp_path)


async def test_a_batch_is_on_record_once_however_often_it_comes(desk: Desk) -> None:
    assert await desk.say(1, desk.told(), desk.told()) == 2
    assert await desk.say(1, desk.told(), desk.told(), desk.told()) == 3
    assert await desk.say(2, desk.told()) == 3

    assert desk.said == [("red",)] * 3
    assert desk.counts.decided == ["allow"] * 3


async def test_after_a_restart_what_was_acknowledged_is_not_kept_again(
    desk: Desk, ruling: Ruling, tmp_path: Path
) -> None:
    await desk.say(1, desk.told(), desk.told())
    again = Desk(ruling, tmp_path)

    assert await again.say(2, again.told(), again.told()) == 3
    assert again.said == [("red",)]


async def test_what_a_full_journal_does_not_take_comes_again(desk: Desk) -> None:
    desk.full = 1
    assert await desk.say(1, desk.told(), desk.told()) == "UNAVAILABLE"
    desk.full = None
    assert await desk.say(1, desk.told(), desk.told()) == 2

    assert desk.said == [("red",)] * 2


async def test_who_decided_otherwise_falls_back_though_it_cannot_be_noted_how_far_its_spool_is_on_record(
    desk: Desk, tmp_path: Path
) -> None:
    revision = desk.ruling.revision
    other = line(revision, central={"decision": "deny", "policy": "blue", "revision": revision})
    (tmp_path / "spools.json").mkdir()  # as on a disk where the journal still has room of its own
    assert await desk.say(1, desk.told(other)) == "UNAVAILABLE"
    assert (desk.distrusted, desk.counts.compares) == ([(REVIEWS, revision)], [True])

    (tmp_path / "spools.json").rmdir()
    assert await desk.say(1, desk.told(other), desk.told()) == 2
    assert desk.counts.decided == ["allow"] * 2
    assert (len(desk.said), len(desk.distrusted)) == (3, 1)


async def test_two_spools_have_numbers_of_their_own(desk: Desk) -> None:
    assert await desk.say(1, desk.told(), spool="a") == 1
    assert await desk.say(1, desk.told(), spool="b") == 1
    assert len(desk.entries) == 2


async def test_what_an_agent_has_lost_is_said(desk: Desk) -> None:
    await desk.say(1, agent_pb2.Told(lost=7, why="the agent's\nspool is full"))

    assert desk.said == [
        {
            "operation": "local.gap",
            "instance": "reviews-v1",
            "lost": 7,
            "reason": "the agent's spool is full",
            "spool": "node-1/s",
            "message": 1,
        }
    ]
    assert desk.counts.lost == 7


async def test_a_gap_in_a_spool_is_said(desk: Desk) -> None:
    await desk.say(1, desk.told())
    await desk.say(5, desk.told())

    assert [one["reason"] for one in desk.said if isinstance(one, dict)] == [
        "the agent's spool has a gap: 1 is followed by 5"
    ]


UNFIT = "they tell of no decision, or of no usable request"


@pytest.mark.parametrize(
    ("told", "lost", "reason"),
    [
        (line("0" * 64, listener="reviews-v2/inbound"), 1, "`'reviews-v2/inbound'` is no listener of it any more"),
        (line("0" * 64, listener="gone"), 1, "`'gone'` is no listener of it any more"),
        (b"\xff\xff", 1, UNFIT),
        (b"\n\n", 3, UNFIT),
        (b"\n" * 16_384, 16_385, "a message has at most 16384 lines"),
        (b"", 0, "an agent of another version has told of some in a form of its own"),
    ],
)
async def test_what_cannot_be_read_is_counted_as_lost(desk: Desk, told: bytes, lost: int, reason: str) -> None:
    assert await desk.say(1, agent_pb2.Told(lines=told and told + b"\n")) == 1
    assert [(one["lost"], one["reason"]) for one in desk.said] == [(lost, reason)]


async def test_an_entry_that_tells_of_no_decision_takes_no_other_with_it(desk: Desk) -> None:
    revision = desk.ruling.revision

    await desk.say(1, desk.told(line(revision), line(revision, result="perhaps"), line(revision)))

    assert desk.said[:2] == [("red",)] * 2
    assert desk.said[2]["lost"] == 1


async def test_a_difference_is_an_alarm_with_both_answers(desk: Desk) -> None:
    revision = desk.ruling.revision
    same, other = (
        line(revision, central={"decision": word, "policy": policy, "revision": revision})
        for word, policy in (("allow", "red"), ("deny", "blue"))
    )

    await desk.say(1, desk.told(same, other))

    assert desk.counts.compares == [False, True]
    assert desk.distrusted == [(REVIEWS, revision)]
    alarm = desk.said[2]
    assert (alarm["operation"], alarm["local"], alarm["central"]) == ("local.differs", "allow red", "deny blue")
    assert (alarm["listener"], alarm["workload"]) == (LISTENER, str(REVIEWS))


@pytest.mark.parametrize("is_logged", [True, False])
async def test_a_sidecar_that_tells_nothing_of_its_decisions_is_an_alarm_and_not_believed(
    desk: Desk, *, is_logged: bool
) -> None:
    """An older Envoy leaves no metadata: then its log says nothing, or there is none, and its counters tell."""
    bare = line(desk.ruling.revision, result="", rule="")
    told = desk.told(bare, bare) if is_logged else agent_pb2.Told(lost=2, why="none of them", silent=True)

    await desk.say(1, told)

    assert [(one["operation"], one["lost"]) for one in desk.said] == [("local.gap", 2)]
    assert desk.counts.lost == 2
    assert desk.distrusted == [(REVIEWS, desk.ruling.revision)]


async def test_a_gap_alone_makes_nobody_distrusted(desk: Desk) -> None:
    unfit = line(desk.ruling.revision, result="perhaps")

    await desk.say(1, desk.told(unfit), agent_pb2.Told(lost=7, why="the agent's spool is full"))

    assert (desk.counts.lost, desk.distrusted) == (8, [])


@pytest.mark.parametrize(
    ("seq", "instance", "spool", "status"),
    [
        (1, "details-v1", "s", "PERMISSION_DENIED"),
        (0, "reviews-v1", "s", "INVALID_ARGUMENT"),
        ((1 << 64) - 1, "reviews-v1", "s", "INVALID_ARGUMENT"),
        (1, "reviews-v1", "", "INVALID_ARGUMENT"),
        (1, "reviews-v1", "s" * 65, "INVALID_ARGUMENT"),
    ],
)
async def test_who_says_what_it_may_not_is_refused(
    desk: Desk, seq: int, instance: str, spool: str, status: str
) -> None:
    assert await desk.say(seq, desk.told(), instance=instance, spool=spool) == status
    assert desk.entries == []


def test_old_rulings_are_forgotten(ruling: Ruling) -> None:
    rulings = Rulings()
    for number in range(20):
        rulings.know(replace(ruling, revision=str(number)))

    assert [rulings.of(str(number)) is not None for number in (3, 4, 19)] == [False, True, True]


def test_an_agent_with_very_many_spools_has_only_its_own_oldest_forgotten(tmp_path: Path) -> None:
    file = tmp_path / "spools.json"
    known = {"node-1/s": 7, **{f"node-2/{number}": 1 for number in range(MAX_OF_AGENT)}}
    file.write_text(json.dumps(known))
    positions = Positions(file)
    positions.reach("node-2", "0", 2)  # it is used, so another one is the oldest
    positions.reach("node-2", "more", 1)

    for found in (positions, Positions(file)):
        assert [found.of("node-1", "s"), found.of("node-2", "0"), found.of("node-2", "more")] == [7, 2, 1]
        assert [found.of("node-2", "1"), found.of("node-2", "2")] == [0, 1]


def test_where_there_are_too_many_in_all_whoever_has_the_most_has_its_oldest_forgotten(tmp_path: Path) -> None:
    file = tmp_path / "spools.json"
    others = [f"many-{name}/{number}" for name in "abcd" for number in range(MAX_OF_AGENT)]
    file.write_text(json.dumps({"node-1/s": 7, **dict.fromkeys(others[: MAX_SPOOLS - 1], 1)}))
    positions = Positions(file)
    positions.reach("node-2", "s", 3)

    assert [positions.of("node-1", "s"), positions.of("node-2", "s")] == [7, 3]
    assert [positions.of("many-a", "0"), positions.of("many-a", "1"), positions.of("many-b", "0")] == [0, 1, 1]
    assert len(json.loads(file.read_bytes())) == MAX_SPOOLS


async def test_a_spool_is_its_agents_whatever_its_name(desk: Desk, ruling: Ruling, tmp_path: Path) -> None:
    await desk.say(1, desk.told(), desk.told(), spool="a/b")
    again = Desk(ruling, tmp_path)

    assert await again.say(2, again.told(), again.told(), spool="a/b") == 3
    assert again.said == [("red",)]


@pytest.mark.parametrize(
    "text", ["[1]", "{", '{"node-1/s": "seven"}', '{"node-1/s": -1}', f'{{"node-1/s": {1 << 64}}}']
)
def test_a_broken_file_of_positions_is_said_and_not_passed_over(tmp_path: Path, text: str) -> None:
    (tmp_path / "spools.json").write_text(text)

    with pytest.raises(StateError):
        Positions(tmp_path / "spools.json")


def test_distrust_outlives_a_restart_and_is_of_one_revision(tmp_path: Path) -> None:
    file = tmp_path / "distrusted.json"
    first = Distrust(file)

    assert first.add(REVIEWS, "a") is True
    assert first.add(REVIEWS, "a") is False
    assert (Distrust(file).of("a"), Distrust(file).of("b")) == (frozenset({REVIEWS}), frozenset())
    file.write_text("{")
    with pytest.raises(StateError):
        Distrust(file)


def test_distrust_that_no_file_can_hold_is_news_all_the_same_and_is_kept_once_one_can(tmp_path: Path) -> None:
    file = tmp_path / "distrusted.json"
    held = Distrust(file)
    file.mkdir()
    assert [held.add(REVIEWS, "a"), held.add(REVIEWS, "a")] == [True, False]
    assert held.of("a") == {REVIEWS}

    file.rmdir()
    assert held.add(REVIEWS, "a") is False
    assert Distrust(file).of("a") == {REVIEWS}
