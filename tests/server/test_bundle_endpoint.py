"""The bundle endpoint on a real socket: who asks gets the bundle of now, and everybody else nothing for long."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest

from policyd.ca.server_identity import ServerIdentity
from policyd.config.addresses import Address
from policyd.config.authority import BundleEndpointSettings, FederatedSettings
from policyd.errors import KeyFileError, StateError
from policyd.server.bundle_endpoint import BundleEndpoint, answer, endpoint_identity
from policyd.sources.bundle_fetch import fetch
from policyd.svid import bundle as bundles
from tests.ca.samples import DOMAIN, Office, an_authority
from tests.certificates import Authority
from tests.fakes.clock import FakeClock

ANY = Address("127.0.0.1", 0)


@asynccontextmanager
async def serving(
    settings: BundleEndpointSettings, folder: Path, office: Office, seconds: float = 30.0
) -> AsyncIterator[tuple[BundleEndpoint, str]]:
    """An endpoint of `office`, and its URL."""
    identity = ServerIdentity(office.issuer, office.clock)
    endpoint = BundleEndpoint(
        ANY,
        lambda _: bundles.write(office.issuer.bundle),
        endpoint_identity(settings, folder, identity),
        seconds=seconds,
    )
    async with endpoint:
        yield endpoint, f"https://127.0.0.1:{endpoint.port}/"


@pytest.fixture
def office() -> Office:
    clock = FakeClock(datetime.now(UTC))  # TLS looks at the machine's clock
    return Office(an_authority(clock()), clock=clock)


OWN = BundleEndpointSettings(listen="127.0.0.1:0")  # type: ignore[arg-type]  # as it is written


async def test_another_mesh_gets_the_bundle_from_whom_it_expects(office: Office, tmp_path: Path) -> None:
    async with serving(OWN, tmp_path, office) as (_, url):
        relation = FederatedSettings(
            trust_domain=DOMAIN, bundle_endpoint=url, endpoint_id=f"spiffe://{DOMAIN}/policyd/server"
        )
        held = office.issuer.bundle
        assert bundles.read(await fetch(relation, held), DOMAIN) == held


async def test_a_renewed_certificate_is_shown_by_the_next_connection(office: Office, tmp_path: Path) -> None:
    async with serving(OWN, tmp_path, office) as (endpoint, _):
        first = await shown(endpoint.port)
        assert await shown(endpoint.port) == first
        office.clock.now += (office.authority.intermediate.not_valid_after_utc - office.clock.now) / 365 / 24
        assert await shown(endpoint.port) != first


async def test_an_endpoint_of_the_web_shows_what_stands_in_its_files_now(office: Office, tmp_path: Path) -> None:
    files = BundleEndpointSettings.model_validate(
        {"listen": "127.0.0.1:0", "certificateFile": "web.crt", "keyFile": "web.key"}
    )
    authority = Authority("web")

    def write() -> str:
        certificate, key = authority.issue("127.0.0.1")
        for name, text in (("web.crt", certificate), ("web.key", key)):
            (tmp_path / name).write_text(text)
            (tmp_path / name).chmod(0o600)
        return certificate

    first = write()
    async with serving(files, tmp_path, office) as (endpoint, url):
        relation = FederatedSettings(trust_domain=DOMAIN, bundle_endpoint=url, profile="https_web")
        web = ssl.create_default_context(cadata=authority.pem)
        assert await fetch(relation, None, web=web) == bundles.write(office.issuer.bundle)
        assert await shown(endpoint.port) == ssl.PEM_cert_to_DER_cert(first)
        second = write()
        assert await shown(endpoint.port) == ssl.PEM_cert_to_DER_cert(second)
        (tmp_path / "web.key").unlink()  # whoever renews them is in the middle of it
        assert await shown(endpoint.port) == ssl.PEM_cert_to_DER_cert(second)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: (folder / "web.key").chmod(0o640), "has mode 0640, others may use it"),
        (lambda folder: (folder / "web.key").unlink(), "is missing"),
        (lambda folder: (folder / "web.crt").unlink(), "cannot be read: No such file or directory"),
        (lambda folder: (folder / "web.crt").write_text(Authority("x").issue("a")[0]), "do not fit together"),
        (lambda folder: (folder / "web.crt").write_text("x"), "do not fit together"),
    ],
    ids=["readable by others", "no key", "no certificate", "another's certificate", "no PEM"],
)
async def test_files_that_cannot_be_shown_stop_the_start(
    office: Office, tmp_path: Path, spoil: Callable[[Path], object], message: str
) -> None:
    files = BundleEndpointSettings.model_validate(
        {"listen": "127.0.0.1:0", "certificateFile": "web.crt", "keyFile": "web.key"}
    )
    for name, text in zip(("web.crt", "web.key"), Authority("web").issue("a"), strict=True):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o600)
    spoil(tmp_path)
    with pytest.raises(KeyFileError) as caught:
        async with serving(files, tmp_path, office):
            pass
    assert message in str(caught.value)


async def test_a_port_that_is_in_use_is_a_clear_error(office: Office, tmp_path: Path) -> None:
    async with serving(OWN, tmp_path, office) as (endpoint, _):
        identity = ServerIdentity(office.issuer, office.clock)
        pair = endpoint_identity(OWN, tmp_path, identity)
        with pytest.raises(StateError, match="cannot listen on `127"):
            async with BundleEndpoint(Address("127.0.0.1", endpoint.port), str.encode, pair):
                pass


@pytest.mark.parametrize(
    ("head", "status", "body"),
    [
        (b"GET / HTTP/1.1\r\nhost: a\r\n\r\n", b"200 OK", b"{}"),
        (b"GET /anything?x HTTP/1.0\r\n\r\n", b"200 OK", b"{}"),
        (b"HEAD / HTTP/1.1\r\n\r\n", b"200 OK", b""),
        (b"POST / HTTP/1.1\r\n\r\n", b"405 Method Not Allowed", b""),
        (b"GET /\r\n\r\n", b"400 Bad Request", b""),
        (b"\r\n\r\n", b"400 Bad Request", b""),
        (b"PRI * HTTP/2.0\r\n\r\n", b"400 Bad Request", b""),
    ],
)
def test_only_reading_is_answered(head: bytes, status: bytes, body: bytes) -> None:
    said, _, rest = answer(head, lambda path: b"{}" if path.startswith("/") else b"?").partition(b"\r\n\r\n")
    assert (said.split(b"\r\n")[0], rest) == (b"HTTP/1.1 " + status, body)


@pytest.mark.parametrize("sent", [b"GET / HTTP/1.1\r\nx: " + b"a" * 9000, b"\x16\x03\x01", b""])
async def test_who_asks_for_nothing_is_let_go(office: Office, tmp_path: Path, sent: bytes) -> None:
    async with serving(OWN, tmp_path, office, seconds=0.2) as (endpoint, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", endpoint.port, ssl=unchecked())
        writer.write(sent)
        async with asyncio.timeout(30):
            with suppress(OSError):  # it may be reset
                assert await reader.read() == b""
        writer.transport.abort()


def unchecked() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


async def shown(port: int) -> bytes:
    """The certificate that a new connection is shown."""
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=unchecked())
    try:
        found: bytes = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        return found
    finally:
        writer.transport.abort()
