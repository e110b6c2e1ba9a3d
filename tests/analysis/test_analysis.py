"""One good folder, and one thing wrong with it in each row."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from policyd.analysis.model import Analysed
from policyd.analysis.routes import covers
from policyd.analysis.run import analyse
from policyd.cli.exits import Exit
from policyd.mesh.build import build
from policyd.mesh.declare import declare
from policyd.mesh.istio.matches import HttpMatch
from policyd.mesh.placement import assumed
from policyd.offline.examined import examined
from policyd.policy.finding_model import RULES
from tests.analysis.folders import (
    GATEWAY,
    GOOD,
    POLICIES,
    ROUTES,
    RULES_OF_API,
    TO_WEB,
    WORKLOADS,
    resource,
    virtual_service,
    write,
)
from tests.cli.conftest import Said, policyd  # noqa: F401 - the command line as a fixture


def found(folder: Path) -> list[tuple[str, str]]:
    """Codes and places of what is found."""
    return [(one.code, f"{one.file}:{one.line}") for one in examined(folder, ())[0]]


def test_a_good_folder_has_nothing(tmp_path: Path) -> None:
    assert found(write(tmp_path)) == []


ALL = "  egress: [{hosts: ['*/*']}]\n"
STRICT = "  mtls: {mode: STRICT}\n"
OUTSIDE = (
    resource(
        "ServiceEntry",
        "  hosts: [a.example.com]\n  ports: [{number: 80, name: http, protocol: HTTP}]\n  resolution: DNS\n",
    )
    + "---\n"
)
UNVERIFIED = "  host: a.example.com\n  trafficPolicy: {tls: {mode: SIMPLE, insecureSkipVerify: true}}\n"
UNVERIFIED_PORT = (
    "  host: a.example.com\n  trafficPolicy:\n"
    "    portLevelSettings: [{port: {number: 80}, tls: {mode: SIMPLE, insecureSkipVerify: true}}]\n"
)
PEERS, TOKENS = "security.istio.io/v1", "security.istio.io/v1"
GATEWAY_API = "gateway.networking.k8s.io/v1"
SERVICE = "  selector: {app: web}\n  ports: [{port: 81, targetPort: 80}]\n"
JWT = "  jwtRules: [{issuer: https://a.example.com, jwksUri: https://a.example.com/keys}]\n"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        # what the folder is refused for
        (virtual_service("    - {route: [{destination: {host: nope}}]}"), ("IST0101", "mesh/more.yaml:7")),
        (virtual_service("    - {route: [{destination: {host: api, subset: v9}}]}"), ("IST0101", "mesh/more.yaml:7")),
        (virtual_service("    - {route: [{destination: {host: api, port: {number: 1}}}]}"),
         ("IST0112", "mesh/more.yaml:7")),
        (virtual_service(f"    - {TO_WEB}", hosts="[api]"), ("IST0109", "mesh/routes.yaml:13")),
        (virtual_service("    - {match: [{uri: {regex: '('}}], redirect: {uri: /}}"), ("IST0122", "mesh/more.yaml:7")),
        (virtual_service(f"    - {TO_WEB}\n    - {{route: [{{destination: {{host: web}}, weight: -1}}]}}"),
         ("IST0106", "mesh/more.yaml:8")),
        ({"mesh/routes.yaml": ROUTES.replace("gateways: [edge]", "gateways: [egde]")},
         ("IST0101", "mesh/routes.yaml:6")),
        ({"mesh/routes.yaml": ROUTES.replace("www.example.com", "www.example.org")},
         ("IST0132", "mesh/routes.yaml:5")),
        ({"mesh/gateway.yaml": GATEWAY.replace("8000", "8001")}, ("IST0162", "mesh/gateway.yaml:6")),
        ({"mesh/gateway.yaml": GATEWAY.replace("ingressgateway", "nothing")}, ("IST0101", "mesh/gateway.yaml:5")),
        ({"mesh/more.yaml": GATEWAY.replace("name: edge", "name: tcp").replace("HTTP", "TCP")},
         ("IST0145", "mesh/more.yaml:6")),
        ({"mesh/more.yaml": resource("DestinationRule", "  host: apy\n  subsets: [{name: a}]\n")},
         ("IST0174", "mesh/more.yaml:5")),
        ({"mesh/more.yaml": resource("Sidecar", "  egress: [{hosts: [./*, ./nope]}]\n")},
         ("IST0101", "mesh/more.yaml:5")),
        ({"mesh/more.yaml": resource("Sidecar", ALL) + "---\n" + resource("Sidecar", ALL, name="again")},
         ("IST0110", "mesh/more.yaml:9")),
        ({"mesh/more.yaml": resource("PeerAuthentication", STRICT, group=PEERS) + "---\n"
          + resource("PeerAuthentication", STRICT, name="again", group=PEERS)}, ("PM0001", "mesh/more.yaml:9")),
        ({"mesh/more.yaml": resource("DestinationRule", "  host: web\n  trafficPolicy: {tls: {mode: DISABLE}}\n")},
         ("IST0113", "mesh/more.yaml:6")),
        ({"mesh/more.yaml": resource("PeerAuthentication", "  selector: {matchLabels: {app: nope}}\n", group=PEERS)},
         ("IST0127", "mesh/more.yaml:5")),
        ({"mesh/more.yaml": "a: [\n"}, ("IST0106", "mesh/more.yaml:1")),
        ({"mesh/more.yaml": resource("VirtualService", "  hostz: [web]\n")}, ("IST0106", "mesh/more.yaml:5")),
        ({"workloads.yaml": "workloads: {a: {}}\n"}, ("PD0001", "workloads.yaml:1")),
        # what works, and is probably not meant
        (virtual_service(f"    - {TO_WEB}\n    - {TO_WEB}"), ("IST0130", "mesh/more.yaml:8")),
        (virtual_service("    - {match: [{uri: {prefix: /a}}], redirect: {uri: /x}}\n"
                         "    - {match: [{uri: {exact: /ab}}, {uri: {exact: /b}}], redirect: {uri: /y}}\n"),
         ("IST0131", "mesh/more.yaml:8")),
        (virtual_service("    - route: [{destination: {host: web}, weight: 1}, {destination: {host: api}}]\n"),
         ("PM0101", "mesh/more.yaml:7")),
        ({"mesh/rules.yaml": RULES_OF_API.replace("version: v1", "version: v2")}, ("IST0173", "mesh/rules.yaml:6")),
        ({"mesh/routes.yaml": ROUTES.replace(", subset: v1", "")}, ("PM0102", "mesh/rules.yaml:6")),
        ({"mesh/more.yaml": GATEWAY.replace("name: edge", "name: idle").replace("www", "x")},
         ("PM0201", "mesh/more.yaml:3")),
        ({"mesh/more.yaml": GATEWAY.replace("name: edge", "name: auto")
          .replace("number: 8000", "number: 8001").replace("HTTP", "TLS}, tls: {mode: AUTO_PASSTHROUGH")},
         ("IST0162", "mesh/more.yaml:6")),
        ({"workloads.yaml": WORKLOADS.replace("[8000]", "[8000, 8443]")}, ("PM0202", "workloads.yaml:5")),
        ({"mesh/more.yaml": resource("HTTPRoute", "  parentRefs: [{name: nobody}]\n", group=GATEWAY_API)},
         ("PM0203", "mesh/more.yaml:3")),
        ({"mesh/more.yaml": resource("Service", SERVICE, group="v1")}, ("IST0118", "mesh/more.yaml:6")),
        ({"mesh/more.yaml": resource("Service", SERVICE.replace("app: web", "app: none"), group="v1")},
         ("IST0127", "mesh/more.yaml:5")),
        ({"mesh/more.yaml": OUTSIDE + resource("DestinationRule", UNVERIFIED)}, ("IST0128", "mesh/more.yaml:14")),
        ({"mesh/more.yaml": OUTSIDE + resource("DestinationRule", UNVERIFIED_PORT)}, ("IST0129", "mesh/more.yaml:15")),
        ({"mesh/more.yaml": resource("PeerAuthentication", "  mtls: {mode: PERMISSIVE}\n", group=PEERS)},
         ("PM0302", "mesh/more.yaml:5")),
        (virtual_service(f"    - {TO_WEB}\n  exportTo: [., elsewhere]"), ("PM0401", "mesh/more.yaml:8")),
        ({"mesh/more.yaml": resource("RequestAuthentication", JWT, group=TOKENS)}, ("PM0501", "mesh/more.yaml:5")),
        ({"policies/api.cedar": POLICIES.replace("api.default", "apy.default")}, ("PD0101", "policies/api.cedar:2")),
    ],
)  # fmt: skip
def test_one_thing_that_is_wrong(tmp_path: Path, changes: Mapping[str, str], expected: tuple[str, str]) -> None:
    assert found(write(tmp_path, changes)) == [expected]


def test_callers_in_plain_text_are_told_of_both_ends(tmp_path: Path) -> None:
    clear = resource("DestinationRule", "  host: web\n  trafficPolicy: {tls: {mode: DISABLE}}\n")
    lenient = resource("PeerAuthentication", "  mtls: {mode: PERMISSIVE}\n", group=PEERS)

    assert found(write(tmp_path, {"mesh/a.yaml": clear, "mesh/b.yaml": lenient})) == [
        ("PM0301", "mesh/a.yaml:6"),
        ("PM0302", "mesh/b.yaml:5"),
    ]


def test_ports_of_connections_take_none_in_plain_text(tmp_path: Path) -> None:
    tcp = WORKLOADS.replace("  web", "  db: {service: db, port: 5432, protocol: tcp}\n  web", 1)
    lenient = resource("PeerAuthentication", "  mtls: {mode: PERMISSIVE}\n", group=PEERS)

    assert found(write(tmp_path, {"workloads.yaml": tcp, "mesh/b.yaml": lenient})) == [
        ("PM0303", "mesh/b.yaml:5"),
        ("PM0302", "mesh/b.yaml:5"),
    ]


def test_a_certificate_of_two_gateways(tmp_path: Path) -> None:
    tls = "tls: {mode: SIMPLE, credentialName: www}"
    one, two = (
        GATEWAY.replace("name: edge", f"name: {name}").replace("HTTP}", f"HTTPS}}, {tls}").replace("www.", f"{name}.")
        for name in ("a", "b")
    )
    texts = {**GOOD, "mesh/gateway.yaml": one, "mesh/more.yaml": two}
    texts["mesh/routes.yaml"] = ROUTES.replace("[edge]", "[a, b]").replace("[www.", "[a.")
    declaration = declare(texts)
    mesh = build(declaration, "cluster.local", assumed(declaration))

    assert [one.code for one in analyse(Analysed(declaration, mesh))] == ["IST0138"]


def test_what_a_resource_says_is_meant_is_left_out(tmp_path: Path) -> None:
    twice = f"    - {TO_WEB}\n    - {TO_WEB}"
    for codes in ("IST0130", "PM0101, IST0130", "*"):
        meant = f', annotations: {{galley.istio.io/analyze-suppress: "{codes}"}}'
        assert found(write(tmp_path, virtual_service(twice, more=meant))) == []
    other = ", annotations: {galley.istio.io/analyze-suppress: IST0131}"
    assert found(write(tmp_path, virtual_service(twice, more=other))) == [("IST0130", "mesh/more.yaml:8")]


def block(**fields: object) -> HttpMatch:
    return HttpMatch.model_validate(fields)


@pytest.mark.parametrize(
    ("wide", "narrow", "expected"),
    [
        ({}, {"uri": {"exact": "/a"}}, True),
        ({"uri": {"prefix": "/"}}, {}, True),
        ({"uri": {"prefix": "/a"}}, {"uri": {"prefix": "/ab"}}, True),
        ({"uri": {"prefix": "/ab"}}, {"uri": {"prefix": "/a"}}, False),
        ({"uri": {"exact": "/a"}}, {"uri": {"prefix": "/a"}}, False),
        ({"uri": {"regex": "/a.*"}}, {"uri": {"exact": "/ab"}}, False),
        ({"uri": {"regex": "/a.*"}}, {"uri": {"regex": "/a.*"}}, True),
        ({"uri": {"prefix": "/A"}, "ignoreUriCase": True}, {"uri": {"exact": "/ab"}}, True),
        ({"uri": {"exact": "/a"}}, {"uri": {"exact": "/a"}, "ignoreUriCase": True}, False),
        ({"headers": {"a": {}}}, {"headers": {"a": {"exact": "1"}}}, True),
        ({"headers": {"a": {"exact": "1"}}}, {}, False),
        ({"headers": {"a": {"exact": "1"}}}, {"headers": {"a": {"exact": "1"}, "b": {}}}, True),
        ({"withoutHeaders": {"a": {}}}, {}, False),
        ({"method": {"exact": "GET"}}, {"method": {"exact": "GET"}, "uri": {"exact": "/"}}, True),
        ({"port": 80}, {}, False),
        ({}, {"port": 80}, True),
        ({"sourceLabels": {"app": "web"}}, {"sourceLabels": {"app": "web", "version": "v1"}}, True),
        ({"sourceNamespace": "a"}, {}, False),
        ({"gateways": ["edge"]}, {"gateways": ["edge", "mesh"]}, False),
        ({"gateways": ["edge", "mesh"]}, {"gateways": ["edge"]}, True),
        ({"queryParams": {"q": {"exact": "1"}}}, {"queryParams": {"q": {}}}, False),
    ],
)
def test_a_block_within_another(wide: dict[str, object], narrow: dict[str, object], expected: bool) -> None:
    assert covers(block(**wide), block(**narrow)) is expected


def test_thresholds_and_suppressed_codes_are_the_commands(tmp_path: Path, policyd: Callable[..., Said]) -> None:  # noqa: F811
    write(tmp_path, virtual_service(f"    - {TO_WEB}\n    - {TO_WEB}"))
    plain = policyd("mesh", "analyze", tmp_path)

    assert plain.out == (
        "warning[IST0130]: rule 2 is never reached: rule 1 matches all that it does\n"
        " --> mesh/more.yaml:8:7\n"
        "  |\n"
        "8 |     - {route: [{destination: {host: web}}]}\n"
        "  |       ^\n"
        "  = put it before that one, or remove it\n"
        "\n"
        "1 warning\n"
    )
    codes = {
        (): Exit.OK,
        ("--failure-threshold", "warning"): Exit.DENIED,
        ("--failure-threshold", "warning", "-S", "IST0130"): Exit.OK,
        ("--failure-threshold", "fatal"): Exit.USAGE,
    }
    assert {words: policyd("mesh", "analyze", tmp_path, *words).code for words in codes} == codes
    hidden = policyd("mesh", "analyze", tmp_path, "--output-threshold", "error")
    assert (hidden.code, hidden.out) == (Exit.OK, "ok: nothing found\n")


def test_an_error_is_invalid_input_and_json_and_sarif_have_it(tmp_path: Path, policyd: Callable[..., Said]) -> None:  # noqa: F811
    write(tmp_path, virtual_service("    - {route: [{destination: {host: nope}}]}"))
    as_json, sarif = (policyd("mesh", "analyze", tmp_path, "--format", form) for form in ("json", "sarif"))
    (only,) = as_json.value["findings"]
    (result,) = sarif.value["runs"][0]["results"]

    assert (as_json.code, sarif.code) == (Exit.INVALID, Exit.INVALID)
    assert (only["code"], only["severity"], only["file"], only["line"]) == ("IST0101", "error", "mesh/more.yaml", 7)
    assert (result["ruleId"], result["level"]) == ("IST0101", "error")


def test_bookinfo_and_all_of_its_tasks_are_as_they_are_meant(root: Path, tmp_path: Path) -> None:
    skip = shutil.ignore_patterns(".policyd", "bookinfo", "__pycache__")
    for task in sorted((root / "examples" / "bookinfo" / "tasks").glob("*.yaml")):
        folder = tmp_path / task.stem
        shutil.copytree(root / "examples" / "bookinfo", folder, ignore=skip)
        for name in {"subsets.yaml", task.name}:
            shutil.copy(folder / "tasks" / name, folder / "mesh")
        assert {code for code, _ in found(folder)} <= {"PM0102"}, task.name


def test_every_code_of_the_mesh_is_found_by_some_row() -> None:
    text = Path(__file__).read_text()
    untested = {code for code in RULES if code.startswith(("IST", "PM")) and f'"{code}"' not in text}

    assert untested == set()
