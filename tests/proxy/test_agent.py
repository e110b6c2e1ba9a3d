"""The agent as a whole: real gRPC, real TLS, real Envoys, and a control plane of the tests."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import os
import signal
import ssl
import stat
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from policyd._pb import agent_pb2
from policyd.decision_line import PIPE
from policyd.envoy_api import shared
from policyd.join_token import format_token
from proxy import envoy_admin
from proxy.draining import QUIET
from proxy.envoy import DRAIN_LOOK
from proxy.identity import make_key
from tests.fakes.control_plane import ControlPlane
from tests.fakes.toy_ca import ToyCa
from tests.ports import free_port
from tests.xds.envoy_process import eventually

pytestmark = pytest.mark.e2e

PATIENCE = 30.0
WEB, API = "spiffe://cluster.local/ns/default/sa/web", "spiffe://cluster.local/ns/default/sa/api"
WEB_1 = agent_pb2.Sidecar(instance="web-1", spiffe_id=WEB, cluster="web.default")
API_1 = agent_pb2.Sidecar(instance="api-1", spiffe_id=API, cluster="api.default")


class Agent:
    """`policyd-proxy run` as a process of its own."""

    def __init__(self, folder: Path) -> None:
        self.state, self.runtime = folder / "state", folder / "run"
        self.events: list[dict[str, Any]] = []
        self.errors = ""

    async def start(self, *options: str) -> None:
        command = [sys.executable, "-m", "proxy.main", "run", "--runtime", str(self.runtime), "--exit-with-parent"]
        pipe = asyncio.subprocess.PIPE
        self.process = await asyncio.create_subprocess_exec(
            *command, *options, cwd=Path(__file__).parents[2], stdin=pipe, stdout=pipe, stderr=pipe
        )
        self._reading = asyncio.ensure_future(self._read())

    async def _read(self) -> None:
        assert self.process.stdout
        assert self.process.stderr
        while line := await self.process.stdout.readline():
            self.events.append(json.loads(line))
        self.errors = (await self.process.stderr.read()).decode()

    async def ended(self) -> int:
        async with asyncio.timeout(PATIENCE):
            await self._reading
            return await self.process.wait()

    async def stop(self) -> int:
        if self.process.returncode is None:
            self.process.terminate()
        return await self.ended()

    def said(self, event: str, **facts: object) -> list[dict[str, Any]]:
        return [each for each in self.events if each["event"] == event and facts.items() <= each.items()]

    async def says(self, event: str, times: int = 1, **facts: object) -> dict[str, Any]:
        await until(lambda: len(self.said(event, **facts)) >= times, self.events)
        return self.said(event, **facts)[times - 1]

    def status(self) -> dict[str, Any]:
        return json.loads((self.runtime / "status.json").read_text())


async def until(condition: Callable[[], Any], shown: object = "") -> None:
    """Wait until the condition holds."""
    try:
        async with asyncio.timeout(PATIENCE):
            while not condition():
                await asyncio.sleep(0.02)
    except TimeoutError:
        pytest.fail(f"waited in vain; so far: {shown}")


@pytest.fixture
async def plane() -> AsyncIterator[ControlPlane]:
    made = ControlPlane(shared())
    await made.start()
    yield made
    await made.stop()


@pytest.fixture
async def agent(tmp_path: Path) -> AsyncIterator[Agent]:
    made = Agent(tmp_path)
    yield made
    if made.process.returncode is None:
        made.process.kill()
    await made.ended()


def alive(pid: int) -> bool:
    """Whether the process runs (a zombie does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def serials(status: dict[str, Any]) -> set[int]:
    """The serial numbers of the certificates that an Envoy uses now."""
    _, body = await envoy_admin.ask(Path(status["admin_socket"]), "/certs")
    found = json.loads(body)["certificates"]
    return {int(each["serial_number"], 16) for one in found for each in one.get("cert_chain", [])}


async def test_it_joins_gets_an_identity_and_runs_an_envoy_that_proves_it(plane: ControlPlane, agent: Agent) -> None:
    plane.sidecars, plane.listener_port = [WEB_1], free_port()
    await agent.start("--join", format_token(plane.token()))
    ready = await agent.says("sidecar.ready", instance="web-1")
    await until(lambda: agent.status()["sidecars"][0]["state"] == "ready")
    [shown] = agent.status()["sidecars"]
    assert (shown["spiffe_id"], shown["restarts"], shown["pid"]) == (WEB, 0, ready["pid"])
    assert plane.nodes == ["web-1"]
    assert sorted(plane.peers) == ["spiffe://cluster.local/agent/a1", WEB]
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (agent.runtime / "web-1").iterdir()}
    assert modes == {"sds.sock": 0o600, "admin.sock": 0o600, "bootstrap.json": 0o600, PIPE: 0o600}
    assert await agent.stop() == 0
    assert not alive(ready["pid"])
    assert not agent.runtime.exists()


async def test_a_new_certificate_reaches_envoy_and_no_connection_ends(plane: ControlPlane, agent: Agent) -> None:
    plane.sidecars, plane.listener_port, plane.life = [WEB_1], free_port(), timedelta(seconds=6)
    await agent.start("--join", format_token(plane.token()))
    await agent.says("sidecar.ready")
    first = agent.status()["sidecars"][0]
    client = await _mutual_tls(plane, plane.listener_port)
    assert (await _get(*client))[1] == b"hello"
    await agent.says("sidecar.renewed")
    async with asyncio.timeout(PATIENCE):
        while int(first["svid_serial"], 16) in await serials(
            first
        ):  # each listener and cluster takes it in its own time
            await asyncio.sleep(0.02)
    assert (await _get(*client))[1] == b"hello"
    client[1].transport.abort()
    await agent.says("agent.renewed")
    await until(lambda: plane.watches >= 2)
    assert not agent.said("sidecar.crashed")
    assert await agent.stop() == 0


async def test_it_tells_which_bundle_its_envoy_has_confirmed_and_renews_what_is_tainted(
    plane: ControlPlane, agent: Agent
) -> None:
    plane.sidecars, plane.listener_port = [WEB_1], free_port()
    await agent.start("--join", format_token(plane.token()))
    await agent.says("sidecar.ready")
    signer = hashlib.sha256(plane.ca.sign(make_key().public_key(), [WEB])[1]).digest()

    def told(sequence: int) -> bool:
        return agent_pb2.Holding(sequence=sequence, authorities=[signer]) in plane.holdings

    await until(lambda: told(1))
    plane.sequence, plane.more_roots = 2, [ToyCa().root.der]
    plane.announce()
    await until(lambda: told(2))
    assert sorted(set(plane.signed)) == [WEB]
    plane.tainted = [signer]
    plane.announce()
    await until(lambda: {WEB, "spiffe://cluster.local/agent/a1"} <= set(plane.signed) and plane.signed.count(WEB) > 1)
    assert await agent.stop() == 0


async def logs_from(status: dict[str, Any]) -> set[str]:
    """From which levels on an Envoy's loggers say something."""
    _, body = await envoy_admin.ask(Path(status["admin_socket"]), "/logging", method="POST")
    return {line.rpartition(": ")[2] for line in body.decode().splitlines() if line.startswith("  ")}


async def test_a_killed_envoy_is_started_again_and_says_as_much_as_it_was_last_asked_to(
    plane: ControlPlane, agent: Agent
) -> None:
    async def speaking(level: str) -> None:
        async with asyncio.timeout(PATIENCE):
            while await logs_from(agent.status()["sidecars"][0]) != {level}:
                await asyncio.sleep(0.05)

    plane.sidecars = [WEB_1]
    await agent.start("--join", format_token(plane.token()))
    ready = await agent.says("sidecar.ready")
    await until(lambda: agent.status()["sidecars"][0]["state"] == "ready")
    await speaking("warning")
    plane.levels = ("debug", "error")
    plane.announce()
    await speaking("error")
    await agent.says("agent.speaks", agent="debug", envoys="error")
    os.kill(ready["pid"], signal.SIGKILL)
    crashed = await agent.says("sidecar.crashed")
    assert (crashed["ended"], crashed["failures"]) == ("SIGKILL", 1)
    again = await agent.says("sidecar.ready", times=2)
    assert again["pid"] != ready["pid"]
    await until(lambda: agent.status()["sidecars"][0]["restarts"] == 1)
    await until(lambda: agent.status()["sidecars"][0]["state"] == "ready")
    await speaking("error")
    plane.levels = ("error", "")
    plane.announce()
    await speaking("warning")
    assert await agent.stop() == 0
    assert not agent.said("agent.stopped")


async def test_it_follows_the_assignment_and_lives_through_policyd_being_away(
    plane: ControlPlane, agent: Agent
) -> None:
    await agent.start("--join", format_token(plane.token()), "--drain", "0.2")
    await agent.says("agent.assigned", instances=[])
    plane.sidecars = [WEB_1, API_1]
    plane.announce()
    await agent.says("sidecar.ready", instance="web-1")
    await agent.says("sidecar.ready", instance="api-1")
    await plane.stop()
    await agent.says("agent.disconnected")
    plane.sidecars = [API_1]
    await plane.start()
    await agent.says("sidecar.stopped", instance="web-1")
    assert not agent.said("sidecar.stopped", instance="api-1")
    assert await agent.stop() == 0


async def _drained(plane: ControlPlane, agent: Agent) -> timedelta:
    """End an agent, whose one sidecar may drain for long; returns how long it did."""
    assert await agent.ended() == 0
    draining, stopped = agent.said("sidecar.draining")[0], agent.said("sidecar.stopped")[0]
    assert plane.turns == [([], ["web-1"]), (["web-1"], [])]  # callers are led away first
    return datetime.fromisoformat(stopped["time"]) - datetime.fromisoformat(draining["time"])


async def test_a_stop_waits_for_the_request_under_way_and_tells_its_client_to_go(
    plane: ControlPlane, agent: Agent
) -> None:
    async with Slow() as slow:
        plane.sidecars, plane.listener_port, plane.application_port = [WEB_1], free_port(), slow.port
        await agent.start("--join", format_token(plane.token()), "--drain", "20")
        await agent.says("sidecar.ready")
        client = await _mutual_tls(plane, plane.listener_port)
        assert (await _get(*client))[1] == b"hello"
        await agent.says("agent.back")
        client[1].write(b"GET /app HTTP/1.1\r\nhost: web\r\n\r\n")
        await slow.asked.wait()
        agent.process.terminate()
        await agent.says("sidecar.draining")
        await asyncio.sleep(QUIET + 3 * DRAIN_LOOK)  # a drain that does not wait would be over
        assert not agent.said("sidecar.stopped")
        other = await _mutual_tls(plane, plane.listener_port)  # who comes is served
        head, body = await _get(*other)
        assert (b"connection: close" in head, body) == (True, b"hello")
        slow.answer.set()
        head, body = await _answer(*client)
        assert (b"connection: close" in head, body) == (True, b"after")
        took = await _drained(plane, agent)
    assert took < timedelta(seconds=10)
    assert not agent.said("sidecar.cut")


async def test_a_stop_tells_clients_of_http2_to_go_by_goaway(plane: ControlPlane, agent: Agent) -> None:
    async with Slow() as slow:
        plane.sidecars, plane.listener_port, plane.application_port = [WEB_1], free_port(), slow.port
        await agent.start("--join", format_token(plane.token()), "--drain", "20")
        await agent.says("sidecar.ready")
        await agent.says("agent.back")
        reader, writer = await _mutual_tls(plane, plane.listener_port)
        writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + _frame(SETTINGS, 0) + _asked(1, b"/app"))
        await slow.asked.wait()
        agent.process.terminate()
        await agent.says("sidecar.draining")
        await asyncio.sleep(DRAIN_LOOK)
        writer.write(_asked(3, b"/"))
        await _frames(reader, (GOAWAY, 0), (HEADERS, 3))
        slow.answer.set()
        await _frames(reader, (HEADERS, 1))  # what had begun is answered
        assert await _drained(plane, agent) < timedelta(seconds=15)
    assert not agent.said("sidecar.cut")


async def test_a_connection_that_waits_for_a_request_holds_up_no_stop(plane: ControlPlane, agent: Agent) -> None:
    plane.sidecars, plane.listener_port = [WEB_1], free_port()
    await agent.start("--join", format_token(plane.token()), "--drain", "20")
    await agent.says("sidecar.ready")
    client = await _mutual_tls(plane, plane.listener_port)
    assert (await _get(*client))[1] == b"hello"
    await agent.says("agent.back")
    agent.process.terminate()
    assert await client[0].read() == b""  # ended like any idle connection
    assert await _drained(plane, agent) < timedelta(seconds=10)
    assert not agent.said("sidecar.cut")


@pytest.mark.parametrize(
    ("asks", "cut"),
    [
        (b"GET /app HTTP/1.1\r\nhost: web\r\n\r\n", {"requests": 1, "tunnels": 0, "connections": 0}),
        (
            b"GET /app HTTP/1.1\r\nhost: web\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
            {"requests": 0, "tunnels": 1, "connections": 0},
        ),
    ],
    ids=["request", "tunnel"],
)
async def test_what_outlasts_the_drain_time_is_cut_and_counted(
    plane: ControlPlane, agent: Agent, asks: bytes, cut: dict[str, int]
) -> None:
    async with Slow() as slow:
        plane.sidecars, plane.listener_port, plane.application_port = [WEB_1], free_port(), slow.port
        await agent.start("--join", format_token(plane.token()), "--drain", "1")
        await agent.says("sidecar.ready")
        client = await _mutual_tls(plane, plane.listener_port)
        client[1].write(asks)
        await slow.asked.wait()
        if cut["tunnels"]:
            assert (await client[0].readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101")
        await agent.says("agent.back")
        agent.process.terminate()
        with suppress(ssl.SSLError, ConnectionError):  # ended without a word of TLS
            assert b"after" not in await client[0].read()
        assert await _drained(plane, agent) >= timedelta(seconds=1)
    [told] = agent.said("sidecar.cut")
    assert {key: told[key] for key in cut} == cut
    assert (told["instance"], told["after"] >= 1) == ("web-1", True)


async def test_a_refused_identity_is_asked_for_again(plane: ControlPlane, agent: Agent) -> None:
    plane.sidecars, plane.denied = [WEB_1], {WEB}
    await agent.start("--join", format_token(plane.token()))
    failed = await agent.says("identity.failed", times=2)
    assert (failed["code"], failed["spiffe_id"]) == ("issuance_denied", WEB)
    plane.denied.clear()
    await agent.says("sidecar.ready")
    assert await agent.stop() == 0


async def test_it_asks_the_applications_and_tells_what_they_answer(plane: ControlPlane, agent: Agent) -> None:
    plane.sidecars = [WEB_1, API_1]
    tcp = agent_pb2.TcpSocket(host="127.0.0.1", port=plane.agents_port)
    plane.probes = [
        agent_pb2.Probe(instance="web-1", tcp_socket=tcp, failure_threshold=1, period_seconds=1),
        agent_pb2.Probe(instance="api-1", exec=agent_pb2.Exec(command=["true"]), failure_threshold=1),
    ]
    await agent.start("--join", format_token(plane.token()))
    await until(lambda: plane.reports and len(plane.reports[-1]) == 2, agent.events)
    reason = "its probe is a command, and its agent runs none; start it with --run-probe-commands"
    assert plane.reports[-1] == {"web-1": (True, ""), "api-1": (False, reason)}
    plane.probes = plane.probes[:1]
    plane.announce()
    await until(lambda: plane.reports[-1] == {"web-1": (True, "")}, agent.events)
    assert not agent.said("sidecar.draining")  # what is asked otherwise needs no other Envoy
    await agent.stop()


async def test_a_restart_needs_no_token_while_the_kept_identity_holds(plane: ControlPlane, agent: Agent) -> None:
    token = format_token(plane.token())
    await agent.start("--join", token, "--dir", str(agent.state))
    await agent.says("agent.assigned")
    assert await agent.stop() == 0
    assert stat.S_IMODE((agent.state / "agent.json").stat().st_mode) == 0o600
    await agent.start("--join", token, "--dir", str(agent.state))  # used, but not needed
    await agent.says("agent.resumed")
    await agent.says("agent.assigned", times=2)
    assert plane.secrets_used == [plane.token().secret]
    assert await agent.stop() == 0


async def test_nothing_survives_its_parent(plane: ControlPlane, agent: Agent) -> None:
    plane.sidecars = [WEB_1]
    await agent.start("--join", format_token(plane.token()))
    ready = await agent.says("sidecar.ready")
    assert agent.process.stdin
    agent.process.stdin.close()
    assert await agent.ended() == 0
    assert not alive(ready["pid"])


async def test_no_envoy_survives_a_killed_agent(plane: ControlPlane, agent: Agent) -> None:
    plane.sidecars = [WEB_1]
    await agent.start("--join", format_token(plane.token()))
    ready = await agent.says("sidecar.ready")
    agent.process.kill()
    await agent.ended()
    await until(lambda: not alive(ready["pid"]))


async def _end_with(agent: Agent, *options: str) -> tuple[int, str]:
    await agent.start(*options)
    return await agent.ended(), agent.errors


async def test_a_server_without_the_pinned_root_is_refused_and_told_nothing(plane: ControlPlane, agent: Agent) -> None:
    token = plane.token()
    await plane.stop()
    plane.present = ToyCa()
    await plane.start()
    code, errors = await _end_with(agent, "--join", format_token(token))
    assert code == 3
    assert "does not present the root that the join token names" in errors
    assert plane.secrets_used == []


async def test_a_used_token_is_refused(plane: ControlPlane, agent: Agent) -> None:
    plane.secrets_used.append(plane.token().secret)
    code, errors = await _end_with(agent, "--join", format_token(plane.token()))
    assert (code, "policyd refuses the join token" in errors) == (3, True)


async def test_the_token_may_come_over_standard_input(plane: ControlPlane, agent: Agent) -> None:
    await agent.start("--join", "-")
    assert agent.process.stdin
    agent.process.stdin.write(format_token(plane.token()).encode() + b"\n")
    await agent.says("agent.assigned")
    agent.process.stdin.close()
    assert await agent.ended() == 0


async def test_without_token_and_identity_it_says_what_to_do(agent: Agent) -> None:
    code, errors = await _end_with(agent)
    assert code == 64
    assert "make a token with `policyd ca token create`" in errors


async def test_once_quiet_it_holds_little_memory(plane: ControlPlane, agent: Agent) -> None:
    plane.sidecars = [WEB_1]
    await agent.start("--join", format_token(plane.token()))
    await agent.says("sidecar.ready")

    async def small() -> bool:
        lines = Path(f"/proc/{agent.process.pid}/status").read_text().splitlines()
        [kibibytes] = [int(line.split()[1]) for line in lines if line.startswith("VmRSS")]
        return kibibytes <= 50 * 1024

    await eventually(small, "50 MiB are resident at most")
    assert await agent.stop() == 0


async def test_without_an_envoy_it_keeps_files_and_a_socket_for_an_application(
    plane: ControlPlane, agent: Agent, tmp_path: Path
) -> None:
    without = agent_pb2.Sidecar(instance="web-1", spiffe_id=WEB, cluster="web.default", proxyless=True)
    plane.sidecars, plane.life = [without, API_1], timedelta(seconds=4)
    await agent.start("--join", format_token(plane.token()), "--proxyless")
    refused = await agent.says("sidecar.refused", instance="api-1")
    assert refused["reason"] == "it is declared with a sidecar, and this agent starts no Envoy"
    ready = await agent.says("sidecar.ready", instance="web-1")
    folder = agent.runtime / "web-1"
    assert ready["environment"] == {"GRPC_XDS_BOOTSTRAP": str(folder / "bootstrap.json")}
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
    assert modes == {"bootstrap.json": 0o600, "xds.sock": 0o600, "certificates": 0o700, "r": 0o700}
    told = json.loads((folder / "bootstrap.json").read_text())
    assert told["node"]["id"] == "web-1"
    files = told["certificate_providers"]["default"]["config"]
    first = Path(files["certificate_file"]).read_bytes()
    await until(lambda: Path(files["certificate_file"]).read_bytes() != first)
    ssl.create_default_context(cafile=files["ca_certificate_file"]).load_cert_chain(
        files["certificate_file"], files["private_key_file"]
    )
    await until(lambda: agent.status()["sidecars"][0]["state"] == "ready")
    [shown] = agent.status()["sidecars"]
    assert (shown["instance"], shown["pid"], shown["grpc_bootstrap"]) == ("web-1", 0, str(folder / "bootstrap.json"))

    second = Agent(tmp_path)
    await second.start("--join", format_token(plane.token()), "--proxyless")
    assert await second.ended() == 1
    assert "another agent uses" in second.errors

    plane.sidecars = []
    plane.announce()
    await until(lambda: not folder.exists())
    assert await agent.stop() == 0
    assert not agent.runtime.exists()
    assert not agent.said("sidecar.starting")


Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def _mutual_tls(plane: ControlPlane, port: int) -> Connection:
    """Connect as a workload of the mesh."""
    import tempfile

    from cryptography.hazmat.primitives import serialization as form

    from proxy.identity import make_key

    key = make_key()
    chain = plane.ca.sign(key.public_key(), [API])
    pem = key.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(cadata=plane.ca.root.pem.decode())
    with tempfile.NamedTemporaryFile() as file:
        file.write(pem + b"".join(ssl.DER_cert_to_PEM_cert(each).encode() for each in chain))
        file.flush()
        context.load_cert_chain(file.name)
    connected: Awaitable[Connection] = asyncio.open_connection("127.0.0.1", port, ssl=context)
    return await connected


async def _get(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> tuple[bytes, bytes]:
    writer.write(b"GET / HTTP/1.1\r\nhost: web\r\n\r\n")
    return await _answer(reader, writer)


async def _answer(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> tuple[bytes, bytes]:
    """The head of an answer, and its five bytes."""
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200"), base64.b64encode(head)
    return head, await reader.readexactly(5)


HEADERS, SETTINGS, GOAWAY = 1, 4, 7  # frames: RFC 9113, 6


def _frame(kind: int, stream: int, payload: bytes = b"", flags: int = 0) -> bytes:
    return len(payload).to_bytes(3) + bytes([kind, flags]) + stream.to_bytes(4) + payload


async def _frames(reader: asyncio.StreamReader, *wanted: tuple[int, int]) -> None:
    """Read until frames of these kinds came on these streams."""
    missing = set(wanted)
    while missing:
        head = await reader.readexactly(9)
        await reader.readexactly(int.from_bytes(head[:3]))
        missing.discard((head[3], int.from_bytes(head[5:])))


def _asked(stream: int, path: bytes) -> bytes:
    """A whole request: GET, https, a path and a host (RFC 7541)."""
    fields = b"\x82\x87" + b"\x04" + bytes([len(path)]) + path + b"\x01\x03web"
    return _frame(HEADERS, stream, fields, flags=0x05)


class Slow:
    """An application that answers when `answer` is set, and takes every upgrade at once."""

    async def __aenter__(self) -> Slow:
        self.asked, self.answer = asyncio.Event(), asyncio.Event()
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self.answer.set()
        self._server.close()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if b"websocket" in head:
            writer.write(b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n")
        self.asked.set()
        await self.answer.wait()
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nafter")
        writer.close()
