"""An authority made before anything runs: once, privately, and never over another."""

from __future__ import annotations

import fcntl
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from policyd.ca.keystore import FILES, load
from policyd.ca.sealing import fingerprint
from policyd.cli.exits import Exit
from policyd.state_paths import state_paths
from tests.cli.conftest import Said

Policyd = Callable[..., Said]


def test_it_is_made_once_and_for_its_owner_alone(policyd: Policyd, folder: Path) -> None:
    said = policyd("ca", "init", "--dir", folder, "--json")
    made = folder / ".policyd" / "ca"
    assert {file.name: stat.S_IMODE(file.stat().st_mode) for file in made.iterdir()} == dict.fromkeys(
        (*FILES, "jwt.json"), 0o600
    )
    assert stat.S_IMODE(made.stat().st_mode) == 0o700
    root = load(folder / ".policyd", None, bytes).material.root
    assert (said.value["root_sha256"], said.value["trust_domain"]) == (fingerprint(root), "cluster.local")

    again = policyd("ca", "init", "--dir", folder)
    assert (again.code, "holds an authority already" in again.err) == (Exit.ERROR, True)
    assert load(folder / ".policyd", None, bytes).material.root == root


def test_the_folder_s_settings_count(policyd: Policyd, folder: Path) -> None:
    secret = folder / "passphrase"
    secret.write_text("a long one\n")
    secret.chmod(0o600)
    (folder / "policyd.yaml").write_text("trustDomain: shop.example\nca: {passphraseFile: passphrase}\n")
    said = policyd("ca", "init", "--dir", folder)
    assert "shop.example" in said.out
    assert "encrypted" in said.out
    for name in ("root.key", "intermediate.key", "jwt.json"):
        assert "BEGIN PRIVATE KEY" not in (folder / ".policyd" / "ca" / name).read_text()


@pytest.mark.parametrize(
    ("settings", "code", "why"),
    [
        ("trustDomain: Shop\n", Exit.INVALID, "trust"),
        ("ca: {passphraseFile: missing}\n", Exit.ERROR, "`{folder}/missing` is missing"),
    ],
)
def test_settings_that_are_none_make_no_authority(
    policyd: Policyd, folder: Path, settings: str, code: Exit, why: str
) -> None:
    (folder / "policyd.yaml").write_text(settings)
    said = policyd("ca", "init", "--dir", folder)
    assert (said.code, why.format(folder=folder) in said.err) == (code, True)
    assert not (folder / ".policyd" / "ca").exists()


def test_a_passphrase_that_others_can_read_is_refused(policyd: Policyd, folder: Path) -> None:
    secret = folder / "passphrase"
    secret.write_text("a long one\n")
    secret.chmod(0o644)
    (folder / "policyd.yaml").write_text("ca: {passphraseFile: passphrase}\n")
    said = policyd("ca", "init", "--dir", folder)
    assert (said.code, "has mode 0644, others may use it" in said.err) == (Exit.ERROR, True)


def test_not_while_a_server_has_the_folder(policyd: Policyd, folder: Path) -> None:
    with state_paths(folder).lock.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        said = policyd("ca", "init", "--dir", folder)
    assert said.code == Exit.ERROR
    assert not (folder / ".policyd" / "ca").exists()
