"""mTLS between our own Envoys: TLS 1.3 only, identities by SDS, peers checked by SPIFFE ID."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from policyd.spiffe import SpiffeId

TLS = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3"
SDS_CLUSTER = "policyd-sds"  # in the agent's bootstrap
IDENTITY_SECRET = "default"  # noqa: S105 - the name that Istio and SPIRE give the workload's own certificate
ROOTS_SECRET = "ROOTCA"  # noqa: S105 - and the trusted roots


def _sds(name: str) -> dict[str, Any]:
    source = {
        "api_type": "DELTA_GRPC",
        "transport_api_version": "V3",
        "grpc_services": [{"envoy_grpc": {"cluster_name": SDS_CLUSTER}}],
    }
    return {"name": name, "sds_config": {"resource_api_version": "V3", "api_config_source": source}}


def _common(expected: Iterable[SpiffeId]) -> dict[str, Any]:
    # Envoy as a TLS client stops at 1.2 unless it is told the maximum too
    version = {"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3"}
    sans = [{"san_type": "URI", "matcher": {"exact": str(peer)}} for peer in sorted(expected)]
    return {
        "tls_params": version,
        "tls_certificate_sds_secret_configs": [_sds(IDENTITY_SECRET)],
        "combined_validation_context": {
            "default_validation_context": {"match_typed_subject_alt_names": sans} if sans else {},
            "validation_context_sds_secret_config": _sds(ROOTS_SECRET),
        },
    }


def upstream(server_name: str, expected: Iterable[SpiffeId], alpn: tuple[str, ...] = ()) -> dict[str, Any]:
    """The transport socket of a cluster whose peers bear one of `expected` (UpstreamTlsContext)."""
    common = _common(expected)
    if alpn:
        common["alpn_protocols"] = list(alpn)
    context = {"@type": f"{TLS}.UpstreamTlsContext", "sni": server_name, "common_tls_context": common}
    return {"name": "envoy.transport_sockets.tls", "typed_config": context}


def downstream() -> dict[str, Any]:
    """The transport socket of a listener that wants any identity of the trust domain (DownstreamTlsContext)."""
    context = {
        "@type": f"{TLS}.DownstreamTlsContext",
        "require_client_certificate": True,
        "common_tls_context": {**_common(()), "alpn_protocols": ["h2", "http/1.1"]},
    }
    return {"name": "envoy.transport_sockets.tls", "typed_config": context}
