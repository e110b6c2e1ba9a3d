"""What was issued, from the journal: what is good now, who got it, and the record of one."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from policyd.audit.ask.issuance import serial_of
from policyd.audit.record import Entry, Fault
from policyd.cli.exits import Exit
from tests.cli.conftest import Said
from tests.policy import traffic

Policyd = Callable[..., Said]
HOUR = timedelta(hours=1)
WEB, API = (f"spiffe://cluster.local/ns/default/sa/{name}" for name in ("web", "api"))
UP = 'Workload::"spiffe://cluster.local/agent/up"'


def issued(name: str, identity: str, at: datetime, life: timedelta, **changes: Any) -> Entry:
    """The record of a certificate, or of a token where `jti` is among the details."""
    detail = {
        "spiffe_id": identity,
        "evidence": {"kind": "unix", "selectors": ["unix:uid:7"]},
        "agent": "up",
        "requested_by": "workload",
        "not_after": f"{at + life:%FT%TZ}",
        **changes.pop("detail", {"serial": name}),
    }
    fields: dict[str, Any] = {"decision": "allow", "action": 'Action::"x509"', "reasons": ("issue-registered",)}
    return Entry(
        time=at, kind="issuance", principal=UP, resource=f'Workload::"{identity}"', detail=detail, **(fields | changes)
    )


OLD, YOUNG, NEAR = "0a" * 16, "0b" * 16, "00ff" + "0c" * 14
TOKEN, ELSEWHERE, POD = "0d" * 16, "0e" * 16, "0f" * 16


def entries(now: datetime) -> list[Entry]:
    """Five that were issued, three of them good for minutes yet, one refusal, and what is none of them."""
    return [
        issued(OLD, WEB, now - 3 * HOUR, HOUR),
        issued(YOUNG, WEB, now - HOUR / 6, HOUR),
        issued(NEAR, API, now - HOUR * 0.9, HOUR),
        issued(TOKEN, API, now - HOUR / 60, HOUR / 12, action='Action::"jwt"', detail={"jti": TOKEN, "kid": "k"}),
        issued(ELSEWHERE, WEB, now - HOUR / 2, HOUR * 2, detail={"serial": ELSEWHERE, "agent": "vm-1"}),
        issued("", API, now, HOUR, decision="deny", errors=(Fault("issuance_denied", "no"),), detail={}),
        Entry(time=now, kind="operation", decision="allow", detail={"operation": "server.start"}),
    ]


@pytest.fixture
def now() -> datetime:
    """When the test runs: what ends is measured from then."""
    return datetime.now(UTC).replace(microsecond=0)


@pytest.fixture
def ledger(folder: Path, now: datetime) -> Path:
    """A folder whose journal has them."""
    traffic.write(folder, iter(entries(now)))
    return folder


def test_what_is_good_now_is_listed_the_first_to_end_first(policyd: Policyd, ledger: Path, now: datetime) -> None:
    rows = policyd("ca", "list", "--dir", ledger, "--json").value
    assert [row["name"] for row in rows] == [TOKEN, NEAR, YOUNG, ELSEWHERE]
    assert rows[0] == {
        "name": TOKEN, "kind": "token", "spiffe_id": API, "issued": f"{now - HOUR / 60:%FT%TZ}",
        "ends": f"{now - HOUR / 60 + HOUR / 12:%FT%TZ}", "agent": "up", "requested_by": "workload", "evidence": "unix",
    }  # fmt: skip
    people = policyd("ca", "list", "--dir", ledger).out
    assert [line.split()[0] for line in people.splitlines()[1:]] == [TOKEN, NEAR, YOUNG, ELSEWHERE]


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (("--all",), [OLD, TOKEN, NEAR, YOUNG, ELSEWHERE]),
        (("--agent", "vm-1"), [ELSEWHERE]),
        (("--agent", "nobody"), []),
        (("--identity", "api"), [TOKEN, NEAR]),
        (("--identity", WEB), [YOUNG, ELSEWHERE]),
        (("--ends-within", "10m"), [TOKEN, NEAR]),
        (("-n", "1"), [TOKEN]),
        (("--evidence", "unix"), [TOKEN, NEAR, YOUNG, ELSEWHERE]),
        (("--evidence", "unix:uid:7", "--agent", "vm-1"), [ELSEWHERE]),
        (("--evidence", "unix:uid:70"), []),
        (("--evidence", "kubernetes", "--all"), []),
    ],
)
def test_a_list_is_of_what_was_asked_for(
    policyd: Policyd, ledger: Path, words: tuple[str, ...], names: list[str]
) -> None:
    assert [row["name"] for row in policyd("ca", "list", *words, "--dir", ledger, "--json").value] == names


def test_the_index_of_the_ledger_is_made_anew_from_the_journal(policyd: Policyd, ledger: Path) -> None:
    words = ("ca", "list", "--all", "--dir", ledger, "--json")
    before = policyd(*words).value
    index = ledger / ".policyd" / "columns"
    assert index.is_dir()
    shutil.rmtree(index)
    assert policyd(*words).value == before


@pytest.mark.parametrize("text", [YOUNG, YOUNG[:8], YOUNG.upper(), f"serial={YOUNG}", ":".join(["0B"] * 16)])
def test_one_certificate_is_shown_by_its_serial_number(policyd: Policyd, ledger: Path, text: str) -> None:
    said = policyd("ca", "show", text, "--dir", ledger).out
    for part in (f"serial      {YOUNG}", WEB, "unix unix:uid:7", "issue-registered", "agent/up as workload"):
        assert part in said


def test_a_serial_number_is_found_as_openssl_writes_it(policyd: Policyd, ledger: Path) -> None:
    found = policyd("ca", "show", NEAR.lstrip("0"), "--dir", ledger, "--json").value
    assert (found["detail"]["serial"], "prev" in found) == (NEAR, False)
    assert "kind        token" in policyd("ca", "show", TOKEN, "--dir", ledger).out


@pytest.mark.parametrize(
    ("text", "code", "why"),
    [
        ("0b0b", Exit.USAGE, "write at least 6 digits"),
        ("zz", Exit.USAGE, "is no serial number"),
        ("f" * 41, Exit.USAGE, "is no serial number"),
        ("abcdef", Exit.INVALID, "the journal has no certificate or token `abcdef`"),
    ],
)
def test_what_is_no_serial_number_of_ours_is_said(
    policyd: Policyd, ledger: Path, text: str, code: Exit, why: str
) -> None:
    said = policyd("ca", "show", text, "--dir", ledger)
    assert (said.code, why in said.err) == (code, True)


def test_the_log_has_refusals_too(policyd: Policyd, ledger: Path) -> None:
    records = policyd("ca", "log", "--dir", ledger, "--json").value
    assert [one["decision"] for one in records] == ["allow"] * 5 + ["deny"]
    [denied] = policyd("ca", "log", "--decision", "deny", "--dir", ledger, "--json").value
    assert denied["errors"] == [{"source": "issuance_denied", "message": "no"}]
    [last] = policyd("ca", "log", "-n", "1", "--dir", ledger).out.splitlines()
    assert "deny" in last
    assert [
        one["detail"]["serial"] for one in policyd("ca", "log", "--agent", "vm-1", "--dir", ledger, "--json").value
    ] == [ELSEWHERE]


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (("--evidence", "kubernetes"), [POD]),
        (("--evidence", "k8s:ns:shop"), [POD]),
        (("--evidence", 'k8s:ns:"'), []),
        (("--evidence", "unix", "--identity", "web"), [OLD, ELSEWHERE, YOUNG]),
        (("--ends-within", "10m"), [NEAR, TOKEN]),
        (("--ends-within", "10m", "--agent", "up", "--evidence", "unix:uid:7"), [NEAR, TOKEN]),
    ],
)
def test_the_log_is_of_what_was_asked_for(
    policyd: Policyd, folder: Path, now: datetime, words: tuple[str, ...], names: list[str]
) -> None:
    evidence = {"kind": "kubernetes", "selectors": ["k8s:ns:shop", "k8s:sa:web"]}
    pod = issued(POD, WEB, now - HOUR / 3, HOUR, detail={"serial": POD, "evidence": evidence})
    traffic.write(folder, iter([*entries(now), pod]))
    found = policyd("ca", "log", *words, "--dir", folder, "--json").value
    assert [
        one["detail"].get("serial") or one["detail"].get("jti") for one in found if one["decision"] == "allow"
    ] == names


@pytest.mark.parametrize(
    ("text", "serial"),
    [("0A:0b:0C", "0a0b0c"), ("0x" + "1" * 31, "0" + "1" * 31), ("1" * 30, "00" + "1" * 30), ("1" * 29, "1" * 29)],
)
def test_serial_numbers_have_one_form(text: str, serial: str) -> None:
    assert serial_of(text) == serial
