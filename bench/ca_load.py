"""Who asks for certificates in bench/ca.py: agents on connections that are kept, and requests made beforehand.

Law: light. What is sent was made beforehand, and replies are kept as they came, to be looked at by others later. Orders
of one agent that wait at the same time go in one call, as those of a real one do.
It joins with the tokens of the first line, and measures at each line `fast` or `paced` of its input.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import grpc
import grpc.aio

from policyd._pb import agent_pb2
from policyd.join_token import parse_token
from proxy.control import CHANNEL_OPTIONS, MOST_TOGETHER, Control
from proxy.identity import make_key, request
from proxy.join import Joined, join
from proxy.together import Together

AT_ONCE = 4  # calls of each agent that wait for an answer
SIGNED = 300  # by each agent; the server's burst is 500
PACED = 500  # a second
PACED_SECONDS = 3
SIGN = "/policyd.v1.Agents/Sign"
SIGN_ALL = "/policyd.v1.Agents/SignAll"


class Agent:
    """One connection, and the requests that it sends in turn."""

    def __init__(self, channel: grpc.aio.Channel, workload: str) -> None:
        self._sign = channel.unary_unary(SIGN)
        self._sign_all = channel.unary_unary(SIGN_ALL)
        self._requests = [agent_pb2.SignRequest(spiffe_id=workload, csr=request(make_key())) for _ in range(16)]
        self._together = Together(self._send, MOST_TOGETHER)
        self._next = 0
        self.replies: list[bytes] = []

    async def sign(self) -> None:
        """Have one more certificate; a refusal is raised."""
        self._next += 1
        self.replies.append(await self._together.ask(self._requests[self._next % len(self._requests)]))

    async def _send(self, asked: list[agent_pb2.SignRequest]) -> list[bytes]:
        if len(asked) == 1:
            return [await self._sign(asked[0].SerializeToString(), timeout=30)]
        sent = agent_pb2.SignAllRequest(requests=asked).SerializeToString()
        signed = agent_pb2.SignAllReply.FromString(await self._sign_all(sent, timeout=30)).signed
        if any(one.HasField("refused") for one in signed):
            raise RuntimeError(f"refused: {signed}")
        return [one.svid.SerializeToString() for one in signed]

    async def signs(self, times: int) -> None:
        """Have so many, one after the other."""
        for _ in range(times):
            await self.sign()


async def main(workload: str, replies: Path) -> None:
    """Do as the lines say until there are no more, and write all replies down, in hex."""
    loop = asyncio.get_running_loop()
    tokens = json.loads(await loop.run_in_executor(None, sys.stdin.readline))
    agents = [await _joined(token, workload) for token in tokens]
    print("{}", flush=True)
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        print(json.dumps(await (_fast(agents) if line.strip() == "fast" else _paced(agents))), flush=True)
    lines = "".join(f"{reply.hex()}\n" for agent in agents for reply in agent.replies)
    await asyncio.to_thread(replies.write_text, lines)


async def _joined(token: str, workload: str) -> Agent:
    joined = await join(parse_token(token), datetime.now(UTC))
    credentials = grpc.ssl_channel_credentials(joined.bundle.pem(), joined.svid.key_pem, joined.svid.chain_pem())
    address = await _signs_at(joined)
    agent = Agent(grpc.aio.secure_channel(address, credentials, options=CHANNEL_OPTIONS), workload)
    await agent.sign()  # the connection is up
    return agent


async def _signs_at(joined: Joined) -> str:
    """Where an agent is told to have its keys certified."""
    control = Control(joined.server)
    control.use(joined.svid, joined.bundle)
    try:
        async for assignment in control.watch("bench", ""):
            return str(assignment.signing_address)
    finally:
        await control.close()
    raise RuntimeError("no assignment came")


async def _fast(agents: list[Agent]) -> dict[str, float]:
    begun, spent = time.perf_counter(), time.process_time()
    await asyncio.gather(*(agent.signs(SIGNED // AT_ONCE) for agent in agents for _ in range(AT_ONCE)))
    return {
        "issued": len(agents) * SIGNED,
        "seconds": time.perf_counter() - begun,
        "cpu": time.process_time() - spent,
    }


async def _paced(agents: list[Agent]) -> dict[str, list[float]]:
    """How long each of them took, from when it was due: one that waits for others is late."""
    took: list[float] = []

    async def one(number: int, due: float) -> None:
        await agents[number % len(agents)].sign()
        took.append(time.perf_counter() - due)

    begun, tasks = time.perf_counter(), []
    for number in range(PACED * PACED_SECONDS):
        due = begun + number / PACED
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        tasks.append(asyncio.create_task(one(number, due)))
    await asyncio.gather(*tasks)
    return {"took": took}


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2])))
