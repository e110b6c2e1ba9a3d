"""Where the passphrase of the authority's keys comes from: a file, a program or the environment, and one of them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from policyd.ca.keystore import load
from policyd.cli.exits import Exit
from policyd.cli.plan import agent_program, console_program
from policyd.errors import KeyFileError
from tests.cli.conftest import Said

Policyd = Callable[..., Said]
PASSPHRASE = b"correct horse"


def telling(text: str) -> str:
    return f"ca: {{passphraseCommand: ['{sys.executable}', -c, \"print('{text}')\"]}}\n"


def encrypted(folder: Path, passphrase: bytes) -> None:
    with pytest.raises(KeyFileError, match="the passphrase is wrong"):
        load(folder / ".policyd", b"another", bytes)
    assert load(folder / ".policyd", passphrase, bytes).encrypted_now == ()


def test_a_program_tells_it(policyd: Policyd, folder: Path) -> None:
    (folder / "policyd.yaml").write_text(telling("correct horse"))
    assert policyd("ca", "init", "--dir", folder, "--json").value["keys"] == "encrypted"
    encrypted(folder, PASSPHRASE)


def test_the_environment_tells_it(policyd: Policyd, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POLICYD_CA_PASSPHRASE", PASSPHRASE.decode())
    assert policyd("ca", "init", "--dir", folder, "--json").value["keys"] == "encrypted"
    encrypted(folder, PASSPHRASE)


@pytest.mark.parametrize("setting", ["passphraseFile: secret", 'passphraseCommand: ["true"]'])
def test_two_that_may_differ_are_refused(
    policyd: Policyd, folder: Path, monkeypatch: pytest.MonkeyPatch, setting: str
) -> None:
    monkeypatch.setenv("POLICYD_CA_PASSPHRASE", "x")
    (folder / "policyd.yaml").write_text(f"ca: {{{setting}}}\n")
    said = policyd("ca", "init", "--dir", folder)
    assert (said.code, "both `POLICYD_CA_PASSPHRASE` and `ca.passphrase" in said.err) == (Exit.ERROR, True)
    assert not (folder / ".policyd" / "ca").exists()


@pytest.mark.parametrize(
    ("command", "why"),
    [
        ("[/nowhere/tell]", "`/nowhere/tell` cannot be started: No such file"),
        ("['true']", "`true` told no passphrase"),
        ("[sh, -c, 'echo locked >&2; exit 3']", "it ended with 3: locked"),
        ("[sh, -c, 'head -c 5000 /dev/zero | tr \\\\0 x']", "told no passphrase"),
    ],
)
def test_a_program_that_tells_none_makes_no_authority(policyd: Policyd, folder: Path, command: str, why: str) -> None:
    (folder / "policyd.yaml").write_text(f"ca: {{passphraseCommand: {command}}}\n")
    said = policyd("ca", "init", "--dir", folder)
    assert (said.code, why in said.err) == (Exit.ERROR, True)
    assert not (folder / ".policyd" / "ca").exists()


def test_a_file_and_a_program_are_one_too_many(policyd: Policyd, folder: Path) -> None:
    (folder / "policyd.yaml").write_text("ca: {passphraseFile: a, passphraseCommand: [b]}\n")
    said = policyd("ca", "init", "--dir", folder)
    assert (said.code, "give either `passphraseFile` or `passphraseCommand`" in said.err) == (Exit.INVALID, True)


def test_nobody_but_the_server_gets_it_from_the_environment() -> None:
    environ = {"POLICYD_CA_PASSPHRASE": "x", "A": "b"}
    here, nothing = Path("/mesh"), lambda *_: None
    started = [
        agent_program(here, here, here, environ, nothing, nothing, nothing).environment,  # type: ignore[arg-type]
        console_program(here, environ, nothing, nothing).environment,  # type: ignore[arg-type]
    ]
    assert started == [{"A": "b"}, {"A": "b"}]
