"""The services on a real gRPC server with TLS on loopback: join, sign, watch, and everybody who may not."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import ssl
import threading
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from policyd._pb import agent_pb2 as pb
from policyd._pb import agent_pb2_grpc as stubs
from policyd.ca.assignment import Registration
from policyd.ca.changes import Changes
from policyd.ca.check import check_svid
from policyd.ca.database import Database, open_database
from policyd.ca.entries import Entry
from policyd.ca.server_identity import ServerCertificate, ServerIdentity
from policyd.ca.serving import signing
from policyd.ca.serving.agents import AgentsService
from policyd.ca.serving.attestation import AttestationService
from policyd.ca.serving.levels import Levels
from policyd.ca.serving.signing import Signing
from policyd.ca.tokens import Tokens
from policyd.cedar.model import Decision
from policyd.mesh.istio.probe import HttpGet, Probe
from policyd.mesh.model import Served
from policyd.rate import Rate
from policyd.server.pausing_threads import PausingThreads
from policyd.server.silence import SILENT_SECONDS, Silence
from policyd.spiffe import SpiffeId
from policyd.svid.bundle import Bundle, read
from policyd.svid.jwt import read as read_token
from policyd.svid.jwt import validate
from tests.ca.samples import DOMAIN, LAPTOP, RATINGS, REVIEWS, Office, a_csr, a_key, a_mesh, an_authority
from tests.fakes.clock import FakeClock, Watch

Code = grpc.StatusCode
NAMED = (("grpc.ssl_target_name_override", "policyd"), ("grpc.use_local_subchannel_pool", 1))


def pem_of(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def chain_pem(svid: pb.Svid) -> bytes:
    return b"".join(x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM) for der in svid.chain)


@dataclass
class House:
    """All servers, and what stands behind them."""

    office: Office
    tokens: Tokens
    changes: Changes
    agents: AgentsService
    served: ServerCertificate
    heard: list[dict[str, tuple[bool, str]]]
    attestation_port: int
    agents_port: int
    signing_port: int
    entries: list[Entry]
    levels: Levels
    late: Late
    turns: list[tuple[set[str], set[str]]]
    silence: Silence
    watch: Watch

    def token(self, *workloads: SpiffeId, agent: str = "laptop") -> str:
        registration = Registration(agent, frozenset(workloads))
        return self.tokens.create(registration, now=self.office.clock(), random=os.urandom).secret

    def attestation(self) -> grpc.aio.Channel:
        credentials = grpc.ssl_channel_credentials(self.served.roots)
        return grpc.aio.secure_channel(f"127.0.0.1:{self.attestation_port}", credentials, NAMED)

    def mutual(self, svid: pb.Svid, key: ec.EllipticCurvePrivateKey, port: int | None = None) -> grpc.aio.Channel:
        credentials = grpc.ssl_channel_credentials(self.served.roots, pem_of(key), chain_pem(svid))
        return grpc.aio.secure_channel(f"127.0.0.1:{port or self.agents_port}", credentials, NAMED)

    def bearer(self, spiffe_id: SpiffeId, port: int | None = None) -> grpc.aio.Channel:
        """A channel of somebody with a good certificate for any identity."""
        key = a_key()
        svid = self.office.authority.sign(spiffe_id, key.public_key(), now=self.office.clock(), random=os.urandom)
        return self.mutual(pb.Svid(chain=svid.chain), key, port)

    async def attest(self, token: str, csr: bytes | None = None) -> pb.Svid:
        async with self.attestation() as channel:
            return await stubs.AttestationStub(channel).Attest(pb.AttestRequest(token=token, csr=csr or a_csr()))

    async def join(self, *workloads: SpiffeId) -> grpc.aio.Channel:
        key = a_key()
        svid = await self.attest(self.token(*workloads), a_csr(key))
        return self.mutual(svid, key)

    @asynccontextmanager
    async def join_at(self, port: int) -> AsyncIterator[grpc.aio.Channel]:
        key = a_key()
        async with self.mutual(await self.attest(self.token(agent="other"), a_csr(key)), key, port) as channel:
            yield channel


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    clock = FakeClock(datetime.now(UTC))  # TLS looks at the machine's clock
    office = Office(an_authority(clock()), clock=clock)
    database = open_database(tmp_path / "tokens.db")
    running = Running(office, database)
    try:
        yield await running.start()
    finally:
        await running.stop()
        database.close()


class Late(grpc.ServerInterceptor):  # type: ignore[misc]  # grpc has no types
    """Where `late`, orders of one call are made once the call has ended."""

    def __init__(self, together: signing.Together) -> None:
        self._together = together
        self._ended = threading.Event()
        self.late = False
        self.begun = threading.Event()
        self.made = threading.Event()

    def intercept_service(self, continuation: Any, details: Any) -> Any:
        handler = continuation(details)

        def noting(messages: Any, context: grpc.ServicerContext) -> Any:
            context.add_callback(self._ended.set)
            return handler.stream_unary(messages, context)

        return handler and grpc.stream_unary_rpc_method_handler(
            noting, handler.request_deserializer, handler.response_serializer
        )

    def together(self, calls: Sequence[signing.Call]) -> Sequence[pb.Signed]:
        if self.late:
            self.begun.set()
            self._ended.wait()
        made = self._together(calls)
        self.made.set()
        return made


class Running:
    """Starts and stops the three servers."""

    def __init__(self, office: Office, database: Database) -> None:
        self.office, self.tokens, self.changes = office, Tokens(database), Changes()
        self.levels = Levels(self.changes.announce)
        self.servers = [grpc.aio.server(), grpc.aio.server()]
        self.threads = PausingThreads(1)
        self.late = Late(self.threads.together)
        self.signing = grpc.server(self.threads, interceptors=[self.late])  # type: ignore[arg-type]  # it only submits
        self.entries: list[Entry] = []
        self.turns: list[tuple[set[str], set[str]]] = []
        self.watch = Watch()
        self.silence = Silence(self.watch)

    async def turn(self, leaving: Collection[str], back: Collection[str]) -> None:
        self.turns.append((set(leaving), set(back)))

    async def start(self) -> House:
        issuer = self.office.issuer
        served = ServerIdentity(issuer, self.office.clock).current()
        self.office.recorder.entries.clear()
        seconds = asyncio.get_running_loop().time
        heard: list[Any] = []
        attestation = AttestationService(
            issuer, self.tokens, agents_address="127.0.0.1:1", clock=seconds, rate=Rate(0.0, 5)
        )
        signs = Signing(
            issuer, self.tokens, mesh=lambda: self.office.mesh, clock=seconds, wall=self.office.clock,
            rate=Rate(0.0, 5), entries=lambda: tuple(self.entries),
        )  # fmt: skip
        agents = AgentsService(
            signs, self.tokens, mesh=lambda: self.office.mesh, changes=self.changes, xds_address="127.0.0.1:1",
            signing_address="127.0.0.1:2", clock=seconds, wall=self.office.clock, hear=heard.append,
            turn=self.turn, levels=self.levels.of,
        )  # fmt: skip
        pairs = [(served.key, served.chain)]
        stubs.add_AttestationServicer_to_server(attestation, self.servers[0])
        stubs.add_AgentsServicer_to_server(agents, self.servers[1])
        open_to_all = grpc.ssl_server_credentials(pairs)
        mutual_too = grpc.ssl_server_credentials(pairs, served.roots, require_client_auth=True)
        mutual = grpc.ssl_server_credentials(pairs, served.roots, require_client_auth=True)
        ports = [
            server.add_secure_port("127.0.0.1:0", credentials)
            for server, credentials in zip(self.servers, (open_to_all, mutual), strict=True)
        ]
        signing.add_to_server(signs, self.signing, self.late.together, self.silence.message)
        ports.append(self.signing.add_secure_port("127.0.0.1:0", mutual_too))
        for server in self.servers:
            await server.start()
        self.signing.start()
        return House(
            self.office,
            self.tokens,
            self.changes,
            agents,
            served,
            heard,
            *ports,
            self.entries,
            self.levels,
            self.late,
            self.turns,
            self.silence,
            self.watch,
        )

    async def stop(self) -> None:
        for server in self.servers:
            await server.stop(None)
        await asyncio.to_thread(self.signing.stop(None).wait)
        self.threads.shutdown()


@asynccontextmanager
async def relay(house: House, port: int, version: ssl.TLSVersion, folder: Path) -> AsyncIterator[int]:
    """A port that passes plain bytes on to `port` over TLS of just this version; grpcio has no such setting itself."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=house.served.roots.decode())
    context.load_cert_chain(folder / "chain.pem", folder / "key.pem")
    context.minimum_version = context.maximum_version = version
    context.set_alpn_protocols(["h2"])
    pumps: list[asyncio.Task[None]] = []

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        finally:
            writer.close()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname="policyd")
        pumps.append(asyncio.create_task(pump(reader, far[1])))
        pumps.append(asyncio.create_task(pump(far[0], writer)))

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()  # from 3.12 on, waiting for it would wait for the pumps
        for task in pumps:
            task.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)


async def code_of(call: Any) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value.code(), caught.value.details() or ""


async def sign(channel: grpc.aio.Channel, identity: SpiffeId | str = "", csr: bytes | None = None) -> pb.Svid:
    return await stubs.AgentsStub(channel).Sign(pb.SignRequest(spiffe_id=str(identity), csr=csr or a_csr()))


async def test_an_agent_joins_signs_and_watches(house: House) -> None:
    key = a_key()
    own = await house.attest(house.token(), a_csr(key))
    assert own.spiffe_id == str(LAPTOP)
    assert house.office.authority.root_der == own.bundle.roots[0]
    async with house.mutual(own, key) as channel:
        svid = await sign(channel, REVIEWS)
        chain = [x509.load_der_x509_certificate(der) for der in svid.chain]
        assert check_svid(chain, house.office.authority.root, house.office.clock()) == REVIEWS
        renewed = await sign(channel)
        assert (renewed.spiffe_id, renewed.chain[0] != own.chain[0]) == (str(LAPTOP), True)
        watch = stubs.AgentsStub(channel).Watch(pb.WatchRequest(version="0.1.0"))
        assert await watch.read() == pb.Assignment(
            agent="laptop",
            sidecars=[
                pb.Sidecar(instance="ratings-v1", spiffe_id=str(RATINGS), cluster="ratings.default"),
                pb.Sidecar(instance="reviews-v1", spiffe_id=str(REVIEWS), cluster="reviews.default"),
                pb.Sidecar(instance="reviews-v2", spiffe_id=str(REVIEWS), cluster="reviews.default"),
            ],
            bundle=own.bundle,
            xds_address="127.0.0.1:1",
            signing_address="127.0.0.1:2",
            server_id="spiffe://cluster.local/policyd/server",
            registrations=[
                pb.Registration(spiffe_id=str(identity), selectors=[f"policyd:instance:{name}"])
                for name, identity in (("ratings-v1", RATINGS), ("reviews-v1", REVIEWS), ("reviews-v2", REVIEWS))
            ],
        )
        assert house.agents.connected() == ("laptop",)
        watch.cancel()
    entries = [(e.decision, e.detail["requested_by"], e.detail["agent"]) for e in house.office.recorder.entries]
    assert entries == [("allow", kind, "laptop") for kind in ("attestation", "workload", "agent")]
    assert house.office.counted == ["server", "attestation", "workload", "agent"]


@pytest.mark.parametrize("alone", [True, False], ids=["where it signs", "where it watches"])
async def test_several_orders_of_one_call_are_each_answered_for_itself(house: House, alone: bool) -> None:
    key = a_key()
    own = await house.attest(house.token(REVIEWS), a_csr(key))
    orders = [
        pb.SignRequest(spiffe_id=str(REVIEWS), csr=a_csr()),
        pb.SignRequest(spiffe_id=str(RATINGS), csr=a_csr()),
        pb.SignRequest(spiffe_id=str(REVIEWS), csr=b"x"),
        pb.SignRequest(csr=a_csr()),
        pb.SignRequest(spiffe_id="web", csr=a_csr()),
        pb.SignRequest(spiffe_id=str(REVIEWS), csr=a_csr()),  # one more than the rate allows
    ]
    async with house.mutual(own, key, house.signing_port if alone else None) as channel:
        reply = await stubs.AgentsStub(channel).SignAll(pb.SignAllRequest(requests=orders))
    found = [
        one.svid.spiffe_id if one.WhichOneof("outcome") == "svid" else (one.refused.status, one.refused.text)
        for one in reply.signed
    ]
    assert found == [
        str(REVIEWS),
        (Code.PERMISSION_DENIED.value[0], f"`{RATINGS}` is not registered to this agent"),
        (Code.INVALID_ARGUMENT.value[0], "the certificate signing request cannot be read; send PKCS#10 in DER"),
        str(LAPTOP),
        (Code.INVALID_ARGUMENT.value[0], "`web` is no SPIFFE ID; it starts with `spiffe://`"),
        (Code.RESOURCE_EXHAUSTED.value[0], "too many requests, wait a little"),
    ]
    recorded = [
        entry.decision for entry in house.office.recorder.entries if entry.detail.get("requested_by") != "attestation"
    ]
    assert sorted(recorded) == ["allow", "allow", "deny", "error"]


async def test_orders_of_who_has_given_up_are_not_made(house: House) -> None:
    key = a_key()
    own = await house.attest(house.token(REVIEWS), a_csr(key))
    house.late.late = True
    orders = [pb.SignRequest(csr=a_csr()), pb.SignRequest(spiffe_id=str(REVIEWS), csr=a_csr())]
    async with house.mutual(own, key, house.signing_port) as channel:
        call = stubs.AgentsStub(channel).SignAll(pb.SignAllRequest(requests=orders))
        assert await asyncio.to_thread(house.late.begun.wait, 20)
        call.cancel()
        assert await asyncio.to_thread(house.late.made.wait, 20)
    assert [entry.detail["requested_by"] for entry in house.office.recorder.entries] == ["attestation"]


@pytest.mark.parametrize("count", [0, 17])
async def test_a_call_of_no_orders_or_of_too_many_is_refused(house: House, count: int) -> None:
    asked = pb.SignAllRequest(requests=[pb.SignRequest(csr=a_csr())] * count)
    key = a_key()
    own = await house.attest(house.token(), a_csr(key))
    for port in (house.agents_port, house.signing_port):
        async with house.mutual(own, key, port) as channel:
            refused = await code_of(stubs.AgentsStub(channel).SignAll(asked))
            assert refused == (Code.INVALID_ARGUMENT, "1 to 16 requests are made at once")
    async with house.bearer(REVIEWS, house.signing_port) as channel:
        one = pb.SignAllRequest(requests=[pb.SignRequest(csr=a_csr())])
        assert (await code_of(stubs.AgentsStub(channel).SignAll(one)))[0] is Code.PERMISSION_DENIED


@pytest.mark.parametrize("alone", [True, False], ids=["where it signs", "where it watches"])
async def test_several_orders_are_told_nothing_of_what_fails_within(house: House, tmp_path: Path, alone: bool) -> None:
    key = a_key()
    own = await house.attest(house.token(), a_csr(key))
    with closing(sqlite3.connect(tmp_path / "tokens.db")) as other:
        other.execute("DROP TABLE agent")
    one = pb.SignAllRequest(requests=[pb.SignRequest(csr=a_csr())])
    async with house.mutual(own, key, house.signing_port if alone else None) as channel:
        refused = await code_of(stubs.AgentsStub(channel).SignAll(one))
    assert refused == (Code.UNAVAILABLE, "no certificate can be issued now")


async def test_a_watch_tells_each_change_that_concerns_the_agent(house: House) -> None:
    async with await house.join(REVIEWS) as channel:
        watch = stubs.AgentsStub(channel).Watch(pb.WatchRequest())
        first = await watch.read()
        assert [one.instance for one in first.sidecars] == ["reviews-v1", "reviews-v2"]
        house.changes.announce()  # nothing of it concerns the agent: it must not hear of it
        instances = dict(house.office.mesh.instances)
        del instances["reviews-v2"]
        house.office.mesh = a_mesh(instances=instances)
        house.changes.announce()
        second = await asyncio.wait_for(watch.read(), 5)
        assert [one.instance for one in second.sidecars] == ["reviews-v1"]
        assert (second.log_level, second.envoy_log_level) == ("", "")
        house.levels.ask("another", "debug", envoys=False)  # of which it hears nothing
        house.levels.ask("laptop", "trace", envoys=True)
        third = await asyncio.wait_for(watch.read(), 5)
        assert (third.log_level, third.envoy_log_level, third.sidecars) == ("", "trace", second.sidecars)
        watch.cancel()


def health(instance: str, healthy: bool = True, reason: str = "") -> pb.InstanceHealth:
    return pb.InstanceHealth(instance=instance, healthy=healthy, reason=reason)


async def report(channel: grpc.aio.Channel, *said: pb.InstanceHealth) -> pb.HealthReply:
    return await stubs.AgentsStub(channel).Report(pb.HealthReport(instances=said))


async def test_an_agent_is_told_how_to_ask_and_says_who_answers(house: House) -> None:
    probe = Probe(http_get=HttpGet(port=9080, path="/ready"), period_seconds=3, failure_threshold=2)
    instances = dict(house.office.mesh.instances)
    instances["reviews-v1"] = replace(instances["reviews-v1"], probe=probe, ports=(Served(9080, 9080, app_port=7001),))
    house.office.mesh = a_mesh(instances=instances)
    async with await house.join(REVIEWS) as channel:
        watch = stubs.AgentsStub(channel).Watch(pb.WatchRequest())
        get = pb.HttpGet(host="127.0.0.1", port=7001, path="/ready")
        assert list((await watch.read()).probes) == [
            pb.Probe(
                instance="reviews-v1", http_get=get, timeout_seconds=1, period_seconds=3, success_threshold=1,
                failure_threshold=2,
            )
        ]  # fmt: skip
        watch.cancel()
        bad = health("reviews-v2", False, "the answer\nis 500" + "!" * 500)
        await report(channel, health("reviews-v1"), bad, health("gone"))
    reason = ("the answer is 500" + "!" * 500)[:200]
    assert house.heard == [{"reviews-v1": (True, ""), "reviews-v2": (False, reason)}]


async def test_an_agent_speaks_for_what_it_runs_and_for_nothing_else(house: House) -> None:
    async with await house.join(REVIEWS) as channel:
        said = await code_of(report(channel, health("reviews-v1"), health("ratings-v1", False)))
    assert said == (Code.PERMISSION_DENIED, "`ratings-v1` is not run by this agent")
    assert house.heard == []


async def test_reports_are_bounded(house: House) -> None:
    async with await house.join(REVIEWS) as channel:
        said = await code_of(report(channel, *[health("reviews-v1")] * 513))
        assert said == (Code.INVALID_ARGUMENT, "a report is of at most 512 instances")
        many = await asyncio.gather(*(report(channel) for _ in range(500)), return_exceptions=True)
        refused = [one.code() for one in many if isinstance(one, grpc.aio.AioRpcError)]
        assert refused
        assert set(refused) == {Code.RESOURCE_EXHAUSTED}


async def test_an_agent_says_which_of_its_own_instances_leave_and_which_are_back(house: House) -> None:
    async with await house.join(REVIEWS) as channel:
        agents = stubs.AgentsStub(channel)
        await agents.Leave(pb.Leaving(leaving=["reviews-v1", "gone"], back=["reviews-v2"]))
        others = await code_of(agents.Leave(pb.Leaving(leaving=["reviews-v1", "ratings-v1"])))
        many = await code_of(agents.Leave(pb.Leaving(back=["reviews-v1"] * 1025)))
    assert others == (Code.PERMISSION_DENIED, "`ratings-v1` is not run by this agent")
    assert many == (Code.INVALID_ARGUMENT, "a report is of at most 512 instances")
    assert house.turns == [({"reviews-v1"}, {"reviews-v2"})]


async def test_workloads_and_strangers_report_nothing(house: House) -> None:
    async with house.bearer(REVIEWS) as workload, house.bearer(SpiffeId.agent(DOMAIN, "stranger")) as stranger:
        assert (await code_of(report(workload, health("reviews-v1"))))[0] is Code.PERMISSION_DENIED
        assert (await code_of(report(stranger, health("reviews-v1"))))[0] is Code.PERMISSION_DENIED
    assert house.heard == []


async def test_a_watch_ends_when_its_agent_is_forgotten(house: House) -> None:
    async with await house.join() as channel:
        watch = stubs.AgentsStub(channel).Watch(pb.WatchRequest())
        await watch.read()
        house.tokens.forget("laptop")
        house.changes.announce()
        assert (await code_of(watch.read()))[0] is Code.PERMISSION_DENIED
        assert house.agents.connected() == ()


async def test_an_agent_opens_no_more_than_four_watches(house: House) -> None:
    async with await house.join() as channel:
        watches = [stubs.AgentsStub(channel).Watch(pb.WatchRequest()) for _ in range(4)]
        for watch in watches:
            await watch.read()
        fifth = stubs.AgentsStub(channel).Watch(pb.WatchRequest())
        assert await code_of(fifth.read()) == (Code.RESOURCE_EXHAUSTED, "this agent watches already")
        for watch in watches:
            watch.cancel()


async def test_wrong_used_and_expired_tokens_look_the_same_and_are_told_apart_on_record(house: House) -> None:
    used = house.token()
    await house.attest(used)
    answers = [await code_of(house.attest("A" * 43)), await code_of(house.attest(used))]
    expired = house.tokens.create(Registration("desktop"), now=house.office.clock(), random=os.urandom).secret
    house.office.clock.advance(11 * 60)
    answers += [await code_of(house.attest(expired)), await code_of(house.attest("A" * 1000))]
    assert answers == [(Code.PERMISSION_DENIED, "the join token is not accepted")] * 4
    reasons = [(e.detail["reason"], e.detail.get("agent")) for e in house.office.recorder.entries[1:]]
    assert reasons == [("unknown", None), ("used", "laptop"), ("expired", "desktop"), ("unknown", None)]


@pytest.mark.parametrize(
    ("csr", "text"),
    [
        (b"junk", "the certificate signing request cannot be read; send PKCS#10 in DER"),
        (
            a_csr(names=[x509.UniformResourceIdentifier(str(REVIEWS))]),
            f"other names than its identity; name `{LAPTOP}`",
        ),
    ],
)
async def test_a_bad_request_costs_no_token(house: House, csr: bytes, text: str) -> None:
    token = house.token()
    code, said = await code_of(house.attest(token, csr))
    assert (code, text in said) == (Code.INVALID_ARGUMENT, True)
    assert (await house.attest(token)).spiffe_id == str(LAPTOP)


async def test_an_attestation_that_is_said_again_gets_nothing(house: House) -> None:
    """Whoever has recorded a whole request, token and all, and sends its very bytes again."""
    said = pb.AttestRequest(token=house.token(REVIEWS), csr=a_csr()).SerializeToString()
    async with house.attestation() as channel:
        attest = channel.unary_unary("/policyd.v1.Attestation/Attest")
        first = pb.Svid.FromString(await attest(said))
        again = await code_of(attest(said))
    assert (first.spiffe_id, again) == (str(LAPTOP), (Code.PERMISSION_DENIED, "the join token is not accepted"))
    assert [one.decision for one in house.office.recorder.entries] == ["allow", "deny"]


async def test_without_a_record_there_is_no_certificate_and_the_token_stays_good(house: House) -> None:
    token = house.token()
    house.office.recorder.full = True
    assert await code_of(house.attest(token)) == (Code.UNAVAILABLE, "no certificate can be issued now")
    house.office.recorder.full = False
    assert (await house.attest(token)).spiffe_id == str(LAPTOP)


async def test_a_broken_engine_issues_nothing_and_says_nothing_of_itself(house: House) -> None:
    house.office.decider.broken = True
    assert await code_of(house.attest(house.token())) == (Code.UNAVAILABLE, "no certificate can be issued now")


async def test_policy_has_the_last_word(house: House) -> None:
    async with await house.join() as channel:
        house.office.decider.decision = Decision(False)
        assert await code_of(sign(channel, REVIEWS)) == (Code.PERMISSION_DENIED, f"`{REVIEWS}` is not granted")


@pytest.mark.parametrize(
    "identity",
    [RATINGS, SpiffeId.server(DOMAIN), SpiffeId.agent(DOMAIN, "desktop"), SpiffeId("partner.org", "/ns/a/sa/b")],
)
async def test_an_identity_that_is_not_registered_to_the_agent_is_refused_and_recorded(
    house: House, identity: SpiffeId
) -> None:
    async with await house.join(REVIEWS) as channel:
        asked = len(house.office.decider.asked)
        answer = await code_of(sign(channel, identity))
    assert answer == (Code.PERMISSION_DENIED, f"`{identity}` is not registered to this agent")
    last = house.office.recorder.entries[-1]
    assert (last.decision, last.detail["spiffe_id"], last.detail["agent"]) == ("deny", str(identity), "laptop")
    assert len(house.office.decider.asked) == asked


@pytest.mark.parametrize("identity", ["x", "spiffe://", "spiffe://cluster.local/a\n", "spiffe://c/" + "a" * 3000])
async def test_what_is_no_identity_is_refused(house: House, identity: str) -> None:
    async with await house.join() as channel:
        assert (await code_of(sign(channel, identity)))[0] is Code.INVALID_ARGUMENT


async def sign_jwt(channel: grpc.aio.Channel, identity: object = REVIEWS, **fields: Any) -> pb.JwtSvid:
    asked: dict[str, Any] = {"audiences": ["shop"], "selectors": ["policyd:instance:reviews-v1"], **fields}
    return await stubs.AgentsStub(channel).SignJwt(pb.SignJwtRequest(spiffe_id=str(identity), **asked))


async def test_a_process_of_an_instance_gets_a_token_and_its_agent_what_verifies_it(house: House) -> None:
    async with await house.join(REVIEWS) as channel:
        reply = await sign_jwt(channel)
        svid = await sign(channel, REVIEWS)
    bundle = read(svid.bundle.jwt_keys, DOMAIN)
    assert bundle == Bundle(DOMAIN, (), house.office.jwt_keys.public, svid.bundle.sequence, 300)
    token = validate(reply.token, lambda _: bundle, "shop", house.office.clock())
    assert (token.spiffe_id, int(token.expires.timestamp())) == (REVIEWS, reply.expires_at)
    [context] = [one.context for one in house.office.decider.asked if str(one.action) == 'Action::"jwt"']
    assert context["evidence"] == {"kind": "unix", "selectors": ["policyd:instance:reviews-v1"]}


async def test_a_process_is_what_an_entry_makes_it_and_nobody_else(house: House) -> None:
    house.entries.append(Entry(REVIEWS, frozenset({"unix:uid:7", "unix:path:/bin/web"}), "main", "e1"))
    async with await house.join(REVIEWS) as channel:
        watch = stubs.AgentsStub(channel).Watch(pb.WatchRequest())
        told = (await watch.read()).registrations[-1]
        assert told == pb.Registration(
            spiffe_id=str(REVIEWS), selectors=["unix:path:/bin/web", "unix:uid:7"], hint="main"
        )
        watch.cancel()
        whole = ["unix:uid:7", "unix:gid:7", "unix:path:/bin/web"]
        await sign_jwt(channel, selectors=whole)
        signed = await stubs.AgentsStub(channel).Sign(
            pb.SignRequest(spiffe_id=str(REVIEWS), csr=a_csr(), selectors=whole)
        )
        assert signed.spiffe_id == str(REVIEWS)
        refused = (Code.PERMISSION_DENIED, f"no entry makes this process `{REVIEWS}`")
        assert await code_of(sign_jwt(channel, selectors=["unix:uid:7"])) == refused
    last = house.office.recorder.entries[-1]
    assert (last.decision, last.action, last.detail["evidence"]) == (
        "deny", 'Action::"jwt"', {"kind": "unix", "selectors": ["unix:uid:7"]},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("identity", "fields", "code"),
    [
        (RATINGS, {}, Code.PERMISSION_DENIED),
        (LAPTOP, {}, Code.PERMISSION_DENIED),
        (SpiffeId.server(DOMAIN), {}, Code.PERMISSION_DENIED),
        (REVIEWS, {"selectors": ["policyd:instance:ratings-v1"]}, Code.PERMISSION_DENIED),
        (REVIEWS, {"selectors": []}, Code.INVALID_ARGUMENT),
        (REVIEWS, {"selectors": ["x"] * 257}, Code.INVALID_ARGUMENT),
        (REVIEWS, {"selectors": ["x" * 5000]}, Code.INVALID_ARGUMENT),
        (REVIEWS, {"selectors": ["a\nb"]}, Code.INVALID_ARGUMENT),
        (REVIEWS, {"audiences": []}, Code.INVALID_ARGUMENT),
        (REVIEWS, {"audiences": [""]}, Code.INVALID_ARGUMENT),
        (REVIEWS, {"audiences": ["a"] * 17}, Code.INVALID_ARGUMENT),
        ("spiffe://cluster.local/../a", {}, Code.INVALID_ARGUMENT),
    ],
)
async def test_an_agent_gets_no_token_of_another_workload_nor_a_bad_one(
    house: House, identity: object, fields: dict[str, Any], code: grpc.StatusCode
) -> None:
    async with await house.join(REVIEWS) as channel:
        assert (await code_of(sign_jwt(channel, identity, **fields)))[0] is code
    assert "jwt" not in house.office.counted


async def test_a_revoked_agent_obtains_nothing_and_its_watch_ends(house: House) -> None:
    async with await house.join() as channel:
        watch = stubs.AgentsStub(channel).Watch(pb.WatchRequest())
        await watch.read()
        house.office.revoked.add(LAPTOP)
        house.changes.announce()
        refused = (Code.PERMISSION_DENIED, "this agent is revoked")
        assert await code_of(watch.read()) == refused
        for call in (sign(channel), sign(channel, REVIEWS), sign_jwt(channel)):
            assert await code_of(call) == refused
    assert (await code_of(house.attest(house.token())))[0] is Code.PERMISSION_DENIED


async def test_only_a_registered_agent_is_served(house: House) -> None:
    async with house.bearer(REVIEWS) as workload, house.bearer(SpiffeId.agent(DOMAIN, "stranger")) as stranger:
        assert await code_of(sign(workload)) == (Code.PERMISSION_DENIED, "this service is for agents")
        assert (await code_of(sign(stranger)))[0] is Code.PERMISSION_DENIED


async def test_a_connection_that_outlives_its_certificate_is_refused(house: House) -> None:
    async with await house.join() as channel:
        await sign(channel)
        house.office.clock.now += timedelta(minutes=61)
        code, text = await code_of(sign(channel))
    assert (code, "the client's certificate ended at" in text) == (Code.UNAUTHENTICATED, True)


async def test_no_certificate_or_a_foreign_one_reaches_nothing(house: House) -> None:
    key, foreign = a_key(), an_authority(house.office.clock())
    svid = foreign.sign(LAPTOP, key.public_key(), now=house.office.clock(), random=os.urandom)
    async with house.mutual(pb.Svid(chain=svid.chain), key) as forged:
        assert (await code_of(sign(forged)))[0] is Code.UNAVAILABLE
    nobody = grpc.ssl_channel_credentials(house.served.roots)
    async with grpc.aio.secure_channel(f"127.0.0.1:{house.agents_port}", nobody, NAMED) as channel:
        assert (await code_of(sign(channel)))[0] is Code.UNAVAILABLE


async def test_who_asks_too_often_waits(house: House) -> None:
    async with await house.join() as channel:
        for _ in range(5):
            await sign(channel)
        assert await code_of(sign(channel)) == (Code.RESOURCE_EXHAUSTED, "too many requests, wait a little")
    for _ in range(4):
        assert (await code_of(house.attest("x")))[0] is Code.PERMISSION_DENIED
    assert await code_of(house.attest("x")) == (Code.RESOURCE_EXHAUSTED, "too many attempts, wait a little")


async def test_a_call_that_says_nothing_is_ended_and_others_have_their_certificates(house: House) -> None:
    own, key = a_key(), a_key()
    svid = await house.attest(house.token(), a_csr(own))
    never = asyncio.Event()

    async def nothing() -> AsyncIterator[bytes]:
        await never.wait()
        yield b""

    async with house.join_at(house.signing_port) as quiet, house.mutual(svid, own, house.signing_port) as lively:
        held = quiet.stream_unary(f"/{signing.SERVICE}/Sign")(nothing())
        while not house.silence.waiting:
            await asyncio.sleep(0.01)
        asked = asyncio.ensure_future(stubs.AgentsStub(lively).Sign(pb.SignRequest(csr=a_csr(key))))
        house.watch.now += 2 * SILENT_SECONDS
        house.silence.look()

        assert (await code_of(held))[0] == grpc.StatusCode.CANCELLED
        assert (await asked).chain
        assert await code_of(lively.unary_unary(f"/{signing.SERVICE}/Sign")(b"\xff")) == (
            grpc.StatusCode.INVALID_ARGUMENT,
            "this is no request of an agent",
        )


async def test_the_port_for_signing_answers_as_the_one_for_agents(house: House) -> None:
    """Of the Agents service it has what signs, under the same rules, and nothing else."""
    answers = []
    for port in (house.agents_port, house.signing_port):
        key = a_key()
        svid = await house.attest(house.token(REVIEWS, agent=f"a{port}"), a_csr(key))
        async with house.mutual(svid, key, port) as channel, house.bearer(REVIEWS, port) as workload:
            answers.append(
                (
                    (await sign(channel, REVIEWS)).spiffe_id,
                    read_token((await sign_jwt(channel)).token).spiffe_id,
                    await code_of(sign(channel, RATINGS)),
                    await code_of(sign(channel, REVIEWS, b"junk")),
                    await code_of(sign_jwt(channel, selectors=["unix:uid:9"])),
                    await code_of(sign(channel, REVIEWS)),  # the sixth
                    await code_of(sign(workload, REVIEWS)),
                )
            )
    assert answers[0] == answers[1]
    assert answers[0][:2] == (str(REVIEWS), REVIEWS)
    async with house.join_at(house.signing_port) as channel:
        watch = stubs.AgentsStub(channel).Watch(pb.WatchRequest())
        assert (await code_of(watch.read()))[0] is Code.UNIMPLEMENTED


@pytest.mark.parametrize(
    ("version", "code"), [(ssl.TLSVersion.TLSv1_3, Code.OK), (ssl.TLSVersion.TLSv1_2, Code.UNAUTHENTICATED)]
)
async def test_a_client_below_tls_1_3_is_refused(
    house: House, tmp_path: Path, version: ssl.TLSVersion, code: grpc.StatusCode
) -> None:
    key = a_key()
    (tmp_path / "chain.pem").write_bytes(chain_pem(await house.attest(house.token(), a_csr(key))))
    (tmp_path / "key.pem").write_bytes(pem_of(key))
    token = house.token(agent="desktop")
    calls = {
        house.agents_port: lambda channel: stubs.AgentsStub(channel).Sign(pb.SignRequest(csr=a_csr()), timeout=5),
        house.attestation_port: lambda channel: stubs.AttestationStub(channel).Attest(
            pb.AttestRequest(token=token, csr=a_csr()), timeout=5
        ),
        house.signing_port: lambda channel: stubs.AgentsStub(channel).Sign(pb.SignRequest(csr=a_csr()), timeout=5),
    }
    for far, call in calls.items():
        async with (
            relay(house, far, version, tmp_path) as near,
            grpc.aio.insecure_channel(f"127.0.0.1:{near}") as channel,
        ):
            made = call(channel)
            assert await made.code() is code, await made.details()
    assert (house.tokens.registration("desktop") is not None) is (code is Code.OK)
