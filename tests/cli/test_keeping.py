"""An identity in files that is kept fresh: they are of one another, who uses them is told, failures take nothing."""

from __future__ import annotations

import asyncio
import stat
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from policyd.cli.certificate import Target
from policyd.cli.generations import CURRENT, replace_together
from policyd.cli.keeping import Held, Keeping, held_in
from policyd.errors import StateError
from policyd.spiffe import SpiffeId
from proxy.control import Unreachable
from proxy.identity import Bundle, Svid, check_svid, load_key, make_key
from proxy.outside import Outside, utc_now
from tests.fakes.toy_ca import ToyCa

WEB = SpiffeId.workload("cluster.local", "default", "web")
API = SpiffeId.workload("cluster.local", "default", "api")
HOUR = timedelta(hours=1)


@dataclass
class World:
    """policyd, which fails `failures` times, and what was said; `roots` are those by which it was asked."""

    target: Target
    ca: ToyCa = field(default_factory=ToyCa)
    failures: int = 0
    roots: list[bytes] = field(default_factory=list)
    said: list[dict[str, Any]] = field(default_factory=list)
    heard: asyncio.Event = field(default_factory=asyncio.Event)
    spiffe_id: SpiffeId = WEB

    async def proved(self, roots: bytes, clock: Callable[[], datetime]) -> tuple[Svid, Bundle]:
        self.roots.append(roots)
        if self.failures:
            self.failures -= 1
            raise Unreachable("policyd does not answer")
        return self.svid(clock())

    def svid(self, now: datetime, spiffe_id: SpiffeId = WEB, life: timedelta = HOUR) -> tuple[Svid, Bundle]:
        key, bundle = make_key(), Bundle("cluster.local", (self.ca.root.der,))
        chain = self.ca.sign(key.public_key(), [str(spiffe_id)], start=now - HOUR / 6, life=life + HOUR / 6)
        return check_svid(key, spiffe_id, chain, bundle, now), bundle

    def say(self, event: str, **facts: Any) -> None:
        self.said.append({"event": event, **facts})
        self.heard.set()

    async def until(self, event: str, times: int = 1) -> None:
        async with asyncio.timeout(30):
            while sum(one["event"] == event for one in self.said) < times:
                self.heard.clear()
                await self.heard.wait()

    @asynccontextmanager
    async def keeping(self, *command: str, held: Svid | None = None) -> AsyncIterator[Keeping]:
        async def sleep(seconds: float) -> None:
            self.say("sleep", seconds=seconds)
            await asyncio.sleep(0.001 if seconds < 1 else seconds)  # who waits for the end of a life waits

        outside = Outside(self.say, utc_now, sleep=sleep, spread=lambda: 0.0)
        keeping = Keeping(self, self.target, Held(b"named", held), command, outside)
        task = asyncio.create_task(keeping.run())
        try:
            yield keeping
        finally:
            keeping.stop()
            await asyncio.wait_for(task, 30)

    def pair(self) -> int:
        """The serial number of what lies in the files, which are of one another."""
        found = held_in(self.target.files, WEB, utc_now())
        assert found is not None
        assert found.svid is not None
        return found.svid.serial


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(Target(tmp_path / "identity", force=True))


async def test_it_obtains_and_says_so_and_what_it_wrote_stays(world: World) -> None:
    async with world.keeping():
        await world.until("identity.written")
    [said] = [one for one in world.said if one["event"] == "identity.written"]
    assert (said["spiffe_id"], said["serial"]) == (str(WEB), f"{world.pair():032x}")
    assert {stat.S_IMODE(one.resolve().stat().st_mode) for one in world.target.files.all()} == {0o600}


async def test_it_renews_when_told_by_the_roots_that_came_last(world: World) -> None:
    async with world.keeping() as keeping:
        await world.until("identity.written")
        first = world.pair()
        keeping.renew()
        await world.until("identity.written", 2)
    assert world.pair() != first
    assert world.roots == [b"named", world.ca.root.pem]


async def test_what_fails_is_said_and_tried_again_and_what_is_there_stays(world: World) -> None:
    async with world.keeping() as keeping:
        await world.until("identity.written")
        first, world.failures = world.pair(), 3
        keeping.renew()
        await world.until("identity.failed", 3)
        assert world.pair() == first
        await world.until("identity.written", 2)
    assert [one["reason"] for one in world.said if one["event"] == "identity.failed"] == ["policyd does not answer"] * 3


async def test_a_folder_that_cannot_be_written_is_a_failure_like_any_other(world: World) -> None:
    world.target.folder.write_text("no folder")
    async with world.keeping():
        await world.until("identity.failed")
        world.target.folder.unlink()
        await world.until("identity.written")


async def test_who_uses_the_files_is_told_when_they_are_there(world: World, tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    async with world.keeping("cp", str(world.target.files.certificate), str(seen)):
        await world.until("command.done")
        [leaf, _] = x509.load_pem_x509_certificates(seen.read_bytes())
        assert leaf.serial_number == world.pair()


@pytest.mark.parametrize(
    ("command", "reason"), [(["false"], "ended with 1"), (["no-such-program"], "No such file or directory")]
)
async def test_a_command_that_fails_is_said(world: World, command: list[str], reason: str) -> None:
    async with world.keeping(*command):
        await world.until("command.failed")
    failed = {"event": "command.failed", "command": command[0], "reason": reason}
    assert failed in world.said


async def test_a_start_goes_on_with_what_is_there(world: World) -> None:
    svid, bundle = world.svid(utc_now())
    world.target.replace(svid, bundle)
    held = held_in(world.target.files, WEB, utc_now())
    assert held == Held(bundle.pem(), svid)
    async with world.keeping(held=svid):
        await world.until("sleep")
    assert (world.roots, world.pair()) == ([], svid.serial)


def test_where_nothing_is_it_begins(world: World) -> None:
    assert held_in(world.target.files, WEB, utc_now()) is None


def test_what_has_ended_or_is_no_pair_is_not_gone_on_with_but_its_roots_are(world: World) -> None:
    svid, bundle = world.svid(utc_now(), life=timedelta(minutes=5))
    world.target.replace(svid, bundle)
    assert held_in(world.target.files, WEB, utc_now() + HOUR) == Held(bundle.pem())
    other, _ = world.svid(utc_now())
    assert load_key(other.key_pem)
    world.target.files.key.resolve().write_bytes(other.key_pem)
    assert held_in(world.target.files, WEB, utc_now()) == Held(bundle.pem())


def test_what_is_somebody_else_s_is_left_alone(world: World) -> None:
    world.target.replace(*world.svid(utc_now(), API))
    with pytest.raises(StateError, match=f"is not of `{WEB}`"):
        held_in(world.target.files, WEB, utc_now())
    world.target.files.certificate.resolve().write_text("no certificate")
    with pytest.raises(StateError, match=f"is not of `{WEB}`"):
        held_in(world.target.files, WEB, utc_now())


# ---- files that are replaced together


def test_files_that_were_there_become_links_and_one_generation_is_left(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("old")
    for text in (b"1", b"2", b"3"):
        replace_together(tmp_path, {"a": text, "b": text})
        assert ((tmp_path / "a").read_bytes(), (tmp_path / "b").read_bytes()) == (text, text)
    assert sorted(one.name for one in tmp_path.iterdir()) == sorted(
        [CURRENT, str((tmp_path / CURRENT).readlink()), "a", "b"]
    )
    assert stat.S_IMODE((tmp_path / CURRENT).resolve().stat().st_mode) == 0o700


def test_what_cannot_be_written_changes_nothing(tmp_path: Path) -> None:
    replace_together(tmp_path, {"a": b"1", "b": b"1"})
    before = sorted(tmp_path.iterdir())
    with pytest.raises(OSError, match="No such file"):
        replace_together(tmp_path, {"a": b"2", "no/such": b"2"})
    assert sorted(tmp_path.iterdir()) == before
    assert (tmp_path / "a").read_bytes() == b"1"


def test_what_a_crash_left_is_taken_away(tmp_path: Path) -> None:
    (tmp_path / ".generation-dead").mkdir()
    (tmp_path / f"{CURRENT}.new").symlink_to("nowhere")
    replace_together(tmp_path, {"a": b"1"})
    assert sorted(one.name for one in tmp_path.iterdir()) == sorted(
        [CURRENT, str((tmp_path / CURRENT).readlink()), "a"]
    )
