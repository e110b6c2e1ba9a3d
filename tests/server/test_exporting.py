"""A server streams its journal to a collector, which may come late, and again after a restart."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from policyd.audit.exported import taken
from policyd.errors import UsageError
from policyd.state_paths import state_paths
from tests.fakes.collector import FakeCollector, collecting
from tests.server.served import serving


def settings(folder: Path, fake: FakeCollector, more: str = "") -> None:
    (folder / "policyd.yaml").write_text(f"audit: {{export: {{otlp: '{fake.url}'{more}}}}}\n")


async def arrives(fake: FakeCollector, operation: str, count: int = 1) -> None:
    """Wait until records of an operation were taken."""
    async with asyncio.timeout(30):
        while sum(one.get("detail", {}).get("operation") == operation for one in fake.bodies) < count:
            await asyncio.sleep(0.02)


async def test_what_a_server_records_arrives_and_goes_on_after_a_restart(folder: Path, short: Path) -> None:
    with collecting() as fake:
        settings(folder, fake)
        async with serving(folder, short):
            await arrives(fake, "server.start")
        async with serving(folder, short):
            await arrives(fake, "server.start", 2)
        journal = state_paths(folder).journal
        known = taken(journal, ["otlp"])
    assert known
    assert len(set(fake.seqs)) == len(fake.seqs)  # an orderly end, so none came twice
    assert all(fake.seqs.index((writer, seq)) >= 0 for writer, last in known.items() for seq in range(1, last + 1))


async def test_a_collector_that_takes_nothing_is_a_warning_and_stops_nobody(folder: Path, short: Path) -> None:
    with collecting() as fake:
        settings(folder, fake)
        fake.answers = [503] * 1000
        async with serving(folder, short) as served:
            async with asyncio.timeout(30):
                while "the journal's export waits: status 503" not in (await served.status()).warnings:
                    await asyncio.sleep(0.02)
            assert (await served.status()).ready
            fake.answers = []
            await arrives(fake, "server.start")


async def test_a_headers_file_that_others_can_read_is_refused(folder: Path, short: Path) -> None:
    (folder / "key").write_text("x-api-key: secret\n")
    (folder / "key").chmod(0o644)
    with collecting() as fake:
        settings(folder, fake, ", headersFile: key")
        with pytest.raises(UsageError, match="can be read by others"):
            async with serving(folder, short):
                raise AssertionError
        (folder / "key").chmod(0o600)
        async with serving(folder, short):
            await arrives(fake, "server.start")
    assert fake.headers[0]["x-api-key"] == "secret"
    assert "secret" not in json.dumps(fake.bodies)
