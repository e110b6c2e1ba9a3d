"""The process: where it listens and for whom, what it says, and that nothing is left of it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from policyd.cli.console import command, link
from policyd.cli.console_beside import beside
from policyd.config.addresses import Address
from policyd.config.console import ConsoleSettings
from policyd.config.settings import parse_settings
from policyd.console.main import rules_of, token_of
from policyd.errors import InvalidInput, NotRunning, StateError
from policyd.state_paths import state_paths
from tests.cli.recorded import bookinfo

KEY = bytes(32)


@contextmanager
def running(folder: Path) -> Iterator[tuple[subprocess.Popen[str], dict[str, object]]]:
    """The console of a folder for which no server runs, once it listens."""
    with subprocess.Popen(command(folder), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line, process.stderr.read() if process.stderr else ""
            yield process, json.loads(line)
        finally:
            process.terminate()
            process.communicate(timeout=30)


def test_it_says_where_it_listens_opens_by_its_link_and_ends_in_order(root: Path, tmp_path: Path) -> None:
    folder = bookinfo(root, tmp_path / "bookinfo")
    paths = state_paths(folder)
    with running(folder) as (process, said):
        assert said["event"] == "console.listening"
        assert paths.console.stat().st_mode & 0o777 == 0o600
        opens = link(paths)
        assert opens.startswith(f"http://{said['address']}/enter?link=")
        with httpx.Client(trust_env=False, timeout=30) as client:
            assert client.get(opens).status_code == 200
            page = client.get(f"http://{said['address']}/", headers={"accept": "text/html"})
            assert "no server answers" in page.text
            with client.stream("GET", f"http://{said['address']}/live/mesh") as stream:
                assert next(stream.iter_bytes())
                process.send_signal(signal.SIGTERM)
                assert process.wait(30) == 0, "an open page kept it from ending"
    assert not paths.console.exists()
    with pytest.raises(NotRunning):
        link(paths)
    with running(folder) as (_, again):
        assert again["address"] == said["address"], "its port is kept"


def test_beside_a_server_it_is_started_again_and_ends_with_it(
    root: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = bookinfo(root, tmp_path / "bookinfo")
    paths = state_paths(folder)

    def pid() -> int:
        try:
            return int(json.loads(paths.console.read_text())["pid"])
        except (OSError, ValueError):
            return 0

    async def until(condition: object) -> None:
        async with asyncio.timeout(60):
            while not condition():  # type: ignore[operator]
                await asyncio.sleep(0.05)

    printed = ""

    def told() -> int:
        nonlocal printed
        printed += capfd.readouterr().out
        return printed.count("console  http://127.0.0.1:")

    with beside(folder):
        asyncio.run(until(lambda: pid() and told() == 1))
        first = pid()
        os.kill(first, signal.SIGKILL)
        asyncio.run(until(lambda: pid() not in (0, first) and told() == 2))
        second = pid()
    assert not paths.console.exists()
    for one in (first, second):
        with pytest.raises(ProcessLookupError):
            os.kill(one, 0)


def test_a_bad_folder_is_an_error_and_no_traceback(tmp_path: Path) -> None:
    folder = tmp_path / "mesh"
    folder.mkdir()
    (folder / "policyd.yaml").write_text("console: {listen: 0.0.0.0:9}\n")

    done = subprocess.run(
        [sys.executable, "-m", "policyd.console", "--dir", str(folder)], capture_output=True, text=True, timeout=60
    )

    assert done.returncode == 1
    assert "beyond loopback the console needs `tokenFile` or `oidc`, `certificateFile` and `keyFile`" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("listen", "settings", "hosts"),
    [
        ("127.0.0.1:15080", {}, {"127.0.0.1:15080", "localhost:15080", "[::1]:15080"}),
        ("127.0.0.1:15080", {"names": ("mesh.test",)}, {"127.0.0.1:15080", "mesh.test:15080"}),
        ("10.0.0.1:443", {"names": ("Mesh.test",), "certificateFile": "c", "keyFile": "k", "tokenFile": "t"},
         {"10.0.0.1:443", "mesh.test:443", "mesh.test"}),
    ],
)  # fmt: skip
def test_it_goes_by_its_address_and_its_names(listen: str, settings: dict[str, object], hosts: set[str]) -> None:
    host, _, port = listen.rpartition(":")
    made = ConsoleSettings.model_validate({"listen": listen, **settings})

    rules = rules_of(made, Address(host, int(port)), KEY)

    assert rules.hosts == hosts
    assert rules.scheme == ("https" if "certificateFile" in settings else "http")


def test_a_token_is_of_a_private_file_and_long(tmp_path: Path) -> None:
    settings = ConsoleSettings.model_validate({"tokenFile": "token"})
    file = tmp_path / "token"
    with pytest.raises(StateError, match="cannot be read"):
        token_of(settings, tmp_path)
    file.write_text("t" * 40 + "\n")
    file.chmod(0o644)
    with pytest.raises(StateError, match="others may read"):
        token_of(settings, tmp_path)
    file.chmod(0o600)
    assert token_of(settings, tmp_path) == "t" * 40
    file.write_text("short")
    with pytest.raises(StateError, match="less than 32 characters"):
        token_of(settings, tmp_path)
    assert token_of(ConsoleSettings(), tmp_path) == ""


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("listen: 0.0.0.0:0", "beyond loopback"),
        ("listen: 0.0.0.0:0, tokenFile: t", "beyond loopback"),
        ("certificateFile: c", "belong together"),
        ("listen: somewhere", "is no address"),
        ("names: ['a b']", "names"),
        ("token: secret", "token"),
    ],
)
def test_settings_that_would_leave_it_open_are_refused(text: str, why: str) -> None:
    with pytest.raises(InvalidInput, match=why):
        parse_settings(f"console: {{{text}}}")
