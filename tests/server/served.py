"""A whole server, in this process or in one of its own, and real clients of it."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from policyd._pb import admin_pb2 as pb
from policyd._pb import admin_pb2_grpc, agent_pb2, agent_pb2_grpc
from policyd.environment import Environment
from policyd.join_token import parse_token
from policyd.server.control_plane import ControlPlane
from policyd.server.last_good import LastGood, started
from policyd.server.speech import Speech
from policyd.server.state import exclusively
from policyd.sources.shadow import FolderReader
from policyd.sources.state import prepare_state
from policyd.spiffe import SpiffeId
from policyd.state_paths import state_paths
from tests.ca.samples import a_csr, a_key
from tests.e2e.terminal import wait_until

WORKLOADS = """\
workloads: {web-v1: {service: web, port: 80}, api-v1: {service: api, port: 8080}}
defaults: {serviceAccount: "{service}"}
"""
WEB = SpiffeId.workload("cluster.local", "default", "web")
PROGRAM = str(Path(sys.executable).parent / "policyd")
NAMED = (("grpc.ssl_target_name_override", "policyd"), ("grpc.use_local_subchannel_pool", 1))


@dataclass
class Served:
    """A folder that is being served."""

    directory: Path
    levels: list[str] = field(default_factory=list)  # of its log, as it was told

    @property
    def facts(self) -> dict[str, Any]:
        """Its server.json."""
        facts: dict[str, Any] = json.loads(state_paths(self.directory).server.read_text())
        return facts

    @asynccontextmanager
    async def admin(self) -> AsyncIterator[Any]:
        """A stub of its administration API."""
        async with grpc.aio.insecure_channel(f"unix:{self.facts['admin_socket']}") as channel:
            yield admin_pb2_grpc.AdminStub(channel)

    @asynccontextmanager
    async def channel(self, port: str) -> AsyncIterator[grpc.aio.Channel]:
        """A connection of the workload `web` to a port, by its name in server.json."""
        key = a_key()
        async with self.admin() as admin:
            reply = await admin.Issue(pb.IssueRequest(spiffe_id=str(WEB), csr=a_csr(key)))
        async with self._mutual(port, key, reply.chain, reply.roots) as channel:
            yield channel

    @asynccontextmanager
    async def agent(self, name: str = "laptop") -> AsyncIterator[Any]:
        """An agent's stub of the Agents service, joined by a token."""
        key = a_key()
        async with self.admin() as admin:
            token = parse_token((await admin.CreateToken(pb.CreateTokenRequest(agent=name))).token)
            root = (await admin.ShowCa(pb.ShowCaRequest())).root_pem.encode()
        server_only = grpc.ssl_channel_credentials(root)
        async with grpc.aio.secure_channel(token.address, server_only, NAMED) as channel:
            request = agent_pb2.AttestRequest(token=token.secret, csr=a_csr(key))
            svid = await agent_pb2_grpc.AttestationStub(channel).Attest(request)
        async with self._mutual("xds", key, svid.chain, svid.bundle.roots) as channel:
            yield agent_pb2_grpc.AgentsStub(channel)

    def _mutual(
        self, port: str, key: ec.EllipticCurvePrivateKey, chain: Iterable[bytes], roots: Iterable[bytes]
    ) -> grpc.aio.Channel:
        own = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        credentials = grpc.ssl_channel_credentials(_pem(roots), own, _pem(chain))
        return grpc.aio.secure_channel(self.facts[port], credentials, NAMED)

    async def status(self) -> pb.StatusReply:
        """What it says of itself."""
        async with self.admin() as admin:
            return await admin.Status(pb.StatusRequest())

    async def becomes(self, *, refused: bool) -> None:
        """Wait until it refuses a change, or refuses none."""
        async with asyncio.timeout(10):
            while bool((await self.status()).refused) is not refused:
                await asyncio.sleep(0.02)


def _pem(certificates: Iterable[bytes]) -> bytes:
    return b"".join(x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM) for der in certificates)


@asynccontextmanager
async def serving(
    directory: Path, runtime: Path, shadow: Path | None = None, deciders: int = 1
) -> AsyncIterator[Served]:
    """Serve in this process, deciding in so many others, until the block ends."""
    served = Served(directory)
    paths = prepare_state(directory, os.getuid())
    with exclusively(paths):
        async with AsyncExitStack() as stack:
            speech = Speech(served.levels.append)
            read, stop = FolderReader(directory, shadow), asyncio.Event()

            def make(good: LastGood | None) -> ControlPlane:
                return ControlPlane(read, paths, stop, speech, deciders, good)

            await started(stack, make, directory, paths, Environment(runtime=runtime))
            yield served


@contextmanager
def process(directory: Path, runtime: Path, *words: str) -> Iterator[subprocess.Popen[str]]:
    """Serve in a process of its own; standard error can be read once it has ended."""
    environment = os.environ | {"XDG_RUNTIME_DIR": str(runtime)}
    with (directory / "serve.log").open("w") as log:
        started = subprocess.Popen(
            [PROGRAM, "serve", "--dir", str(directory), *words], stdout=log, stderr=log, text=True, env=environment
        )
    try:
        file = state_paths(directory).server
        wait_until(lambda: file.exists() or started.poll() is not None, 30)
        yield started
    finally:
        if started.poll() is None:
            started.kill()
        started.wait(5)
