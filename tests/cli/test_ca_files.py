"""Files of certificates, requests, tokens and bundles: looked at, verified, signed."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from policyd._pb import admin_pb2 as pb
from policyd._pb import authority_pb2 as ca
from policyd.cli.exits import Exit
from policyd.svid.bundle import Bundle, JwtKey, write
from tests.cli.conftest import Said
from tests.cli.test_ca import PLACES, WEB, signing
from tests.fakes.admin import FakeAdmin
from tests.fakes.issuer import signed
from tests.fakes.toy_ca import ToyCa

AUTHORITY = ToyCa()
KEY = ec.generate_private_key(ec.SECP256R1())
BUNDLE = Bundle("cluster.local", (AUTHORITY.root.der,), (JwtKey("k1", KEY.public_key()),), 7, 300)
Policyd = Callable[..., Said]


def chain_file(folder: Path, **changes: Any) -> Path:
    chain = AUTHORITY.sign(KEY.public_key(), [WEB], **changes)
    file = folder / "certificate.pem"
    file.write_bytes(b"".join(x509.load_der_x509_certificate(one).public_bytes(Encoding.PEM) for one in chain))
    return file


def token_file(folder: Path, **claims: Any) -> Path:
    header = {"alg": "ES256", "kid": "k1", "typ": "JWT"}
    body = {"sub": WEB, "aud": ["shop"], "exp": int(time.time()) + 300, **claims}
    file = folder / "token"
    file.write_text(signed(header, body, KEY) + "\n")
    return file


def bundle_files(folder: Path) -> tuple[Path, Path]:
    """The bundle as a JWK set, and its roots in PEM."""
    document, roots = folder / "bundle.json", folder / "roots.pem"
    document.write_bytes(write(BUNDLE))
    roots.write_bytes(AUTHORITY.root.pem)
    return document, roots


def csr_file(folder: Path, form: Encoding = Encoding.PEM) -> Path:
    file = folder / "request"
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    file.write_bytes(builder.sign(KEY, hashes.SHA256()).public_bytes(form))
    return file


def test_a_chain_is_shown_certificate_by_certificate(policyd: Policyd, tmp_path: Path) -> None:
    leaf, issuer = policyd("ca", "inspect", chain_file(tmp_path), "--json").value
    assert (leaf["kind"], leaf["spiffe_id"], leaf["key"]) == ("certificate", WEB, "EC secp256r1")
    assert (leaf["usage"], leaf["purposes"]) == (["digital_signature"], ["clientAuth", "serverAuth"])
    assert (issuer["kind"], issuer["spiffe_id"]) == ("certificate of an authority", "spiffe://cluster.local")
    people = policyd("ca", "inspect", chain_file(tmp_path)).out
    for text in ("certificate of an authority", WEB, "ends in", "key_cert_sign"):
        assert text in people


def test_a_certificate_that_breaks_the_rules_is_shown_all_the_same(policyd: Policyd, tmp_path: Path) -> None:
    chain = AUTHORITY.sign(KEY.public_key(), [WEB, WEB + "2"], key_usage=False, start=datetime(2020, 1, 1, tzinfo=UTC))
    file = tmp_path / "odd.der"
    file.write_bytes(chain[0])
    [odd] = policyd("ca", "inspect", file, "--json").value
    assert (odd["uris"], odd["usage"], odd["state"][:5]) == ([WEB, WEB + "2"], [], "ended")


def test_a_token_is_shown_and_said_to_prove_nothing(policyd: Policyd, tmp_path: Path) -> None:
    [shown] = policyd("ca", "inspect", token_file(tmp_path, jti="7"), "--json").value
    assert (shown["kind"], shown["spiffe_id"]) == ("token (JWT-SVID), not verified", WEB)
    assert (shown["audiences"], shown["key_id"], shown["claims"]) == (["shop"], "k1", {"jti": "7"})


def test_a_request_and_a_bundle_are_shown(policyd: Policyd, tmp_path: Path) -> None:
    for form in (Encoding.PEM, Encoding.DER):
        [shown] = policyd("ca", "inspect", csr_file(tmp_path, form), "--json").value
        assert (shown["kind"], shown["signed_by_its_key"]) == ("certificate signing request", True)
    head, root, key = policyd("ca", "inspect", bundle_files(tmp_path)[0], "--json").value
    assert (head["sequence"], head["refresh_hint"], head["keys"]) == (7, 300, 2)
    assert (root["use"], key["use"], key["kid"]) == ("x509-svid", "jwt-svid", "k1")


def test_of_a_private_key_nothing_is_shown(policyd: Policyd, tmp_path: Path) -> None:
    file = tmp_path / "key.pem"
    file.write_bytes(KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    said = policyd("ca", "inspect", file)
    assert said.out.split("\n")[0].split() == ["kind", "private", "key"]
    assert not any(line in said.out for line in file.read_text().splitlines())


def test_standard_input_is_a_file_too(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "policyd.cli.main", "ca", "inspect", "-", "--json"]
    done = subprocess.run(command, input=token_file(tmp_path).read_bytes(), capture_output=True, timeout=60)
    assert json.loads(done.stdout)[0]["spiffe_id"] == WEB


@pytest.mark.parametrize(
    ("content", "code", "why"),
    [
        (b"noise", Exit.INVALID, "this is no certificate, request, token or bundle"),
        (b"-----BEGIN CERTIFICATE-----\nnoise", Exit.INVALID, "this cannot be read"),
        (b"a.b.c", Exit.INVALID, "base64url"),
        (b"{}", Exit.INVALID, "no JWK set"),
        (None, Exit.USAGE, "cannot be read: no such file or directory\n  name a file that is there"),
    ],
)
def test_what_is_nothing_is_invalid_input_and_named(
    policyd: Policyd, tmp_path: Path, content: bytes | None, code: Exit, why: str
) -> None:
    file = tmp_path / "thing"
    if content is not None:
        file.write_bytes(content)
    said = policyd("ca", "inspect", file)
    assert (said.code, why in said.err, str(file) in said.err) == (code, True, True)


def test_a_true_chain_is_verified_by_a_file_and_by_the_server(
    policyd: Policyd, folder: Path, fake: FakeAdmin, tmp_path: Path
) -> None:
    file = chain_file(tmp_path)
    for bundle in bundle_files(tmp_path):
        said = policyd("ca", "verify", file, "--bundle", bundle, "--trust-domain", "cluster.local")
        assert (said.code, said.out) == (Exit.OK, f"verified: `{WEB}`\n")
    fake.replies["ShowBundle"] = ca.ShowBundleReply(trust_domain="cluster.local", document=write(BUNDLE))
    assert policyd("ca", "verify", file, "--dir", folder, "--json").value == {"verified": True, "spiffe_id": WEB}


def test_a_true_token_is_verified_for_its_audience(policyd: Policyd, tmp_path: Path) -> None:
    by = ("--bundle", bundle_files(tmp_path)[0], "--trust-domain", "cluster.local")
    good = policyd("ca", "verify", token_file(tmp_path), "--audience", "shop", *by)
    assert (good.code, good.out) == (Exit.OK, f"verified: `{WEB}`\n")
    bad = policyd("ca", "verify", token_file(tmp_path), "--audience", "bank", *by)
    assert (bad.code, bad.out) == (Exit.DENIED, "not verified: the token is not for `bank`\n")
    roots_only = ("--bundle", bundle_files(tmp_path)[1], "--trust-domain", "cluster.local")
    assert policyd("ca", "verify", token_file(tmp_path), "--audience", "shop", *roots_only).code == Exit.DENIED


@pytest.mark.parametrize(
    ("changes", "words", "why"),
    [
        ({"ca": True}, (), "that of an authority"),
        ({"key_usage": False}, (), "lacks the extension KeyUsage"),
        ({"start": datetime.now(UTC) - timedelta(hours=2)}, (), "compare the clocks"),
        ({}, ("--at", "2020-01-01T00:00:00Z"), "compare the clocks"),
        ({}, ("--trust-domain", "partner.org"), "not of the trust domain `partner.org`"),
    ],
)
def test_an_untrue_chain_is_a_denial(
    policyd: Policyd, tmp_path: Path, changes: dict[str, Any], words: tuple[str, ...], why: str
) -> None:
    file, (_, roots) = chain_file(tmp_path, **changes), bundle_files(tmp_path)
    domain = () if "--trust-domain" in words else ("--trust-domain", "cluster.local")
    said = policyd("ca", "verify", file, "--bundle", roots, *domain, *words)
    assert (said.code, said.out.startswith("not verified: "), why in said.out) == (Exit.DENIED, True, True)


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("--audience", "shop"), "give --audience with a token"),
        (("--bundle", "roots.pem"), "give --bundle and --trust-domain together"),
        (("--trust-domain", "cluster.local"), "give --bundle and --trust-domain together"),
    ],
)
def test_a_question_that_makes_no_sense_is_a_usage_error(
    policyd: Policyd, tmp_path: Path, words: tuple[str, ...], why: str
) -> None:
    said = policyd("ca", "verify", chain_file(tmp_path), *words)
    assert (said.code, why in said.err) == (Exit.USAGE, True)


def test_a_request_is_signed_for_the_workload_that_is_named(
    policyd: Policyd, folder: Path, fake: FakeAdmin, tmp_path: Path
) -> None:
    fake.replies |= {"Instances": pb.InstancesReply(instances=PLACES), "Issue": signing(AUTHORITY)}
    for form in (Encoding.PEM, Encoding.DER):
        said = policyd("ca", "sign", csr_file(tmp_path, form), "--workload", "web", "--ttl", "5m", "--dir", folder)
        leaf, _ = x509.load_pem_x509_certificates(said.out.encode())
        assert leaf.public_key() == KEY.public_key()
        assert said.err.startswith(f"`{WEB}`, serial {leaf.serial_number:032x}, until ")
    [asked, _] = [request for name, request in fake.requests if name == "Issue"]
    assert (asked.spiffe_id, asked.ttl_seconds) == (WEB, 300)
    out = tmp_path / "chain.pem"
    assert policyd("ca", "sign", csr_file(tmp_path), "--workload", "web", "--out", out, "--dir", folder).out == ""
    assert len(x509.load_pem_x509_certificates(out.read_bytes())) == 2


def test_two_requests_in_a_file_are_not_signed(policyd: Policyd, folder: Path, fake: FakeAdmin, tmp_path: Path) -> None:
    csr = csr_file(tmp_path)
    csr.write_bytes(csr.read_bytes() * 2)
    said = policyd("ca", "sign", csr, "--workload", "web", "--dir", folder)
    told = f"{csr}: a file has one certificate signing request, this one 2; give each its own file\n"
    assert (said, fake.requests) == (Said(Exit.INVALID, "", f"{told}error: 1 problem found\n"), [])


def test_a_dash_is_where_a_chain_is_printed(
    policyd: Policyd, folder: Path, fake: FakeAdmin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.replies |= {"Instances": pb.InstancesReply(instances=PLACES), "Issue": signing(AUTHORITY)}
    monkeypatch.chdir(tmp_path)
    said = policyd("ca", "sign", csr_file(tmp_path), "--workload", "web", "--out", "-", "--dir", folder)
    assert (len(x509.load_pem_x509_certificates(said.out.encode())), Path("-").exists()) == (2, False)


def test_a_request_that_the_server_refuses_is_named(
    policyd: Policyd, folder: Path, fake: FakeAdmin, tmp_path: Path
) -> None:
    fake.replies |= {"Instances": pb.InstancesReply(instances=PLACES)}
    fake.failures["Issue"] = (grpc.StatusCode.INVALID_ARGUMENT, "a request names no subject; leave it empty")
    csr = csr_file(tmp_path)
    said = policyd("ca", "sign", csr, "--workload", "web", "--dir", folder)
    told = f"{csr}: a request names no subject; leave it empty\nerror: 1 problem found\n"
    assert said == Said(Exit.INVALID, "", told)


def test_a_signed_request_is_told_to_programs(policyd: Policyd, folder: Path, fake: FakeAdmin, tmp_path: Path) -> None:
    fake.replies |= {"Instances": pb.InstancesReply(instances=PLACES), "Issue": signing(AUTHORITY)}
    said = policyd("ca", "sign", csr_file(tmp_path), "--workload", "web", "--dir", folder, "--json").value
    leaf, _ = x509.load_pem_x509_certificates(said["chain"].encode())
    assert (said["spiffe_id"], said["serial"]) == (WEB, f"{leaf.serial_number:032x}")
    assert datetime.fromisoformat(said["until"]) == leaf.not_valid_after_utc


def test_only_a_request_is_signed(policyd: Policyd, folder: Path, fake: FakeAdmin, tmp_path: Path) -> None:
    said = policyd("ca", "sign", chain_file(tmp_path), "--workload", "web", "--dir", folder)
    assert (said.code, "is no certificate signing request" in said.err) == (Exit.INVALID, True)
    assert fake.requests == []
