"""The agent's line to policyd: watch what to run, have keys certified; mutual TLS with the agent's own SVID.

Law: this is the only place where messages of proto/policyd/v1/agent.proto become our values, checked and bounded.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import grpc
import grpc.aio

from policyd._pb import agent_pb2, agent_pb2_grpc
from policyd.errors import IdentityError, IssuanceDenied, PolicydError
from policyd.spiffe import SpiffeId, check_trust_domain
from policyd.svid.jwt import read
from proxy.application_page import PagePlace
from proxy.bootstrap import Endpoint
from proxy.dns.zone import Zone, zone
from proxy.health import Exec, Grpc, HttpGet, Probe, TcpSocket, Way
from proxy.identity import Bundle, Svid, check_bundle, check_crls
from proxy.speech import AS_STARTED, Wanted, wanted
from proxy.tainted import Tainted
from proxy.together import Together

SIGN_TIMEOUT = 10.0
MOST_TOGETHER: Final = 16  # orders of one call, as policyd bounds them
LARGEST_TOGETHER: Final = 64 * 1024  # bytes of one of them; a process may have very many selectors
MAX_DETAIL: Final = 300  # characters
_STATUSES: Final = {code.value[0]: code for code in grpc.StatusCode}
REPORT_TIMEOUT = 5.0
KEEP_TIMEOUT = 30.0
MAX_SIDECARS = 512
MAX_PERIOD = 3600.0  # seconds
MAX_REASON = 200  # characters
MAX_REGISTRATIONS = 4096
MAX_FEDERATED = 64
MAX_TAINTED = 64
CHANNEL_OPTIONS: Final[Sequence[tuple[str, str | int]]] = (
    ("grpc.ssl_target_name_override", "policyd"),
    ("grpc.max_receive_message_length", 4 << 20),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.max_reconnect_backoff_ms", 5_000),
    ("grpc.enable_retries", 0),  # the agent has its own back-off
    ("grpc.use_local_subchannel_pool", 1),  # a new channel is a new handshake, with the new SVID
)
LOOPBACK = "127.0.0.1"
_PATH = re.compile(r"/[\x21-\x7e]{0,1023}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,252}")


class Unreachable(PolicydError):
    """policyd does not answer; what is held goes on being used."""

    code = "unreachable"


@dataclass(frozen=True, slots=True, order=True)
class Spec:
    """One Envoy to run; `proxyless`: none, as its application speaks xDS by itself."""

    instance: str
    spiffe_id: SpiffeId
    cluster: str
    proxyless: bool = False


@dataclass(frozen=True, slots=True)
class Registered:
    """Processes of this machine that have all of `selectors` are `spiffe_id`."""

    spiffe_id: SpiffeId
    selectors: frozenset[str]
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Assigned:
    """What this agent runs, where its Envoys are configured, how applications are asked, which processes it knows."""

    sidecars: tuple[Spec, ...]
    bundle: Bundle
    xds: Endpoint
    server: SpiffeId
    probes: tuple[Probe, ...] = ()
    registered: tuple[Registered, ...] = ()
    federated: tuple[Bundle, ...] = ()
    tainted: frozenset[bytes] = frozenset()
    pages: tuple[PagePlace, ...] = ()
    crls: tuple[bytes, ...] = ()
    signing: Endpoint | None = None
    levels: Wanted = AS_STARTED
    captured: Zone | None = None


@dataclass(frozen=True, slots=True)
class Holding:
    """What policyd is told: the bundle that is held, the instances whose Envoys have not confirmed it, and the SHA-256
    of each certificate that signed what is in use.
    """

    sequence: int
    behind: tuple[str, ...] = ()
    authorities: frozenset[bytes] = frozenset()


def bundle_of(message: agent_pb2.Bundle, trust_domain: str) -> Bundle:
    """The bundle of `message`; raises IdentityError unless it is one of `trust_domain`."""
    bundle = Bundle(message.trust_domain, tuple(message.roots), message.sequence, message.jwt_keys)
    return check_bundle(bundle, trust_domain)


def assigned_of(message: agent_pb2.Assignment, trust_domain: str) -> Assigned:
    """The assignment of `message`; raises PolicydError when any part of it is wrong."""
    if len(message.sidecars) > MAX_SIDECARS:
        raise IdentityError(f"an agent runs at most {MAX_SIDECARS} Envoys, not {len(message.sidecars)}")
    specs = tuple(sorted(_spec_of(sidecar, trust_domain) for sidecar in message.sidecars))
    if len({spec.instance for spec in specs}) != len(specs):
        raise IdentityError("an instance is assigned twice")
    server = SpiffeId.parse(message.server_id)
    if server.trust_domain != trust_domain:
        raise IdentityError(f"the server `{server}` is not of trust domain `{trust_domain}`")
    if len(message.registrations) > MAX_REGISTRATIONS:
        raise IdentityError(f"an agent is told at most {MAX_REGISTRATIONS} entries, not {len(message.registrations)}")
    registered = tuple(_registered(one, trust_domain) for one in message.registrations)
    probes = tuple(_probes_of(message.probes, {spec.instance for spec in specs}))
    pages = tuple(_pages(message.pages, {spec.instance for spec in specs}))
    bundle, xds = bundle_of(message.bundle, trust_domain), Endpoint.parse(message.xds_address)
    federated = tuple(_federated(message.federated, trust_domain))
    if len(message.tainted) > MAX_TAINTED:
        raise IdentityError(f"an agent is told at most {MAX_TAINTED} tainted authorities, not {len(message.tainted)}")
    tainted, crls = frozenset(message.tainted), check_crls(message.crls)
    signing = Endpoint.parse(message.signing_address) if message.signing_address else None
    levels = wanted(message.log_level, message.envoy_log_level)
    captured = captured_of(message.captured, {spec.instance for spec in specs})
    return Assigned(
        specs, bundle, xds, server, probes, registered, federated, tainted, pages, crls, signing, levels, captured
    )


def captured_of(messages: Sequence[agent_pb2.Captured], instances: Set[str]) -> Zone | None:
    """The names of the one instance that is captured here, None where none is; raises IdentityError."""
    if len(messages) > 1:
        raise IdentityError("of an agent's instances one is captured at most, as nothing tells their connections apart")
    for one in messages:
        if one.instance not in instances:
            raise IdentityError(f"`{one.instance[:100]}`, which is to be captured, does not run here")
        names = [(name.name, name.service, tuple(name.addresses)) for name in one.names]
        return zone(one.instance, one.namespace, one.suffixes, names)
    return None


def _federated(messages: Sequence[agent_pb2.Bundle], own: str) -> Iterator[Bundle]:
    """The bundles of other trust domains; one without roots vouches for nobody, and is left out."""
    if len(messages) > MAX_FEDERATED:
        raise IdentityError(f"an agent is told of at most {MAX_FEDERATED} other trust domains, not {len(messages)}")
    names = [message.trust_domain for message in messages]
    if own in names or len(set(names)) != len(names):
        raise IdentityError("bundles of other trust domains are one of each, and none of our own")
    for message in messages:
        if message.roots:
            yield bundle_of(message, check_trust_domain(message.trust_domain))


def _registered(message: agent_pb2.Registration, trust_domain: str) -> Registered:
    spiffe_id = SpiffeId.parse(message.spiffe_id)
    if spiffe_id.trust_domain != trust_domain:
        raise IdentityError(f"`{spiffe_id}` is not of trust domain `{trust_domain}`")
    if not message.selectors or not all(message.selectors):
        raise IdentityError(f"an entry makes every process `{spiffe_id}`")
    return Registered(spiffe_id, frozenset(message.selectors), message.hint)


def _spec_of(message: agent_pb2.Sidecar, trust_domain: str) -> Spec:
    for name in (message.instance, message.cluster):
        if not _NAME.fullmatch(name):
            raise IdentityError(f"`{name[:100]}` is no name of an instance or a service")
    spiffe_id = SpiffeId.parse(message.spiffe_id)
    if spiffe_id.trust_domain != trust_domain:
        raise IdentityError(f"`{spiffe_id}` is not of trust domain `{trust_domain}`")
    return Spec(message.instance, spiffe_id, message.cluster, message.proxyless)


def _probes_of(messages: Iterable[agent_pb2.Probe], instances: Set[str]) -> Iterator[Probe]:
    """How applications are asked, within bounds whatever was said: an agent's time and sockets are its own.

    A way to ask that this agent does not know is passed over, and policyd never hears that the application answers.
    """
    for message in messages:
        way = _way_of(message)
        if way is None or message.instance not in instances:
            continue
        yield Probe(
            instance=message.instance,
            way=way,
            initial_delay=min(message.initial_delay_seconds, MAX_PERIOD),
            timeout=min(max(message.timeout_seconds, 1), MAX_PERIOD),
            period=min(max(message.period_seconds, 1), MAX_PERIOD),
            success_threshold=max(message.success_threshold, 1),
            failure_threshold=max(message.failure_threshold, 1),
        )


def _pages(messages: Iterable[agent_pb2.Page], instances: Set[str]) -> Iterator[PagePlace]:
    """Where applications show their metrics, one page an instance, on this machine only."""
    found: set[str] = set()
    for one in messages:
        is_path = _PATH.fullmatch(one.path) is not None
        if one.instance in instances - found and one.host == LOOPBACK and 0 < one.port < 65536 and is_path:
            found.add(one.instance)
            yield PagePlace(one.instance, one.host, one.port, one.path)


def _way_of(message: agent_pb2.Probe) -> Way | None:
    match message.WhichOneof("way"):
        case "http_get":
            get = message.http_get
            headers = tuple((one.name, one.value) for one in get.headers)
            if any(not text.isprintable() for text in (get.path, *(text for pair in headers for text in pair))):
                raise IdentityError(f"the probe of `{message.instance[:100]}` is no request")
            return HttpGet(get.host, get.port, get.path, get.tls, headers)
        case "tcp_socket":
            return TcpSocket(message.tcp_socket.host, message.tcp_socket.port)
        case "exec":
            return Exec(tuple(message.exec.command))
        case "grpc":
            return Grpc(message.grpc.port, message.grpc.service)
    return None


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
        try:
            await _heard(stub.Report(agent_pb2.HealthReport(instances=said), timeout=REPORT_TIMEOUT))
        except grpc.aio.AioRpcError as error:
            raise _failure(error) from None

    async def leave(self, leaving: Collection[str], back: Collection[str]) -> None:
        """Say whose sidecars end, and whose serve; returns when callers are led so. Raises as `report`."""
        stub = agent_pb2_grpc.AgentsStub(self._connected())  # type: ignore[no-untyped-call]
        try:
            await _heard(stub.Leave(agent_pb2.Leaving(leaving=leaving, back=back), timeout=REPORT_TIMEOUT))
        except grpc.aio.AioRpcError as error:
            raise _failure(error) from None

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
        try:
            await _heard(stub.Hold(told, timeout=REPORT_TIMEOUT))
        except grpc.aio.AioRpcError as error:
            raise _failure(error) from None

    async def keep(self, batch: agent_pb2.Batch) -> int:
        """Have decisions put on record; the number of the last one that is. Raises as `sign`."""
        stub = agent_pb2_grpc.DecisionsStub(self._connected())  # type: ignore[no-untyped-call]
        try:
            kept = await _heard(stub.Keep(batch, timeout=KEEP_TIMEOUT))
        except grpc.aio.AioRpcError as error:
            raise _failure(error) from None
        return int(kept.seq)

    async def watch(self, version: str, envoy_version: str) -> AsyncIterator[agent_pb2.Assignment]:
        """The assignments that one connection brings; ends by raising Unreachable or IssuanceDenied."""
        stub = agent_pb2_grpc.AgentsStub(self._connected())  # type: ignore[no-untyped-call]
        call = stub.Watch(agent_pb2.WatchRequest(version=version, envoy_version=envoy_version))
        try:
            async for message in call:
                yield message
        except grpc.aio.AioRpcError as error:
            raise _failure(error) from None
        finally:
            call.cancel()
        raise Unreachable("policyd ended the watch")

    async def inspect(self, answers: asyncio.Queue[agent_pb2.Shown]) -> AsyncIterator[agent_pb2.Look]:
        """What policyd wants to see; what is put into `answers` goes to it. Ends by raising, as `watch` does."""
        stub = agent_pb2_grpc.InspectionsStub(self._connected())  # type: ignore[no-untyped-call]

        async def told() -> AsyncIterator[agent_pb2.Shown]:
            while True:
                yield await answers.get()

        call = stub.Inspect(told())
        try:
            async for message in call:
                yield message
        except grpc.aio.AioRpcError as error:
            raise _failure(error) from None
        finally:
            call.cancel()
        raise Unreachable("policyd ended the questions")

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
