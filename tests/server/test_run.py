"""A whole server: what it offers while it serves, what it refuses to start with, and how it ends."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub

from policyd import envoy_api
from policyd._pb import admin_pb2 as pb
from policyd._pb import agent_pb2
from policyd.errors import InvalidInput, PolicydError
from policyd.join_token import parse_token
from policyd.server.state import exclusively
from policyd.state_paths import state_paths
from policyd.xds import wire
from policyd.xds.service import METHOD, SERVICE
from tests.server.served import PROGRAM, WORKLOADS, Served, process, serving

SERVING, NOT_SERVING = HealthCheckResponse.SERVING, HealthCheckResponse.NOT_SERVING
PORTS = {
    "authz": ["envoy.service.auth.v3.Authorization"],
    "xds": ["envoy.service.discovery.v3.AggregatedDiscoveryService", "policyd.v1.Agents"],
}


async def health(served: Served, port: str, service: str = "") -> int:
    async with served.channel(port) as channel:
        return int((await HealthStub(channel).Check(HealthCheckRequest(service=service), timeout=5)).status)


async def readiness(served: Served) -> tuple[int, str]:
    async with httpx.AsyncClient() as client:
        reply = await client.get(f"http://{served.facts['http']}/readyz")
    return reply.status_code, reply.text


@pytest.mark.parametrize("port", PORTS)
async def test_it_says_its_health_on_each_port_of_the_mesh(folder: Path, short: Path, port: str) -> None:
    async with serving(folder, short) as served:
        assert [await health(served, port, name) for name in ("", *PORTS[port])] == [SERVING] * (1 + len(PORTS[port]))


async def test_while_a_change_is_refused_what_is_in_force_serves_on_and_every_place_says_so(
    folder: Path, short: Path
) -> None:
    async with serving(folder, short) as served:
        before = await served.status()
        (folder / "workloads.yaml").write_text("workloads: {web-v1: {service: web, prot: 80}}\n")
        await served.becomes(refused=True)

        after = await served.status()
        assert (after.ready, after.revision, after.config) == (True, before.revision, before.config)
        assert [(one.file, one.line) for one in after.refused] == [("workloads.yaml", 1)]
        assert (await readiness(served))[0] == 200
        assert "a change is refused: workloads.yaml:1: " in (await readiness(served))[1]
        assert [await health(served, port) for port in PORTS] == [SERVING, SERVING]

        (folder / "workloads.yaml").write_text(WORKLOADS)
        await served.becomes(refused=False)
        assert await readiness(served) == (200, "ok\n")


async def test_a_file_that_is_no_text_hides_nothing_that_the_check_tells(folder: Path, short: Path) -> None:
    async with serving(folder, short) as served:
        (folder / "policies").mkdir()
        (folder / "policies" / "y.cedar").write_text("permit (")
        (folder / "groups.yaml").write_bytes(b"groups: 1\n# \xff\n")
        checked = await asyncio.to_thread(
            subprocess.run, [PROGRAM, "check", str(folder), "--json"], capture_output=True, text=True, timeout=60
        )
        told = [(one["file"], one["line"], one["message"]) for one in json.loads(checked.stdout)["problems"]]
        assert [file for file, _, _ in told] == ["groups.yaml", "policies/y.cedar"]

        async with asyncio.timeout(30):
            while [(one.file, one.line, one.message) for one in (await served.status()).refused] != told:
                await asyncio.sleep(0.05)


def test_it_refuses_to_start_with_every_problem_of_a_folder_with_a_file_that_is_no_text(folder: Path) -> None:
    (folder / "policies").mkdir()
    (folder / "policies" / "y.cedar").write_text("permit (")
    (folder / "groups.yaml").write_bytes(b"# \xff\n")

    said = subprocess.run([PROGRAM, "serve", "--dir", folder], capture_output=True, text=True, timeout=60)

    files = [line.partition(":")[0] for line in said.stderr.splitlines()]
    assert (said.returncode, files) == (3, ["groups.yaml", "policies/y.cedar", "error"])


async def test_both_outcomes_of_a_change_are_on_record(folder: Path, short: Path) -> None:
    async with serving(folder, short) as served:
        (folder / "groups.yaml").write_text("groups: 1\n")
        await served.becomes(refused=True)
        (folder / "groups.yaml").write_text("groups: {}\n")
        await served.becomes(refused=False)

    changes = [record for record in journal(folder) if record["kind"] == "change"]
    assert [record["decision"] for record in changes] == ["deny", "allow"]
    assert changes[0]["errors"][0]["message"].startswith("groups.yaml:1: ")


def journal(folder: Path) -> list[dict[str, Any]]:
    files = sorted(state_paths(folder).journal.glob("*.jsonl"))
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


async def test_its_log_has_the_level_of_the_settings(folder: Path, short: Path) -> None:
    (folder / "policyd.yaml").write_text("log: {level: warning}\n")
    async with serving(folder, short) as served:
        assert served.levels == ["warning"]
        (folder / "policyd.yaml").write_text("log: {level: debug}\n")
        async with asyncio.timeout(10):
            while served.levels == ["warning"]:
                await asyncio.sleep(0.02)
        assert served.levels == ["warning", "debug"]


async def test_a_level_that_somebody_asks_for_wins_over_the_settings_until_they_are_asked_for(
    folder: Path, short: Path
) -> None:
    async with serving(folder, short) as served, served.admin() as admin:
        assert (await admin.SetLogLevel(pb.SetLogLevelRequest(level="error"))).level == "error"
        (folder / "policyd.yaml").write_text("log: {level: debug}\n")
        async with asyncio.timeout(20):
            while served.levels == ["info", "error"]:
                await asyncio.sleep(0.02)
        assert served.levels == ["info", "error", "error"]
        assert (await admin.SetLogLevel(pb.SetLogLevelRequest())).level == "debug"
    assert served.levels[-1] == "debug"


async def test_where_it_is_can_be_found_while_it_is_there(folder: Path, short: Path) -> None:
    async with serving(folder, short) as served:
        facts = served.facts
        assert facts["pid"] == os.getpid()
        assert sorted(facts) == ["admin_socket", "attestation", "authz", "http", "pid", "signing", "xds"]
        assert stat.S_IMODE(Path(facts["admin_socket"]).stat().st_mode) == 0o600
        assert stat.S_IMODE(Path(facts["admin_socket"]).parent.stat().st_mode) == 0o700
    nothing_is_left(folder, short)


def nothing_is_left(folder: Path, runtime: Path) -> None:
    """Neither announcement, nor socket, nor lock."""
    paths = state_paths(folder)
    assert not paths.server.exists()
    assert [path for path in runtime.rglob("*") if not path.is_dir()] == []
    assert list(paths.root.glob(".*.tmp")) == []
    if paths.lock.exists():
        with exclusively(paths):
            pass


async def test_the_next_start_is_found_at_the_same_places(folder: Path, short: Path) -> None:
    async with serving(folder, short) as served:
        first = served.facts
    async with serving(folder, short) as served:
        assert served.facts == first


async def test_a_token_s_secret_is_in_no_file(folder: Path, short: Path) -> None:
    async with serving(folder, short) as served, served.admin() as admin:
        reply = await admin.CreateToken(pb.CreateTokenRequest(agent="laptop"))
        secret = parse_token(reply.token).secret
        files = [path for path in folder.rglob("*") if path.is_file()]
        assert state_paths(folder).tokens in files
        assert [path for path in files if secret.encode() in path.read_bytes()] == []


# ---- what it does not start with


def damage(path: str, data: bytes, mode: int = 0o600) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        file = state_paths(folder).root / path
        if file.is_dir():
            file.rename(folder / "away")
        file.write_bytes(data)
        file.chmod(mode)

    return spoil


def open_to_others(path: str, mode: int) -> Callable[[Path], None]:
    return lambda folder: (state_paths(folder).root / path).chmod(mode)


def rename_domain(folder: Path) -> None:
    (folder / "policyd.yaml").write_text("trustDomain: other.example\n")


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (damage("format", b"99\n"), "has format 99, this policyd knows 1; use the newer policyd that wrote it"),
        (damage("format", b"\xff"), "is corrupted: `format` has no version"),
        (open_to_others(".", 0o755), "others may enter"),
        (damage("ca/root.key", b"-----BEGIN nonsense"), "root.key"),
        (open_to_others("ca/intermediate.key", 0o644), "intermediate.key"),
        (damage("ca", b""), "ca"),
        (damage("tokens.db", b"this is no database" * 100), "tokens.db"),
        (open_to_others("tokens.db", 0o644), "tokens.db"),
        (damage("journal", b""), "journal"),
        (open_to_others("journal", 0o755), "journal"),
        (damage("placement.json", b"{"), "placement.json` is broken; remove it; ports are then picked anew"),
        (open_to_others("placement.json", 0o644), "placement.json"),
        (rename_domain, "is of the trust domain `cluster.local`, not of `other.example`; set the settings back to it"),
    ],
)
async def test_state_that_is_broken_or_open_stops_the_start_and_is_left_as_it_is(
    folder: Path, short: Path, spoil: Callable[[Path], None], says: str
) -> None:
    async with serving(folder, short):
        pass
    spoil(folder)
    before = contents(folder)

    with pytest.raises(PolicydError) as refused:
        async with serving(folder, short):
            pass

    assert says in str(refused.value)
    assert refused.value.remedy
    assert {path: text for path, text in contents(folder).items() if path in before} == before
    state_paths(folder).root.chmod(0o700)
    nothing_is_left(folder, short)


def contents(folder: Path) -> dict[str, bytes]:
    """What is kept of the mesh itself: keys, tokens, places; a journal grows."""
    kept = [folder / ".policyd" / name for name in ("format", "placement.json", "tokens.db")]
    files = [*kept, *(folder / ".policyd" / "ca").glob("*")]
    return {str(path): path.read_bytes() for path in files if path.is_file()}


async def test_a_given_port_that_another_program_has_stops_the_start(folder: Path, short: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        (folder / "policyd.yaml").write_text(f"listen: {{xds: '127.0.0.1:{port}'}}\n")
        with pytest.raises(
            PolicydError, match=rf"^`127\.0\.0\.1:{port}` is in use by another program; .*`listen\.xds`"
        ):
            async with serving(folder, short):
                pass
    nothing_is_left(folder, short)


async def test_a_kept_port_that_another_program_has_is_replaced(folder: Path, short: Path) -> None:
    async with serving(folder, short) as served:
        before = served.facts
    with socket.socket() as other:
        other.bind(("127.0.0.1", int(before["xds"].rpartition(":")[2])))
        other.listen()
        async with serving(folder, short) as served:
            assert served.facts["xds"] != before["xds"]
            assert served.facts["authz"] == before["authz"]


async def test_a_folder_that_is_bad_from_the_start_is_not_served(folder: Path, short: Path) -> None:
    (folder / "groups.yaml").write_text("groups: {a: {}, a: {}}\n")

    with pytest.raises(InvalidInput, match=r"^groups\.yaml:1: "):
        async with serving(folder, short):
            pass
    nothing_is_left(folder, short)


# in a process of its own: to run Python between fork and exec, beside gRPC's threads, may abort it
LIMITED = """\
import os, resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
os.execv(sys.argv[2], sys.argv[2:])
"""


def run(folder: Path, runtime: Path, space: int = -1) -> subprocess.CompletedProcess[str]:
    """Serve until it ends; its files may have `space` bytes each."""
    environment = os.environ | {"XDG_RUNTIME_DIR": str(runtime)}
    command = [sys.executable, "-I", "-c", LIMITED, str(space), str(PROGRAM), "serve", "--dir", str(folder)]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, env=environment)


def test_invalid_input_is_exit_code_3(folder: Path, short: Path) -> None:
    (folder / "groups.yaml").write_text("groups: {a: {}, a: {}}\n")

    done = run(folder, short)

    assert done.returncode == 3, done.stderr
    assert "groups.yaml:1" in done.stderr
    assert "Traceback" not in done.stderr
    nothing_is_left(folder, short)


@pytest.mark.parametrize("space", [0, 100, 1000])
def test_a_first_start_on_a_full_disk_is_an_error_and_can_be_repeated_when_there_is_space(
    folder: Path, short: Path, space: int
) -> None:
    done = run(folder, short, space)

    assert done.returncode == 1, done.stderr
    assert re.search(r"^error: (`.*`|there is no memory for counters: File too large)", done.stderr, re.MULTILINE)
    assert "Traceback" not in done.stderr
    nothing_is_left(folder, short)
    with process(folder, short) as started:
        assert started.poll() is None, (folder / "serve.log").read_text()


async def test_a_later_start_on_a_full_disk_is_an_error(folder: Path, short: Path) -> None:
    async with serving(folder, short):
        pass
    before = contents(folder)

    done = await asyncio.to_thread(run, folder, short, 0)

    assert done.returncode == 1, done.stderr
    assert "error: " in done.stderr
    assert "Traceback" not in done.stderr
    assert contents(folder) == before
    nothing_is_left(folder, short)


async def test_a_second_server_is_exit_code_1_and_the_first_serves_on(folder: Path, short: Path) -> None:
    async with serving(folder, short) as served:
        done = await asyncio.to_thread(run, folder, short)
        assert done.returncode == 1, done.stderr
        assert f"policyd down --dir {folder}" in done.stderr
        assert (await served.status()).ready


# ---- how it ends


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_it_ends_within_five_seconds_whatever_is_open(folder: Path, short: Path, number: int) -> None:
    with process(folder, short) as started:
        served = Served(folder)
        async with served.channel("xds") as streams, served.agent() as agent:
            ads = streams.stream_stream(f"/{SERVICE}/{METHOD}")()
            await ads.write(envoy_api.pack(wire.REQUEST, {"node": {"id": "web-v1"}, "type_url": envoy_api.CLUSTER}))
            assert await ads.read() is not grpc.aio.EOF
            watch = HealthStub(streams).Watch(HealthCheckRequest())
            assert (await watch.read()).status == SERVING
            assignments = agent.Watch(agent_pb2.WatchRequest())
            assert (await assignments.read()).xds_address == served.facts["xds"]
            idle = [socket.create_connection(_at(served.facts[name])) for name in ("http", "attestation", "authz")]

            began = time.monotonic()
            started.send_signal(number)
            code = await asyncio.to_thread(started.wait, 10)
            took = time.monotonic() - began

            assert (await watch.read()).status == NOT_SERVING
            for one in idle:
                one.close()
    log = (folder / "serve.log").read_text()
    assert (code, "Traceback" in log) == (0, False), log
    assert took < 5
    nothing_is_left(folder, short)


def _at(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host, int(port)


async def test_it_ends_when_the_owner_says_so(folder: Path, short: Path) -> None:
    with process(folder, short) as started:
        async with Served(folder).admin() as admin:
            await admin.Shutdown(pb.ShutdownRequest())
        assert await asyncio.to_thread(started.wait, 10) == 0
    assert [record["detail"]["operation"] for record in journal(folder) if record["kind"] == "operation"] == [
        "server.start",
        "shutdown",
    ]
    nothing_is_left(folder, short)


async def test_what_a_crash_left_is_in_nobody_s_way(folder: Path, short: Path) -> None:
    with process(folder, short) as started:
        started.kill()
        started.wait(5)
    assert state_paths(folder).server.exists()

    async with serving(folder, short) as served:
        assert (await served.status()).ready
    nothing_is_left(folder, short)
