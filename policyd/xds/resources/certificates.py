"""TLS at the edge: what a server shows and wants of clients, and the secrets that hold it.

Law: a private key is never in a resource; its proxy reads it from the file that is named there. Certificates are in the
secret itself, so that a new one takes its new key along, without ending a connection.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from policyd.mesh.istio.server_tls import ServerTls
from policyd.mesh.model import Mesh
from policyd.xds.resources.tls import TLS, authorities_secret, over_ads, secret_of

ALPN: Final = ("h2", "http/1.1")
VERSIONS: Final = {"TLSV1_0": "TLSv1_0", "TLSV1_1": "TLSv1_1", "TLSV1_2": "TLSv1_2", "TLSV1_3": "TLSv1_3"}
LEAST, MOST = "TLSv1_2", "TLSv1_3"  # where a server does not say


def secrets(mesh: Mesh, tls: ServerTls) -> Iterator[dict[str, Any]]:
    """What a server shows, and where it wants client certificates the authorities for these (Secret)."""
    for pair in tls.pairs:
        yield from held(mesh, pair, None)
    yield from held(mesh, None, tls.ca_file, tls.crl_file)


def held(
    mesh: Mesh, shown: tuple[str, str] | None, authorities: str | None, revoked: str | None = None
) -> Iterator[dict[str, Any]]:
    """The secrets of a certificate and its key, and of authorities, as far as the files are there.

    `revoked` is where the list of what these have revoked may be.
    """
    files = {file.path: file for file in mesh.credentials}
    certificate, key = (files.get(path) for path in shown) if shown is not None else (None, None)
    if shown is not None and certificate is not None and key is not None:
        yield {
            "name": secret_of(*shown),
            "tls_certificate": {
                "certificate_chain": {"inline_string": certificate.text},
                "private_key": {"filename": key.place},
            },
        }
    if authorities is not None and authorities in files:
        roots = {"trusted_ca": {"inline_string": files[authorities].text}}
        if revoked in files:
            roots["crl"] = {"inline_string": files[revoked].text}
        yield {"name": authorities_secret(authorities, revoked), "validation_context": roots}


def downstream(tls: ServerTls, alpn: tuple[str, ...] = ALPN) -> dict[str, Any]:
    """The transport socket of a server (DownstreamTlsContext)."""
    common: dict[str, Any] = {
        **({"alpn_protocols": list(alpn)} if alpn else {}),
        "tls_params": _parameters(tls),
        **proof(tls),
    }
    context = {"@type": f"{TLS}.DownstreamTlsContext", **requires(tls), "common_tls_context": common}
    return {"name": "envoy.transport_sockets.tls", "typed_config": context}


def proof(tls: ServerTls) -> dict[str, Any]:
    """What a server shows, and what it asks of clients' certificates (CommonTlsContext)."""
    shown = {"tls_certificate_sds_secret_configs": [over_ads(secret_of(*pair)) for pair in tls.pairs]}
    if tls.ca_file is None:
        return shown
    checked = {
        "default_validation_context": _wanted(tls),
        "validation_context_sds_secret_config": over_ads(authorities_secret(tls.ca_file, tls.crl_file)),
    }
    return {**shown, "combined_validation_context": checked}


def requires(tls: ServerTls) -> dict[str, Any]:
    """Whether nobody comes in without a certificate (DownstreamTlsContext)."""
    return {"require_client_certificate": tls.mode == "MUTUAL"}


def _parameters(tls: ServerTls) -> dict[str, Any]:
    found: dict[str, Any] = {
        "tls_minimum_protocol_version": VERSIONS.get(tls.min_protocol_version, LEAST),
        "tls_maximum_protocol_version": VERSIONS.get(tls.max_protocol_version, MOST),
    }
    if tls.cipher_suites:
        found["cipher_suites"] = list(tls.cipher_suites)
    return found


def _wanted(tls: ServerTls) -> dict[str, Any]:
    """What a client's certificate must have besides its authority; of several names one."""
    kinds = ("DNS", "URI", "EMAIL", "IP_ADDRESS")
    found: dict[str, Any] = {
        "match_typed_subject_alt_names": [
            {"san_type": kind, "matcher": {"exact": name}} for name in tls.subject_alt_names for kind in kinds
        ],
        "verify_certificate_hash": list(tls.verify_certificate_hash),
        "verify_certificate_spki": list(tls.verify_certificate_spki),
        "trust_chain_verification": "ACCEPT_UNTRUSTED" if tls.takes_any else "",
    }
    return {name: value for name, value in found.items() if value}
