"""mTLS between our own Envoys: TLS 1.3 only, identities by SDS, peers checked by SPIFFE ID."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from policyd.mesh.istio.client_tls import ClientTls
from policyd.mesh.model import Mesh
from policyd.spiffe import SpiffeId
from policyd.xds.agreed import IDENTITY_SECRET, LISTED_SECRET, ROOTS_SECRET, SDS_CLUSTER

TLS = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3"
SYSTEM_ROOTS = "/etc/ssl/certs/ca-certificates.crt"  # where Debian and its kin, and Envoy's own image, have them

# an endpoint that takes plain text only, and how it is spoken to
IN_PLAINTEXT: Final[Mapping[str, Any]] = {"envoy.transport_socket_match": {"plaintext": True}}  # filter_metadata
PLAINTEXT: Final[Mapping[str, Any]] = {
    "name": "plaintext",
    "match": {"plaintext": True},
    "transport_socket": {
        "name": "envoy.transport_sockets.raw_buffer",
        "typed_config": {"@type": "type.googleapis.com/envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer"},
    },
}


def _sds(name: str) -> dict[str, Any]:
    source = {
        "api_type": "DELTA_GRPC",
        "transport_api_version": "V3",
        "grpc_services": [{"envoy_grpc": {"cluster_name": SDS_CLUSTER}}],
    }
    return {"name": name, "sds_config": {"resource_api_version": "V3", "api_config_source": source}}


def _common(matchers: Iterable[Mapping[str, str]], roots: str = ROOTS_SECRET) -> dict[str, Any]:
    # Envoy as a TLS client stops at 1.2 unless it is told the maximum too
    version = {"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3"}
    sans = [{"san_type": "URI", "matcher": dict(matcher)} for matcher in matchers]
    return {
        "tls_params": version,
        "tls_certificate_sds_secret_configs": [_sds(IDENTITY_SECRET)],
        "combined_validation_context": {
            "default_validation_context": {"match_typed_subject_alt_names": sans} if sans else {},
            "validation_context_sds_secret_config": _sds(roots),
        },
    }


def expected_of(mesh: Mesh, peers: Iterable[SpiffeId]) -> tuple[SpiffeId, ...]:
    """Those of the peers that are not revoked; where all are, the trust domain itself, whose id no peer can have.

    No matcher at all would mean any.
    """
    found = tuple(sorted(peers))
    return tuple(peer for peer in found if peer not in mesh.revoked) or (SpiffeId(mesh.trust_domain, ""),)


def roots_for(mesh: Mesh, expected: Iterable[SpiffeId]) -> str:
    """The secret by which peers are verified: the lists of what is revoked are those of this trust domain alone."""
    own = all(peer.trust_domain == mesh.trust_domain for peer in expected)
    return LISTED_SECRET if mesh.looks_at_serials and own else ROOTS_SECRET


def upstream(
    server_name: str, expected: Iterable[SpiffeId], alpn: tuple[str, ...] = (), roots: str = ROOTS_SECRET
) -> dict[str, Any]:
    """The transport socket of a cluster whose peers bear one of `expected` (UpstreamTlsContext)."""
    common = _common(({"exact": str(peer)} for peer in sorted(expected)), roots)
    if alpn:
        common["alpn_protocols"] = list(alpn)
    context = {"@type": f"{TLS}.UpstreamTlsContext", "sni": server_name, "common_tls_context": common}
    return {"name": "envoy.transport_sockets.tls", "typed_config": context}


def for_peers(mesh: Mesh, chain: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The filter chains of who has an identity that is known here: `chain`, and what they are verified by.

    Where serial numbers count there is one for each trust domain: Envoy's SPIFFE validator knows no lists of what is
    revoked, and its other one knows no trust domains. Who comes from another one says so by the name of the server;
    whatever a client says, it is verified by the roots of that trust domain alone.
    """
    if not mesh.looks_at_serials:
        yield {**chain, "transport_socket": _downstream(_common(()))}
        return
    own = _common([{"prefix": f"{SpiffeId(mesh.trust_domain, '')}/"}], LISTED_SECRET)
    yield {**chain, "transport_socket": _downstream(own)}
    for domain in sorted(mesh.federated):
        match = {**chain.get("filter_chain_match", {}), "server_names": [domain]}
        named = {"name": f"{chain['name']}/{domain}"} if "name" in chain else {}
        verified = _downstream(_common((), str(SpiffeId(domain, ""))))
        yield {**chain, **named, "filter_chain_match": match, "transport_socket": verified}


def _downstream(common: dict[str, Any]) -> dict[str, Any]:
    """A transport socket that wants an identity of its client (DownstreamTlsContext)."""
    context = {
        "@type": f"{TLS}.DownstreamTlsContext",
        "require_client_certificate": True,
        "common_tls_context": {**common, "alpn_protocols": ["h2", "http/1.1"]},
    }
    return {"name": "envoy.transport_sockets.tls", "typed_config": context}


def to_outside(host: str, given: ClientTls, names: Iterable[str], alpn: list[str]) -> dict[str, Any]:
    """The transport socket towards a Host: its certificate is checked, by name, unless the operator says otherwise.

    Of a pattern of names, each is asked for and checked by the name itself (auto_sni, auto_san_validation).
    """
    exact = "*" not in host
    wanted = given.subject_alt_names or tuple(names) or ((given.sni or host,) if exact or given.sni else ())
    checked: dict[str, Any] = {"trusted_ca": {"filename": given.ca_certificates or SYSTEM_ROOTS}}
    if given.ca_crl is not None:
        checked["crl"] = {"filename": given.ca_crl}
    if wanted:
        checked["match_typed_subject_alt_names"] = [
            {"san_type": _san_type(name), "matcher": {"exact": name}} for name in wanted
        ]
    # Envoy as a TLS client stops at 1.2 unless it is told the maximum too
    version = {"tls_minimum_protocol_version": "TLSv1_2", "tls_maximum_protocol_version": "TLSv1_3"}
    common: dict[str, Any] = {"tls_params": version, "alpn_protocols": alpn}
    if not given.insecure_skip_verify:
        common |= _checks(given, checked)
    if given.own_files is not None:
        common["tls_certificate_sds_secret_configs"] = [over_ads(secret_of(*given.own_files))]
    if given.client_certificate and given.private_key:
        chain, key = {"filename": given.client_certificate}, {"filename": given.private_key}
        common["tls_certificates"] = [{"certificate_chain": chain, "private_key": key}]
    context: dict[str, Any] = {"@type": f"{TLS}.UpstreamTlsContext", "common_tls_context": common}
    if given.sni or exact:
        context["sni"] = given.sni or host
    return {"name": "envoy.transport_sockets.tls", "typed_config": context}


def to_server(name: str, *speaks: str) -> dict[str, Any]:
    """The transport socket towards a server outside the mesh, proven by its name and the roots of the machine.

    `speaks` are protocols by their names in TLS (ALPN).
    """
    san = {"san_type": _san_type(name), "matcher": {"exact": name}}
    context = {
        "@type": f"{TLS}.UpstreamTlsContext",
        "sni": name,
        "common_tls_context": {
            "tls_params": {"tls_minimum_protocol_version": "TLSv1_2", "tls_maximum_protocol_version": "TLSv1_3"},
            **({"alpn_protocols": list(speaks)} if speaks else {}),
            "validation_context": {
                "trusted_ca": {"filename": SYSTEM_ROOTS},
                "match_typed_subject_alt_names": [san],
            },
        },
    }
    return {"name": "envoy.transport_sockets.tls", "typed_config": context}


def _checks(given: ClientTls, checked: dict[str, Any]) -> dict[str, Any]:
    """What a Host's certificate is checked by; the authorities of a credential are a secret of their own."""
    if given.trusts_nobody:  # no certificate has this hash
        return {"validation_context": {"verify_certificate_hash": ["0" * 64]}}
    if given.ca_file is None:
        return {"validation_context": checked}
    rest = {name: value for name, value in checked.items() if name != "trusted_ca"}
    secret = {"validation_context_sds_secret_config": over_ads(authorities_secret(given.ca_file, given.crl_file))}
    return {"combined_validation_context": {"default_validation_context": rest, **secret}}


def over_ads(name: str) -> dict[str, Any]:
    """A secret that comes on the stream on which its user came."""
    return {"name": name, "sds_config": {"resource_api_version": "V3", "ads": {}}}


def secret_of(certificate: str, key: str) -> str:
    """The name of the secret of a certificate with its key."""
    return f"{certificate} {key}"


def authorities_secret(authorities: str, revoked: str | None) -> str:
    """The name of the secret of authorities; those of a folder of their own have the list in it, if any."""
    apart = revoked is not None and revoked != f"{authorities.removesuffix('.crt')}.crl"
    return f"{authorities} {revoked}" if apart else authorities


def behind_header(version: str, inner: dict[str, Any] | None) -> dict[str, Any]:
    """The transport socket of connections that begin with a header of the PROXY protocol, in front of TLS if any."""
    config = {
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.proxy_protocol.v3"
        ".ProxyProtocolUpstreamTransport",
        "config": {"version": version},
        "transport_socket": inner or PLAINTEXT["transport_socket"],
    }
    return {"name": "envoy.transport_sockets.upstream_proxy_protocol", "typed_config": config}


def _san_type(name: str) -> str:
    return "URI" if "://" in name else "DNS"
