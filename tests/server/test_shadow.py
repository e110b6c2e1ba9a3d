"""A running server tries policies beside the active ones: its answers are as without, its journal has both."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest

from policyd import envoy_api
from policyd.audit.read import ends, newest
from policyd.audit.record import Record
from policyd.errors import InvalidInput
from policyd.spiffe import SpiffeId
from policyd.state_paths import state_paths
from tests.authz.checks import check_of
from tests.server.served import WEB, Served, process, serving

API = SpiffeId.workload("cluster.local", "default", "api")
READ = '@id("read") permit (principal, action == Action::"GET", resource == Service::"web.default");\n'
FREEZE = '@id("freeze") {mark} forbid (principal, action in Action::"http", resource);\n'
CHECK = "/envoy.service.auth.v3.Authorization/Check"


async def ask(served: Served) -> bool:
    """Whether api may read of web, asked as the Envoy of web asks."""
    check = check_of(
        source__principal=str(API),
        destination__principal=str(WEB),
        context_extensions={"policyd.listener": "web-v1/inbound"},
    )
    async with served.channel("authz") as channel:
        reply = await channel.unary_unary(CHECK)(check.SerializeToString(), timeout=10)
    response: Any = envoy_api.message("envoy.service.auth.v3.CheckResponse").FromString(reply)
    return bool(response.status.code == 0)


def last(folder: Path, kind: str = "decision") -> Record:
    journal = state_paths(folder).journal
    records = (line.record for line in newest(journal, ends(journal), lambda _: None))
    return next(record for record in records if record.kind == kind)


async def becomes(served: Served, holds: Callable[[Any], bool]) -> Any:
    """Wait until the server says so of itself."""
    async with asyncio.timeout(10):
        while not holds(status := await served.status()):
            await asyncio.sleep(0.02)
    return status


@pytest.fixture
def folder(folder: Path) -> Path:
    (folder / "policies").mkdir()
    (folder / "policies" / "web.cedar").write_text(READ)
    return folder


async def test_a_marked_policy_is_tried_from_the_moment_it_is_there_and_in_force_once_the_mark_is_gone(
    folder: Path, short: Path
) -> None:
    async with serving(folder, short) as served:
        plain = await served.status()
        assert (await ask(served), last(folder).shadow, plain.HasField("shadow")) == (True, None, False)

        (folder / "policies" / "freeze.cedar").write_text(FREEZE.format(mark="@shadow"))
        status = await becomes(served, lambda status: status.HasField("shadow"))
        assert (status.revision, status.policies, status.shadow.policies) == (plain.revision, 1, 2)

        assert await ask(served)
        record = last(folder)
        assert (record.decision, record.reasons, record.revision) == ("allow", ("read",), plain.revision)
        assert record.shadow is not None
        shadow = (record.shadow.decision, record.shadow.reasons, record.shadow.revision)
        assert shadow == ("deny", ("freeze",), status.shadow.revision)
        assert (await served.status()).shadow.would_deny == 1
        async with httpx.AsyncClient() as client:
            metrics = (await client.get(f"http://{served.facts['http']}/metrics")).text
        assert 'policyd_shadow_decisions_total{change="would_deny"} 1.0\n' in metrics

        (folder / "policies" / "freeze.cedar").write_text(FREEZE.format(mark=""))
        await becomes(served, lambda status: not status.HasField("shadow"))
        assert (await ask(served), last(folder).shadow) == (False, None)


async def test_a_shadow_folder_is_reloaded_as_the_meshs_and_a_bad_one_is_refused(folder: Path, short: Path) -> None:
    shadow = folder.parent / f"{folder.name}-next"
    shadow.mkdir()
    (shadow / "web.cedar").write_text(READ)
    async with serving(folder, short, shadow) as served:
        first = await served.status()
        assert (first.shadow.folder, first.shadow.policies) == (str(shadow), 1)
        assert first.shadow.revision == first.revision
        await ask(served)
        assert last(folder).shadow is not None
        assert last(folder).shadow.decision == "allow"  # type: ignore[union-attr]

        (shadow / "freeze.cedar").write_text(FREEZE.format(mark="").replace("http", "htpt"))
        await served.becomes(refused=True)
        status = await served.status()
        assert {problem.file for problem in status.refused} == {f"{shadow}/freeze.cedar"}
        assert (status.shadow.revision, await ask(served)) == (first.shadow.revision, True)

        (shadow / "freeze.cedar").write_text(FREEZE.format(mark=""))
        await served.becomes(refused=False)
        status = await becomes(served, lambda status: status.shadow.policies == 2)
        assert (status.revision, status.shadow.revision != first.shadow.revision) == (first.revision, True)
        assert last(folder, "change").detail["files"] == [f"{shadow}/freeze.cedar"]
        assert last(folder, "change").detail["shadow_revision"] == status.shadow.revision
        assert (await ask(served), last(folder).shadow.decision) == (True, "deny")  # type: ignore[union-attr]


async def test_a_shadow_folder_may_be_named_and_unnamed_while_it_serves(folder: Path, short: Path) -> None:
    (folder / "next").mkdir()
    (folder / "next" / "freeze.cedar").write_text(FREEZE.format(mark=""))
    async with serving(folder, short) as served:
        (folder / "policyd.yaml").write_text("shadow: {policies: next}\n")
        status = await becomes(served, lambda status: status.HasField("shadow"))
        assert status.shadow.folder == "next"
        (folder / "policyd.yaml").write_text("shadow: {policies: nxet}\n")
        await served.becomes(refused=True)
        assert (await served.status()).shadow.folder == "next"
        (folder / "policyd.yaml").write_text("")
        await becomes(served, lambda status: not status.HasField("shadow"))


async def test_the_option_names_it_from_where_the_command_runs(folder: Path, short: Path) -> None:
    shadow = folder.parent / f"{folder.name}-next"
    shadow.mkdir()
    (shadow / "freeze.cedar").write_text(FREEZE.format(mark=""))
    with process(folder, short, "--shadow", os.path.relpath(shadow)):
        status = await Served(folder).status()
    assert (status.shadow.folder, status.shadow.policies) == (str(shadow), 1)


async def test_a_server_does_not_start_with_a_shadow_folder_that_is_not_there(folder: Path, short: Path) -> None:
    with pytest.raises(InvalidInput, match="nowhere: the shadow folder is not there"):
        async with serving(folder, short, folder / "nowhere"):
            pass


async def test_whatever_is_tried_and_changed_meanwhile_every_answer_is_the_active_one(
    folder: Path, short: Path
) -> None:
    """Checks while the shadow goes from nothing to all to nonsense and back: not one is answered otherwise."""
    tried = folder / "policies" / "tried.cedar"
    texts = [FREEZE.format(mark="@shadow"), "", READ.replace('"read")', '"r") @shadow'), "nonsense", "@shadow permit("]
    answers: list[bool] = []
    async with serving(folder, short) as served:
        stop = asyncio.Event()

        async def checks() -> None:
            while not stop.is_set():
                answers.append(await ask(served))

        asking = asyncio.create_task(checks())
        try:
            for text in texts * 2:
                tried.write_text(text)
                before = len(answers)
                async with asyncio.timeout(20):
                    while len(answers) < before + 3:
                        await asyncio.sleep(0.01)
        finally:
            stop.set()
            await asyncio.wait_for(asking, 20)
    assert set(answers) == {True}


async def test_a_check_in_the_shadows_own_terms_stays_a_check(folder: Path, short: Path) -> None:
    """What a check is refused for, it is refused for as before, and nothing is tried."""
    (folder / "policies" / "freeze.cedar").write_text(FREEZE.format(mark="@shadow"))
    async with serving(folder, short) as served:
        check = check_of(context_extensions={"policyd.listener": "api-v1/inbound"})
        async with served.channel("authz") as channel:
            reply = await channel.unary_unary(CHECK)(check.SerializeToString(), timeout=10)
        response: Any = envoy_api.message("envoy.service.auth.v3.CheckResponse").FromString(reply)
        assert response.status.code == grpc.StatusCode.UNAVAILABLE.value[0]
        assert (last(folder).status, last(folder).shadow) == (503, None)
