"""The agent's port for Prometheus: what its Envoys count, gathered when it is asked for.

Law: only GET, only this machine as Host, one page a connection; an Envoy that does not answer is not waited for.
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import zlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final
from urllib.parse import quote

import h11

from policyd import names, signals
from policyd.errors import EnvoyError, StateError
from proxy.application_page import PagePlace, page_of
from proxy.bootstrap import Endpoint
from proxy.envoy_admin import ask
from proxy.events import SidecarStatus
from proxy.exposition import Page
from proxy.fullness import FULL_STATS, refused_in, share_in
from proxy.series import dropped_in

PATHS: Final = ("/metrics", "/stats/prometheus")  # the second as Istio has it
CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
MAX_CONNECTIONS: Final = 16
MAX_HEAD: Final = 16 << 10
SECONDS: Final = 10.0  # for a whole connection
ENVOY_SECONDS: Final = 3.0
# what Istio keeps of Envoy's own by default: the mesh's metrics, the way to policyd, the process
WANTED: Final = (
    rf"^{names.MESH_PREFIX}\.|^cluster\.policyd|^cluster_manager|^listener_manager|^server\."
    r"|^cluster\.(in|out)bound\|.*\.grpc\.(request|response)_message_count$"
    rf"|{FULL_STATS}"
)

DEFAULT: Final = Endpoint("127.0.0.1", 15020)  # Istio's

NONE: Final[Mapping[str, datetime]] = {}
Collect = Callable[[bool], Awaitable[str]]


@dataclass(frozen=True, slots=True)
class Where:
    """Where to listen; another port will do where this one was not asked `strict`ly."""

    endpoint: Endpoint = DEFAULT
    strict: bool = False


async def collect(
    sidecars: Sequence[SidecarStatus],
    *,
    connected: bool,
    everything: bool,
    pages: Sequence[PagePlace] = (),
    workloads: Mapping[str, datetime] = NONE,
) -> str:
    """The page of all Envoys: `everything` that they count, or what is usually looked at; and the agent's own.

    `pages` are those of applications; one that does not answer in time is missed, and no other waits for it longer.

    `connected` is whether policyd is there, `workloads` when the certificates of processes end, by identity.
    """
    page = Page()
    running = [one for one in sidecars if one.pid]
    texts, shown = await asyncio.gather(
        asyncio.gather(*(_text(one, everything=everything) for one in running)),
        asyncio.gather(*(page_of(one) for one in pages)),
    )
    series = [page.add(one.instance, text or "") for one, text in zip(running, texts, strict=True)]
    proxies = [{"proxy": one.instance} for one in running]
    answered = zip(proxies, (text is not None for text in texts), strict=True)
    expire = [({"proxy": one.instance}, _seconds(one.svid_expires)) for one in sidecars if one.svid_expires]
    restarts = [({"proxy": one.instance}, one.restarts) for one in sidecars]
    page.put(names.PROXY_UP, answered)
    page.put(names.PROXY_CONNECTED, [({}, connected)])
    page.put(names.PROXY_RESTARTS, restarts)
    page.put(names.PROXY_SVID_EXPIRY, expire)
    page.put(names.WORKLOAD_SVID_EXPIRY, [({"spiffe_id": name}, end.timestamp()) for name, end in workloads.items()])
    page.put(names.PROXY_SERIES, zip(proxies, series, strict=True))
    page.put(names.PROXY_SERIES_DROPPED, zip(proxies, (dropped_in(text or "") for text in texts), strict=True))
    page.put(names.PROXY_REFUSED, zip(proxies, (refused_in(text or "") for text in texts), strict=True))
    shares = zip(proxies, (share_in(text or "") for text in texts), strict=True)
    page.put(names.PROXY_MEMORY, [(proxy, share) for proxy, share in shares if share is not None])
    page.put(names.PROXY_SERIES_LIMIT, [({}, signals.MAX_SERIES)])
    for place, text in zip(pages, shown, strict=True):
        page.add_application(place.instance, text or "")
    seen = [({"proxy": place.instance}, text is not None) for place, text in zip(pages, shown, strict=True)]
    page.put(names.APPLICATION_UP, seen)
    page.put(names.PROXY_UNREADABLE, [({}, page.odd)])
    return page.text()


async def counted(socket: Path, instance: str) -> bytes:
    """What one Envoy counts of requests and tunnels, compressed by zlib; raises EnvoyError."""
    target = f"/stats/prometheus?usedonly&filter={quote(names.MESH_PREFIX)}"
    status, body = await ask(socket, target, timeout=ENVOY_SECONDS)
    if status != 200:
        raise EnvoyError(f"Envoy answers {status} to `{target}`")
    page = Page()
    page.add(instance, body.decode(errors="replace"))
    return zlib.compress(page.text().encode(), 6)


def _seconds(stamp: str) -> float:
    return datetime.fromisoformat(stamp).timestamp()


async def _text(sidecar: SidecarStatus, *, everything: bool) -> str | None:
    target = "/stats/prometheus?usedonly" + ("" if everything else f"&filter={quote(WANTED)}")
    with suppress(EnvoyError):
        status, body = await ask(Path(sidecar.admin_socket), target, timeout=ENVOY_SECONDS)
        if status == 200:
            return body.decode(errors="replace")
    return None


class MetricsServer:
    """Serves what `collect` gives; call `start` once, then `stop`."""

    def __init__(self, collect: Collect) -> None:
        self._collect = collect
        self._server: asyncio.Server | None = None
        self._open = 0
        self.address: Endpoint | None = None

    async def start(self, where: Where) -> Endpoint:
        """Listen, and return where; raises StateError."""
        host, port = where.endpoint.host, where.endpoint.port
        try:
            self._server = await asyncio.start_server(self._serve, host, port)
        except OSError as error:
            if not where.strict and error.errno == errno.EADDRINUSE:
                return await self.start(Where(Endpoint(host, 0), strict=True))
            reason = f"`{where.endpoint}` cannot be listened on: {error.strerror or error}"
            raise StateError(reason, remedy="choose another --metrics") from None
        self.address = Endpoint(host, self._server.sockets[0].getsockname()[1])
        return self.address

    async def stop(self) -> None:
        """Close the port and what is open."""
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open += 1
        try:
            if self._open <= MAX_CONNECTIONS:
                async with asyncio.timeout(SECONDS):
                    await self._answer(reader, writer)
        except (OSError, TimeoutError, h11.RemoteProtocolError):
            pass
        finally:
            self._open -= 1
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD)
        while (event := connection.next_event()) is h11.NEED_DATA:
            connection.receive_data(await reader.read(MAX_HEAD))
        if not isinstance(event, h11.Request):
            return
        status, body = await self._page(event)
        headers = [("content-type", CONTENT_TYPE), ("content-length", str(len(body))), ("connection", "close")]
        for part in (h11.Response(status_code=status, headers=headers), h11.Data(data=body), h11.EndOfMessage()):
            writer.write(connection.send(part) or b"")
        await writer.drain()

    async def _page(self, request: h11.Request) -> tuple[int, bytes]:
        hosts = [value for name, value in request.headers if name == b"host"]
        if len(hosts) != 1 or not _is_here(hosts[0].decode("latin-1")):
            return 421, b"this host is not served here\n"
        path, _, query = request.target.decode("latin-1").partition("?")
        if path not in PATHS:
            return 404, f"ask for {PATHS[0]}\n".encode()
        if request.method != b"GET":
            return 405, b"only GET\n"
        return 200, (await self._collect(query == "envoy=all")).encode()


def _is_here(host: str) -> bool:
    """Whether a Host header names this machine: no web page reaches the port through a browser (DNS rebinding)."""
    name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
