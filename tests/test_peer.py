"""Who is at the other end of a connection: one SPIFFE ID over TLS 1.3, or nobody."""

from __future__ import annotations

import pytest

from policyd.errors import IdentityError
from policyd.peer import spiffe_peer
from policyd.spiffe import SpiffeId

PAGE = SpiffeId.workload("cluster.local", "default", "page")
REVIEWS = SpiffeId.workload("cluster.local", "default", "reviews")
PEER = {
    "ssl_tls_version": [b"TLSv1.3"],
    "x509_subject_alternative_name": [str(PAGE).encode()],
    "peer_spiffe_id": [str(PAGE).encode()],
}


def test_the_peer_is_the_one_spiffe_id_of_the_certificate() -> None:
    assert spiffe_peer(PEER) == PAGE


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ssl_tls_version": [b"TLSv1.2"]}, "this connection does not speak TLS 1.3"),
        ({"ssl_tls_version": []}, "this connection does not speak TLS 1.3"),
        ({"x509_subject_alternative_name": []}, "the client's certificate has not exactly one SPIFFE ID"),
        (
            {"x509_subject_alternative_name": [str(PAGE).encode(), str(REVIEWS).encode()]},
            "the client's certificate has not exactly one SPIFFE ID",
        ),
        ({"peer_spiffe_id": []}, "the client's certificate has not exactly one SPIFFE ID"),
        ({"peer_spiffe_id": [str(REVIEWS).encode()]}, "the client's certificate has not exactly one SPIFFE ID"),
        (
            {"x509_subject_alternative_name": [b"spiffe://A/b"], "peer_spiffe_id": [b"spiffe://A/b"]},
            "the client's certificate has no valid SPIFFE ID",
        ),
    ],
)
def test_any_other_peer_is_refused(changes: dict[str, list[bytes]], message: str) -> None:
    with pytest.raises(IdentityError) as caught:
        spiffe_peer({**PEER, **changes})
    assert caught.value.message == message
