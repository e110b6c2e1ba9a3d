"""Bundle endpoints as others run them, over TLS on loopback: the good ones of both profiles, and all the others."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from policyd.config.authority import FederatedSettings
from policyd.errors import FederationError
from policyd.sources.bundle_fetch import fetch
from policyd.svid import bundle as bundles
from policyd.svid.bundle import Bundle
from proxy.identity import Bundle as Pem
from tests.certificates import Authority
from tests.fakes.toy_ca import ToyCa

PARTNER, OTHER = ToyCa("partner.org"), ToyCa("other.org")
HELD = Bundle("partner.org", (PARTNER.root.der,), sequence=7)
ENDPOINT = "spiffe://partner.org/policyd/server"
GOOD = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"
Talk = Callable[[ssl.SSLSocket], None]


def says(answer: bytes) -> Talk:
    return lambda connection: connection.sendall(answer)


def endless(connection: ssl.SSLSocket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
    for _ in range(64):
        connection.sendall(b" " * (1 << 16))


@contextmanager
def served(certificate: Path, talk: Talk) -> Iterator[str]:
    """An endpoint that reads a request and talks; its URL."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    listener = socket.create_server(("127.0.0.1", 0))
    over = threading.Event()

    def run() -> None:
        while not over.is_set():
            connection, _ = listener.accept()
            with connection:
                try:
                    with context.wrap_socket(connection, server_side=True) as secured:
                        if secured.recv(4096):
                            talk(secured)
                except OSError:  # whoever asked has seen enough
                    pass

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield f"https://127.0.0.1:{listener.getsockname()[1]}/"
    finally:
        over.set()
        socket.create_connection(listener.getsockname()).close()
        thread.join()
        listener.close()


def shown(ca: ToyCa, uris: Sequence[str], folder: Path, ended: bool = False) -> Path:
    """A certificate of an authority with its chain and key, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    start = datetime.now(UTC) - timedelta(hours=2) if ended else None
    chain = Pem("x", ca.sign(key.public_key(), uris, start=start)).pem()
    file = folder / "endpoint.pem"
    file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()) + chain)
    return file


def relation(url: str, profile: str = "https_spiffe") -> FederatedSettings:
    proves = {"endpoint_id": ENDPOINT} if profile == "https_spiffe" else {}
    return FederatedSettings.model_validate(
        {"trust_domain": "partner.org", "bundle_endpoint": url, "profile": profile, **proves}
    )


async def test_an_endpoint_proves_itself_by_the_bundle_at_hand(tmp_path: Path) -> None:
    with served(shown(PARTNER, [ENDPOINT], tmp_path), says(GOOD)) as url:
        assert await fetch(relation(url), HELD) == b"{}"


@pytest.mark.parametrize(
    ("ca", "uris", "held", "message"),
    [
        (PARTNER, ["spiffe://partner.org/web"], HELD, f"it is `spiffe://partner.org/web`, not `{ENDPOINT}`"),
        (
            PARTNER,
            [ENDPOINT, "spiffe://partner.org/b"],
            HELD,
            "its certificate is no SVID: a certificate bears exactly",
        ),
        (PARTNER, [], HELD, "its certificate is no SVID: the certificate lacks"),
        (OTHER, [ENDPOINT], HELD, "certificate verify failed"),
        (PARTNER, [ENDPOINT], None, "no bundle is at hand that it could prove itself by; import the first one"),
        (PARTNER, [ENDPOINT], Bundle("partner.org"), "no bundle is at hand that it could prove itself by"),
    ],
    ids=["another workload", "two URIs", "no URI", "another authority", "no bundle", "a bundle with zero keys"],
)
async def test_whoever_is_not_the_endpoint_is_not_read(
    tmp_path: Path, ca: ToyCa, uris: list[str], held: Bundle | None, message: str
) -> None:
    with served(shown(ca, uris, tmp_path), says(GOOD)) as url, pytest.raises(FederationError) as caught:
        await fetch(relation(url), held)
    assert message in str(caught.value)


async def test_an_endpoint_whose_certificate_has_ended_is_not_read(tmp_path: Path) -> None:
    shows = shown(PARTNER, [ENDPOINT], tmp_path, ended=True)
    with served(shows, says(GOOD)) as url, pytest.raises(FederationError, match="certificate has expired"):
        await fetch(relation(url), HELD)


REDIRECT = b"HTTP/1.1 307 Temporary\r\nlocation: %b\r\ncontent-length: 0\r\n\r\n"


@pytest.mark.parametrize(
    ("talk", "message"),
    [
        (endless, "the answer has more than 1,048,576 bytes"),
        (says(b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\n\r\nx"), "the answer is compressed"),
        (says(b"HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n"), "the answer is 500"),
        (says(b"nonsense\r\n\r\n"), "illegal status line"),
        (says(REDIRECT % b"http://127.0.0.1/"), "it leads to `http://127.0.0.1/`, which is no `https://` URL"),
        (says(REDIRECT % b"/again"), "it leads elsewhere more than 3 times"),
        (says(b""), ""),  # in the words of whoever notices first
    ],
    ids=["huge", "compressed", "an error", "no HTTP", "to plain text", "in circles", "nothing"],
)
async def test_an_answer_that_is_no_bundle_is_refused_within_bounds(tmp_path: Path, talk: Talk, message: str) -> None:
    with served(shown(PARTNER, [ENDPOINT], tmp_path), talk) as url, pytest.raises(FederationError) as caught:
        await fetch(relation(url), HELD)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("there", "message"),
    [
        ([ENDPOINT], ""),
        (["spiffe://partner.org/web"], f"it is `spiffe://partner.org/web`, not `{ENDPOINT}`"),
    ],
    ids=["the endpoint too", "another workload"],
)
async def test_where_it_leads_the_same_is_demanded(tmp_path: Path, there: list[str], message: str) -> None:
    here = tmp_path / "here"
    here.mkdir()
    with (
        served(shown(PARTNER, there, tmp_path), says(GOOD)) as target,
        served(shown(PARTNER, [ENDPOINT], here), says(REDIRECT % target.encode())) as url,
    ):
        if message:
            with pytest.raises(FederationError) as caught:
                await fetch(relation(url), HELD)
            assert message in str(caught.value)
        else:
            assert await fetch(relation(url), HELD) == b"{}"


async def test_who_is_slow_is_not_waited_for(tmp_path: Path) -> None:
    over = threading.Event()

    def drips(connection: ssl.SSLSocket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        while not over.wait(0.05):
            connection.sendall(b" ")

    with served(shown(PARTNER, [ENDPOINT], tmp_path), drips) as url:
        with pytest.raises(FederationError, match=r"no answer within 0\.5 s"):
            await fetch(relation(url), HELD, seconds=0.5)
        over.set()


async def test_an_endpoint_of_the_web_proves_itself_by_its_name(tmp_path: Path) -> None:
    authority = Authority("web")
    certificate, key = authority.issue("127.0.0.1")
    stranger, strangers_key = authority.issue("other.test")
    web = ssl.create_default_context(cadata=authority.pem)
    file = tmp_path / "web.pem"
    file.write_text(key + certificate)
    with served(file, says(GOOD)) as url:
        assert await fetch(relation(url, "https_web"), None, web=web) == b"{}"
        with pytest.raises(FederationError, match="certificate verify failed"):
            await fetch(relation(url, "https_web"), None)
    file.write_text(strangers_key + stranger)
    with served(file, says(GOOD)) as url, pytest.raises(FederationError, match="IP address mismatch"):
        await fetch(relation(url, "https_web"), None, web=web)


async def test_a_published_bundle_is_read(tmp_path: Path) -> None:
    document = bundles.write(HELD)
    answer = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(document), document)
    with served(shown(PARTNER, [ENDPOINT], tmp_path), says(answer)) as url:
        assert bundles.read(await fetch(relation(url), HELD), "partner.org") == HELD
