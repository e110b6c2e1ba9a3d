"""Keys at rest: whole or not at all, for nobody else's eyes, never made anew over what is there."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from policyd.ca import keystore
from policyd.ca.files import MAX_BYTES, read_passphrase, read_secret, write_secret
from policyd.ca.open import Opened, expiry_warnings, open_authority
from policyd.ca.pkcs8 import is_encrypted, read_key, write_key
from policyd.errors import KeyFileError, PolicydError, StateError
from tests.ca.samples import DOMAIN, NOW, a_key, a_material
from tests.fakes.clock import FakeClock

PASSPHRASE = b"correct horse battery staple"
DAY = timedelta(days=1)


def opened(state: Path, passphrase: bytes | None = None, after: timedelta = 0 * DAY, domain: str = DOMAIN) -> Opened:
    return open_authority(state, domain, clock=FakeClock(NOW + after), random=os.urandom, passphrase=passphrase)


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A state folder with an authority in it."""
    opened(tmp_path)
    return tmp_path


def test_the_first_start_makes_an_authority_and_says_so(tmp_path: Path) -> None:
    first = opened(tmp_path)
    digest = first.authority.root_sha256
    assert first.created
    assert first.notices == (f"made a certificate authority for `cluster.local`, root SHA-256 {digest}",)


def test_every_other_start_finds_the_same_authority(state: Path) -> None:
    again, later = opened(state), opened(state, after=DAY)
    assert (again.created, again.notices, again.warnings) == (False, (), ())
    assert again.authority.root == later.authority.root
    assert again.authority.key.private_numbers() == later.authority.key.private_numbers()


def test_files_are_the_owner_s_alone_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        opened(tmp_path)
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "ca").iterdir()}
    assert modes == dict.fromkeys(keystore.FILES, 0o600)
    assert (tmp_path / "ca").stat().st_mode & 0o777 == 0o700
    assert [path.name for path in tmp_path.iterdir()] == ["ca"]


def test_an_interrupted_first_start_leaves_nothing_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "ca.new").mkdir()
    (tmp_path / "ca.new" / "root.key").write_text("half a k")
    assert opened(tmp_path).created
    assert [path.name for path in tmp_path.iterdir()] == ["ca"]


def test_an_authority_is_never_written_over_another(state: Path) -> None:
    before = {path: path.read_bytes() for path in (state / "ca").iterdir()}
    with pytest.raises(StateError, match="holds an authority already"):
        keystore.create(state, a_material(), None, os.urandom)
    assert {path: path.read_bytes() for path in (state / "ca").iterdir()} == before


def test_a_passphrase_encrypts_plain_keys_at_the_next_start(state: Path) -> None:
    keys = [state / "ca" / "root.key", state / "ca" / "intermediate.key"]
    assert not any(is_encrypted(key.read_bytes()) for key in keys)
    changed = opened(state, PASSPHRASE)
    assert changed.notices == tuple(f"`{key}` is encrypted from now on" for key in keys)
    assert all(is_encrypted(key.read_bytes()) and key.stat().st_mode & 0o777 == 0o600 for key in keys)
    assert opened(state, PASSPHRASE).notices == ()


@pytest.mark.parametrize(
    ("passphrase", "message"),
    [(None, "the key is encrypted; set the file that holds its passphrase"), (b"wrong", "the passphrase is wrong")],
)
def test_an_encrypted_key_needs_its_passphrase(tmp_path: Path, passphrase: bytes | None, message: str) -> None:
    opened(tmp_path, PASSPHRASE)
    with pytest.raises(KeyFileError) as caught:
        opened(tmp_path, passphrase)
    assert str(caught.value).startswith(f"`{tmp_path / 'ca' / 'root.key'}`: {message}")


def swap_folder_for_file(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.write_text("")


def swap_key_for_link(folder: Path) -> None:
    (folder / "root.key").rename(folder.parent / "elsewhere")
    (folder / "root.key").symlink_to(folder.parent / "elsewhere")


def swap_key_for_pipe(folder: Path) -> None:
    (folder / "root.key").unlink()
    os.mkfifo(folder / "root.key", 0o600)


def put_other_kind_of_key(folder: Path) -> None:
    key = ed25519.Ed25519PrivateKey.generate()
    (folder / "root.key").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


def put_other_key(folder: Path) -> None:
    (folder / "intermediate.key").write_bytes(write_key(a_key(), None, os.urandom))


BROKEN: list[tuple[str, Callable[[Path], object], type[PolicydError], str]] = [
    ("key for all", lambda f: (f / "root.key").chmod(0o604), KeyFileError, "mode 0604, others may use it; `chmod 600"),
    ("key for group", lambda f: (f / "intermediate.key").chmod(0o640), KeyFileError, "has mode 0640"),
    ("folder for all", lambda f: f.chmod(0o755), StateError, "has mode 0755, others may use it; `chmod 700"),
    ("no root key", lambda f: (f / "root.key").unlink(), StateError, "lacks root.key; restore from a copy, or"),
    ("no certificates", lambda f: [p.unlink() for p in f.glob("*.pem")], StateError, "lacks root.pem and intermediate"),
    ("nothing left", lambda f: [p.unlink() for p in f.iterdir()], StateError, "lacks root.pem and root.key and"),
    ("half a key", lambda f: os.truncate(f / "root.key", 100), KeyFileError, "root.key`: the key is damaged; restore"),
    ("empty key", lambda f: os.truncate(f / "intermediate.key", 0), KeyFileError, "the key is damaged"),
    ("half a certificate", lambda f: os.truncate(f / "root.pem", 100), StateError, "root.pem` is no certificate"),
    ("a huge key", lambda f: os.truncate(f / "root.key", MAX_BYTES + 1), KeyFileError, "more than 65536 bytes"),
    ("a link", swap_key_for_link, KeyFileError, "cannot be read"),
    ("a pipe", swap_key_for_pipe, KeyFileError, "is no plain file"),
    ("a file for the folder", swap_folder_for_file, StateError, "is no folder"),
    ("another kind of key", put_other_kind_of_key, KeyFileError, "the key is not an elliptic one"),
    ("another key", put_other_key, StateError, "does not hold together: the intermediate's key is not that of"),
]  # fmt: skip


@pytest.mark.parametrize(("damage", "kind", "message"), [r[1:] for r in BROKEN], ids=[r[0] for r in BROKEN])
def test_a_damaged_store_stops_the_start_and_nothing_is_made_anew(
    state: Path, damage: Callable[[Path], object], kind: type[PolicydError], message: str
) -> None:
    damage(state / "ca")
    left = sorted(path.name for path in state.rglob("*"))
    with pytest.raises(kind) as caught:
        opened(state)
    assert message in str(caught.value)
    assert caught.value.remedy
    assert sorted(path.name for path in state.rglob("*")) == left


def test_a_certificate_of_another_authority_stops_the_start(state: Path) -> None:
    other = state / "other"
    other.mkdir()
    opened(other)
    shutil.copy(other / "ca" / "intermediate.pem", state / "ca" / "intermediate.pem")
    with pytest.raises(StateError, match="does not hold together"):
        opened(state)


def test_another_trust_domain_is_refused_and_both_are_named(state: Path) -> None:
    with pytest.raises(StateError, match=r"of the trust domain `cluster\.local`, not of `partner\.org`"):
        opened(state, domain="partner.org")


@pytest.mark.parametrize(
    ("after", "message"),
    [
        (366 * DAY, "the intermediate certificate in .* expired at 2027-11-23T12:00:00Z; start anew"),
        (365 * DAY - timedelta(minutes=30), "ends at 2027-11-23T12:00:00Z, too soon to issue any"),
        (3654 * DAY, "the root certificate in .* expired"),
        (-1 * DAY, "does not hold together: the certificate begins at"),
    ],
)
def test_an_authority_that_cannot_sign_does_not_start(state: Path, after: timedelta, message: str) -> None:
    with pytest.raises(StateError, match=message):
        opened(state, after=after)


def test_an_authority_that_nears_its_end_warns(state: Path) -> None:
    warning = "the intermediate certificate ends at 2027-11-23T12:00:00Z, in 30 days"
    assert opened(state, after=335 * DAY).warnings == (warning,)
    assert len(expiry_warnings(opened(state).authority, NOW + 3300 * DAY)) == 2


def test_a_full_or_unwritable_disk_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file where the folder should be")
    with pytest.raises(StateError, match=r"cannot be written: Not a directory; look at the disk's free space"):
        keystore.create(tmp_path / "state", a_material(), None, os.urandom)
    with pytest.raises(StateError, match="cannot be written: No such file"):
        write_secret(tmp_path / "missing" / "key", b"")


def test_a_secret_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_bytes(b"old")
    path.chmod(0o644)
    write_secret(path, b"new")
    assert (read_secret(path), [p.name for p in tmp_path.iterdir()]) == (b"new", ["key"])


@pytest.mark.parametrize(
    ("content", "mode", "passphrase"), [(b"open sesame\n", 0o600, b"open sesame"), (b"one\r\ntwo", 0o400, b"one")]
)
def test_a_passphrase_is_the_first_line_of_its_file(
    tmp_path: Path, content: bytes, mode: int, passphrase: bytes
) -> None:
    path = tmp_path / "passphrase"
    path.write_bytes(content)
    path.chmod(mode)
    assert read_passphrase(path) == passphrase


@pytest.mark.parametrize(("content", "mode", "message"), [(b"\n", 0o600, "no passphrase"), (b"x", 0o644, "0644")])
def test_an_empty_or_open_passphrase_file_is_refused(tmp_path: Path, content: bytes, mode: int, message: str) -> None:
    path = tmp_path / "passphrase"
    path.write_bytes(content)
    path.chmod(mode)
    with pytest.raises(KeyFileError, match=message):
        read_passphrase(path)


@pytest.mark.needs("openssl")
def test_openssl_reads_an_encrypted_key(tmp_path: Path) -> None:
    key = a_key()
    (tmp_path / "key").write_bytes(write_key(key, PASSPHRASE, os.urandom))
    command = ["openssl", "pkcs8", "-in", "key", "-passin", f"pass:{PASSPHRASE.decode()}"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True)
    assert (done.returncode, read_key(done.stdout, None).private_numbers()) == (0, key.private_numbers()), done.stderr
