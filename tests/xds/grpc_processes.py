"""Processes of gRPC's that are told by policyd what to do: each an instance, with a certificate of its identity."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

from policyd.xds.proxyless import CERTIFICATES, SERVER_LISTENER
from tests.certificates import Authority


class Processes:
    """Started ones; `target` is where the discovery service is."""

    def __init__(self, folder: Path, target: str) -> None:
        self.authority = Authority("the mesh")
        self._folder, self._target = folder, target
        self._started: list[asyncio.subprocess.Process] = []
        (folder / "ca.pem").write_text(self.authority.pem)

    async def start(
        self, script: str, instance: str, *arguments: str, names: tuple[str, ...] = ()
    ) -> asyncio.subprocess.Process:
        """A process that is an instance; its certificate is of its service account, and of further `names`."""
        account = instance.partition("-")[0]
        chain, key = self.authority.issue(f"spiffe://cluster.local/ns/default/sa/{account}", *names)
        (self._folder / f"{instance}.pem").write_text(chain)
        (self._folder / f"{instance}.key").write_text(key)
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            str(Path(__file__).parent / script),
            *arguments,
            env={**os.environ, "GRPC_XDS_BOOTSTRAP_CONFIG": json.dumps(self._bootstrap(instance))},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        self._started.append(process)
        return process

    def _bootstrap(self, instance: str) -> dict[str, object]:
        server = {"server_uri": self._target, "channel_creds": [{"type": "insecure"}], "server_features": ["xds_v3"]}
        files = {
            "certificate_file": str(self._folder / f"{instance}.pem"),
            "private_key_file": str(self._folder / f"{instance}.key"),
            "ca_certificate_file": str(self._folder / "ca.pem"),
            "refresh_interval": "600s",
        }
        return {
            "xds_servers": [server],
            "node": {"id": instance},
            "certificate_providers": {CERTIFICATES: {"plugin_name": "file_watcher", "config": files}},
            "server_listener_resource_name_template": SERVER_LISTENER,
        }

    async def end(self) -> None:
        """End them all."""
        for process in self._started:
            if process.returncode is None:
                process.kill()
            await process.wait()
