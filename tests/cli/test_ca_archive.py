"""The whole authority goes from one folder to another as a file that says nothing without its passphrase."""

from __future__ import annotations

import fcntl
import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from policyd.cli.exits import Exit
from policyd.state_paths import state_paths
from tests.cli.conftest import Said

Policyd = Callable[..., Said]


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    return a_secret(tmp_path / "secret", "correct horse battery")


def a_secret(path: Path, text: str) -> Path:
    path.write_text(text + "\n")
    path.chmod(0o600)
    return path


def files(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {
        one.name: (one.read_bytes(), stat.S_IMODE(one.stat().st_mode)) for one in (folder / ".policyd" / "ca").iterdir()
    }


def another(folder: Path, settings: str = "") -> Path:
    made = folder.parent / "another"
    (made / "policies").mkdir(parents=True)
    (made / "policyd.yaml").write_text(settings)
    return made


@pytest.fixture
def exported(policyd: Policyd, folder: Path, secret: Path, tmp_path: Path) -> Path:
    assert policyd("ca", "init", "--dir", folder).code == Exit.OK
    file = tmp_path / "authority.json"
    assert policyd("ca", "export", file, "--dir", folder, "--passphrase-file", secret).code == Exit.OK
    return file


def test_it_is_the_same_elsewhere_and_its_owner_s_alone(
    policyd: Policyd, folder: Path, exported: Path, secret: Path
) -> None:
    assert stat.S_IMODE(exported.stat().st_mode) == 0o600
    assert b"PRIVATE KEY" not in exported.read_bytes()
    there = another(folder)
    said = policyd("ca", "import", exported, "--dir", there, "--passphrase-file", secret, "--json")
    assert (said.code, said.value["trust_domain"]) == (Exit.OK, "cluster.local")
    assert files(there) == files(folder)
    assert {mode for _, mode in files(there).values()} == {0o600}
    assert stat.S_IMODE((there / ".policyd" / "ca").stat().st_mode) == 0o700
    assert [one.name for one in (there / ".policyd").iterdir() if one.name.startswith("import-")] == []


def records(folder: Path) -> list[dict[str, Any]]:
    files = sorted((folder / ".policyd" / "journal").glob("*.jsonl"))
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


def test_both_are_on_record(policyd: Policyd, folder: Path, exported: Path, secret: Path) -> None:
    [record] = records(folder)
    names = ["intermediate.key", "intermediate.pem", "jwt.json", "root.key", "root.pem"]
    assert (record["kind"], record["principal"]) == ("operation", f'Operator::"unix:{os.getuid()}"')
    assert record["detail"] == {"operation": "ca.export", "file": str(exported), "files": names}
    there = another(folder)
    said = policyd("ca", "import", exported, "--dir", there, "--passphrase-file", secret, "--json").value
    [record] = records(there)
    assert record["detail"] == {
        "operation": "ca.import", "file": str(exported), "written": said["written"], "root_sha256": said["root_sha256"],
    }  # fmt: skip
    assert policyd("log", "verify", "--dir", there).code == Exit.OK
    policyd("ca", "export", exported.with_name("again"), "--dir", folder, "--passphrase-file", secret)
    assert [one["seq"] for one in records(folder)] == [1, 2]


def test_what_cannot_be_put_on_record_is_not_done(
    policyd: Policyd, folder: Path, exported: Path, secret: Path, tmp_path: Path
) -> None:
    there = another(folder)
    policyd("ca", "init", "--dir", there)
    before = files(there)
    for one in (folder, there):
        journal = one / ".policyd" / "journal"
        journal.mkdir(exist_ok=True)
        journal.chmod(0o755)  # others may read it, so nothing is written to it
    said = policyd("ca", "export", tmp_path / "b", "--dir", folder, "--passphrase-file", secret)
    assert (said.code, (tmp_path / "b").exists()) == (Exit.ERROR, False)
    said = policyd("ca", "import", exported, "--dir", there, "--passphrase-file", secret, "--replace")
    assert (said.code, files(there)) == (Exit.ERROR, before)
    assert "journal" in said.err


def test_an_authority_that_is_there_stays_unless_it_is_told_to_go_and_is_kept_then(
    policyd: Policyd, folder: Path, exported: Path, secret: Path
) -> None:
    there = another(folder)
    policyd("ca", "init", "--dir", there)
    before = files(there)
    said = policyd("ca", "import", exported, "--dir", there, "--passphrase-file", secret)
    assert (said.code, "`--replace` keeps it aside" in said.err) == (Exit.ERROR, True)
    assert files(there) == before
    said = policyd("ca", "import", exported, "--dir", there, "--passphrase-file", secret, "--replace", "--json")
    assert files(there) == files(folder)
    kept = Path(said.value["before"])
    assert {one.name: one.read_bytes() for one in kept.iterdir()} == {name: one for name, (one, _) in before.items()}


def test_keys_that_are_encrypted_stay_so_and_need_their_own_passphrase(
    policyd: Policyd, folder: Path, secret: Path, tmp_path: Path
) -> None:
    settings = "ca: {passphraseFile: own}\n"
    (folder / "policyd.yaml").write_text(settings)
    a_secret(folder / "own", "of the keys")
    policyd("ca", "init", "--dir", folder)
    file = tmp_path / "authority.json"
    policyd("ca", "export", file, "--dir", folder, "--passphrase-file", secret)
    there = another(folder, settings)
    a_secret(there / "own", "another one")
    said = policyd("ca", "import", file, "--dir", there, "--passphrase-file", secret)
    assert (said.code, "the passphrase is wrong, or the key is damaged" in said.err) == (Exit.ERROR, True)
    assert not (there / ".policyd" / "ca").exists()
    a_secret(there / "own", "of the keys")
    assert policyd("ca", "import", file, "--dir", there, "--passphrase-file", secret).code == Exit.OK
    assert files(there) == files(folder)


@pytest.mark.parametrize(
    ("text", "settings", "why"),
    [
        ("another passphrase", "", "the passphrase is wrong, or the file is damaged"),
        (
            "correct horse battery",
            "trustDomain: shop.example\n",
            "is the authority of `cluster.local`, not of `shop.ex",
        ),
    ],
)
def test_what_does_not_fit_is_refused(
    policyd: Policyd, folder: Path, exported: Path, tmp_path: Path, text: str, settings: str, why: str
) -> None:
    there = another(folder, settings)
    said = policyd("ca", "import", exported, "--dir", there, "--passphrase-file", a_secret(tmp_path / "s", text))
    assert (said.code, why in said.err) == (Exit.ERROR, True)
    assert not (there / ".policyd" / "ca").exists()


def test_not_while_a_server_has_the_folder(policyd: Policyd, folder: Path, exported: Path, secret: Path) -> None:
    there = another(folder)
    policyd("ca", "init", "--dir", there)
    with state_paths(there).lock.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        said = policyd("ca", "import", exported, "--dir", there, "--passphrase-file", secret, "--replace")
    assert (said.code, "is served already" in said.err) == (Exit.ERROR, True)


def test_a_file_that_is_there_is_not_written_over(policyd: Policyd, folder: Path, exported: Path, secret: Path) -> None:
    before = exported.read_bytes()
    said = policyd("ca", "export", exported, "--dir", folder, "--passphrase-file", secret)
    assert (said.code, exported.read_bytes()) == (Exit.ERROR, before)


def test_without_an_authority_there_is_nothing_to_export(
    policyd: Policyd, folder: Path, secret: Path, tmp_path: Path
) -> None:
    said = policyd("ca", "export", tmp_path / "a", "--dir", folder, "--passphrase-file", secret)
    assert (said.code, (tmp_path / "a").exists()) == (Exit.ERROR, False)
