"""What is exported can be imported with its passphrase, and with nothing else."""

from __future__ import annotations

import json
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policyd.ca.archive import Contents, seal, unseal
from policyd.errors import KeyFileError, PolicydError, StateError

PASSPHRASE = b"correct horse battery"
CONTENTS = Contents("cluster.local", "2026-11-23T12:00:00Z", {"root.key": b"\x00secret", "root.pem": b"pem"})
SEALED = seal(CONTENTS, PASSPHRASE, os.urandom)


def test_what_was_sealed_comes_back_and_cannot_be_read_before() -> None:
    assert unseal(SEALED, PASSPHRASE) == CONTENTS
    assert (b"secret" in SEALED, b"root" in SEALED, b"cluster" in SEALED) == (False, False, False)


def test_another_passphrase_opens_nothing() -> None:
    with pytest.raises(KeyFileError, match="the passphrase is wrong, or the file is damaged"):
        unseal(SEALED, b"correct horse batterie")


def test_a_passphrase_that_is_guessed_soon_seals_nothing() -> None:
    with pytest.raises(KeyFileError, match="at least 12 bytes"):
        seal(CONTENTS, b"hunter2", os.urandom)


@settings(max_examples=20, deadline=None)
@given(st.data())
def test_no_byte_of_it_may_differ(data: st.DataObject) -> None:
    broken = bytearray(SEALED)
    at = data.draw(st.sampled_from([at for at, byte in enumerate(SEALED) if chr(byte).isalnum()]))
    broken[at] = data.draw(st.sampled_from([byte for byte in b"AZaz09" if byte != broken[at]]))
    try:
        found = unseal(bytes(broken), PASSPHRASE)
    except PolicydError:
        return
    assert found == CONTENTS  # the last character of base64 has bits that say nothing


def changed(**fields: object) -> bytes:
    return json.dumps({**json.loads(SEALED), **fields}).encode()


@pytest.mark.parametrize(
    ("file", "message"),
    [
        (b"", "is no exported authority"),
        (b"[" * 100_000, "is no exported authority"),
        (b"-----BEGIN PRIVATE KEY-----", "is no exported authority"),
        (changed(salt="ü"), "is no exported authority"),
        (changed(salt=""), "is no exported authority"),
        (changed(nonce="AAAA"), "is no exported authority"),
        (changed(more=1), "is no exported authority"),
        (changed(policyd_authority=2), "by a newer version"),
        (seal(Contents("a", "b", {"../x": b""}), PASSPHRASE, os.urandom), r"`\.\./x` is no file of an authority"),
        (seal(Contents("a", "b", {".x": b""}), PASSPHRASE, os.urandom), "is no file of an authority"),
    ],
)
def test_what_is_no_export_is_refused(file: bytes, message: str) -> None:
    with pytest.raises(StateError, match=message):
        unseal(file, PASSPHRASE)
