"""What a program without an agent shows to become somebody, and what comes for it: the client's side of `Prove`.

Law: what is secret is read from its file each time, since others replace it there, and a pod's token is shown only over
a connection that chains to the roots at hand. A machine's key signs and is not sent.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Protocol

import grpc
import grpc.aio
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

from policyd._pb import agent_pb2, agent_pb2_grpc
from policyd.ca.files import read_file, read_secret
from policyd.ca.possession import to_sign
from policyd.errors import IdentityError, IssuanceDenied, KeyFileError, PolicydError, StateError
from policyd.spiffe import SpiffeId
from proxy.assignment import bundle_of
from proxy.bootstrap import Endpoint
from proxy.control import CHANNEL_OPTIONS
from proxy.identity import Bundle, Svid, check_svid, make_key, request

SECONDS: Final = 20.0  # for an answer
MAX_TOKEN: Final = 1 << 16
MAX_CERTIFICATES: Final = 1 << 16


class Evidence(Protocol):
    """What shows who asks."""

    async def show(self, stub: Any, asked: agent_pb2.ProveRequest) -> None:
        """Put it into `asked`, whose CSR is there already; raises PolicydError where a file has none."""


@dataclass(frozen=True, slots=True)
class PodToken:
    """A pod's projected token."""

    file: Path

    async def show(self, _stub: Any, asked: agent_pb2.ProveRequest) -> None:
        """As it stands in the file now."""
        asked.kubernetes_token = read_file(self.file, MAX_TOKEN).decode("ascii", "replace").strip()


@dataclass(frozen=True, slots=True)
class MachineCertificate:
    """A certificate that the machine has, with what signed it, and its key."""

    certificate: Path
    key: Path

    async def show(self, stub: Any, asked: agent_pb2.ProveRequest) -> None:
        """Sign a challenge together with the request."""
        challenge = (await stub.Challenge(agent_pb2.ChallengeRequest(), timeout=SECONDS)).challenge
        try:
            found = x509.load_pem_x509_certificates(read_file(self.certificate, MAX_CERTIFICATES))
        except ValueError as error:
            raise IdentityError(f"`{self.certificate}` is no certificate in PEM") from error
        chain = [one.public_bytes(Encoding.DER) for one in found]
        signature = _signed(self.key, to_sign(challenge, chain[0], asked.csr))
        asked.possession.CopyFrom(agent_pb2.Possession(chain=chain, challenge=challenge, signature=signature))


@dataclass(frozen=True, slots=True)
class Asking:
    """Whose certificate is wanted, of whom (`server` is policyd's attestation address), and for which evidence."""

    spiffe_id: SpiffeId
    server: Endpoint
    evidence: Evidence

    async def proved(self, roots: bytes, clock: Callable[[], datetime]) -> tuple[Svid, Bundle]:
        """A certificate for a new key, checked; raises PolicydError. `roots` (PEM) vouch for policyd."""
        own = make_key()
        asked = agent_pb2.ProveRequest(spiffe_id=str(self.spiffe_id), csr=request(own))
        trust = grpc.ssl_channel_credentials(roots)
        async with grpc.aio.secure_channel(str(self.server), trust, options=CHANNEL_OPTIONS) as channel:
            stub = agent_pb2_grpc.AttestationStub(channel)  # type: ignore[no-untyped-call]
            try:
                await self.evidence.show(stub, asked)
                reply = await stub.Prove(asked, timeout=SECONDS)
            except grpc.aio.AioRpcError as error:
                raise self._failure(error) from None
        bundle = bundle_of(reply.bundle, self.spiffe_id.trust_domain)
        return check_svid(own, self.spiffe_id, tuple(reply.chain), bundle, clock()), bundle

    def _failure(self, error: grpc.aio.AioRpcError) -> PolicydError:
        said = (error.details() or error.code().name.lower())[:300]
        if error.code() is grpc.StatusCode.PERMISSION_DENIED:
            return IssuanceDenied(f"policyd refuses: {said}", remedy="its journal says why: `policyd log`")
        return StateError(f"policyd at `{self.server}` does not answer: {said}")


def _signed(file: Path, data: bytes) -> bytes:
    """What the key in a file makes of it."""
    try:
        holder = load_pem_private_key(read_secret(file), None)
    except (ValueError, TypeError) as error:
        raise KeyFileError(f"`{file}` is no key in PEM without a passphrase") from error
    if isinstance(holder, ec.EllipticCurvePrivateKey):
        return holder.sign(data, ec.ECDSA(hashes.SHA256()))
    if isinstance(holder, rsa.RSAPrivateKey):
        return holder.sign(data, padding.PKCS1v15(), hashes.SHA256())
    raise KeyFileError(f"`{file}` is neither an elliptic key nor one of RSA")
