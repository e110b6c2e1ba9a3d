"""A certificate, its key and roots as files: of one moment, of one user."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from policyd.spiffe import SpiffeId
from proxy.certificate_files import CertificateFiles
from tests.fakes.discovery import svid_of
from tests.fakes.toy_ca import ToyCa

WEB = SpiffeId.workload("cluster.local", "default", "web")


def test_the_three_are_of_one_moment_and_of_one_user(tmp_path: Path) -> None:
    files = CertificateFiles(tmp_path)
    for _ in range(4):
        svid, bundle = svid_of(ToyCa(), WEB)
        files.write(svid, bundle)
        found = [file.read_bytes() for file in (files.chain, files.key, files.roots)]
        assert found == [svid.chain_pem(), svid.key_pem, bundle.pem()]
        assert {stat.S_IMODE(file.stat().st_mode) for file in (files.chain, files.key, files.roots)} == {0o600}
        assert stat.S_IMODE(files.chain.parent.resolve().stat().st_mode) == 0o700
    assert len(list(tmp_path.iterdir())) == 3  # the link, what it leads to, and what it led to before


def test_who_has_begun_to_read_finds_the_rest_of_that_moment(tmp_path: Path) -> None:
    files, ca = CertificateFiles(tmp_path), ToyCa()
    before, bundle = svid_of(ca, WEB)
    files.write(before, bundle)
    moment = files.chain.parent.resolve()
    files.write(*svid_of(ca, WEB))
    assert (moment / files.chain.name).read_bytes() == before.chain_pem()
    assert (moment / files.key.name).read_bytes() == before.key_pem
    assert files.key.read_bytes() != before.key_pem


def test_what_cannot_be_written_leaves_what_was_there(tmp_path: Path) -> None:
    files, ca = CertificateFiles(tmp_path), ToyCa()
    before, bundle = svid_of(ca, WEB)
    files.write(before, bundle)
    (tmp_path / "2").write_text("in the way")
    after, _ = svid_of(ca, WEB)
    with pytest.raises(FileExistsError):
        files.write(after, bundle)
    assert files.key.read_bytes() == before.key_pem
    (tmp_path / "2").unlink()
    files.write(after, bundle)
    assert files.key.read_bytes() == after.key_pem
