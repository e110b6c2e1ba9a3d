"""`policyd ca obtain`: a certificate for a program without an agent, for evidence of what it is.

Law: what is secret (the pod's token, the machine's key) is read from a file, and the token is shown only over a
connection that chains to the roots which were named.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from policyd.cli.options import Json

if TYPE_CHECKING:
    from policyd._pb import agent_pb2
    from policyd.spiffe import SpiffeId
    from proxy.identity import Bundle, Svid

SECONDS = 20.0


def obtain(
    identity: Annotated[str, typer.Argument(metavar="SPIFFE-ID", help="Whose it is.", show_default=False)],
    server: Annotated[str, typer.Option("--server", help="policyd's attestation address, HOST:PORT.")],
    roots: Annotated[Path, typer.Option("--roots", help="PEM: the mesh's roots, of `policyd ca bundle export --pem`.")],
    out: Annotated[Path, typer.Option("--out", help="The folder for key.pem, certificate.pem and roots.pem.")],
    token_file: Annotated[
        Path | None, typer.Option("--kubernetes-token", help="The file of a pod's projected token.", show_default=False)
    ] = None,
    certificate: Annotated[
        Path | None,
        typer.Option("--certificate", help="PEM: a machine's certificate, and what signed it.", show_default=False),
    ] = None,
    key: Annotated[Path | None, typer.Option("--key", help="PEM: that certificate's key.", show_default=False)] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace files that are there already.")] = False,
    as_json: Json = False,
) -> None:
    """Obtain a workload's certificate without an agent, with a pod's token, or a certificate that the machine has.

    Which token or certificate leads to which workload is said by entries (`policyd ca entry create`), and policies
    decide. The new key is made here. The certificate lives an hour: run it again at half of that, with `--force`.
    """
    from policyd.cli import output
    from policyd.cli.certificate import Target, facts
    from policyd.errors import UsageError
    from policyd.spiffe import SpiffeId

    if (token_file is None) is (certificate is None) or (certificate is None) is not (key is None):
        raise UsageError("one kind of evidence", remedy="give --kubernetes-token, or --certificate with --key")
    target = Target(out, force)
    target.check()
    spiffe_id = SpiffeId.parse(identity)
    svid, bundle = _proved(spiffe_id, server, roots, token_file, certificate, key)
    files = target.write(svid, bundle)
    told = facts(svid, files)
    if as_json:
        output.print_json(told)
    else:
        output.show(output.facts([(name.replace("_", " "), value) for name, value in told.items()]))


def _proved(
    spiffe_id: SpiffeId, server: str, roots: Path, token_file: Path | None, certificate: Path | None, key: Path | None
) -> tuple[Svid, Bundle]:
    """Show the evidence, and check what comes for it."""
    from datetime import UTC, datetime

    import grpc

    from policyd._pb import agent_pb2, agent_pb2_grpc
    from policyd.ca.files import read_file
    from policyd.errors import IssuanceDenied, StateError
    from proxy.bootstrap import Endpoint
    from proxy.control import CHANNEL_OPTIONS, bundle_of
    from proxy.identity import check_svid, make_key, request

    own = make_key()
    asked = agent_pb2.ProveRequest(spiffe_id=str(spiffe_id), csr=request(own))
    trust = grpc.ssl_channel_credentials(read_file(roots, 1 << 20))
    with grpc.secure_channel(str(Endpoint.parse(server)), trust, options=CHANNEL_OPTIONS) as channel:
        stub = agent_pb2_grpc.AttestationStub(channel)  # type: ignore[no-untyped-call]
        try:
            if token_file is not None:
                asked.kubernetes_token = read_file(token_file, 1 << 16).decode("ascii", "replace").strip()
            elif certificate is not None and key is not None:
                challenge = stub.Challenge(agent_pb2.ChallengeRequest(), timeout=SECONDS).challenge
                asked.possession.CopyFrom(_possession(certificate, key, challenge, asked.csr))
            reply = stub.Prove(asked, timeout=SECONDS)
        except grpc.RpcError as error:
            said = (error.details() or error.code().name.lower())[:300]
            if error.code() is grpc.StatusCode.PERMISSION_DENIED:
                raise IssuanceDenied(f"policyd refuses: {said}", remedy="its journal says why: `policyd log`") from None
            raise StateError(f"policyd at `{server}` does not answer: {said}") from None
    bundle = bundle_of(reply.bundle, spiffe_id.trust_domain)
    return check_svid(own, spiffe_id, tuple(reply.chain), bundle, datetime.now(UTC)), bundle


def _possession(certificate: Path, key: Path, challenge: bytes, csr: bytes) -> agent_pb2.Possession:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
    from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

    from policyd._pb import agent_pb2
    from policyd.ca.files import read_file, read_secret
    from policyd.ca.possession import to_sign
    from policyd.errors import IdentityError, KeyFileError

    try:
        found = x509.load_pem_x509_certificates(read_file(certificate, 1 << 16))
    except ValueError as error:
        raise IdentityError(f"`{certificate}` is no certificate in PEM") from error
    chain = [one.public_bytes(Encoding.DER) for one in found]
    signed = to_sign(challenge, chain[0], csr)
    try:
        holder = load_pem_private_key(read_secret(key), None)
    except (ValueError, TypeError) as error:
        raise KeyFileError(f"`{key}` is no key in PEM without a passphrase") from error
    if isinstance(holder, ec.EllipticCurvePrivateKey):
        signature = holder.sign(signed, ec.ECDSA(hashes.SHA256()))
    elif isinstance(holder, rsa.RSAPrivateKey):
        signature = holder.sign(signed, padding.PKCS1v15(), hashes.SHA256())
    else:
        raise KeyFileError(f"`{key}` is neither an elliptic key nor one of RSA")
    return agent_pb2.Possession(chain=chain, challenge=challenge, signature=signature)
