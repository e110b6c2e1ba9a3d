"""What a server puts in force is kept first, and decides later as it did then."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path

from policyd.offline.revisions import load_revision
from policyd.policy.authorize import authorize
from policyd.sources.revisions import history
from policyd.state_paths import state_paths
from tests.server.served import Served, serving

POLICY = '@id("reads")\npermit (principal, action == Action::"GET", resource == Service::"api.default");\n'
NOW = datetime(2026, 11, 28, tzinfo=UTC)


async def changes(served: Served, revision: str) -> str:
    """Wait until another revision is in force."""
    async with asyncio.timeout(10):
        while (now := (await served.status()).revision) == revision:
            await asyncio.sleep(0.02)
    return now


def word(folder: Path, revision: str, method: str) -> str:
    _, live = load_revision(folder, revision[:12])
    assert live.ruling.revision == revision
    return authorize(f"web {method} http://api:8080/", live.ruling, NOW).explanation.decision.word


async def test_every_revision_that_was_in_force_decides_later_as_it_did(folder: Path, short: Path) -> None:
    policies = folder / "policies"
    policies.mkdir()
    (policies / "api.cedar").write_text(POLICY)
    async with serving(folder, short) as served:
        first = (await served.status()).revision
        (policies / "api.cedar").write_text(POLICY.replace("GET", "PUT"))
        second = await changes(served, first)
    async with serving(folder, short) as served:
        assert (await served.status()).revision == second

    kept = history(state_paths(folder).revisions).kept
    assert [(one.revision, one.policies, len(one.since)) for one in kept] == [(first, 1, 1), (second, 1, 1)]
    assert [(word(folder, first, m), word(folder, second, m)) for m in ("GET", "PUT")] == [
        ("allow", "deny"),
        ("deny", "allow"),
    ]


async def test_a_change_that_cannot_be_kept_is_refused_until_it_can(folder: Path, short: Path) -> None:
    kept = state_paths(folder).revisions
    async with serving(folder, short) as served:
        before = (await served.status()).revision
        kept.rename(kept.with_name("away"))
        (folder / "groups.yaml").write_text("groups: {readers: {workloads: [web]}}\n")
        await served.becomes(refused=True)

        status = await served.status()
        assert (status.revision, status.ready) == (before, True)
        assert status.refused[0].message == f"a revision cannot be kept in `{kept}`: no such file or directory"

        kept.with_name("away").rename(kept)
        assert await changes(served, before) == history(kept).kept[-1].revision
