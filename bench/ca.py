"""The certificate authority, end to end: request, caller's TLS certificate, policy, signature, check, record, reply.

A real `policyd serve`, asked over mutual TLS 1.3 by agents that have joined it as any agent does, on connections that
are kept; requests and keys are made before the clock runs. The server's rate limit is one agent's, so several ask.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from bench.processes import PROGRAM, answer, bookinfo, running
from bench.table import Row, row
from policyd.cli.admin_client import AdminClient
from policyd.cli.instance import server
from policyd.errors import PolicydError
from policyd.join_token import parse_token
from policyd.spiffe import SpiffeId
from proxy.control import Control
from proxy.identity import make_key, request
from proxy.join import join

AGENTS = 12
AT_ONCE = 4  # calls of each agent that wait for an answer
SIGNED = 300  # by each agent; the server's burst is 500
PACED = 500  # a second
PACED_SECONDS = 3
WORKLOAD = SpiffeId.workload("cluster.local", "default", "bookinfo-reviews")


def run() -> list[Row]:
    """Certificates a second with all agents at once, and how long one takes at 500 a second."""
    with bookinfo() as directory, _served(directory) as client:
        tokens = [client.create_token(f"bench-{n}", [str(WORKLOAD)]).token for n in range(AGENTS)]
        rate, paced = asyncio.run(_measured(tokens))
    paced.sort()
    return [
        row("certificates end to end", rate, "/s", at_least=1000),
        row(f"one certificate at {PACED}/s, median", paced[len(paced) // 2] * 1000, "ms"),
        row(f"one certificate at {PACED}/s, p99", paced[int(len(paced) * 0.99)] * 1000, "ms", at_most=50),
    ]


@contextmanager
def _served(directory: Path) -> Iterator[AdminClient]:
    """A control plane, and a line to its administration."""
    command = [PROGRAM, "serve", "--dir", str(directory)]
    with (
        running(
            command, directory.parent / "serve.log", lambda: (answer(directory, "status") or {}).get("ready", False)
        ),
        server(directory) as client,
    ):
        yield client


async def _measured(tokens: list[str]) -> tuple[float, list[float]]:
    agents = [await _joined(token) for token in tokens]
    csrs = [request(make_key()) for _ in range(64)]
    try:
        begun = time.perf_counter()
        workers = (_signs(agent, csrs, SIGNED // AT_ONCE) for agent in agents for _ in range(AT_ONCE))
        await asyncio.gather(*workers)
        rate = AGENTS * SIGNED / (time.perf_counter() - begun)
        return rate, await _paced(agents, csrs)
    finally:
        for agent in agents:
            await agent.close()


async def _joined(token: str) -> Control:
    joined = await join(parse_token(token), datetime.now(UTC))
    control = Control(joined.server)
    control.use(joined.svid, joined.bundle)
    await control.sign(WORKLOAD, request(make_key()))  # the connection is up
    return control


async def _signs(agent: Control, csrs: list[bytes], times: int) -> None:
    for number in range(times):
        await agent.sign(WORKLOAD, csrs[number % len(csrs)])


async def _paced(agents: list[Control], csrs: list[bytes]) -> list[float]:
    """How long each of them took, from when it was due: one that waits for others is late."""
    took: list[float] = []

    async def one(number: int, due: float) -> None:
        try:
            await agents[number % AGENTS].sign(WORKLOAD, csrs[number % len(csrs)])
        except PolicydError:
            took.append(float("inf"))  # a refusal is no certificate
        else:
            took.append(time.perf_counter() - due)

    begun, tasks = time.perf_counter(), []
    for number in range(PACED * PACED_SECONDS):
        due = begun + number / PACED
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        tasks.append(asyncio.create_task(one(number, due)))
    await asyncio.gather(*tasks)
    return took
