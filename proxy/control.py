"""The agent's line to policyd: watch what to run, have keys certified; mutual TLS with the agent's own SVID.

Law: whatever ends a call is told as an error of ours: policyd refuses, or does not answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import grpc
import grpc.aio

from policyd._pb import agent_pb2, agent_pb2_grpc
from policyd.errors import IdentityError, IssuanceDenied, PolicydError
from policyd.spiffe import SpiffeId
from policyd.svid.jwt import read
from proxy.assignment import bundle_of
from proxy.bootstrap import Endpoint
from proxy.identity import Bundle, Svid
from proxy.tainted import Tainted
from proxy.together import Together

SIGN_TIMEOUT = 10.0
MOST_TOGETHER: Final = 16  # orders of one call, as policyd bounds them
LARGEST_TOGETHER: Final = 64 * 1024  # bytes of one of them; a process may have very many selectors
MAX_DETAIL: Final = 300  # characters
_STATUSES: Final = {code.value[0]: code for code in grpc.StatusCode}
REPORT_TIMEOUT = 5.0
KEEP_TIMEOUT = 30.0
MAX_REASON = 200  # characters
CHANNEL_OPTIONS: Final[Sequence[tuple[str, str | int]]] = (
    ("grpc.ssl_target_name_override", "policyd"),
    ("grpc.max_receive_message_length", 4 << 20),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.max_reconnect_backoff_ms", 5_000),
    ("grpc.enable_retries", 0),  # the agent has its own back-off
    ("grpc.use_local_subchannel_pool", 1),  # a new channel is a new handshake, with the new SVID
)


class Unreachable(PolicydError):
    """policyd does not answer; what is held goes on being used."""

    code = "unreachable"


@dataclass(frozen=True, slots=True)
class Holding:
    """What policyd is told: the bundle that is held, the instances whose Envoys have not confirmed it, and the SHA-256
    of each certificate that signed what is in use.
    """

    sequence: int
    behind: tuple[str, ...] = ()
    authorities: frozenset[bytes] = frozenset()


class Control:
    """The Agents service of the policyd at `address`; `use` must have been called before anything else."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._credentials: grpc.ChannelCredentials | None = None
        self._channel: grpc.aio.Channel | None = None
        self._signing: grpc.aio.Channel | None = None
        self._signs_at: Endpoint | None = None
        self._closing: set[asyncio.Future[None]] = set()
        self._orders: Together[agent_pb2.SignRequest, agent_pb2.Svid | PolicydError]
        self._orders = Together(self._sign_all, MOST_TOGETHER)
        self.tainted = Tainted()

    def use(self, svid: Svid, bundle: Bundle) -> None:
        """Connect anew as `svid`, trusting `bundle`; calls under way on the old connection may still end well."""
        self._credentials = grpc.ssl_channel_credentials(bundle.pem(), svid.key_pem, svid.chain_pem())
        self._leave(self._channel, self._signing)
        self._channel = self._open(self.address, self._credentials)
        self._signing = self._open(str(self._signs_at), self._credentials) if self._signs_at else None

    def sign_at(self, address: Endpoint | None) -> None:
        """Have keys certified at `address`, or where all else is asked."""
        if address != self._signs_at:
            self._leave(self._signing)
            self._signs_at = address
            self._signing = self._open(str(address), self._credentials) if address and self._credentials else None

    def _open(self, address: str, credentials: grpc.ChannelCredentials) -> grpc.aio.Channel:
        return grpc.aio.secure_channel(address, credentials, options=CHANNEL_OPTIONS)

    def _leave(self, *channels: grpc.aio.Channel | None) -> None:
        for old in channels:
            if old is not None:
                closing = asyncio.ensure_future(old.close(grace=SIGN_TIMEOUT))
                self._closing.add(closing)
                closing.add_done_callback(self._closing.discard)

    async def close(self) -> None:
        """End every connection."""
        await self._orders.close()
        for closing in tuple(self._closing):
            closing.cancel()
        await asyncio.gather(*self._closing, return_exceptions=True)
        for channel in (self._channel, self._signing):
            if channel is not None:
                await channel.close()

    async def sign(
        self, spiffe_id: SpiffeId, csr: bytes, selectors: Sequence[str] = ()
    ) -> tuple[tuple[bytes, ...], Bundle]:
        """Have `csr` (DER) certified for `spiffe_id`: the chain and the bundle, not yet checked against the key.

        `selectors` are those of the process that it is for, where it is for one.
        Raises Unreachable, IssuanceDenied or IdentityError.
        """
        asked = agent_pb2.SignRequest(spiffe_id=str(spiffe_id), csr=csr, selectors=selectors)
        large = asked.ByteSize() > LARGEST_TOGETHER
        reply = (await self._sign_all([asked]))[0] if large else await self._orders.ask(asked)
        if isinstance(reply, PolicydError):
            raise reply
        return tuple(reply.chain), bundle_of(reply.bundle, spiffe_id.trust_domain)

    async def _sign_all(self, asked: list[agent_pb2.SignRequest]) -> list[agent_pb2.Svid | PolicydError]:
        """What comes of each; raises as `sign` what comes of all."""
        if len(asked) == 1:
            return [await self._signed(lambda stub: stub.Sign(asked[0], timeout=SIGN_TIMEOUT))]
        request = agent_pb2.SignAllRequest(requests=asked)
        reply = await self._signed(lambda stub: stub.SignAll(request, timeout=SIGN_TIMEOUT))
        if len(reply.signed) != len(asked):
            raise IdentityError(f"policyd answered {len(reply.signed)} of {len(asked)} requests")
        return [_outcome(one) for one in reply.signed]

    async def report(self, told: Mapping[str, tuple[bool, str]]) -> None:
        """Say which applications answer, and why others do not; raises Unreachable, IssuanceDenied or IdentityError."""
        stub = agent_pb2_grpc.AgentsStub(self._connected())  # type: ignore[no-untyped-call]
        said = [
            agent_pb2.InstanceHealth(instance=name, healthy=healthy, reason=reason[:MAX_REASON])
            for name, (healthy, reason) in told.items()
        ]
        await _reply(stub.Report(agent_pb2.HealthReport(instances=said), timeout=REPORT_TIMEOUT))

    async def leave(self, leaving: Collection[str], back: Collection[str]) -> None:
        """Say whose sidecars end, and whose serve; returns when callers are led so. Raises as `report`."""
        stub = agent_pb2_grpc.AgentsStub(self._connected())  # type: ignore[no-untyped-call]
        await _reply(stub.Leave(agent_pb2.Leaving(leaving=leaving, back=back), timeout=REPORT_TIMEOUT))

    async def sign_jwt(
        self, spiffe_id: SpiffeId, audiences: Sequence[str], selectors: Sequence[str]
    ) -> tuple[str, datetime]:
        """A JWT-SVID for a process with these selectors, and when it ends; raises as `sign`."""
        asked = agent_pb2.SignJwtRequest(spiffe_id=str(spiffe_id), audiences=audiences, selectors=selectors)
        reply = await self._signed(lambda stub: stub.SignJwt(asked, timeout=SIGN_TIMEOUT))
        said = read(reply.token)
        if said.spiffe_id != spiffe_id or set(said.audiences) != set(audiences):
            raise IdentityError("policyd's token is not the one that was asked for")
        return reply.token, said.expires

    async def hold(self, holding: Holding) -> None:
        """Tell which bundle is held and what is in use; raises as `sign`."""
        stub = agent_pb2_grpc.AgentsStub(self._connected())  # type: ignore[no-untyped-call]
        told = agent_pb2.Holding(
            sequence=holding.sequence, behind=holding.behind, authorities=sorted(holding.authorities)
        )
        await _reply(stub.Hold(told, timeout=REPORT_TIMEOUT))

    async def keep(self, batch: agent_pb2.Batch) -> int:
        """Have decisions put on record; the number of the last one that is. Raises as `sign`."""
        stub = agent_pb2_grpc.DecisionsStub(self._connected())  # type: ignore[no-untyped-call]
        kept = await _reply(stub.Keep(batch, timeout=KEEP_TIMEOUT))
        return int(kept.seq)

    def watch(self, version: str, envoy_version: str) -> AsyncIterator[agent_pb2.Assignment]:
        """The assignments that one connection brings; ends by raising Unreachable or IssuanceDenied."""
        stub = agent_pb2_grpc.AgentsStub(self._connected())  # type: ignore[no-untyped-call]
        call = stub.Watch(agent_pb2.WatchRequest(version=version, envoy_version=envoy_version))
        return _messages(call, "policyd ended the watch")

    def inspect(self, answers: asyncio.Queue[agent_pb2.Shown]) -> AsyncIterator[agent_pb2.Look]:
        """What policyd wants to see; what is put into `answers` goes to it. Ends by raising, as `watch` does."""
        return questions(self._connected(), answers)

    async def _signed(self, ask: Callable[[Any], Awaitable[Any]]) -> Any:
        """The reply of who signs, and where that cannot be reached of who is asked all else."""
        for elsewhere in (self._signing, None) if self._signing else (None,):
            channel = elsewhere or self._connected()  # of now: `use` may have left another while one was waited for
            try:
                return await _heard(ask(agent_pb2_grpc.AgentsStub(channel)))  # type: ignore[no-untyped-call]
            except grpc.aio.AioRpcError as error:
                if elsewhere is None or error.code() is not grpc.StatusCode.UNAVAILABLE:
                    raise _failure(error) from None
        raise AssertionError("the last one answers, or fails")

    def _connected(self) -> grpc.aio.Channel:
        if self._channel is None:
            raise Unreachable("the agent has no identity yet")
        return self._channel


async def questions(
    channel: grpc.aio.Channel, answers: asyncio.Queue[agent_pb2.Shown]
) -> AsyncIterator[agent_pb2.Look]:
    """What policyd asks on a channel, as `Control.inspect`; nothing is under way any more once this has ended."""
    call = agent_pb2_grpc.InspectionsStub(channel).Inspect()  # type: ignore[no-untyped-call]
    telling = asyncio.ensure_future(_tell(call, answers))  # a generator that gRPC is given it leaves waiting for ever
    try:
        async for look in _messages(call, "policyd ended the questions"):
            yield look
    finally:
        telling.cancel()


async def _tell(call: Any, answers: asyncio.Queue[agent_pb2.Shown]) -> None:
    """Have a call say what is put into the queue; returns when the call has ended, which who reads it hears why."""
    with suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
        while True:
            await call.write(await answers.get())


async def _messages(call: Any, ended: str) -> AsyncIterator[Any]:
    """What a call brings; raises what ends it, Unreachable with `ended` where it is policyd who does."""
    try:
        async for message in call:
            yield message
    except grpc.aio.AioRpcError as error:
        raise _failure(error) from None
    finally:
        call.cancel()
    raise Unreachable(ended)


async def _reply(call: Awaitable[Any]) -> Any:
    """The answer of a call; raises Unreachable, IssuanceDenied or IdentityError."""
    try:
        return await _heard(call)
    except grpc.aio.AioRpcError as error:
        raise _failure(error) from None


async def _heard(call: Awaitable[Any]) -> Any:
    """The reply; raises Unreachable where the connection was closed before, of which gRPC cancels who waits."""
    try:
        return await call
    except asyncio.CancelledError:
        waiting = asyncio.current_task()
        if waiting is not None and waiting.cancelling():
            raise
        raise Unreachable("the connection was closed before policyd answered") from None


def _failure(error: grpc.aio.AioRpcError) -> PolicydError:
    return _failed(error.code(), error.details() or error.code().name.lower())


def _failed(status: grpc.StatusCode | None, text: str) -> PolicydError:
    detail = text[:MAX_DETAIL]
    if status is grpc.StatusCode.PERMISSION_DENIED:
        return IssuanceDenied(f"policyd refuses: {detail}")
    if status in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.UNAUTHENTICATED):
        return IdentityError(f"policyd refuses: {detail}")
    return Unreachable(f"policyd does not answer: {detail}")


def _outcome(signed: agent_pb2.Signed) -> agent_pb2.Svid | PolicydError:
    """An SVID, or why there is none."""
    if signed.WhichOneof("outcome") == "svid":
        return signed.svid
    return _failed(_STATUSES.get(signed.refused.status), signed.refused.text)
