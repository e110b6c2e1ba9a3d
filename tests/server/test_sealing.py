"""A running server seals what its processes wrote, and nothing secret is in what it leaves behind."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from policyd import envoy_api
from policyd.audit.read import ends, newest
from policyd.audit.record import Record
from policyd.audit.seals import SEALS_FILE
from policyd.audit.verify import How, verify
from policyd.ca.sealing import JournalTrust
from policyd.names import METADATA_TOKENS
from policyd.spiffe import SpiffeId
from policyd.state_paths import state_paths
from tests.authz.checks import check_of
from tests.fakes.issuer import Issuer
from tests.server.served import PROGRAM, WEB, Served, process, serving

API = SpiffeId.workload("cluster.local", "default", "api")
CHECK = "/envoy.service.auth.v3.Authorization/Check"
SETTINGS = """\
audit:
  segmentAge: 1s
  include: {headers: [X-Source, end-user, x-api-key, x-note], claims: [email, org.team]}
  mask:
  - {header: end-user, how: hash}
  - {header: x-source, how: truncate, length: 3}
  - {claim: email, how: hash}
  - {claim: org.team, how: truncate, length: 3}
  - {claim: sub}
"""
LOGIN = Issuer("https://login.example.com", "EC")
TOKENS = f"""\
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {{name: people}}
spec: {{jwtRules: [{{issuer: {LOGIN.name}, jwks: '{LOGIN.jwks}'}}]}}
"""
READ = """\
@id("read") permit (principal, action == Action::"GET", resource == Service::"web.default")
unless { context.request.headers.hasTag("x-bad") };
"""
JWT = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJqYXNvbiJ9.c2lnbmF0dXJl"
SECRETS = {
    "x-api-key": "hunter2-in-a-key",
    "x-note": f"my token is {JWT}",
    "authorization": "Bearer c2VjcmV0LWJlYXJlcg123",
    "cookie": "session=tasty-secret",
    "x-unlisted": "nobody-asked-for-this",
    "end-user": "jason-in-plain",
    "x-source": "abcdefghij",
}
USER = {
    "iss": LOGIN.name,
    "sub": "alice-in-plain",
    "email": "alice@example.com",
    "org": {"team": "platform-team"},
    "phone": "0815-4711",
}
PLANTED = (
    "hunter2",
    JWT,
    "c2VjcmV0",
    "tasty-secret",
    "nobody-asked",
    "jason-in-plain",
    "abcdefghij",
    "alice-in-plain",
    "alice@example",
    "platform-team",
    "0815-4711",
)


async def ask(served: Served, path: str = "/reviews/0") -> int:
    """Ask with secrets in everything that a caller has a hand in; the code of the answer."""
    check = check_of(
        source__principal=str(API),
        destination__principal=str(WEB),
        context_extensions={"policyd.listener": "web-v1/inbound"},
        request__http__headers=SECRETS,
        request__http__path=f"{path}?token={JWT}",
        metadata_context={"filter_metadata": {METADATA_TOKENS: {"default/people/0": USER}}},
    )
    async with served.channel("authz") as channel:
        reply = await channel.unary_unary(CHECK)(check.SerializeToString(), timeout=10)
    response: Any = envoy_api.message("envoy.service.auth.v3.CheckResponse").FromString(reply)
    return int(response.status.code)


def decisions(folder: Path) -> list[Record]:
    journal = state_paths(folder).journal
    lines = newest(journal, ends(journal), lambda error: pytest.fail(str(error)))
    return [line.record for line in lines if line.record.kind == "decision"]


def sealed(folder: Path) -> str:
    file = state_paths(folder).journal / SEALS_FILE
    return file.read_text() if file.exists() else ""


@pytest.fixture
def folder(folder: Path) -> Path:
    (folder / "policies").mkdir()
    (folder / "policies" / "web.cedar").write_text(READ)
    (folder / "policyd.yaml").write_text(SETTINGS)
    (folder / "mesh").mkdir(exist_ok=True)
    (folder / "mesh" / "tokens.yaml").write_text(TOKENS)
    return folder


async def test_what_all_processes_wrote_is_sealed_while_the_server_runs(folder: Path, short: Path) -> None:
    journal = state_paths(folder).journal
    async with serving(folder, short) as served:
        assert [await ask(served) for _ in range(3)] == [0, 0, 0]
        async with asyncio.timeout(60):
            while not all(f'"writer":"{role}' in sealed(folder) for role in ("serve", "decide-1")):
                await asyncio.sleep(0.1)
        assert await ask(served) == 0
        assert not list((await served.status()).warnings)
    root = x509.load_pem_x509_certificate((state_paths(folder).ca / "root.pem").read_bytes())
    verdict = verify(journal, How(JournalTrust(root)))
    assert verdict.problems == ()
    assert [chain.writer.split("-")[0] for chain in verdict.chains] == ["decide", "serve"]
    assert all(chain.sealed for chain in verdict.chains)
    assert len(decisions(folder)) == 4
    said = subprocess.run([PROGRAM, "log", "verify", "--dir", folder], capture_output=True, text=True)
    assert said.returncode == 0
    assert said.stdout.endswith("\nwhole\n")
    assert verdict.newest is not None
    seal = f"{verdict.newest.number}:{verdict.newest.hash}"
    assert f"newest seal: {seal}, of " in said.stdout
    command = [PROGRAM, "log", "verify", "--dir", folder, "--seals", "--expect", seal.replace("0", "1")]
    said = subprocess.run(command, capture_output=True, text=True)
    assert said.returncode == 1
    assert "broken: " in said.stdout


async def test_the_operators_masks_and_list_say_what_is_recorded(folder: Path, short: Path) -> None:
    async with serving(folder, short) as served:
        await ask(served)
        await ask(served)
    one, two = decisions(folder)
    headers = one.context["request"]["headers"]
    assert headers["x-source"] == "abc…"
    assert headers["end-user"].startswith("hmac-sha256:")
    assert headers == two.context["request"]["headers"]
    assert headers["x-api-key"] == "[masked]"
    assert headers["x-note"] == "my token is [masked]"
    assert set(headers) == {"x-source", "end-user", "x-api-key", "x-note"}
    user = one.context["user"]
    assert (
        user
        == two.context["user"]
        == {
            "__entity": {"type": "User"},
            "claims": {"email": user["claims"]["email"], "org.team": ["pla…"]},
        }
    )
    assert [value[:12] for value in user["claims"]["email"]] == ["hmac-sha256:"]
    assert one.masked == (
        *(f"request.headers.{name}" for name in ("end-user", "x-source")),
        *(f"user.{name}" for name in ("claims.email", "claims.org.team", "__entity.id")),
        *(f"request.headers.{name}" for name in ("x-api-key", "x-note")),
    )
    key = state_paths(folder).mask_key
    assert key.stat().st_mode & 0o777 == 0o600


async def test_planted_secrets_are_in_no_file_no_log_and_no_crash_output(folder: Path, short: Path) -> None:
    (folder / "policyd.yaml").write_text(SETTINGS + "log: {level: debug}\n")
    with process(folder, short) as started:
        served = Served(folder)
        assert await ask(served) == 0
        assert await ask(served, f"/a//../{JWT}") != 2
        assert await ask(served, "/%00") != 0
        async with asyncio.timeout(60):
            while not sealed(folder):
                await asyncio.sleep(0.1)
        await ask(served)
        os.kill(started.pid, signal.SIGABRT)
        started.wait(20)
    seen = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert [path for path in seen if path.suffix == ".sealed"]
    assert len(decisions(folder)) == 4
    told = [str(line) for line in decisions(folder)]
    for secret in PLANTED:
        assert not [path for path, data in seen.items() if secret.encode() in data], secret
        assert not [line for line in told if secret in line], secret
