"""Simulated sidecars, as a process of their own: each a delta ADS stream over mTLS that takes all and confirms it.

`python -m bench.sidecars ADDRESS IDENTITY NAME...` prints a line for each response that a sidecar was sent: the time
of the machine's monotonic clock, the sidecar, the type, and how many resources. It ends when its input does.
"""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from policyd import envoy_api
from policyd.envoy_api import CLUSTER, ENDPOINT, LISTENER, ROUTE
from policyd.xds.service import METHOD, SERVICE
from policyd.xds.snapshot import kind

REQUEST = "envoy.service.discovery.v3.DeltaDiscoveryRequest"
RESPONSE = "envoy.service.discovery.v3.DeltaDiscoveryResponse"
AT_ONCE = 20  # connections that are opened together
OPTIONS = [
    ("grpc.use_local_subchannel_pool", 1),  # a connection each, as real ones have
    ("grpc.ssl_target_name_override", "policyd"),
    ("grpc.max_receive_message_length", -1),
    ("grpc.http2.bdp_probe", 0),  # Envoy sends no pings to measure the bandwidth
]


class Sidecar:
    """One proxy: asks as Envoy does, and says what it gets."""

    def __init__(self, name: str, address: str, credentials: grpc.ChannelCredentials) -> None:
        self._name = name
        self._channel = grpc.aio.secure_channel(address, credentials, OPTIONS)
        self._request, self._response = envoy_api.message(REQUEST), envoy_api.message(RESPONSE)
        self._endpoints: set[str] = set()

    async def run(self, may_start: asyncio.Semaphore) -> None:
        """Until the stream ends."""
        async with may_start:
            call = self._channel.stream_stream(f"/{SERVICE}/{METHOD}")()
            first = self._request(type_url=CLUSTER)
            first.node.id = self._name
            await call.write(first.SerializeToString())
            await self._answer(call, await call.read())
            await self._ask(call, LISTENER)
            await self._ask(call, ROUTE, ["outbound"])
        while (data := await call.read()) is not grpc.aio.EOF:
            await self._answer(call, data)

    async def _ask(self, call: Any, type_url: str, names: list[str] | None = None) -> None:
        await call.write(self._request(type_url=type_url, resource_names_subscribe=names or []).SerializeToString())

    async def _answer(self, call: Any, data: bytes) -> None:
        got = self._response.FromString(data)
        print(time.monotonic(), self._name, kind(got.type_url), len(got.resources), flush=False)
        if got.type_url == CLUSTER:
            names = {one.name for one in got.resources if one.name.startswith("outbound|")} - self._endpoints
            self._endpoints |= names
            if names:
                await self._ask(call, ENDPOINT, sorted(names))
        await call.write(self._request(type_url=got.type_url, response_nonce=got.nonce).SerializeToString())


async def main(address: str, identity: Path, names: list[str]) -> None:
    """Run them all until standard input ends."""
    parts = [(identity / f"{part}.pem").read_bytes() for part in ("roots", "key", "certificate")]
    credentials = grpc.ssl_channel_credentials(*parts)
    may_start = asyncio.Semaphore(AT_ONCE)
    streams = [asyncio.ensure_future(Sidecar(name, address, credentials).run(may_start)) for name in names]

    async def flush() -> None:
        while True:
            sys.stdout.flush()
            await asyncio.sleep(0.01)

    flushing = asyncio.ensure_future(flush())
    ended = asyncio.ensure_future(asyncio.to_thread(sys.stdin.read))
    await asyncio.wait([ended, flushing, *streams], return_when=asyncio.FIRST_COMPLETED)
    for one in (flushing, *streams):
        if one.done() and not one.cancelled() and (error := one.exception()):
            print(f"failed: {error}", file=sys.stderr)
        one.cancel()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2]), sys.argv[3:]))
