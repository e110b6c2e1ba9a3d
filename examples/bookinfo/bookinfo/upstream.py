"""Calls from one service to another: which headers go along, how long one waits, what counts as an answer.

Law: `get` never raises. Whatever goes wrong (no connection, too late, too long, not the expected shape) is an
`Answer` without a body.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

import httpx
import msgspec
from starlette.requests import Request

T = TypeVar("T")
Headers = list[tuple[bytes, bytes]]

MAX_ANSWER = 256 * 1024
"""Bytes of an answer's body."""
NO_ANSWER = 500
"""The status of an answer that never came, or made no sense."""

PROPAGATED = frozenset({
    # one request, one trace, whichever tracer is in use
    b"x-request-id", b"x-ot-span-context", b"traceparent", b"tracestate", b"x-cloud-trace-context",
    b"grpc-trace-bin", b"sw8", b"x-datadog-trace-id", b"x-datadog-parent-id", b"x-datadog-sampling-priority",
    b"x-b3-traceid", b"x-b3-spanid", b"x-b3-parentspanid", b"x-b3-sampled", b"x-b3-flags",
    # who asks, which rules of the mesh may match on
    b"end-user", b"user-agent", b"cookie", b"authorization", b"jwt",
})  # fmt: skip


def propagated(request: Request) -> Headers:
    """Pick the headers of a request that go along with the calls made for it."""
    return [(name, value) for name, value in request.headers.raw if name in PROPAGATED]


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds that one attempt may take in all, and how many attempts there are."""

    seconds: float
    attempts: int = 1


@dataclass(frozen=True, slots=True)
class Answer(Generic[T]):
    """The status of the last attempt, NO_ANSWER where none came, and the body if it was 200 and of the shape."""

    status: int
    body: T | None = None


class Upstreams:
    """Speaks to the other services, through the HTTP proxy that the environment names."""

    def __init__(self, addresses: Mapping[str, str]) -> None:
        self._addresses = addresses
        # Plain HTTP only, so the TLS context trusts nobody; loading the usual roots would cost memory and time.
        trust_nobody = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._client = httpx.AsyncClient(trust_env=True, verify=trust_nobody, timeout=None)

    async def get(self, service: str, book: int, shape: type[T], headers: Headers, patience: Patience) -> Answer[T]:
        """`GET http://<service>/<service>/<book>`, until an attempt succeeds or none is left."""
        url = f"http://{self._addresses[service]}/{service}/{book}"
        answer: Answer[T] = Answer(NO_ANSWER)
        for _ in range(patience.attempts):
            answer = await self._attempt(url, shape, headers, patience.seconds)
            if answer.body is not None:
                break
        return answer

    async def _attempt(self, url: str, shape: type[T], headers: Headers, seconds: float) -> Answer[T]:
        # httpx adds to a request what is missing only; an encoded answer could unpack to more than is bearable
        sent = [*headers, (b"accept", b"application/json"), (b"accept-encoding", b"identity")]
        try:
            async with asyncio.timeout(seconds), self._client.stream("GET", url, headers=sent) as response:
                if response.status_code != 200:
                    return Answer(response.status_code if response.is_error else NO_ANSWER)
                return Answer(200, msgspec.json.decode(await _bounded(response), type=shape))
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError, ValueError, RecursionError):
            return Answer(NO_ANSWER)

    async def close(self) -> None:
        """Close all connections."""
        await self._client.aclose()


async def _bounded(response: httpx.Response) -> bytes:
    body = bytearray()
    async for chunk in response.aiter_raw():
        body += chunk
        if len(body) > MAX_ANSWER:
            raise ValueError("the answer is too long")
    return bytes(body)
