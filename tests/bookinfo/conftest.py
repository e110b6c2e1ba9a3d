"""How tests of Bookinfo start things: services as processes, applications within the test."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import pytest
from starlette.applications import Starlette

EXAMPLE = Path(__file__).parents[2] / "examples" / "bookinfo"
sys.path.insert(0, str(EXAMPLE))

from tests.bookinfo.upstream import FakeUpstream, Reply  # noqa: E402  # the path comes first
from tests.ports import free_port  # noqa: E402

PROXY_VARIABLES = ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY")


@pytest.fixture(autouse=True)
def no_proxy_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the proxy of whoever runs the tests out of them."""
    for name in PROXY_VARIABLES:
        monkeypatch.delenv(name, raising=False)


class Process:
    """A service of Bookinfo as a process; `client` speaks to it."""

    def __init__(self, service: str, port: int, environment: dict[str, str], log: Path) -> None:
        self.log = log
        self.client = httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False)
        with log.open("wb") as output:
            self.popen = subprocess.Popen(
                [sys.executable, "-m", f"bookinfo.{service}"],
                cwd=EXAMPLE,
                env={"PATH": os.environ["PATH"], "PORT": str(port), **environment},
                stdout=output,
                stderr=output,
            )

    async def healthy(self) -> None:
        """Wait until it answers."""
        async with asyncio.timeout(30):
            while self.popen.poll() is None:
                try:
                    await self.client.get("/health")
                except httpx.TransportError:
                    await asyncio.sleep(0.02)
                else:
                    return
        raise AssertionError(f"it ended with {self.popen.returncode}: {self.log.read_text()}")


class Start:
    """Starts services; `await start("reviews", STAR_COLOR="red")` returns when it is healthy."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.processes: list[Process] = []

    async def __call__(self, service: str, **environment: str) -> Process:
        log = self._folder / f"{len(self.processes)}.log"
        process = Process(service, free_port(), environment, log)
        self.processes.append(process)
        await process.healthy()
        return process


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Start]:
    """Start services, and end them after the test."""
    start = Start(tmp_path)
    try:
        yield start
    finally:
        for process in start.processes:
            await process.client.aclose()
            process.popen.terminate()
        for process in start.processes:
            process.popen.wait(10)


class Open:
    """`await client_of(app)` starts an application within the test and returns a client of it."""

    def __init__(self, stack: AsyncExitStack) -> None:
        self._stack = stack

    async def __call__(self, app: Starlette) -> httpx.AsyncClient:
        await self._stack.enter_async_context(app.router.lifespan_context(app))
        client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://shop")
        return await self._stack.enter_async_context(client)


@pytest.fixture
async def client_of() -> AsyncIterator[Open]:
    """Start applications within the test."""
    async with AsyncExitStack() as stack:
        yield Open(stack)


class Fake:
    """`await fake(Reply(...))` starts a fake upstream that gives these replies, the last one for ever."""

    def __init__(self, stack: AsyncExitStack) -> None:
        self._stack = stack

    async def __call__(self, *replies: Reply) -> FakeUpstream:
        return await self._stack.enter_async_context(FakeUpstream(*replies))


@pytest.fixture
async def fake() -> AsyncIterator[Fake]:
    """Start fake upstreams."""
    async with AsyncExitStack() as stack:
        yield Fake(stack)


@pytest.fixture
def nowhere() -> Iterator[str]:
    """Give an address that refuses connections: it is taken, and nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{taken.getsockname()[1]}"
