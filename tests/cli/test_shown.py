"""What people see: whole outputs as golden files, nothing of others' text that could steer a terminal."""

from __future__ import annotations

import io
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from policyd._pb import admin_pb2 as pb
from policyd.cli import ca, check_table, output, proxy, status, traces
from policyd.cli.check_table import Outcome
from policyd.errors import InvalidInput, Problem, StateError
from policyd.wording import clean, moment, since, span
from tests.cli.conftest import Said
from tests.fakes.admin import FakeAdmin
from tests.golden import check_text

NOW = 1_795_435_200  # 2026-11-23 12:00 UTC
WEB = "spiffe://cluster.local/ns/default/sa/web"
PLACES = [
    pb.InstancePlace(
        name="web-v1", spiffe_id=WEB, service="web.default", role="sidecar", address="127.0.0.1", app_port=20001,
        inbound_port=20002, outbound_port=20003, proxy_url="http://web-v1:secret@127.0.0.1:20003",
    ),
    pb.InstancePlace(
        name="edge", spiffe_id="spiffe://cluster.local/ns/default/sa/edge", service="edge.default", role="gateway",
        address="127.0.0.1", listens=[pb.Listen(declared=80, actual=20080), pb.Listen(declared=8080, actual=8080)],
    ),
]  # fmt: skip
STATUS = pb.StatusReply(
    version="0.1.0", trust_domain="cluster.local", ready=False,
    not_ready_because="a change is being refused", revision="5f1c4e8b9a7d6c3b", config="1122334455667788",
    refused=[
        pb.Refusal(
            code="policy", message="no `contxt`", file="policies/web.cedar", line=7, remedy="did you mean `context`?"
        ),
        pb.Refusal(code="yaml", message="duplicate key `a`", file="groups.yaml", line=2),
    ],
    decisions=12, denials=2, errors=1, policies=5, http_address="127.0.0.1:20100", started_at=NOW - 7300, pid=4711,
    warnings=["the disk is nearly full"],
)  # fmt: skip
SHADOW = pb.Shadow(
    revision="77aa5f1c4e8b9a7d", policies=6, folder="next", agree=40, would_deny=3, would_allow=1, errors=0
)
PROXIES = [
    pb.ProxyStatus(
        instance="web-v1", spiffe_id=WEB, connected=True, envoy_version="1.40.0", connected_at=NOW - 90,
        types=[
            pb.TypeStatus(type="clusters", state="synced", changed_at=NOW - 80, resources=3),
            pb.TypeStatus(type="endpoints", state="sent", changed_at=NOW - 80, resources=3),
            pb.TypeStatus(type="listeners", state="rejected", rejection="Proto constraint\x1b[31m failed", resources=2),
            pb.TypeStatus(type="routes", state="synced", changed_at=NOW - 80, resources=1),
        ],
    ),
    pb.ProxyStatus(instance="edge"),
]  # fmt: skip
CA = pb.ShowCaReply(
    trust_domain="cluster.local", root_pem="-----BEGIN CERTIFICATE-----\n", root_sha256="ab" * 32,
    root_not_after=NOW + 10 * 365 * 86400, intermediate_not_after=NOW - 60, issued=42,
)  # fmt: skip

MS = 1_000_000
DENY = {"decision": "deny", "policy": "no-delete", "decision_id": "0193-7"}
SUMMARY = pb.TraceSummary(
    id="4bf92f3577b34da6a3ce929d0e0e4736", name="ingress", service="edge.default", start_ns=NOW * 1000 * MS,
    duration_ns=12 * MS, spans=4, services=["edge.default", "web.default"], denied=True,
)  # fmt: skip
TRACES = pb.TracesReply(
    traces=[SUMMARY, pb.TraceSummary(id="ab" * 16, name="GET /\x1b[2J", service="web.default", failed=True, spans=1)],
    window=pb.TraceWindow(bound=32 << 20, used=3 << 19, traces=2, spans=5),
)
TRACE = pb.TraceReply(
    summary=SUMMARY,
    rows=[
        pb.TraceRow(name="ingress", service="edge.default", duration_ns=12 * MS, tags=[
            pb.TraceTag(name="http.method", value="GET"), pb.TraceTag(name="http.url", value="http://edge/\x1b[2J"),
            pb.TraceTag(name="http.status_code", value="403"),
        ]),
        pb.TraceRow(name="ingress", service="web.default", depth=1, offset_ns=3 * MS, duration_ns=6 * MS, moved_ns=5,
                    failed=True, **DENY),
        pb.TraceRow(name="Check", service="web.default", depth=2, offset_ns=11 * MS, duration_ns=MS // 10, **DENY),
        pb.TraceRow(name="SELECT", service="db.default", orphan=True, failed=True, offset_ns=12 * MS),
    ],
    cut=2,
)  # fmt: skip

OUTCOMES = [
    Outcome("the page", "anonymous GET http://edge/page", 200, 200, 12.34, decision="allow", policy="world-to-edge"),
    Outcome(
        "web asks db", "web-v1 GET http://db:5432/x", 403, 403, 3.2, decision="deny",
        why="no policy permits it; it would be allowed by a permit for `web` on `db`",
    ),
    Outcome("nobody", "anonymous GET http://edge/none", 200, 0, 0.0, problem="no answer within 15 s"),
]  # fmt: skip


def printed(parts: Any) -> str:
    stream = io.StringIO()
    output.show(*parts, stream=stream)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("status", status.lines(STATUS, PLACES, NOW)),
        ("status_shadow", status.lines(pb.StatusReply(ready=True, shadow=SHADOW), [], NOW)),
        ("proxy_status", proxy.lines(PROXIES, NOW)),
        ("ca_show", ca.lines(CA, NOW)),
        ("traces_list", traces.listed(TRACES)),
        ("traces_none", traces.listed(pb.TracesReply(window=pb.TraceWindow(bound=32 << 20)))),
        ("traces_show", traces.tree(TRACE)),
        ("checks", check_table.lines(OUTCOMES, 200)),
        ("checks_narrow", check_table.lines(OUTCOMES, 80)),
    ],
)
def test_what_people_read(name: str, parts: Any, pytestconfig: pytest.Config) -> None:
    check_text(f"cli/{name}.txt", printed(parts), update=pytestconfig.getoption("--update-golden"))


def test_status_for_programs_has_every_field(policyd: Callable[..., Said], folder: Path, fake: FakeAdmin) -> None:
    fake.replies |= {"Status": STATUS, "Instances": pb.InstancesReply(instances=PLACES)}

    value = policyd("status", "--dir", folder, "--json").value

    assert (value["pid"], value["decisions"], value["started_at"]) == (4711, 12, NOW - 7300)
    assert value["refused"][1] == {
        "code": "yaml", "message": "duplicate key `a`", "file": "groups.yaml", "line": 2, "remedy": "",
    }  # fmt: skip
    assert [place["name"] for place in value["instances"]] == ["edge", "web-v1"]
    assert value["instances"][0]["listens"] == [{"declared": 80, "actual": 20080}, {"declared": 8080, "actual": 8080}]
    assert value["instances"][1]["proxy_url"] == "http://web-v1:secret@127.0.0.1:20003"


def test_each_of_several_ports_is_shown_by_its_name() -> None:
    several = [
        pb.PortPlace(name="http", app_port=1, inbound_port=2),
        pb.PortPlace(name="tcp-admin", app_port=4, inbound_port=5),
    ]
    place = pb.InstancePlace(name="web-v1", role="sidecar", app_port=1, inbound_port=2, outbound_port=3, ports=several)

    assert status.ports(place) == "http: application 1, sidecar 2; tcp-admin: application 4, sidecar 5; proxy 3"
    without = pb.InstancePlace(role="sidecar", ports=[pb.PortPlace(name="grpc", app_port=1, inbound_port=1)])
    assert status.ports(without) == "grpc: application 1"


def test_what_is_tried_is_in_numbers_for_programs(policyd: Callable[..., Said], folder: Path, fake: FakeAdmin) -> None:
    fake.replies |= {"Status": pb.StatusReply(ready=True, shadow=SHADOW)}

    assert policyd("status", "--dir", folder, "--json").value["shadow"] == {
        "revision": "77aa5f1c4e8b9a7d", "policies": 6, "folder": "next", "agree": 40, "would_deny": 3,
        "would_allow": 1, "errors": 0, "skipped": 0,
    }  # fmt: skip


def test_people_are_not_shown_secrets(policyd: Callable[..., Said], folder: Path, fake: FakeAdmin) -> None:
    fake.replies |= {"Status": STATUS, "Instances": pb.InstancesReply(instances=PLACES)}

    said = policyd("status", "--dir", folder)

    assert "secret" not in said.out
    assert "web-v1" in said.out


def test_proxies_for_programs(policyd: Callable[..., Said], folder: Path, fake: FakeAdmin) -> None:
    fake.replies["Proxies"] = pb.ProxiesReply(proxies=PROXIES)

    value = policyd("proxy", "status", "--dir", folder, "--json").value

    assert [proxy["instance"] for proxy in value["proxies"]] == ["edge", "web-v1"]
    assert value["proxies"][1]["types"][0] == {
        "type": "clusters", "state": "synced", "rejection": "", "changed_at": NOW - 80, "resources": 3,
    }  # fmt: skip


def test_the_root_alone_is_pem(policyd: Callable[..., Said], folder: Path, fake: FakeAdmin) -> None:
    fake.replies["ShowCa"] = CA

    assert policyd("ca", "show", "--pem", "--dir", folder).out == "-----BEGIN CERTIFICATE-----\n"
    assert policyd("ca", "show", "--json", "--dir", folder).value["issued"] == 42


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("a\x1b[31mred", "a�[31mred"),
        ("tab\there", "tab here"),
        ("two\nlines", "two\nlines"),
        ("back\rwards", "back�wards"),
        ("\u202egnp.exe", "�gnp.exe"),
        ("c1\x9b31m", "c1�31m"),
        ("x" * 5000, "x" * 1999 + "…"),
    ],
)
def test_others_text_cannot_steer_the_terminal(text: str, shown: str) -> None:
    assert clean(text) == shown


class Terminal(StringIO):
    """A terminal; nothing says how wide, so that it is 80 columns or as COLUMNS says."""

    def isatty(self) -> bool:
        """It is one."""
        return True


def test_an_address_is_printed_in_one_piece_however_narrow_the_terminal() -> None:
    terminal = Terminal()
    link = f"http://127.0.0.1:40000/enter?link={'0123456789abcdef' * 20}"
    output.show(f"console  {link}", stream=terminal)
    assert link in terminal.getvalue()


def test_a_table_is_never_cut_where_no_terminal_limits_it() -> None:
    wide = "w" * 300

    assert (
        printed([output.table(("A", "B"), [(wide, "x"), ("[bold]y", "z")])])
        == f"A{' ' * 301}B\n{wide}  x\n[bold]y{' ' * 295}z\n"
    )


def test_an_invalid_input_is_every_problem(capsys: pytest.CaptureFixture[str]) -> None:
    problems = [
        Problem("a", "`x` is wrong", "mesh/a.yaml", 3, remedy="mend it"),
        Problem("b", "`y` is missing", "groups.yaml"),
    ]

    output.show_error(InvalidInput(problems))

    assert capsys.readouterr().err == (
        "mesh/a.yaml:3: `x` is wrong; mend it\ngroups.yaml: `y` is missing\nerror: 2 problems found\n"
    )


def test_an_error_has_its_remedy_below(capsys: pytest.CaptureFixture[str]) -> None:
    output.show_error(StateError("it is broken", remedy="mend it"))

    assert capsys.readouterr().err == "error: it is broken\n  mend it\n"


def test_times_are_told_as_people_do() -> None:
    assert [span(number) for number in (0, 59, 60, 3599, 3600, 86399, 86400, -5)] == [
        "0 s", "59 s", "1 min", "59 min", "1 h", "23 h", "1 d", "0 s",
    ]  # fmt: skip
    assert (moment(0), moment(NOW), since(0, NOW), since(NOW - 61, NOW)) == (
        "-",
        "2026-11-23 12:00:00 UTC",
        "-",
        "1 min",
    )
