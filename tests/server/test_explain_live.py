"""`policyd policy explain --proxy`: what a running server answers, and what an author is told where it cannot."""

from __future__ import annotations

import asyncio
import json
import subprocess
from pathlib import Path

from policyd.state_paths import state_paths
from tests.server.served import PROGRAM, serving

POLICY = '@id("reads")\npermit (principal, action == Action::"GET", resource == Service::"api.default");\n'
NOT_CONNECTED = "the proxy of `api-v1` is not connected: it goes on with what it was sent last, if it runs"


async def explain(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [PROGRAM, "policy", "explain", *words, "--dir", str(folder)]
    return await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, timeout=60)


async def test_what_is_in_force_answers_and_not_the_files(folder: Path, short: Path) -> None:
    (folder / "policies").mkdir()
    (folder / "policies" / "api.cedar").write_text(POLICY)
    async with serving(folder, short) as served:
        revision = (await served.status()).revision
        allowed = await explain(folder, "--proxy", "api-v1", "web", "GET", "http://api:8080/")
        assert (allowed.returncode, allowed.stderr) == (0, "")
        lines = allowed.stdout.splitlines()
        assert lines[0].startswith("allow: ")
        assert lines[1].startswith(f"note: revision {revision[:12]} decided, in force since ")
        assert lines[2] == f"note: {NOT_CONNECTED}"
        assert "policies/api.cedar:1" in lines

        (folder / "policies" / "api.cedar").write_text("forbid (")
        await served.becomes(refused=True)
        denied = await explain(folder, "--proxy", "api-v1", "web", "PUT", "http://api:8080/", "--json")
        value = json.loads(denied.stdout)
        assert (denied.returncode, value["decision"], value["revision"]) == (2, "deny", revision)
        assert value["proxy"] == {"instance": "api-v1", "connected": False, "types": {}}
        assert value["near"][0]["id"] == "reads"
        assert value["notes"][1:] == [
            NOT_CONNECTED,
            "the files are not what is in force: a change is refused, see `policyd status`",
        ]

        unknown = await explain(folder, "--proxy", "api-v2", "web", "GET", "http://api:8080/")
        assert (unknown.returncode, unknown.stdout) == (3, "")
        assert unknown.stderr == "error: no instance is called `api-v2`\n  did you mean `api-v1`?\n"

        both = await explain(folder, "--proxy", "api-v1", "--decision", "abc")
        assert (both.returncode, both.stdout) == (64, "")

        state_paths(folder).revisions.rename(folder / "away")
        lost = await explain(folder, "--proxy", "api-v1", "web", "GET", "http://api:8080/")
        assert (lost.returncode, lost.stdout) == (3, "")
        assert lost.stderr.startswith(f"error: no revision `{revision}` is kept")


async def test_without_a_server_there_is_no_live_answer(folder: Path) -> None:
    said = await explain(folder, "--proxy", "api-v1", "web", "GET", "http://api:8080/")
    assert (said.returncode, said.stdout) == (1, "")
    assert said.stderr == (f"error: nothing is running for `{folder}`\n  start it with `policyd up {folder}`\n")
