"""An instance without an Envoy, as its agent has it: what is served when, and what is said of what was read."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import pytest

from policyd.envoy_api import shared
from policyd.spiffe import SpiffeId
from proxy.assignment import Spec
from proxy.bootstrap import Endpoint
from proxy.control import Control
from proxy.outside import Outside
from proxy.proxyless import READ_AFTER, Proxyless
from proxy.sidecar import Running, Settings
from proxy.tainted import Tainted
from tests.fakes.signer import FakeControl

WEB = SpiffeId.workload("cluster.local", "default", "web")
RUNNING = Running(Spec("web-1", WEB, "web.default", proxyless=True), Endpoint("127.0.0.1", 1), SpiffeId.server("d"))


@dataclass
class World:
    """One in a folder of its own, with an issuer, and time that passes when a test says so."""

    folder: Path
    control: FakeControl = field(default_factory=FakeControl)
    said: list[dict[str, Any]] = field(default_factory=list)
    passed: float = 0.0

    def __post_init__(self) -> None:
        self.control.tainted = Tainted()  # type: ignore[attr-defined]
        outside = Outside(self._say, monotonic=lambda: self.passed, sleep=self._sleep)
        settings = Settings(self.folder, self.folder, self.folder, proxyless=True)
        control = cast(Control, self.control)
        self.it = Proxyless(RUNNING, settings, control, shared(), outside, lambda: None)

    def _say(self, event: str, **facts: Any) -> None:
        self.said.append({"event": event, **facts})

    async def _sleep(self, seconds: float) -> None:
        await asyncio.sleep(min(seconds, 0.02))

    @property
    def home(self) -> Path:
        return self.folder / "web-1"

    async def until(self, true: Callable[[], object]) -> None:
        async with asyncio.timeout(30):
            while not true():
                await asyncio.sleep(0.01)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    with tempfile.TemporaryDirectory(prefix="t") as folder:
        made = World(Path(folder))
        (made.home / "left by one that was killed").mkdir(parents=True)
        running = asyncio.create_task(made.it.run())
        await made.until(lambda: made.it.status().state == "ready")
        yield made
        made.it.stop()
        await asyncio.wait_for(running, 30)
        assert made.it.status().state == "stopped"
        assert list(Path(folder).iterdir()) == []


async def test_what_its_bootstrap_leads_to_is_there_before_it(world: World) -> None:
    assert {path.name for path in world.home.iterdir()} == {"bootstrap.json", "certificates", "r", "xds.sock"}
    told = json.loads(Path(world.it.status().grpc_bootstrap).read_text())
    assert told["xds_servers"][0]["server_uri"] == f"unix://{world.home}/xds.sock"
    files = told["certificate_providers"]["default"]["config"]
    assert Path(files["ca_certificate_file"]).read_bytes() == world.control.bundle.pem()


async def test_a_bundle_counts_as_held_once_an_application_has_had_the_time_to_read_it(world: World) -> None:
    assert not world.it.confirmed(1)
    world.passed += READ_AFTER
    assert world.it.confirmed(1)
    world.it.trust(replace(world.control.bundle, sequence=2))
    await world.until((world.home / "certificates" / "2").exists)
    assert not world.it.confirmed(2)
    world.passed += READ_AFTER
    await world.until(lambda: world.it.confirmed(2))
    assert not world.it.confirmed(3)


async def test_what_cannot_be_written_is_said_counts_as_not_held_and_is_tried_again(world: World) -> None:
    (world.home / "certificates" / "2").write_text("in the way")
    world.it.trust(replace(world.control.bundle, sequence=2))
    await world.until(lambda: [one for one in world.said if one["event"] == "sidecar.failed"])
    failed = next(one for one in world.said if one["event"] == "sidecar.failed")
    assert failed["reason"] == "its certificate cannot be written: File exists"
    world.passed += READ_AFTER
    assert not world.it.confirmed(2)
    (world.home / "certificates" / "2").unlink()
    await world.until(lambda: (world.home / "certificates" / "now").resolve().name == "2")
    world.passed += READ_AFTER
    await world.until(lambda: world.it.confirmed(2))


async def test_who_signed_before_counts_as_in_use_until_what_is_new_was_read(world: World) -> None:
    world.passed += READ_AFTER
    [before] = world.it.signers
    world.control.ca = type(world.control.ca)()
    world.control.tainted.hear([before])  # type: ignore[attr-defined]
    await world.until(lambda: len(world.control.signed) > 1 and len(world.it.signers) > 1)
    assert before in world.it.signers
    await world.until((world.home / "certificates" / "2").exists)
    world.passed += READ_AFTER
    await world.until(lambda: before not in world.it.signers)
    assert len(world.it.signers) == 1
