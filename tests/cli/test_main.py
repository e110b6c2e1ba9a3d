"""The tree of commands: each explains itself and speaks JSON; each way of failing has its exit code."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from policyd.cli.exits import Exit
from policyd.cli.lazy import load
from policyd.cli.main import COMMANDS, root
from tests.cli.conftest import Said
from tests.fakes.admin import FakeAdmin

ENDLESS_OUTPUT = {"up": "its JSON comes at the end"}


def tree() -> Iterator[tuple[str, Any]]:
    """Every command that can be run, with its words."""
    for name, entry in COMMANDS.items():
        yield from _below(name, load(name, entry))


def _below(words: str, command: Any) -> Iterator[tuple[str, Any]]:
    below = getattr(command, "commands", None)
    if below is None:
        yield words, command
    for name, sub in (below or {}).items():
        yield from _below(f"{words} {name}", sub)


@pytest.fixture(scope="module")
def commands() -> dict[str, Any]:
    return dict(tree())


def test_all_commands_of_the_contract_are_there(commands: dict[str, Any]) -> None:
    wanted = {
        "up", "down", "serve", "status", "check", "authorize", "policy test", "log tail", "ca token create", "ca issue",
        "ca show", "proxy status", "version",
    }  # fmt: skip
    assert wanted <= set(commands)


def test_every_command_explains_itself(commands: dict[str, Any]) -> None:
    silent = [words for words, command in commands.items() if len((command.help or "").strip()) < 20]
    assert silent == []


def test_every_option_explains_itself(commands: dict[str, Any]) -> None:
    silent = [
        f"{words} {parameter.opts}"
        for words, command in commands.items()
        for parameter in command.params
        if not parameter.hidden and not getattr(parameter, "help", None)
    ]
    assert silent == []


def test_every_command_speaks_json(commands: dict[str, Any]) -> None:
    mute = [words for words, command in commands.items() if not any("--json" in p.opts for p in command.params)]
    assert mute == []


def test_help_names_every_command_with_a_line(policyd: Callable[..., Said]) -> None:
    said = policyd("--help")

    assert said.code == 0
    for name, entry in COMMANDS.items():
        assert f"  {name}" in said.out
        assert entry.help.split()[0] in said.out


def test_help_imports_no_command() -> None:
    code = (
        "import sys; from policyd.cli.main import run; run(['--help']); "
        "late = [m for m in sys.modules if m.startswith(('grpc', 'rich', 'httpx', 'pydantic', 'cedarpy', 'yaml', "
        "'cryptography', 'asyncio'))]; sys.exit(str(late) if late else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["version"], Exit.OK, ""),
        (["version", "--help"], Exit.OK, ""),
        ([], Exit.USAGE, "Usage: policyd"),
        (["upp"], Exit.USAGE, "error: no such command `upp`\n  did you mean `up`? write `policyd [OPTIONS] COMMAND"),
        (["log", "tial"], Exit.USAGE, "error: no such command `tial`\n  did you mean `tail`? write `policyd log "),
        (["log"], Exit.USAGE, "Usage: policyd log"),
        (["version", "--loud"], Exit.USAGE, "error: no such option: `--loud`\n  write `policyd version [OPTIONS]`; "),
        (["check", "--jsn"], Exit.USAGE, "error: no such option: `--jsn`\n  did you mean `--json`? write `policyd "),
        (["authorize"], Exit.USAGE, "error: missing argument `FROM`\n  write `policyd authorize [OPTIONS] {FROM} {"),
        (["proxy", "config", "x", "y"], Exit.USAGE, "error: invalid value for `KIND`: `x` is not one of `listeners`,"),
        (["ca", "rotate", "prepare"], Exit.USAGE, "missing argument `WHAT`; it is one of root, intermediate, token\n"),
        (["up"], Exit.USAGE, "error: no folder with `workloads.yaml` from "),
        (["up", ".", "--dir", "."], Exit.USAGE, "error: the folder is given twice\n"),
        (["check"], Exit.USAGE, "error: no folder with `workloads.yaml` from "),
        (["check", "/no/such/folder"], Exit.USAGE, "error: `/no/such/folder` is no folder"),
        (["up", "/no/such/folder"], Exit.USAGE, "error: `/no/such/folder` is no folder"),
        (["up", ".", "--detach", "--check"], Exit.USAGE, "exclude each other"),
        (["ca", "issue", "web"], Exit.USAGE, "error: either a certificate or a token"),
    ],
)
def test_exit_codes(policyd: Callable[..., Said], words: list[str], code: int, says: str) -> None:
    said = policyd(*words)

    assert (said.code, says in said.err) == (code, True), said
    assert "Traceback" not in said.err


def test_wrong_usage_is_json_for_programs(policyd: Callable[..., Said]) -> None:
    said = policyd("authorize", "--json")

    assert (said.code, said.out) == (Exit.USAGE, "")
    assert json.loads(said.err)["error"]["message"] == "missing argument `FROM`"


def test_each_command_of_a_group_has_its_whole_sentence(policyd: Callable[..., Said]) -> None:
    for words in (["log"], ["ca"], ["ca", "token"], ["policy"], ["mesh"], ["proxy"], ["traces"]):
        listed = policyd(*words, "--help").out.partition("Commands:")[2]
        assert "..." not in listed, words


@pytest.mark.parametrize("words", [["check"], ["policy", "check"], ["policy", "test"], ["mesh", "analyze"], ["up"]])
def test_a_folder_is_named_as_argument_or_as_option(policyd: Callable[..., Said], words: list[str]) -> None:
    for named in (["/no/such/folder"], ["--dir", "/no/such/folder"]):
        assert policyd(*words, *named).err.startswith("error: `/no/such/folder` is no folder\n")


LOST = "error: the output cannot be written: no space left on device\n"


@pytest.mark.parametrize(
    ("ending", "code", "says"),
    [
        ("> /dev/full", Exit.ERROR, LOST),
        (">&-", Exit.OK, ""),
        (">&- 2>&-", Exit.OK, ""),
        ("| head -c 10 > /dev/null", Exit.OK, ""),
    ],
)
@pytest.mark.parametrize("words", ["--help", "version", "mesh support", "schema mesh"])
def test_output_that_nobody_takes_is_no_traceback(words: str, ending: str, code: int, says: str) -> None:
    script = f"{sys.executable} -m policyd.cli.main {words} {ending}"
    done = subprocess.run(["/bin/sh", "-c", script], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (code, says)


def test_ctrl_c_while_it_is_loaded_is_no_traceback() -> None:
    """The moment is when what comes first of its libraries is imported."""
    script = (
        "import os, signal, sys\n"
        "class Interrupting:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'typer': os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Interrupting())\n"
        "from policyd.cli.entry import main\n"
        "main()\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (Exit.INTERRUPTED, "", "")


@pytest.mark.parametrize("words", [["status"], ["ca", "show"], ["proxy", "status"], ["ca", "token", "create"]])
def test_a_command_for_a_folder_where_nothing_runs_says_how_to_start_it(
    policyd: Callable[..., Said], folder: Path, words: list[str]
) -> None:
    said = policyd(*words, "--dir", folder)

    assert said == Said(
        Exit.ERROR, "", f"error: nothing is running for `{folder}`\n  start it with `policyd up {folder}`\n"
    )


def test_an_error_is_json_for_programs(policyd: Callable[..., Said], folder: Path) -> None:
    said = policyd("status", "--dir", folder, "--json")

    assert (said.code, said.out) == (Exit.ERROR, "")
    assert '"code": "not_running"' in said.err


def test_a_stale_server_file_is_nothing_running(policyd: Callable[..., Said], folder: Path) -> None:
    (folder / ".policyd" / "server.json").write_text('{"pid": 1, "admin_socket": "/no/such.sock"}')

    assert policyd("status", "--dir", folder).err.startswith(f"error: nothing is running for `{folder}`")


def test_what_the_server_refuses_is_said_in_its_words(
    policyd: Callable[..., Said], folder: Path, fake: FakeAdmin
) -> None:
    import grpc

    fake.failure = (grpc.StatusCode.INVALID_ARGUMENT, "a token lives at most a day; give a shorter `--ttl`")

    said = policyd("ca", "token", "create", "--dir", folder)

    assert said == Said(Exit.INVALID, "", "error: a token lives at most a day\n  give a shorter `--ttl`\n")


def test_the_root_is_a_group_of_the_table() -> None:
    assert root().list_commands(None) == list(COMMANDS)  # type: ignore[arg-type]
