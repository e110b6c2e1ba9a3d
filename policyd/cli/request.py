"""Sends one request into the mesh, as a workload through its sidecar's proxy or plainly, and says what came back."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from policyd import names
from policyd.cli.first_bytes import balancer, header

if TYPE_CHECKING:
    import httpx

SECONDS: Final = 15.0
MAX_BODY: Final = 1 << 20  # bytes; the rest is not looked at
REQUEST_ID: Final = "x-request-id"
FORWARDED: Final = "x-forwarded-for"


@dataclass(frozen=True, slots=True)
class Sending:
    """What to send: `url` as the mesh knows it, `at` the `host:port` to send it to, or `proxy` the proxy to use.

    `client` (an IP address) is named by a PROXY header, `forwarded` by x-forwarded-for.
    """

    method: str
    url: str
    request_id: str
    at: str = ""
    proxy: str = ""
    client: str = ""
    forwarded: str = ""

    def __repr__(self) -> str:
        """Leave out the proxy, whose address holds a secret."""
        return f"Sending({self.method} {self.url})"


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back: `status` is 0 where nothing did, and `problem` says why."""

    status: int = 0
    body: str = ""
    decision_id: str = ""
    request_id: str = ""  # that the proxy gave it, where it says so
    milliseconds: float = 0.0
    problem: str = ""


async def send(sending: Sending, seconds: float = SECONDS) -> Answer:
    """Send it and wait at most `seconds`."""
    if not sending.client:
        return await _send(sending, seconds)
    async with balancer(sending.at, header(sending.client, sending.at)) as at:
        return await _send(replace(sending, at=at), seconds)


async def _send(sending: Sending, seconds: float) -> Answer:
    import httpx

    options = {"trust_env": False, "timeout": seconds, "follow_redirects": False}
    proxy = sending.proxy or None
    began = time.perf_counter()
    try:
        async with httpx.AsyncClient(proxy=proxy, **options) as client:  # type: ignore[arg-type]
            url, headers = _addressed(sending)
            async with client.stream(sending.method, url, headers=headers) as response:
                body = await _body(response)
    except httpx.TimeoutException:
        return Answer(problem=f"no answer within {seconds:g} s")
    except httpx.TransportError as error:
        return Answer(problem=f"no answer: {str(error) or type(error).__name__}")
    return Answer(
        status=response.status_code,
        body=body,
        decision_id=response.headers.get(names.DECISION_ID_HEADER, ""),
        request_id=response.headers.get(REQUEST_ID, ""),
        milliseconds=(time.perf_counter() - began) * 1000,
    )


def _addressed(sending: Sending) -> tuple[str, dict[str, str]]:
    """Return where to send it and its headers: the Host is always the mesh's."""
    headers = {REQUEST_ID: sending.request_id} | ({FORWARDED: sending.forwarded} if sending.forwarded else {})
    if not sending.at:
        return sending.url, headers
    scheme, _, rest = sending.url.partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}://{sending.at}/{path if slash else ''}", headers | {"host": host}


async def _body(response: httpx.Response) -> str:
    """Read as much of the body as is looked at."""
    parts, size = [], 0
    async for part in response.aiter_bytes():
        parts.append(part)
        size += len(part)
        if size >= MAX_BODY:
            break
    return b"".join(parts)[:MAX_BODY].decode(response.charset_encoding or "utf-8", "replace")
