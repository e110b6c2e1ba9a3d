"""What `up` starts, and what it understands of what it started."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from policyd._pb import admin_pb2 as pb
from policyd.cli import guard, plan, sidecars
from policyd.cli.child_log import ChildLog
from policyd.cli.health import application_probe
from policyd.cli.life import Phase
from policyd.cli.progress import Item, Lines
from policyd.mesh.files import WorkloadSpec

PLACE = pb.InstancePlace(name="web-v1", app_port=20001, proxy_url="http://web-v1:secret@127.0.0.1:20003")
WEB = WorkloadSpec(service="web", port=80)
UP, WAITS = Phase.HEALTHY, Phase.STARTING


async def healthy() -> str:
    return ""


async def token() -> bytes:
    return b"policyd1.secret\n"


def test_an_application_finds_its_port_and_its_proxy_in_its_environment() -> None:
    found = plan.application_environment(
        {"PATH": "/bin", "HOME": "/h", "http_proxy": "x"},
        PLACE,
        WorkloadSpec(service="web", port=80, environment={"STAR_COLOR": "red"}),
        Path("/run/agent"),
    )

    assert found.pop("PATH").endswith(":/bin")
    assert found == {
        "HOME": "/h", "PORT": "20001", "POLICYD_INSTANCE": "web-v1", "STAR_COLOR": "red",
        "http_proxy": "http://web-v1:secret@127.0.0.1:20003", "HTTP_PROXY": "http://web-v1:secret@127.0.0.1:20003",
        "no_proxy": "localhost,127.0.0.1,::1", "NO_PROXY": "localhost,127.0.0.1,::1",
        "SPIFFE_ENDPOINT_SOCKET": "unix:///run/agent/workload.sock",
    }  # fmt: skip


def test_an_application_of_several_ports_finds_each_by_its_name() -> None:
    ports = [pb.PortPlace(name="http", app_port=20001), pb.PortPlace(name="tcp-admin", app_port=20004)]
    found = plan.application_environment(
        {}, pb.InstancePlace(name="web-v1", app_port=20001, ports=ports), WEB, Path("/run")
    )

    assert {name: value for name, value in found.items() if name.startswith("PORT")} == {
        "PORT": "20001", "PORT_HTTP": "20001", "PORT_TCP_ADMIN": "20004"
    }  # fmt: skip


def test_an_application_without_a_sidecar_finds_what_grpc_reads() -> None:
    spec = WorkloadSpec(service="web", port=80, protocol="grpc", proxyless=True)
    found = plan.application_environment({}, PLACE, spec, Path("/run/agent"))
    assert found["GRPC_XDS_BOOTSTRAP"] == "/run/agent/web-v1/bootstrap.json"


def test_what_must_stay_hidden_is_in_no_command_line_and_no_repr(tmp_path: Path) -> None:
    spec = WorkloadSpec(service="web", port=80, command=("python", "-m", "web"), workdir="src")
    application = plan.application_program(tmp_path, PLACE, spec, {}, healthy, tmp_path)
    agent = plan.agent_program(tmp_path, tmp_path, tmp_path, {}, healthy, token, print)

    assert application.command == ("python", "-m", "web")
    assert application.cwd == tmp_path / "src"
    assert "secret" not in f"{application} {agent}"
    assert "secret" not in " ".join(agent.command)


def test_the_server_is_told_which_policies_to_try(tmp_path: Path) -> None:
    plain, tried = (plan.server_program(tmp_path, {}, healthy, shadow) for shadow in (None, tmp_path / "next"))

    assert tried.command == [*plain.command, "--shadow", str(tmp_path / "next")]


def test_applications_that_someone_else_starts_are_left_alone() -> None:
    specs = {"web-v1": WorkloadSpec(service="web", port=80), "db": WorkloadSpec(service="db", port=1, command=("db",))}

    assert [
        p.name for p in plan.to_start([PLACE, pb.InstancePlace(name="db"), pb.InstancePlace(name="edge")], specs)
    ] == ["db"]


def after(*lines: str) -> dict[str, tuple[Phase, str]]:
    states = sidecars.awaited(["web", "db"])
    for line in lines:
        states = sidecars.heard(states, line)
    return {name: (state.phase, state.why) for name, state in states.items()}


START = (WAITS, "its agent has not joined yet")
IDENTITY = (WAITS, "its identity is awaited")
WAITING = (WAITS, "the agent waits: no answer")
JOINED = '{"event": "agent.joined"}'
READY = '{"event": "sidecar.ready", "instance": "web"}'


@pytest.mark.parametrize(
    ("lines", "web", "db"),
    [
        ([], START, START),
        ([JOINED], IDENTITY, IDENTITY),
        (['{"event": "agent.waiting", "reason": "no answer"}'], WAITING, WAITING),
        (['{"event": "sidecar.identity", "instance": "web"}'], (WAITS, "its Envoy starts"), START),
        ([READY], (UP, ""), START),
        ([READY, JOINED], (UP, ""), IDENTITY),
        (
            ['{"event": "sidecar.crashed", "instance": "web", "ended": "was ended by signal 9", "again_in": 0.2}'],
            (Phase.WAITING, "its Envoy was ended by signal 9, starts again in 0.2 s"),
            START,
        ),
        (['{"event": "sidecar.ready", "instance": "stranger"}'], START, START),
        (['{"event": "sidecar.ready"}', "{", "[]", "{}", "noise", "{" * 20000], START, START),
        (['{"event": 7, "instance": "web"}', '{"event": "sidecar.ready", "instance": ["web"]}'], START, START),
    ],
)  # fmt: skip
def test_events_of_the_agent(lines: list[str], web: tuple[Phase, str], db: tuple[Phase, str]) -> None:
    assert after(*lines) == {"web": web, "db": db}


def test_what_is_missing_is_named_with_the_reason() -> None:
    states = sidecars.heard(sidecars.awaited(["web", "db"]), '{"event": "sidecar.ready", "instance": "web"}')

    assert sidecars.missing(states) == "db: its agent has not joined yet"
    assert sidecars.missing(sidecars.heard(states, '{"event": "sidecar.ready", "instance": "db"}')) == ""


def test_proxies_are_told_until_each_has_answered_and_a_port_of_another_program_is_named() -> None:
    def proxy(name: str, state: str, rejection: str = "") -> pb.ProxyStatus:
        types = [pb.TypeStatus(type="listeners", state=state, rejection=rejection), pb.TypeStatus(state="sent")]
        return pb.ProxyStatus(instance=name, types=types if rejection else types[:1])

    taken = "Error adding/updating listener(s) edge: cannot bind '127.0.0.1:8080': Address already in use"
    synced, waits, refuses = proxy("a", "synced"), proxy("b", "sent"), proxy("edge", "rejected", taken)

    assert [sidecars.are_told(each) for each in ([synced, waits], [synced, refuses], [])] == [True, False, False]
    assert sidecars.unopened([synced, refuses]) == "`edge` cannot open 127.0.0.1:8080, which another program has open"
    assert sidecars.unopened([synced, waits]) == ""


@pytest.mark.parametrize(
    ("place", "kind"),
    [
        (pb.InstancePlace(role="sidecar", outbound_port=15001), "sidecar"),
        (pb.InstancePlace(role="sidecar"), "proxyless"),
        (pb.InstancePlace(role="gateway"), "gateway"),
    ],
)
def test_what_has_no_sidecar_is_called_none(place: pb.InstancePlace, kind: str) -> None:
    assert sidecars.kind(place) == kind


def test_without_a_terminal_each_change_is_a_line() -> None:
    stream = io.StringIO()
    lines = Lines(stream)

    lines.show([Item("web", "application", WAITS, "no answer"), Item("web", "sidecar", WAITS)])
    lines.show([Item("web", "application", UP), Item("web", "sidecar", WAITS)])
    lines.show([Item("web", "application", UP), Item("web", "sidecar", UP)])
    lines.show([Item("web", "application", Phase.WAITING, "was ended by signal 9"), Item("web", "sidecar", UP)])

    assert stream.getvalue().splitlines() == [
        "up          web (application)",
        "up          web (sidecar)",
        "restarting  web (application): was ended by signal 9",
    ]


@pytest.fixture
async def web() -> AsyncIterator[tuple[int, list[bytes]]]:
    """A server that answers with the first of a list of answers."""
    answers = [b"HTTP/1.1 200 OK\r\n\r\n"]

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if await reader.readline():
            writer.write(answers[0])
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1], answers
    server.close()


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\n", ""),
        (b"HTTP/1.0 302 Found\r\n\r\n", ""),
        (b"HTTP/1.1 503 Busy\r\n\r\n", "`/health` answers 503"),
        (b"SSH-2.0-OpenSSH\r\n", "port {port} does not speak HTTP"),
        (b"", "port {port} does not speak HTTP"),
    ],
)
async def test_an_application_is_up_when_its_health_path_answers(
    web: tuple[int, list[bytes]], answer: bytes, why: str
) -> None:
    port, answers = web
    answers[0] = answer

    assert await application_probe(port, "/health")() == why.format(port=port)
    assert await application_probe(port, None)() == ""


async def test_an_application_that_does_not_listen_is_awaited() -> None:
    assert await application_probe(1, "/health")() == "nothing listens on port 1 yet"


def test_a_log_is_bounded_and_the_one_before_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "web.log"
    path.write_text("yesterday\n")
    heard: list[str] = []

    log = ChildLog(path, heard.append, limit=100)
    assert (tmp_path / "web.log.1").read_text() == "yesterday\n"
    for number in range(50):
        log.write(f"line {number}\r\n".encode())
    log.write(b"x" * 40_000)
    log.write(b"\xff\n")
    log.close()

    assert path.stat().st_size <= 40_002
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) <= 40_202
    assert heard[:2] == ["line 0", "line 1"]
    assert [len(line) for line in heard[50:]] == [16384, 16384, 7233]
    assert log.last(1) == [heard[-1]]


def test_the_guard_ends_only_what_is_left() -> None:
    killed: list[int] = []

    def kill(group: int, number: int) -> None:
        killed.append(group)
        if group == 20:
            raise ProcessLookupError

    left = guard.groups_left(["+10\n", "+20\n", "+30\n", "-30\n", "+0\n", "+1\n", "-x\n", "+\n", "junk\n"])
    guard.end_all(sorted(left), kill)

    assert killed == [10, 20]
