"""A key behind a service: it signs over TLS that is verified, and whatever else comes from there is refused."""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from policyd.ca import authorities_store, keystore
from policyd.ca.elsewhere import ElsewhereKey
from policyd.ca.signing_service import SigningService
from policyd.ca.upstream import Upstream
from policyd.ca.web import Service
from policyd.errors import IdentityError, StateError
from tests.ca.samples import RATINGS, a_key
from tests.ca.test_upstream import Desk, verified
from tests.fakes.signing_service import SigningServer, reply

KEY = a_key()
ALGORITHM = ec.ECDSA(hashes.SHA256())


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def secret(folder: Path, text: str = "s3cret\n") -> Path:
    path = folder / "token"
    path.write_text(text)
    path.chmod(0o600)
    return path


def certificate(folder: Path) -> tuple[Path, ssl.SSLContext]:
    """Of 127.0.0.1, self-signed: its file, and a server's context that shows it."""
    key, name, now = a_key(), x509.Name([]), datetime.now(UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), 1, now - timedelta(hours=1), now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=True)
        .add_extension(x509.BasicConstraints(True, None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path, own = folder / "signer.pem", folder / "signer.key"
    path.write_bytes(made.public_bytes(Encoding.PEM))
    own.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path, own)
    return path, context


def test_a_key_behind_a_service_signs_over_tls_and_is_never_here(desk: Desk) -> None:
    roots, tls = certificate(desk.folder)
    with SigningServer(desk.key, token="s3cret", tls=tls) as server:
        upstream = Upstream(desk.upstream.chain, signer=SigningService(Service(server.url, secret(desk.folder), roots)))
        assert verified(desk.open(upstream).authority) == RATINGS
        again = desk.open(upstream).authority
        assert isinstance(again.key, ElsewhereKey)
        assert verified(again) == RATINGS
        assert server.asked
    kept = (desk.folder / "state" / keystore.FOLDER / authorities_store.FILE).read_text()
    assert "PRIVATE KEY" not in kept


def test_a_service_whose_certificate_nobody_vouches_for_is_told_nothing(tmp_path: Path) -> None:
    _, tls = certificate(tmp_path)
    with SigningServer(KEY, tls=tls) as server:
        with pytest.raises(IdentityError, match=r"cannot be asked: .*certificate verify failed"):
            SigningService(Service(server.url))(b"data")
        assert server.asked == []


def endless(handler: BaseHTTPRequestHandler, _: bytes) -> None:
    handler.send_response(200)
    handler.end_headers()
    for _ in range(100):
        handler.wfile.write(b"x" * 100_000)


def elsewhere(handler: BaseHTTPRequestHandler, _: bytes) -> None:
    reply(handler, 307, b"", Location="http://127.0.0.1:1/")


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda h, _: reply(h, 503, b"the module is locked"), "answers 503: the module is locked"),
        (lambda h, _: reply(h, 200, b"no signature"), "is no signature by the certificate's key"),
        (lambda h, _: reply(h, 200, b""), "is no signature by the certificate's key"),
        (lambda h, body: reply(h, 200, a_key().sign(body, ALGORITHM)), "is no signature by the certificate's key"),
        (lambda h, body: reply(h, 200, KEY.sign(body + b"x", ALGORITHM)), "is no signature by the certificate's key"),
        (endless, "is no signature by the certificate's key"),
        (elsewhere, "answers 307"),
        (lambda h, _: h.wfile.write(b"what?\r\n\r\n"), "cannot be asked"),
        (lambda h, _: None, "cannot be asked"),
    ],
)  # fmt: skip
def test_what_is_no_signature_is_an_error_that_says_so(
    answer: Callable[[BaseHTTPRequestHandler, bytes], None], message: str
) -> None:
    with SigningServer(KEY) as server:
        server.answer = answer
        with pytest.raises(IdentityError, match=message):
            ElsewhereKey(SigningService(Service(server.url)), KEY.public_key()).sign(b"data", ALGORITHM)


def test_a_service_that_never_ends_its_answer_is_not_waited_for() -> None:
    def drip(handler: BaseHTTPRequestHandler, _: bytes) -> None:
        handler.send_response(200)
        handler.end_headers()
        try:
            while True:
                handler.wfile.write(b"x")
                handler.wfile.flush()
                time.sleep(0.2)
        except OSError:
            return

    with SigningServer(KEY) as server:
        server.answer = drip
        with pytest.raises(IdentityError, match=r"did not answer within 0\.5 seconds"):
            SigningService(Service(server.url, seconds=0.5))(b"data")


@pytest.mark.parametrize(
    ("text", "message"), [("", "holds no token"), ("wrong\n", "answers 401: who are you"), ("ü", "cannot be read")]
)
def test_a_token_that_is_none_is_an_error(tmp_path: Path, text: str, message: str) -> None:
    with SigningServer(KEY, token="s3cret") as server, pytest.raises(IdentityError, match=message):
        SigningService(Service(server.url, secret(tmp_path, text)))(b"data")


def test_a_token_that_others_can_read_is_not_sent(tmp_path: Path) -> None:
    token = secret(tmp_path)
    token.chmod(0o644)
    with SigningServer(KEY) as server:
        with pytest.raises(IdentityError, match="others may use it"):
            SigningService(Service(server.url, token))(b"data")
        assert server.asked == []


def test_a_service_that_is_not_there_lets_nothing_begin(desk: Desk) -> None:
    upstream = Upstream(desk.upstream.chain, signer=SigningService(Service("http://127.0.0.1:1/sign")))
    with pytest.raises(StateError, match=r"`http://127\.0\.0\.1:1/sign` cannot be asked: .*refused"):
        desk.open(upstream)
    assert list((desk.folder / "state").iterdir()) == []
