"""The relay of aggregated discovery: on a real socket, to a discovery service over real mutual TLS."""

from __future__ import annotations

import asyncio
import os
import stat
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from policyd import envoy_api
from policyd.envoy_api import CLUSTER, shared
from policyd.spiffe import SpiffeId
from policyd.xds import v2
from proxy.assignment import Spec
from proxy.bootstrap import Endpoint
from proxy.caller import Caller
from proxy.relay import MAX_REQUEST, MAX_STREAMS, METHOD, SERVICE, WISH, Relay
from tests.fakes.discovery import Discovery, svid_of
from tests.fakes.toy_ca import ToyCa
from tests.xds.envoy_process import eventually

Code = grpc.StatusCode
WEB = SpiffeId.workload("cluster.local", "default", "web")
SPEC = Spec("web-1", WEB, "web.default", proxyless=True)
NAMED = {"node": {"id": "web-1", "cluster": "web.default"}}


@dataclass
class Setup:
    policyd: Discovery
    relay: Relay
    folder: Path


def wish(**fields: Any) -> bytes:
    return envoy_api.pack(WISH, fields)


@pytest.fixture
async def setup() -> AsyncIterator[Setup]:
    policyd = Discovery(ToyCa())
    await policyd.start()
    with tempfile.TemporaryDirectory(prefix="t") as folder:
        relay = Relay(Path(folder), SPEC, Endpoint("127.0.0.1", policyd.port), shared())
        relay.use(*svid_of(policyd.ca, WEB))
        await relay.start()
        yield Setup(policyd, relay, Path(folder))
        await relay.stop()
        assert list(Path(folder).iterdir()) == []
    await policyd.stop()


class Application:
    """A stream as an application has it."""

    def __init__(self, socket: Path, method: str = f"{SERVICE}/{METHOD}") -> None:
        self._channel = grpc.aio.insecure_channel(f"unix://{socket}", [("grpc.use_local_subchannel_pool", 1)])
        self._call: Any = self._channel.stream_stream(f"/{method}")()

    async def says(self, data: bytes) -> bytes:
        """What is answered."""
        await self._call.write(data)
        answer: Any = await asyncio.wait_for(self._call.read(), 30)
        assert answer is not grpc.aio.EOF, await self._call.details()
        return bytes(answer)

    async def ends(self, data: bytes | None = None) -> tuple[grpc.StatusCode, str]:
        """How the stream ends, after a last word."""
        if data is not None:
            await self._call.write(data)
        return await asyncio.wait_for(self._call.code(), 30), await self._call.details()

    async def leave(self) -> None:
        await self._channel.close()


async def test_what_an_application_says_is_said_by_its_instance_and_nothing_else_is_changed(setup: Setup) -> None:
    application = Application(setup.relay.socket)
    first = wish(node={"id": "other-1", "cluster": "other", "user_agent_name": "gRPC"}, type_url=CLUSTER)
    named = wish(node={**NAMED["node"], "user_agent_name": "gRPC"}, type_url=CLUSTER)
    assert await application.says(first) == named + b"!"
    assert await application.says(b"\xffanything\x00") == b"\xffanything\x00!"
    assert [setup.policyd.heard.get_nowait() for _ in range(2)] == [(str(WEB), named), (str(WEB), b"\xffanything\x00")]
    await application.leave()


async def test_the_socket_is_of_one_user_and_shows_only_what_grpc_speaks(setup: Setup) -> None:
    assert stat.S_IMODE(setup.relay.socket.stat().st_mode) == 0o600
    older, delta = (f"{v2.SERVICE}/{METHOD}", v2.INSTEAD), (f"{SERVICE}/DeltaAggregatedResources", "Method not found!")
    for method, why in (delta, older):
        application = Application(setup.relay.socket, method)
        assert await application.ends() == (Code.UNIMPLEMENTED, why)
        await application.leave()


async def test_another_user_is_refused_even_if_the_socket_lets_it_in(setup: Setup, tmp_path: Path) -> None:
    def stranger(_connection: object) -> Caller:
        return Caller(1, os.geteuid() + 1, frozenset())

    with tempfile.TemporaryDirectory(prefix="t") as folder:
        relay = Relay(Path(folder), SPEC, Endpoint("127.0.0.1", setup.policyd.port), shared(), stranger)
        relay.use(*svid_of(setup.policyd.ca, WEB))
        await relay.start()
        past_the_front = Application(Path(folder) / "r" / "s")
        for application in (Application(relay.socket), past_the_front):
            assert await application.ends() == (Code.PERMISSION_DENIED, "only the agent's own user is served here")
            await application.leave()
        await relay.stop()
    assert not setup.policyd.streams


@pytest.mark.parametrize(
    ("said", "ended"),
    [
        (b"\xff", (Code.INVALID_ARGUMENT, "what was sent is no DiscoveryRequest")),
        (wish(version_info="end it") + b"\x0a\x00", None),
        (wish(version_info="v" * MAX_REQUEST), (Code.RESOURCE_EXHAUSTED, None)),
    ],
)
async def test_what_is_no_request_or_too_large_ends_the_stream(
    setup: Setup, said: bytes, ended: tuple[grpc.StatusCode, str | None] | None
) -> None:
    application = Application(setup.relay.socket)
    if ended is None:
        assert (await application.says(said)).endswith(b"!")
    else:
        code, details = await application.ends(said)
        assert (code, ended[1] and details) == ended
        assert not setup.policyd.streams
    await application.leave()


async def test_an_end_by_policyd_is_passed_on_in_its_words(setup: Setup) -> None:
    application = Application(setup.relay.socket)
    await application.says(wish(type_url=CLUSTER))
    assert await application.ends(b"end it") == (Code.PERMISSION_DENIED, "not for you")
    await application.leave()


async def test_an_application_that_leaves_is_gone_for_policyd_too(setup: Setup) -> None:
    application = Application(setup.relay.socket)
    await application.says(wish(type_url=CLUSTER))
    await application.leave()

    async def left() -> bool:
        return setup.policyd.ended == 1

    await eventually(left, "the stream to policyd has ended")


async def test_while_policyd_is_away_a_stream_says_so_and_one_after_that_works(setup: Setup) -> None:
    open_before = Application(setup.relay.socket)
    await open_before.says(wish(type_url=CLUSTER))
    await setup.policyd.stop()
    assert (await open_before.ends())[0] is Code.UNAVAILABLE
    while_away = Application(setup.relay.socket)
    assert (await while_away.ends(wish(type_url=CLUSTER)))[0] is Code.UNAVAILABLE
    await setup.policyd.start()

    async def works() -> bool:
        again = Application(setup.relay.socket)
        try:
            await again.says(wish(type_url=CLUSTER))
        except (AssertionError, grpc.aio.AioRpcError, asyncio.InvalidStateError):
            return False
        finally:
            await again.leave()
        return True

    await eventually(works, "it works again")
    for application in (open_before, while_away):
        await application.leave()


async def test_a_new_certificate_is_for_new_streams_and_ends_none(setup: Setup) -> None:
    old = Application(setup.relay.socket)
    await old.says(wish(type_url=CLUSTER))
    first = setup.policyd.streams[0].auth_context()["x509_pem_cert"]
    setup.relay.use(*svid_of(setup.policyd.ca, WEB))
    new = Application(setup.relay.socket)
    await new.says(wish(type_url=CLUSTER))
    assert setup.policyd.streams[1].auth_context()["x509_pem_cert"] != first
    assert await old.says(b"still") == b"still!"
    for application in (old, new):
        await application.leave()


async def test_streams_are_bounded(setup: Setup) -> None:
    every = [Application(setup.relay.socket) for _ in range(MAX_STREAMS)]
    for one in every:
        await one.says(wish(type_url=CLUSTER))
    over = Application(setup.relay.socket)
    code, details = await over.ends()
    assert (code, details) == (Code.RESOURCE_EXHAUSTED, f"an agent relays at most {MAX_STREAMS} streams")
    for one in (*every, over):
        await one.leave()
