"""A real Envoy for a test: in a folder of its own, administered over a Unix socket, ended by its id."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx

from policyd.envoy_api import envoy_binary
from policyd.xds.agreed import XDS_CLUSTER


async def eventually(true: Callable[[], Awaitable[bool]], what: str, seconds: float = 20.0) -> float:
    """Wait until something is so; returns how many seconds that took."""
    loop = asyncio.get_running_loop()
    started = loop.time()
    while not await true():
        waited = loop.time() - started
        assert waited < seconds, f"not within {seconds} s: {what}"
        await asyncio.sleep(0.02)
    return loop.time() - started


def bootstrap(node_id: str, admin: Path, xds: Path, variant: str = "DELTA_GRPC") -> dict[str, Any]:
    """The least that makes Envoy ask for everything over one stream on a Unix socket; `GRPC` is the other variant."""
    http2 = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
    retry = {"retry_back_off": {"base_interval": "0.05s", "max_interval": "0.2s"}}
    ads = {"resource_api_version": "V3", "ads": {}}
    return {
        "node": {"id": node_id, "cluster": "test"},
        "admin": {"address": {"pipe": {"path": str(admin), "mode": 0o600}}},
        "dynamic_resources": {
            "ads_config": {
                "api_type": variant,
                "transport_api_version": "V3",
                "set_node_on_first_message_only": True,
                "grpc_services": [{"envoy_grpc": {"cluster_name": XDS_CLUSTER, "retry_policy": retry}}],
            },
            "cds_config": ads,
            "lds_config": ads,
        },
        "static_resources": {
            "clusters": [
                {
                    "name": XDS_CLUSTER,
                    "type": "STATIC",
                    "typed_extension_protocol_options": {
                        http2: {
                            "@type": f"type.googleapis.com/{http2}",
                            "explicit_http_config": {"http2_protocol_options": {}},
                        }
                    },
                    "load_assignment": {
                        "cluster_name": XDS_CLUSTER,
                        "endpoints": [{"lb_endpoints": [{"endpoint": {"address": {"pipe": {"path": str(xds)}}}}]}],
                    },
                }
            ]
        },
    }


class EnvoyProcess:
    """`async with EnvoyProcess("node") as envoy`: runs until the end of the block. Serve xDS at `envoy.xds`, or give it
    a bootstrap of your own.

    `flags` are more of the command line's own.
    """

    def __init__(self, node_id: str, config: dict[str, Any] | None = None, *flags: str) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="policyd-"))  # of mode 0700, and short, as sockets need
        self.xds = self.folder / "xds.sock"
        self.admin = self.folder / "admin.sock"
        self._flags = flags
        self._config = json.dumps(config or bootstrap(node_id, self.admin, self.xds))
        self._process: subprocess.Popen[bytes] | None = None

    def use(self, config: dict[str, Any]) -> None:
        """Start with this bootstrap, which may name what is in the folder."""
        self._config = json.dumps(config)

    async def __aenter__(self) -> EnvoyProcess:
        """Start it."""
        arguments = [
            "--config-yaml",
            self._config,
            "--concurrency",
            "1",
            "--disable-hot-restart",
            "-l",
            "warning",
            *self._flags,
        ]
        with (self.folder / "envoy.log").open("wb") as log:
            self._process = subprocess.Popen([envoy_binary(), *arguments], stdout=log, stderr=log)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End it, and take its folder away."""
        assert self._process is not None
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        shutil.rmtree(self.folder)

    async def ask(self, path: str) -> str:
        """What the administration interface answers; "" while it does not."""
        transport = httpx.AsyncHTTPTransport(uds=str(self.admin))
        async with httpx.AsyncClient(transport=transport, base_url="http://envoy") as client:
            try:
                return (await client.get(path)).text
            except httpx.TransportError:
                return ""

    async def live(self) -> bool:
        """Whether it has had its first configuration and listens; what it said where it has ended."""
        assert self._process is None or self._process.poll() is None, (self.folder / "envoy.log").read_text()
        return (await self.ask("/ready")).strip() == "LIVE"
