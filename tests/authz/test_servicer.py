"""The gRPC shell on a socket: who is let in, and that bytes go through unchanged."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import grpc
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from policyd.authz import reply
from policyd.authz.ruling import Ruling
from policyd.authz.service import add_to_server
from policyd.server.silence import Silence
from policyd.spiffe import SpiffeId
from tests.authz.checks import PAGE, REVIEWS, check_of
from tests.authz.test_service import ID, House
from tests.fakes.toy_ca import ToyCa

METHOD = "/envoy.service.auth.v3.Authorization/Check"


def key_and_chain(ca: ToyCa, *uris: str, dns: tuple[str, ...] = ()) -> tuple[bytes, bytes]:
    key = ec.generate_private_key(ec.SECP256R1())
    chain = ca.sign(key.public_key(), uris, dns=dns)
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    from cryptography import x509

    certificates = (x509.load_der_x509_certificate(one) for one in chain)
    return pem, b"".join(one.public_bytes(serialization.Encoding.PEM) for one in certificates)


@contextmanager
def serving(ca: ToyCa, house: House) -> Iterator[str]:
    server = grpc.server(ThreadPoolExecutor(2))
    add_to_server(house.authorizer, server, Silence(time.monotonic).message)
    own = key_and_chain(ca, str(SpiffeId.server("cluster.local")), dns=("policyd",))
    credentials = grpc.ssl_server_credentials([own], ca.root.pem, require_client_auth=True)
    port = server.add_secure_port("127.0.0.1:0", credentials)
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait()


def ask(ca: ToyCa, address: str, *uris: str, metadata: tuple[tuple[str, str], ...] = ()) -> bytes:
    key, chain = key_and_chain(ca, *uris)
    credentials = grpc.ssl_channel_credentials(ca.root.pem, key, chain)
    with grpc.secure_channel(address, credentials, [("grpc.ssl_target_name_override", "policyd")]) as channel:
        answer: bytes = channel.unary_unary(METHOD)(check_of().SerializeToString(), timeout=10, metadata=metadata)
        return answer


def test_the_certificate_of_the_connection_asks(ruling: Ruling) -> None:
    ca, house = ToyCa(), House(ruling)
    with serving(ca, house) as address:
        assert ask(ca, address, str(REVIEWS)) == reply.allow(ID, "reviews-from-productpage")
        assert ask(ca, address, str(PAGE)) == reply.fail(ID)


def test_a_certificate_without_exactly_one_identity_is_turned_away(ruling: Ruling) -> None:
    ca, house = ToyCa(), House(ruling)
    with serving(ca, house) as address:
        for uris in ((), (str(REVIEWS), str(PAGE)), ("https://example.com/",)):
            with pytest.raises(grpc.RpcError) as caught:
                ask(ca, address, *uris)
            assert caught.value.code() == grpc.StatusCode.UNAUTHENTICATED  # type: ignore[attr-defined]
    assert house.journal.entries == []


@pytest.mark.parametrize(
    ("metadata", "told"),
    [
        ((), ("", "")),
        ((("traceparent", f"00-{'4b' * 16}-{'0a' * 8}-00"),), ("4b" * 16, "0a" * 8)),
        ((("x-b3-traceid", "4b" * 16), ("x-b3-spanid", "0a" * 8)), ("4b" * 16, "0a" * 8)),
        ((("traceparent", "no trace"),), ("", "")),
    ],
)
def test_at_its_first_hop_the_question_says_which_trace_a_request_is_of(
    ruling: Ruling, metadata: tuple[tuple[str, str], ...], told: tuple[str, str]
) -> None:
    ca, house = ToyCa(), House(ruling)
    with serving(ca, house) as address:
        ask(ca, address, str(REVIEWS), metadata=metadata)

    assert [(one.trace_id, one.span_id) for one in house.journal.entries] == [told]


def test_what_a_request_itself_says_of_its_trace_stands(ruling: Ruling) -> None:
    house = House(ruling)
    check = check_of(request__http__headers={":path": "/", "traceparent": f"00-{'1a' * 16}-{'0b' * 8}-01"})
    house.authorizer.check(
        check.SerializeToString(), REVIEWS, None, lambda: [("traceparent", f"00-{'4b' * 16}-{'0a' * 8}-01")]
    )

    assert [(one.trace_id, one.span_id) for one in house.journal.entries] == [("1a" * 16, "0b" * 8)]
