"""Keys of tokens at rest: they outlive the process, are nobody else's, and a broken file is said to be one."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from policyd.ca.jwt_keys import LIFE
from policyd.ca.jwt_store import FILE, JwtKeyStore
from policyd.errors import KeyFileError, PolicydError, StateError
from tests.ca.samples import NOW
from tests.fakes.clock import FakeClock


def a_store(folder: Path, clock: FakeClock | None = None, passphrase: bytes | None = None) -> JwtKeyStore:
    return JwtKeyStore(folder, clock or FakeClock(NOW), os.urandom, passphrase)


def test_keys_outlive_the_process(tmp_path: Path) -> None:
    clock = FakeClock(NOW)
    store = a_store(tmp_path, clock)
    assert store.turn() is False
    clock.now = NOW + LIFE / 2
    assert store.turn() is True
    assert len(store.keys.keys) == 2
    assert a_store(tmp_path, clock).keys == store.keys
    assert store.signing() == store.keys.keys[0]


def test_they_are_nobody_elses(tmp_path: Path) -> None:
    a_store(tmp_path)
    file = tmp_path / FILE
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    file.chmod(0o640)
    with pytest.raises(KeyFileError, match="mode 0640, others may use it"):
        a_store(tmp_path)


def test_with_a_passphrase_they_lie_there_encrypted(tmp_path: Path) -> None:
    kept = a_store(tmp_path).keys
    assert "BEGIN PRIVATE KEY" in (tmp_path / FILE).read_text()
    assert a_store(tmp_path, passphrase=b"secret").keys == kept
    assert "BEGIN PRIVATE KEY" not in (tmp_path / FILE).read_text()
    assert a_store(tmp_path, passphrase=b"secret").keys == kept
    for wrong, why in ((b"other", "the passphrase is wrong"), (None, "the key is encrypted")):
        with pytest.raises(KeyFileError, match=why):
            a_store(tmp_path, passphrase=wrong)


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (lambda text: "noise", StateError),
        (lambda text: "{}", StateError),
        (lambda text: text[:-20], StateError),
        (lambda text: json.dumps({**json.loads(text), "format": 2}), StateError),
        (lambda text: json.dumps({**json.loads(text), "sequence": "x"}), StateError),
        (lambda text: text.replace("BEGIN PRIVATE", "BEGIN"), KeyFileError),
        (lambda text: text.replace("T12:00:00Z", "T12:00:00"), StateError),
    ],
)
def test_a_broken_file_is_an_error_and_stays(tmp_path: Path, change: object, kind: type[PolicydError]) -> None:
    a_store(tmp_path)
    file = tmp_path / FILE
    broken = change(file.read_text())  # type: ignore[operator]
    file.write_text(broken)
    with pytest.raises(kind) as caught:
        a_store(tmp_path)
    assert str(file) in str(caught.value)
    assert file.read_text() == broken
