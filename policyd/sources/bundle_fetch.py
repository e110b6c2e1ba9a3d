"""Asks a bundle endpoint (SPIFFE Federation, section 5): bounded in time and size, and believed only when it proved
itself.

Law: who answers is checked before a byte of the answer is read: by the bundle that is at hand and its SPIFFE ID
(`https_spiffe`), or by its name and the machine's authorities (`https_web`). Redirects are followed a few times, by
https alone, under the same check.
"""

from __future__ import annotations

import asyncio
import ssl
from typing import Final

import httpx

from policyd.config.authority import FederatedSettings
from policyd.errors import FederationError, IdentityError
from policyd.spiffe import SpiffeId
from policyd.svid.bundle import MAX_BYTES, Bundle
from policyd.svid.x509 import check_leaf, parse

SECONDS: Final = 10.0
MAX_REDIRECTS: Final = 3
_OK: Final = 200
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})


async def fetch(
    relation: FederatedSettings, held: Bundle | None, *, seconds: float = SECONDS, web: ssl.SSLContext | None = None
) -> bytes:
    """What the endpoint of `relation` publishes; raises FederationError.

    `held` is the bundle at hand, by which an endpoint of `https_spiffe` proves itself; `web` are other authorities than
    the machine's.
    """
    try:
        async with asyncio.timeout(seconds):
            url = relation.bundle_endpoint or ""
            for _ in range(1 + MAX_REDIRECTS):
                place, data = await _get(url, relation, held, web)
                if data is not None:
                    return data
                url = place
            raise FederationError(f"it leads elsewhere more than {MAX_REDIRECTS} times")
    except (TimeoutError, httpx.TimeoutException):
        raise FederationError(f"no answer within {seconds:g} s") from None


async def _get(
    url: str, relation: FederatedSettings, held: Bundle | None, web: ssl.SSLContext | None
) -> tuple[str, bytes | None]:
    """Where it leads, or what it is."""
    spiffe = relation.profile == "https_spiffe"
    verify = _by_bundle(held) if spiffe else web or ssl.create_default_context()
    try:
        async with (
            httpx.AsyncClient(trust_env=False, follow_redirects=False, verify=verify) as client,
            client.stream(
                "GET", url, headers={"accept": "application/json", "accept-encoding": "identity"}
            ) as response,
        ):
            if spiffe:
                _check_identity(response, SpiffeId.parse(relation.endpoint_id or ""))
            if response.status_code in _REDIRECTS:
                return _led(response), None
            if response.status_code != _OK:
                raise FederationError(f"the answer is {response.status_code}")
            return "", await _read(response)
    except httpx.TimeoutException:
        raise
    except (httpx.HTTPError, httpx.InvalidURL, ssl.SSLError, OSError) as error:
        raise FederationError((str(error) or type(error).__name__)[:200]) from None


async def _read(response: httpx.Response) -> bytes:
    if response.headers.get("content-encoding", "identity") != "identity":
        raise FederationError("the answer is compressed, which was not asked for")
    parts, size = [], 0
    async for part in response.aiter_raw():
        parts.append(part)
        size += len(part)
        if size > MAX_BYTES:
            raise FederationError(f"the answer has more than {MAX_BYTES:,} bytes")
    return b"".join(parts)


def _led(response: httpx.Response) -> str:
    try:
        target = response.url.join(response.headers.get("location", ""))
    except httpx.InvalidURL:
        raise FederationError("it leads to no URL") from None
    if target.scheme != "https" or not target.host or target.userinfo:
        raise FederationError(f"it leads to `{str(target)[:80]}`, which is no `https://` URL")
    return str(target)


def _by_bundle(held: Bundle | None) -> ssl.SSLContext:
    """Trust in one trust domain alone; the name of a host means nothing there."""
    if held is None or not held.roots:
        raise FederationError("no bundle is at hand that it could prove itself by; import the first one")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    for root in held.roots:
        context.load_verify_locations(cadata=root)
    return context


def _check_identity(response: httpx.Response, wanted: SpiffeId) -> None:
    """OpenSSL has verified the chain to the bundle; what SPIFFE demands of the leaf is checked here."""
    connection = response.extensions["network_stream"].get_extra_info("ssl_object")
    shown = connection.getpeercert(binary_form=True) if connection is not None else None
    if not shown:
        raise FederationError("it shows no certificate")
    try:
        found = check_leaf(parse(shown))
    except IdentityError as error:
        raise FederationError(f"its certificate is no SVID: {error.message}") from None
    if found != wanted:
        raise FederationError(f"it is `{found}`, not `{wanted}`")
