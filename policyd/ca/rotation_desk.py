"""Rotation over the administration socket: what an operator asks, and how far it is.

Law: as of the desk: whoever reaches the socket owns the folder, and the operators' policies decide even so.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from policyd._pb import rotation_pb2 as pb
from policyd._pb import rotation_pb2_grpc
from policyd.ca.jwt_keys import SigningKey
from policyd.ca.rotation import Generation, comes
from policyd.ca.rotator import Rotator, Step
from policyd.errors import PolicydError

MAX_NAMED = 1000
Context = Any  # grpc.aio.ServicerContext, whose types lack what is used here


class RotationDesk(rotation_pb2_grpc.RotationServicer):
    """One method an RPC of proto/policyd/v1/rotation.proto; `do` makes a step, beside what else is served."""

    def __init__(self, rotator: Rotator, do: Callable[[Step], Awaitable[object]]) -> None:
        self._rotator = rotator
        self._do = do

    async def RotationStatus(  # noqa: N802
        self, _request: pb.RotationStatusRequest, _context: Context
    ) -> pb.RotationReply:
        """How far it is, and who is waited for."""
        return self._reply()

    async def RotationStep(self, request: pb.RotationStepRequest, context: Context) -> pb.RotationReply:  # noqa: N802
        """Make a step, or say why not."""
        step = Step(request.step, request.what, tuple(request.without[:MAX_NAMED]), request.early)
        try:
            await self._do(step)
        except PolicydError as error:
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, str(error))
        return self._reply()

    def _reply(self) -> pb.RotationReply:
        rotator = self._rotator
        held = rotator.held
        left_out = held.left_out
        tokens = rotator.tokens
        prepared = tokens is not None and tokens.keys.prepared(rotator.issuer.now()) is not None
        found = {**(rotator.behind() if prepared else {}), **rotator.waiting()}
        waited = [pb.Waited(agent=name, why=why, left_out=name in left_out) for name, why in sorted(found.items())]
        coming = comes(held)
        return pb.RotationReply(
            sequence=rotator.issuer.bundle.sequence,
            generations=[_generation(one) for one in held.generations],
            waited=waited,
            next=held.next,
            next_at=f"{coming[0]} at {coming[1]:%FT%TZ}",
            token_keys=_token_keys(rotator),
        )


def handler(server: grpc.aio.Server, desk: RotationDesk) -> None:
    """Serve it on a server that only the owner reaches."""
    rotation_pb2_grpc.add_RotationServicer_to_server(desk, server)  # type: ignore[no-untyped-call]


def _generation(one: Generation) -> pb.Generation:
    root, intermediate = one.material.root, one.material.intermediate
    return pb.Generation(
        state=one.state,
        since=int(one.since.timestamp()),
        root_sha256=_digest(root),
        intermediate_sha256=_digest(intermediate),
        root_ends=int(root.not_valid_after_utc.timestamp()),
        intermediate_ends=int(intermediate.not_valid_after_utc.timestamp()),
        bridged=one.bridge is not None,
    )


def _token_keys(rotator: Rotator) -> list[pb.TokenKey]:
    if rotator.tokens is None:
        return []
    keys, now = rotator.tokens.keys, rotator.issuer.now()
    signing = keys.signing(now)

    def state(one: SigningKey) -> str:
        if one is signing:
            return "active"
        return "prepared" if one.signs > now else "retired"

    return [
        pb.TokenKey(
            kid=one.kid, state=state(one), published=int(one.published.timestamp()), signs=int(one.signs.timestamp())
        )
        for one in keys.keys
    ]


def _digest(certificate: x509.Certificate) -> str:
    return certificate.fingerprint(hashes.SHA256()).hex()
