"""What one Envoy holds, as its administration says, for policyd to show.

Law: policyd names a kind out of a fixed list, never a path of Envoy's administration; a key, or what Envoy keeps of
one, leaves this program in no form: of secrets only names and what is written in their certificates is told.
"""

from __future__ import annotations

import base64
import binascii
import json
import zlib
from collections.abc import Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from cryptography import x509

from policyd.errors import EnvoyError
from proxy import envoy_admin
from proxy.events import stamp

MAX_HELD: Final = 64 << 20  # bytes of JSON
TIMEOUT: Final = 8.0
MAX_CERTIFICATES: Final = 64  # of one secret
KINDS: Final[Mapping[str, tuple[str, ...]]] = {
    "listeners": ("/config_dump?resource=dynamic_listeners",),
    "routes": ("/config_dump?resource=dynamic_route_configs",),
    "clusters": (
        "/config_dump?resource=dynamic_active_clusters",
        "/config_dump?resource=dynamic_warming_clusters",
    ),
    "endpoints": ("/clusters?format=json",),
    "secrets": (
        "/config_dump?resource=dynamic_active_secrets",
        "/config_dump?resource=dynamic_warming_secrets",
    ),
}

Ask = Callable[[str], Awaitable[tuple[int, bytes]]]


async def look(socket: Path, kind: str) -> bytes:
    """What the Envoy behind an administration socket holds of a kind: JSON, compressed by zlib; raises EnvoyError."""

    async def ask(target: str) -> tuple[int, bytes]:
        return await envoy_admin.ask(socket, target, timeout=TIMEOUT, most=MAX_HELD)

    return await look_by(ask, kind)


async def look_by(ask: Ask, kind: str) -> bytes:
    """As `look`, by any way of asking."""
    if kind not in KINDS:
        raise EnvoyError(f"`{kind[:40]}` is nothing that an Envoy holds")
    found: dict[str, list[Any]] = {}
    for target in KINDS[kind]:
        status, body = await ask(target)
        if status != 200:
            raise EnvoyError(f"Envoy answers {status} to `{target}`")
        try:
            value = json.loads(body)
            for name, rows in value.items():
                found.setdefault(name, []).extend(rows)
        except (ValueError, AttributeError, TypeError, RecursionError):
            raise EnvoyError(f"Envoy's answer to `{target}` makes no sense") from None
    told: Any = {"secrets": list(map(secret, found.get("configs", [])))} if kind == "secrets" else found
    return zlib.compress(json.dumps(told, separators=(",", ":")).encode(), 6)


def secret(dumped: Mapping[str, Any]) -> dict[str, Any]:
    """What may be known of a secret: its name, its version, and of each certificate who it names and how long."""
    held = dumped.get("secret", {})
    certificates = list(_certificates(held))[:MAX_CERTIFICATES]
    return {
        "name": dumped.get("name", ""),
        "version": dumped.get("version_info", ""),
        "type": "identity" if "tls_certificate" in held else "roots" if "validation_context" in held else "other",
        "certificates": certificates,
    }


def _certificates(held: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    identity = held.get("tls_certificate", {}).get("certificate_chain", {})
    context = held.get("validation_context", {})
    bundles = context.get("custom_validator_config", {}).get("typed_config", {}).get("trust_domains", ())
    for source in (identity, context.get("trusted_ca", {}), *(one.get("trust_bundle", {}) for one in bundles)):
        for certificate in _read(source):
            yield {
                "subject": _names(certificate) or certificate.subject.rfc4514_string(),
                "serial": f"{certificate.serial_number:032x}",
                "not_before": stamp(certificate.not_valid_before_utc),
                "not_after": stamp(certificate.not_valid_after_utc),
            }


def _read(source: Mapping[str, Any]) -> list[x509.Certificate]:
    """The certificates of a DataSource that has them in itself; those of a file are the file's."""
    text = source.get("inline_string", "")
    try:
        data = base64.b64decode(source["inline_bytes"]) if "inline_bytes" in source else text.encode()
        return x509.load_pem_x509_certificates(data) if data else []
    except (ValueError, binascii.Error):
        return []


def _names(certificate: x509.Certificate) -> str:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return ""
    found = [*names.get_values_for_type(x509.UniformResourceIdentifier), *names.get_values_for_type(x509.DNSName)]
    return ", ".join(found[:8])
