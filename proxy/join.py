"""The very first connection: a join token pins policyd's root, and is exchanged for the agent's own SVID.

Law: the secret of the token is sent only over a connection that chains to the pinned root.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import ssl
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import grpc
import grpc.aio
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from policyd._pb import agent_pb2, agent_pb2_grpc
from policyd.errors import IdentityError, TokenError
from policyd.join_token import JoinToken
from policyd.spiffe import SpiffeId
from policyd.svid.comeback import to_sign
from proxy.assignment import bundle_of
from proxy.bootstrap import Endpoint
from proxy.control import CHANNEL_OPTIONS, Unreachable
from proxy.identity import Bundle, Svid, check_svid, load_key, make_key, request

TIMEOUT = 10.0
MAX_PRESENTED = 8
_ANEW = "join anew, with a token of `policyd ca token create`"
_REFUSED = (
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.FAILED_PRECONDITION,
)


@dataclass(frozen=True, slots=True)
class Joined:
    """What joining gives: who this agent is, whom it trusts, and where it asks (`host:port` of the Agents service).

    `attestation` is where it joined, and comes back to once its SVID has ended; "" where that is not known.
    """

    svid: Svid
    bundle: Bundle
    server: str
    attestation: str = ""


async def join(token: JoinToken, now: datetime, server: str | None = None) -> Joined:
    """Exchange `token` for an SVID; `server` overrides the address of the Agents service that policyd tells.

    Raises Unreachable (try again), TokenError (the pin does not hold, or policyd refuses the token) or IdentityError
    (what came back is wrong).
    """
    root = await _pinned_root(token)
    key = make_key()
    reply = await _attest(token, root, request(key))
    wanted = SpiffeId.agent(token.trust_domain, token.agent)
    bundle = bundle_of(reply.bundle, token.trust_domain)
    if root not in bundle.roots:
        raise IdentityError("policyd's bundle does not hold the root that the join token names")
    svid = check_svid(key, wanted, tuple(reply.chain), bundle, now)
    address = server or reply.agents_address
    if not address:
        raise IdentityError("policyd did not say where agents connect", remedy="give its address with --server")
    Endpoint.parse(address)
    return Joined(svid, bundle, address, token.address)


async def come_back(joined: Joined, now: datetime) -> Joined:
    """Become who this agent was before its SVID ended, by the key of that; raises as `join`."""
    if not joined.attestation:
        raise TokenError("the agent's certificate has ended, and where it joined is not known", remedy=_ANEW)
    key, at = make_key(), int(now.timestamp())
    csr = request(key)
    signed = to_sign(joined.svid.chain[0], csr, at)
    signature = load_key(joined.svid.key_pem).sign(signed, ec.ECDSA(hashes.SHA256()))
    asked = agent_pb2.ComeBackRequest(chain=joined.svid.chain, csr=csr, at=at, signature=signature)
    credentials = grpc.ssl_channel_credentials(joined.bundle.pem())
    async with grpc.aio.secure_channel(joined.attestation, credentials, options=CHANNEL_OPTIONS) as channel:
        stub = agent_pb2_grpc.AttestationStub(channel)  # type: ignore[no-untyped-call]
        try:
            reply = await stub.ComeBack(asked, timeout=TIMEOUT)
        except grpc.aio.AioRpcError as error:
            detail = (error.details() or error.code().name.lower())[:300]
            if error.code() in _REFUSED:
                raise TokenError(f"policyd does not take this agent back: {detail}", remedy=_ANEW) from None
            raise Unreachable(f"policyd at `{joined.attestation}` cannot be reached: {detail}") from None
    trust_domain = joined.svid.id.trust_domain
    bundle = bundle_of(reply.bundle, trust_domain)
    svid = check_svid(key, joined.svid.id, tuple(reply.chain), bundle, now)
    return replace(joined, svid=svid, bundle=max(bundle, joined.bundle, key=lambda each: each.sequence))


async def _pinned_root(token: JoinToken) -> bytes:
    """The certificate (DER) among those that the server presents whose SHA-256 the token names."""
    presented = await _presented(Endpoint.parse(token.address))
    for certificate in presented[:MAX_PRESENTED]:
        if hmac.compare_digest(hashlib.sha256(certificate).hexdigest(), token.root_sha256):
            return certificate
    raise TokenError(
        f"the server at `{token.address}` does not present the root that the join token names",
        remedy="make a new token on the policyd that you mean; if this token is of that one, somebody is in between",
    )


async def _presented(address: Endpoint) -> list[bytes]:
    """The chain (DER) that the server presents, unverified: it is only looked through, and nothing is sent."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    try:
        async with asyncio.timeout(TIMEOUT):
            _, writer = await asyncio.open_connection(address.host, address.port, ssl=context)
    except (OSError, TimeoutError) as error:  # ssl.SSLError is an OSError
        reason = "no answer" if isinstance(error, TimeoutError) else str(error)
        raise Unreachable(f"policyd at `{address.host}:{address.port}` cannot be reached: {reason}") from None
    try:
        return _unverified_chain(writer.get_extra_info("ssl_object"))
    finally:
        writer.transport.abort()


def _unverified_chain(tls: Any) -> list[bytes]:
    # public since Python 3.13; before, the method of the inner object gives certificate objects
    if hasattr(tls, "get_unverified_chain"):
        return list(tls.get_unverified_chain())
    return [ssl.PEM_cert_to_DER_cert(each.public_bytes()) for each in tls._sslobj.get_unverified_chain() or ()]


async def _attest(token: JoinToken, root: bytes, csr: bytes) -> agent_pb2.Svid:
    credentials = grpc.ssl_channel_credentials(Bundle(token.trust_domain, (root,)).pem())
    async with grpc.aio.secure_channel(token.address, credentials, options=CHANNEL_OPTIONS) as channel:
        call = agent_pb2_grpc.AttestationStub(channel).Attest(  # type: ignore[no-untyped-call]
            agent_pb2.AttestRequest(token=token.secret, csr=csr), timeout=TIMEOUT
        )
        try:
            reply: agent_pb2.Svid = await call
        except grpc.aio.AioRpcError as error:
            raise _failure(error, token) from None
    return reply


def _failure(error: grpc.aio.AioRpcError, token: JoinToken) -> Exception:
    detail = (error.details() or error.code().name.lower())[:300]
    if error.code() in _REFUSED:
        return TokenError(
            f"policyd refuses the join token: {detail}",
            remedy="a token works once and for ten minutes; make another with `policyd ca token create`",
        )
    return Unreachable(f"policyd at `{token.address}` cannot be reached: {detail}")
