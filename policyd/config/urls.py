"""URLs that settings may name, by what depends on them.

Law: what tells of requests, or what certificates depend on, goes over TLS or stays on this machine.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated, Final
from urllib.parse import SplitResult, urlsplit

from pydantic import AfterValidator

MAX_URL: Final = 2_048
MAX_ISSUER: Final = 150  # characters, as an operator's name begins with it
_NETLOC: Final = re.compile(r"[A-Za-z0-9.:\[\]-]+")


def _check_collector(url: str) -> str:
    """What tells of requests goes over TLS, or stays on this machine."""
    parts = _parts(url)
    if parts is None or parts.scheme not in ("http", "https"):
        raise ValueError(f"`{url[:80]}` is no URL of a collector; write it as in `https://collector:4318/v1/logs`")
    if parts.scheme == "http" and not _is_loopback(parts):
        raise ValueError(f"`{url[:80]}` would be told in the clear; use https, or a collector on this machine")
    return url


def _check_otlp(url: str) -> str:
    """As `_check_collector`, or by gRPC: `grpcs://collector:4317`, on this machine `grpc://127.0.0.1:4317`."""
    scheme = url.partition("://")[0]
    if scheme not in ("grpc", "grpcs"):
        return _check_collector(url)
    parts = _parts(url)
    if parts is None or parts.path not in ("", "/") or parts.query:
        raise ValueError(f"`{url[:80]}` is no address of a collector; write it as in `grpcs://collector:4317`")
    if scheme == "grpc" and not _is_loopback(parts):
        raise ValueError(f"`{url[:80]}` would be told in the clear; use grpcs, or a collector on this machine")
    return url


def _check_trusted(url: str) -> str:
    """What certificates depend on goes over TLS, or stays on this machine."""
    parts = _parts(url)
    if parts is None or not _is_safe(parts):
        text = f"`{url[:80]}` is no URL to trust; write it as in `https://signer.example.com/sign`, without a login"
        raise ValueError(text)
    return url


def _check_bundle_endpoint(url: str) -> str:
    """Where a bundle is published (SPIFFE Federation, sections 5.2.1.1 and 5.2.2.1)."""
    parts = _parts(url)
    if parts is None or parts.scheme != "https" or parts.password or not url.isprintable():
        raise ValueError(f"`{url[:80]}` is no bundle endpoint; write it as in `https://mesh.partner.org:8443/`")
    return url


def _check_token_issuer(url: str) -> str:
    """An issuer of OpenID Connect Discovery: https, without query and fragment; tokens are compared to the letter."""
    url = _check_bundle_endpoint(url)
    if "?" in url or url.endswith("/"):
        raise ValueError(f"`{url[:80]}` is no issuer; write it without `?` and without `/` at its end")
    return url


def _check_login_issuer(url: str) -> str:
    """An issuer of OpenID Connect: https, or on this machine; tokens are compared to the letter."""
    parts = _parts(url)
    is_text = url.isascii() and url.isprintable() and len(url) <= MAX_ISSUER and not set(url) & set("?#~")
    if parts is None or not _is_safe(parts) or not is_text or not _NETLOC.fullmatch(parts.netloc):
        raise ValueError(f"`{url[:80]}` is no issuer; write it as in `https://accounts.example.com`")
    return url


def _parts(url: str) -> SplitResult | None:
    """The parts of a URL with a host, without a login or a fragment; None of another text."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return None
    return None if not host or parts.username or parts.fragment or len(url) > MAX_URL else parts


def _is_safe(parts: SplitResult) -> bool:
    return parts.scheme == "https" or (parts.scheme == "http" and _is_loopback(parts))


def _is_loopback(parts: SplitResult) -> bool:
    host = parts.hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


CollectorUrl = Annotated[str, AfterValidator(_check_collector)]
OtlpUrl = Annotated[str, AfterValidator(_check_otlp)]
TrustedUrl = Annotated[str, AfterValidator(_check_trusted)]
BundleEndpointUrl = Annotated[str, AfterValidator(_check_bundle_endpoint)]
TokenIssuer = Annotated[str, AfterValidator(_check_token_issuer)]
LoginIssuer = Annotated[str, AfterValidator(_check_login_issuer)]
