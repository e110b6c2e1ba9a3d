"""Mutual TLS of gRPC (gRFC A29): certificates and roots are files of the agent, named by their provider."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from policyd.spiffe import SpiffeId
from policyd.xds.proxyless import CERTIFICATES
from policyd.xds.resources.tls import TLS

_PROVIDED = {"instance_name": CERTIFICATES}


def upstream(expected: Iterable[SpiffeId]) -> dict[str, Any]:
    """The transport socket of a cluster whose peers bear one of `expected`.

    It asks for no name of a server (`sni`): a server of gRPC has none, and would note each time that it was asked.
    """
    # the other form of this field, by the kind of a name, is not looked at by gRPC
    names = [{"exact": str(peer)} for peer in sorted(expected)]
    return _socket("UpstreamTlsContext", {}, {"match_subject_alt_names": names})


def downstream() -> dict[str, Any]:
    """The transport socket of a server, which wants an identity of its clients."""
    return _socket("DownstreamTlsContext", {"require_client_certificate": True}, {})


def _socket(kind: str, fields: dict[str, Any], verified: dict[str, Any]) -> dict[str, Any]:
    common = {
        "tls_certificate_provider_instance": dict(_PROVIDED),
        "validation_context": {"ca_certificate_provider_instance": dict(_PROVIDED), **verified},
    }
    context = {"@type": f"{TLS}.{kind}", **fields, "common_tls_context": common}
    return {"name": "envoy.transport_sockets.tls", "typed_config": context}
