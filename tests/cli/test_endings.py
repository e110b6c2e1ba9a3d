"""Every exit code that is declared of a command is one that it ends with: real command lines, row by row."""

from __future__ import annotations

import importlib
import inspect
import json
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import grpc
import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from policyd._pb import admin_pb2 as pb
from policyd.audit.journal import Journal
from policyd.cli.endings import ENDINGS, EVERY
from policyd.cli.exits import Exit
from policyd.instance import alone
from tests.audit.samples import NOON, WRITER, an_entry
from tests.cli import recorded
from tests.cli.conftest import Said
from tests.cli.test_ca import PLACES, signing
from tests.cli.test_ca_files import AUTHORITY, bundle_files, chain_file, csr_file
from tests.cli.test_main import tree
from tests.cli.test_policy_compile import NOT_COMPILED
from tests.cli.test_policy_shadow import AGREES, DENIES
from tests.cli.test_proxy import HELD, holds
from tests.fakes.admin import FakeAdmin, serving
from tests.fakes.clock import FakeClock

# Folders: `good` was served and asked; `denies` is the same with a policy that denies what was allowed, `same` with one
# that changes nothing, `odd` with what is warned of, `bad` with what does not parse, `nocase` with a case that is none,
# `torn` with a record that was changed; `up` is up. `new` never ran, `tried` and `agreed` recorded a trial. For `mesh`
# a server answers, for `refusing` one that refuses, for `lacking` one that knows nothing of what it is asked about.
CASES: Final[Mapping[tuple[str, Exit], tuple[str, ...]]] = {
    ("up", Exit.ERROR): ("up {up}",),
    ("up", Exit.INVALID): ("up {bad}", "up {new}"),
    ("status", Exit.OK): ("status --dir {mesh}",),
    ("status", Exit.ERROR): ("status --dir {new}", "status --dir {refusing}"),
    ("why", Exit.OK): (
        "why --dir {good}",
        "why --dir {good} --since 2026-11-27T00:00:00Z",
        f"why {0:032x} --dir {{good}}",
    ),
    ("why", Exit.ERROR): ("why --dir {new}",),
    ("why", Exit.INVALID): ("why ffffffff --dir {good}",),
    ("check", Exit.OK): ("check {good}", "check {odd}"),
    ("check", Exit.INVALID): ("check {bad}", "check {denies}", "check {bad} --json"),
    ("authorize", Exit.OK): ("authorize productpage GET http://details/details/0 --dir {good}",),
    ("authorize", Exit.DENIED): ("authorize reviews GET http://details/details/0 --dir {good}",),
    ("authorize", Exit.INVALID): (
        "authorize nobody GET http://details/ --dir {good}",
        "authorize productpage GET http://details/ --dir {bad}",
    ),
    ("route", Exit.OK): ("route productpage GET http://details/details/0 --dir {good}",),
    ("route", Exit.ERROR): ("route ratings GET http://nowhere.example.com/ --dir {good}",),
    ("route", Exit.DENIED): ("route reviews-v1 GET http://details/details/0 --dir {good}",),
    ("route", Exit.INVALID): (
        "route nobody GET http://details/ --dir {good}",
        "route productpage GET http://details/ --dir {bad}",
    ),
    ("policy check", Exit.OK): ("policy check {good} --strict", "policy check {odd}"),
    ("policy check", Exit.DENIED): ("policy check {odd} --strict",),
    ("policy check", Exit.INVALID): ("policy check {bad}",),
    ("policy fmt", Exit.OK): ("policy fmt --check {good}", "policy fmt --diff {odd}"),
    ("policy fmt", Exit.DENIED): ("policy fmt --check {odd}",),
    ("policy fmt", Exit.INVALID): ("policy fmt {bad}",),
    ("policy test", Exit.OK): ("policy test {good} --min-coverage 100", "policy test {odd}"),
    ("policy test", Exit.DENIED): ("policy test {denies}", "policy test {odd} --min-coverage 100"),
    ("policy test", Exit.INVALID): ("policy test {bad}", "policy test {nocase}"),
    ("policy explain", Exit.OK): ("policy explain productpage GET http://details/details/0 --dir {good}",),
    ("policy explain", Exit.ERROR): (
        "policy explain --decision 00000000 --dir {new}",
        "policy explain productpage GET http://details/ --proxy details-v1 --dir {new}",
        "policy explain productpage GET http://details/ --proxy details-v1 --dir {refusing}",
    ),
    ("policy explain", Exit.DENIED): ("policy explain reviews GET http://details/details/0 --dir {good}",),
    ("policy explain", Exit.INVALID): (
        "policy explain productpage GET http://details/ --dir {bad}",
        "policy explain nobody GET http://details/ --dir {good}",
        "policy explain --decision ffffffff --dir {good}",
    ),
    ("policy who-can", Exit.OK): ("policy who-can GET http://details/ --dir {good}",),
    ("policy who-can", Exit.INVALID): (
        "policy who-can GET http://details/ --dir {bad}",
        "policy who-can GET http://nothing/ --dir {good}",
        "policy who-can GET http://details/ --revision ffffffff --dir {good}",
    ),
    ("policy what-can", Exit.OK): ("policy what-can details --dir {good}",),
    ("policy what-can", Exit.INVALID): (
        "policy what-can details --dir {bad}",
        "policy what-can nobody --dir {good}",
        "policy what-can details --revision ffffffff --dir {good}",
    ),
    ("policy diff", Exit.OK): ("policy diff {good} {good}", "policy diff {good} {same}"),
    ("policy diff", Exit.ERROR): ("policy diff live {good}",),
    ("policy diff", Exit.DENIED): ("policy diff {good} {denies}", "policy diff {good} {same} --strict"),
    ("policy diff", Exit.INVALID): ("policy diff {good} {bad}", "policy diff {good} neither"),
    ("policy replay", Exit.OK): ("policy replay --candidate {good} --dir {good}",),
    ("policy replay", Exit.ERROR): ("policy replay --candidate {good} --dir {new}",),
    ("policy replay", Exit.DENIED): ("policy replay --candidate {denies} --dir {good}",),
    ("policy replay", Exit.INVALID): ("policy replay --candidate {bad} --dir {good}",),
    ("policy suggest", Exit.OK): ("policy suggest --dir {good}",),
    ("policy suggest", Exit.ERROR): ("policy suggest --dir {new}",),
    ("policy suggest", Exit.DENIED): ("policy suggest --dir {denies}",),
    ("policy suggest", Exit.INVALID): ("policy suggest --dir {bad}",),
    ("policy shadow-report", Exit.OK): ("policy shadow-report --dir {agreed}",),
    ("policy shadow-report", Exit.ERROR): ("policy shadow-report --dir {good}", "policy shadow-report --dir {new}"),
    ("policy shadow-report", Exit.DENIED): ("policy shadow-report --dir {tried}",),
    ("policy compile", Exit.OK): ("policy compile --dir {odd}", "policy compile --strict --dir {good}"),
    ("policy compile", Exit.DENIED): ("policy compile --strict --dir {odd}",),
    ("policy compile", Exit.INVALID): ("policy compile --dir {bad}", "policy compile --service none --dir {good}"),
    ("schema", Exit.OK): ("schema workloads", "schema --write {scratch}"),
    ("schema", Exit.INVALID): ("schema none",),
    ("log query", Exit.OK): ("log query --dir {good}", "log query --resource none --dir {good}"),
    ("log query", Exit.ERROR): ("log query --dir {new}",),
    ("log stats", Exit.OK): ("log stats --dir {good}", "log stats --resource none --dir {good}"),
    ("log stats", Exit.ERROR): ("log stats --dir {new}",),
    ("log sql", Exit.OK): ("log sql SELECT(1) --dir {good}",),
    ("log sql", Exit.ERROR): ("log sql SELEKT --dir {good}", "log sql SELECT(1) --dir {new}"),
    ("log show", Exit.OK): (f"log show {0:032x} --dir {{good}}",),
    ("log show", Exit.ERROR): ("log show 00000000 --dir {new}",),
    ("log show", Exit.INVALID): ("log show ffffffff --dir {good}",),
    ("log verify", Exit.OK): ("log verify --dir {good}",),
    ("log verify", Exit.ERROR): ("log verify --dir {torn}", "log verify --dir {new}"),
    ("log tail", Exit.OK): ("log tail --no-follow --dir {good}",),
    ("log tail", Exit.ERROR): ("log tail --no-follow --dir {new}",),
    ("ca inspect", Exit.OK): ("ca inspect {chain}", "ca inspect {csr}"),
    ("ca inspect", Exit.INVALID): ("ca inspect {taken}/key.pem",),
    ("ca issue", Exit.OK): ("ca issue web --out {scratch} --dir {mesh}", "ca issue web --audience shop --dir {mesh}"),
    ("ca issue", Exit.ERROR): (
        "ca issue web --out {scratch} --dir {new}",
        "ca issue web --out {scratch} --dir {refusing}",
        "ca issue web --out {taken} --dir {mesh}",
    ),
    ("ca issue", Exit.INVALID): (
        "ca issue nobody --out {scratch} --dir {mesh}",
        "ca issue web --audience shop --dir {lacking}",
    ),
    ("ca sign", Exit.OK): ("ca sign {csr} --workload web --dir {mesh}",),
    ("ca sign", Exit.ERROR): (
        "ca sign {csr} --workload web --dir {new}",
        "ca sign {csr} --workload web --dir {refusing}",
    ),
    ("ca sign", Exit.INVALID): (
        "ca sign {chain} --workload web --dir {mesh}",
        "ca sign {csr} --workload nobody --dir {mesh}",
        "ca sign {csr} --workload web --dir {lacking}",
    ),
    ("ca verify", Exit.OK): ("ca verify {chain} --bundle {roots} --trust-domain cluster.local",),
    ("ca verify", Exit.ERROR): ("ca verify {chain} --dir {new}",),
    ("ca verify", Exit.DENIED): ("ca verify {chain} --bundle {roots} --trust-domain other.test",),
    ("ca verify", Exit.INVALID): (
        "ca verify {csr} --bundle {roots} --trust-domain cluster.local",
        "ca verify {chain} --bundle {csr} --trust-domain cluster.local",
    ),
    ("mesh describe", Exit.OK): ("mesh describe details --dir {good}",),
    ("mesh describe", Exit.INVALID): ("mesh describe details --dir {bad}", "mesh describe none --dir {good}"),
    ("mesh analyze", Exit.OK): ("mesh analyze {good}", "mesh analyze {odd}"),
    ("mesh analyze", Exit.DENIED): ("mesh analyze {odd} --failure-threshold warning",),
    ("mesh analyze", Exit.INVALID): ("mesh analyze {bad}",),
    ("proxy diff", Exit.OK): ("proxy diff holds-it --dir {mesh}",),
    ("proxy diff", Exit.ERROR): ("proxy diff holds-it --dir {new}", "proxy diff holds-it --dir {refusing}"),
    ("proxy diff", Exit.DENIED): ("proxy diff holds-nothing --dir {mesh}",),
    ("proxy diff", Exit.INVALID): ("proxy diff holds-it --dir {lacking}",),
}
IN_A_MESH: Final[Mapping[tuple[str, Exit], str]] = {  # rows that only what really runs ends with, and what drives them
    ("up", Exit.OK): "tests/e2e/test_up.py::test_check_sends_the_requests_and_leaves_nothing_behind",
}
DENIES_ALL: Final = '@id("no")\nforbid (principal, action == Action::"GET", resource);\n'
NOT_FORMATTED: Final = '@id("none")   permit (principal is Workload, action, resource == Service::"none.default");\n'

AGAIN: Final = """\
@id("details-again")
permit (principal == Workload::"spiffe://cluster.local/ns/default/sa/bookinfo-productpage", action == Action::"GET",
    resource == Service::"details.default")
when { context.request.path like "/details/0*" };
"""
NEVER_REACHED: Final = """\
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: odd}
spec:
  hosts: [ratings]
  http:
    - {route: [{destination: {host: ratings}}]}
    - {route: [{destination: {host: ratings}}]}
"""


@pytest.fixture(scope="module")
def places(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Path]]:
    """What the command lines name."""
    made = tmp_path_factory.mktemp("endings")
    there = {name: made / name for name in ("good", "denies", "same", "odd", "bad", "nocase", "torn", "up", "taken")}
    recorded.served(root, there["good"], 150)
    for name in ("denies", "same", "odd", "bad", "nocase", "torn", "up"):
        shutil.copytree(there["good"], there[name])
    (there["denies"] / "policies" / "no.cedar").write_text(DENIES_ALL)
    (there["same"] / "policies" / "same.cedar").write_text(AGAIN)
    (there["odd"] / "mesh" / "odd.yaml").write_text(NEVER_REACHED)
    (there["odd"] / "policies" / "odd.cedar").write_text(NOT_COMPILED + NOT_FORMATTED)
    (there["bad"] / "policies" / "bad.cedar").write_text("permit (principal, action resource);\n")
    (there["nocase"] / "cases" / "none.yaml").write_text("- {name: what}\n")
    (segment,) = (there["torn"] / ".policyd" / "journal").glob("*.jsonl")
    segment.write_bytes(segment.read_bytes().replace(b'"action"', b'"Action"', 1))
    there["taken"].mkdir()
    (there["taken"] / "key.pem").write_text("mine")
    there |= {"chain": chain_file(made), "csr": csr_file(made, Encoding.PEM), "roots": bundle_files(made)[1]}
    for name in ("new", "agreed", "tried", "mesh", "refusing", "lacking"):
        there[name] = made / name
        (there[name] / ".policyd").mkdir(parents=True, mode=0o700)
    for name, shadow in (("agreed", AGREES), ("tried", DENIES)):
        journal = Journal(there[name] / ".policyd" / "journal", WRITER, FakeClock(NOON))
        journal.append(an_entry(time=NOON - timedelta(seconds=1), shadow=shadow))
        journal.close()
    with ExitStack() as open_, tempfile.TemporaryDirectory(prefix="t") as short:  # socket paths end at 107 bytes
        for name, failure in (("mesh", None), ("refusing", REFUSED), ("lacking", LACKING)):
            socket = Path(short) / name
            (there[name] / ".policyd" / "server.json").write_text(json.dumps({"pid": 1, "admin_socket": str(socket)}))
            open_.enter_context(serving(_server(failure), socket))
        open_.enter_context(alone(there["up"]))
        yield there


REFUSED: Final = (grpc.StatusCode.PERMISSION_DENIED, "no policy permits it")
LACKING: Final = (grpc.StatusCode.INVALID_ARGUMENT, "it has no such")


def _server(failure: tuple[grpc.StatusCode, str] | None) -> FakeAdmin:
    """One with workloads and two proxies; with a failure it tells what there is, and no more."""
    fake = FakeAdmin(Instances=pb.InstancesReply(instances=PLACES), Issue=signing(AUTHORITY), Inspect=_inspected)
    if failure is not None:
        fake.failures = dict.fromkeys(("Decide", "Inspect", "Issue", "IssueJwt"), failure)
        fake.failures |= {"Status": failure} if failure is REFUSED else {}
    return fake


def _inspected(request: pb.InspectRequest) -> pb.InspectReply:
    return holds(**({"clusters": HELD} if request.instance == "holds-it" else {}))(request)


@pytest.mark.parametrize(("row", "line"), [(row, line) for row, lines in CASES.items() for line in lines], ids=str)
def test_a_command_ends_with_what_is_declared(
    policyd: Callable[..., Said], places: dict[str, Path], tmp_path: Path, row: tuple[str, Exit], line: str
) -> None:
    command, code = row
    assert line.startswith(f"{command} ")

    said = policyd(*(word.format(**places, scratch=tmp_path / "out") for word in line.split()))

    assert (said.code, "Traceback" in said.err) == (code, False), said


def test_the_cases_are_the_declared_rows() -> None:
    declared = [(command, code) for command, endings in ENDINGS.items() for code in endings]

    assert sorted([*CASES, *IN_A_MESH]) == sorted(declared)


@pytest.mark.parametrize("named", IN_A_MESH.values())
def test_what_drives_a_row_in_a_mesh_is_there(root: Path, named: str) -> None:
    file, _, test = named.partition("::")

    assert f"\ndef {test}(" in (root / file).read_text()


def test_each_command_that_can_answer_no_is_declared_and_no_other() -> None:
    commands = dict(tree())
    can = {name for name, one in commands.items() if "Exit.DENIED" in inspect.getsource(_module(one))}

    assert {name for name, endings in ENDINGS.items() if Exit.DENIED in endings} == can
    assert set(ENDINGS) <= set(commands)


def _module(command: Any) -> Any:
    return importlib.import_module(command.callback.__module__)


def test_no_command_takes_an_option_that_it_has_not(policyd: Callable[..., Said]) -> None:
    codes = {name: policyd(*name.split(), "--no-such-option").code for name, _ in tree()}

    assert codes == dict.fromkeys(codes, Exit.USAGE)


def test_what_every_command_can_end_with_it_does(root: Path, places: dict[str, Path]) -> None:
    command = [sys.executable, "-m", "policyd.cli.main"]
    full, wrong = (
        subprocess.run(
            ["/bin/sh", "-c", f'"$@" {end}', "sh", *command, "version"], cwd=root, capture_output=True, timeout=60
        )
        for end in ("> /dev/full", "--loud")
    )
    tail = [*command, "log", "tail", "--dir", str(places["good"]), "-n", "1"]
    with subprocess.Popen(tail, cwd=root, stdout=subprocess.PIPE) as follows:
        try:
            assert follows.stdout is not None
            assert follows.stdout.readline()  # now it waits for more
            follows.send_signal(signal.SIGINT)
            follows.wait(60)
        finally:
            follows.kill()

    assert [full.returncode, wrong.returncode, follows.returncode] == sorted(EVERY)


def test_a_code_is_what_shells_see_and_means_something() -> None:
    assert {one.name: int(one) for one in Exit} == {
        "OK": 0, "ERROR": 1, "DENIED": 2, "INVALID": 3, "USAGE": 64, "INTERRUPTED": 130,
    }  # fmt: skip
    assert all(one.meaning.endswith(".") for one in Exit)
