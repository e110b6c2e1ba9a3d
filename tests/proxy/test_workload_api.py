"""The Workload API on a real socket: who gets what, what changes while it streams, the specification's codes."""

from __future__ import annotations

import asyncio
import os
import socket
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from policyd._pb import workload_pb2 as pb
from policyd._pb import workload_pb2_grpc as stubs
from policyd.errors import IdentityError, IssuanceDenied, StateError
from policyd.spiffe import SpiffeId
from policyd.svid import bundle as jwk_set
from proxy.assignment import Registered
from proxy.book import Book
from proxy.caller import Caller
from proxy.control import Unreachable
from proxy.front import MAX_OF_ONE_USER, Front
from proxy.outside import Outside
from proxy.workload_server import Place, WorkloadServer
from tests.fakes.issuer import signed
from tests.fakes.signer import FakeControl
from tests.fakes.toy_ca import ToyCa
from tests.proxy.test_revoked import CRL

Code = grpc.StatusCode
HEADER = (("workload.spiffe.io", "true"),)
WEB = SpiffeId.workload("cluster.local", "default", "web")
API = SpiffeId.workload("cluster.local", "default", "api")
MINE = frozenset({f"unix:uid:{os.getuid()}"})
PATIENCE = 30.0


@dataclass
class Machine:
    """An agent's Workload API, as the only process that calls it sees it."""

    control: FakeControl
    book: Book
    server: WorkloadServer
    place: Place
    said: list[dict[str, Any]]
    channel: grpc.aio.Channel | None = None
    stub: Any = None

    def register(self, *registered: Registered) -> None:
        self.book.hear(registered, self.control.bundle)


@dataclass
class Clock:
    """The machine's own clock, and what a test adds to it."""

    ahead: timedelta = field(default_factory=timedelta)

    def __call__(self) -> datetime:
        from datetime import UTC

        return datetime.now(UTC) + self.ahead


@asynccontextmanager
async def running(
    control: FakeControl | None = None, monotonic: Callable[[], float] = time.monotonic
) -> AsyncIterator[Machine]:
    said: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="t") as folder:
        place = Place(Path(folder) / "workload.sock", Path(folder))
        control = control or FakeControl()
        outside = Outside(lambda event, **facts: said.append({"event": event, **facts}), Clock(), monotonic)
        book = Book(outside)
        book.use(control)  # type: ignore[arg-type]
        server = WorkloadServer(place, book, outside)
        await server.start()
        machine = Machine(control, book, server, place, said)
        try:
            async with grpc.aio.insecure_channel(f"unix:{place.socket}") as channel:
                machine.channel, machine.stub = channel, stubs.SpiffeWorkloadAPIStub(channel)
                yield machine
        finally:
            await server.stop()


@pytest.fixture
async def machine() -> AsyncIterator[Machine]:
    async with running() as made:
        yield made


async def refusal(call: Any) -> tuple[grpc.StatusCode, str]:
    """How a call ends, a stream at its first message."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await asyncio.wait_for(call.read() if hasattr(call, "read") else call, PATIENCE)
    return caught.value.code(), caught.value.details() or ""


async def first(call: Any) -> Any:
    return await asyncio.wait_for(call.read(), PATIENCE)


CALLS: dict[str, Callable[[Any, Any], Any]] = {
    "FetchX509SVID": lambda stub, header: stub.FetchX509SVID(pb.X509SVIDRequest(), metadata=header),
    "FetchX509Bundles": lambda stub, header: stub.FetchX509Bundles(pb.X509BundlesRequest(), metadata=header),
    "FetchJWTBundles": lambda stub, header: stub.FetchJWTBundles(pb.JWTBundlesRequest(), metadata=header),
    "FetchJWTSVID": lambda stub, header: stub.FetchJWTSVID(pb.JWTSVIDRequest(audience=["a"]), metadata=header),
    "ValidateJWTSVID": lambda stub, header: stub.ValidateJWTSVID(
        pb.ValidateJWTSVIDRequest(audience="a", svid="b"), metadata=header
    ),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
async def test_the_header_is_mandatory_to_the_letter(machine: Machine, call: Callable[[Any, Any], Any]) -> None:
    machine.register(Registered(WEB, MINE))
    wrong = [(), (("workload.spiffe.io", "True"),), (("workload.spiffe.io", ""),), (*HEADER, *HEADER), (("x", "true"),)]
    for header in wrong:
        answer = await refusal(call(machine.stub, header))
        assert answer == (Code.INVALID_ARGUMENT, "security header missing from request")


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
async def test_nobody_gets_nothing(machine: Machine, call: Callable[[Any, Any], Any]) -> None:
    machine.register(Registered(WEB, frozenset({"unix:uid:4294967294"})), Registered(API, MINE | {"unix:path:/no"}))
    assert await refusal(call(machine.stub, HEADER)) == (Code.PERMISSION_DENIED, "no identity issued")
    assert (machine.control.signed, machine.control.tokens) == ([], [])
    [refused] = [one for one in machine.said if one["event"] == "workload.refused"]
    assert (refused["uid"], refused["code"]) == (os.getuid(), "issuance_denied")


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
async def test_before_policyd_has_said_who_is_who_everybody_waits(
    machine: Machine, call: Callable[[Any, Any], Any]
) -> None:
    assert await refusal(call(machine.stub, HEADER)) == (Code.UNAVAILABLE, "identities cannot be had now")


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
async def test_past_the_front_nobody_is_known(machine: Machine, call: Callable[[Any, Any], Any]) -> None:
    machine.register(Registered(WEB, MINE))
    async with grpc.aio.insecure_channel(f"unix:{machine.place.runtime / 'api' / 's'}") as channel:
        answer = await refusal(call(stubs.SpiffeWorkloadAPIStub(channel), HEADER))
    assert answer == (Code.PERMISSION_DENIED, "no identity issued")


async def test_a_process_gets_its_certificate_key_and_roots(machine: Machine) -> None:
    machine.register(Registered(WEB, MINE, "main"))
    reply = await first(machine.stub.FetchX509SVID(pb.X509SVIDRequest(), metadata=HEADER))
    [svid] = reply.svids
    assert (svid.spiffe_id, svid.hint, list(reply.crl), dict(reply.federated_bundles)) == (str(WEB), "main", [], {})
    assert svid.bundle == machine.control.ca.root.der
    key = serialization.load_der_private_key(svid.x509_svid_key, None)
    leaf = x509.load_der_x509_certificate(svid.x509_svid[: 4 + int.from_bytes(svid.x509_svid[2:4], "big")])
    assert leaf.public_key() == key.public_key()
    assert machine.book.expiries() == {str(WEB): leaf.not_valid_after_utc}
    assert svid.x509_svid.endswith(machine.control.ca.intermediate.der)
    [(asked, selectors)] = machine.control.signed
    assert asked == WEB
    assert set(selectors) >= MINE


async def test_the_lists_of_what_is_revoked_come_with_the_roots_and_as_they_change(machine: Machine) -> None:
    machine.register(Registered(WEB, MINE))
    svids = machine.stub.FetchX509SVID(pb.X509SVIDRequest(), metadata=HEADER)
    bundles = machine.stub.FetchX509Bundles(pb.X509BundlesRequest(), metadata=HEADER)
    assert [list((await first(one)).crl) for one in (svids, bundles)] == [[], []]
    machine.book.hear([Registered(WEB, MINE)], machine.control.bundle, crls=[CRL])
    assert [list((await first(one)).crl) for one in (svids, bundles)] == [[CRL], [CRL]]
    machine.register(Registered(WEB, MINE))
    assert [list((await first(one)).crl) for one in (svids, bundles)] == [[], []]


async def test_a_process_gets_the_bundles_of_other_trust_domains_each_by_its_name(machine: Machine) -> None:
    partner = FakeControl()
    partner.ca = ToyCa("partner.org")
    machine.book.hear([Registered(WEB, MINE)], machine.control.bundle, [partner.bundle])
    own, other = machine.control.ca.root.der, partner.ca.root.der
    svids = await first(machine.stub.FetchX509SVID(pb.X509SVIDRequest(), metadata=HEADER))
    assert (svids.svids[0].bundle, dict(svids.federated_bundles)) == (own, {"spiffe://partner.org": other})
    roots = await first(machine.stub.FetchX509Bundles(pb.X509BundlesRequest(), metadata=HEADER))
    assert dict(roots.bundles) == {"spiffe://cluster.local": own, "spiffe://partner.org": other}
    keys = await first(machine.stub.FetchJWTBundles(pb.JWTBundlesRequest(), metadata=HEADER))
    assert dict(keys.bundles) == {
        "spiffe://cluster.local": machine.control.bundle.jwt_keys, "spiffe://partner.org": partner.bundle.jwt_keys,
    }  # fmt: skip


async def test_a_token_of_another_trust_domain_is_good_by_that_one_s_keys_alone(machine: Machine) -> None:
    partner = FakeControl()
    partner.ca = ToyCa("partner.org")
    machine.book.hear([Registered(WEB, MINE)], machine.control.bundle, [partner.bundle])
    ends = int(time.time()) + 300

    async def valid(token: str) -> str:
        asked = pb.ValidateJWTSVIDRequest(audience="a", svid=token)
        return str((await machine.stub.ValidateJWTSVID(asked, metadata=HEADER)).spiffe_id)

    theirs = "spiffe://partner.org/ns/default/sa/shop"
    assert await valid(partner.token(theirs, ["a"], ends)) == theirs
    for token in (machine.control.token(theirs, ["a"], ends), partner.token(str(WEB), ["a"], ends)):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await valid(token)
        assert caught.value.code() is Code.INVALID_ARGUMENT
    machine.register(Registered(WEB, MINE))
    with pytest.raises(grpc.aio.AioRpcError, match=r"partner\.org"):
        await valid(partner.token(theirs, ["a"], ends))


async def test_a_process_with_several_identities_gets_all_and_each_hint_once(machine: Machine) -> None:
    machine.register(Registered(API, MINE, "x"), Registered(WEB, MINE, "x"), Registered(API, MINE, "y"))
    reply = await first(machine.stub.FetchX509SVID(pb.X509SVIDRequest(), metadata=HEADER))
    assert [(one.spiffe_id, one.hint) for one in reply.svids] == [(str(API), "x"), (str(WEB), "")]


async def test_what_policies_deny_is_left_out(machine: Machine) -> None:
    machine.control.refused[API] = IssuanceDenied("no")
    machine.register(Registered(API, MINE), Registered(WEB, MINE))
    reply = await first(machine.stub.FetchX509SVID(pb.X509SVIDRequest(), metadata=HEADER))
    assert [one.spiffe_id for one in reply.svids] == [str(WEB)]
    tokens = await machine.stub.FetchJWTSVID(pb.JWTSVIDRequest(audience=["a"]), metadata=HEADER)
    assert [one.spiffe_id for one in tokens.svids] == [str(WEB)]


@pytest.mark.parametrize(
    ("failure", "answer"),
    [
        (IssuanceDenied("no"), (Code.PERMISSION_DENIED, "no identity issued")),
        (Unreachable("away"), (Code.UNAVAILABLE, "identities cannot be had now")),
        (IdentityError("odd"), (Code.UNAVAILABLE, "identities cannot be had now")),
    ],
)
async def test_a_failure_of_policyd_has_the_code_that_says_whether_to_try_again(
    machine: Machine, failure: Exception, answer: tuple[grpc.StatusCode, str]
) -> None:
    machine.control.failure = failure  # type: ignore[assignment]
    machine.register(Registered(WEB, MINE))
    for name in ("FetchX509SVID", "FetchJWTSVID"):
        assert await refusal(CALLS[name](machine.stub, HEADER)) == answer


async def test_an_identity_that_was_late_comes_as_soon_as_policyd_is_back(machine: Machine) -> None:
    machine.control.failure = Unreachable("away")
    machine.register(Registered(WEB, MINE))
    call = CALLS["FetchX509SVID"]
    assert (await refusal(call(machine.stub, HEADER)))[0] is Code.UNAVAILABLE
    machine.control.failure = None
    async with asyncio.timeout(PATIENCE):
        while not machine.control.signed:
            await asyncio.sleep(0.02)
    reply = await first(call(machine.stub, HEADER))
    assert [one.spiffe_id for one in reply.svids] == [str(WEB)]


async def test_a_renewed_certificate_comes_by_itself() -> None:
    async with running(FakeControl(life=timedelta(seconds=4))) as machine:
        machine.register(Registered(WEB, MINE))
        stream = machine.stub.FetchX509SVID(pb.X509SVIDRequest(), metadata=HEADER)
        one, two = await first(stream), await first(stream)
    assert one.svids[0].spiffe_id == two.svids[0].spiffe_id == str(WEB)
    assert one.svids[0].x509_svid_key != two.svids[0].x509_svid_key


async def test_callers_with_the_same_selectors_share_one_certificate(machine: Machine) -> None:
    machine.register(Registered(WEB, MINE))
    call = CALLS["FetchX509SVID"]
    one, two = await first(call(machine.stub, HEADER)), await first(call(machine.stub, HEADER))
    assert (one, len(machine.control.signed)) == (two, 1)


async def test_a_new_entry_and_a_new_bundle_reach_open_streams(machine: Machine) -> None:
    machine.register(Registered(WEB, MINE))
    svids = machine.stub.FetchX509SVID(pb.X509SVIDRequest(), metadata=HEADER)
    roots = machine.stub.FetchX509Bundles(pb.X509BundlesRequest(), metadata=HEADER)
    keys = machine.stub.FetchJWTBundles(pb.JWTBundlesRequest(), metadata=HEADER)
    await first(svids)
    assert dict((await first(roots)).bundles) == {"spiffe://cluster.local": machine.control.ca.root.der}
    [document] = (await first(keys)).bundles.values()
    assert [key.kid for key in jwk_set.read(document, "cluster.local").jwt_keys] == ["k1"]
    assert b"x509-svid" not in document

    machine.control.sequence, machine.control.kid = 2, "k2"
    machine.register(Registered(WEB, MINE), Registered(API, MINE))
    [document] = (await first(keys)).bundles.values()
    assert [key.kid for key in jwk_set.read(document, "cluster.local").jwt_keys] == ["k2"]
    assert [one.spiffe_id for one in (await first(svids)).svids] == [str(WEB), str(API)]


async def test_a_deleted_entry_ends_the_streams_of_its_processes(machine: Machine) -> None:
    machine.register(Registered(WEB, MINE))
    streams = [CALLS[name](machine.stub, HEADER) for name in ("FetchX509SVID", "FetchX509Bundles", "FetchJWTBundles")]
    for stream in streams:
        await first(stream)
    machine.register()
    for stream in streams:
        assert await refusal(stream) == (Code.PERMISSION_DENIED, "no identity issued")


async def test_a_renewal_that_is_denied_ends_the_stream() -> None:
    async with running(FakeControl(life=timedelta(seconds=4))) as machine:
        machine.register(Registered(WEB, MINE))
        stream = machine.stub.FetchX509SVID(pb.X509SVIDRequest(), metadata=HEADER)
        await first(stream)
        machine.control.failure = IssuanceDenied("no longer")
        assert await refusal(stream) == (Code.PERMISSION_DENIED, "no identity issued")


async def test_while_policyd_is_away_what_is_held_is_served_until_it_ends(machine: Machine) -> None:
    machine.register(Registered(WEB, MINE))
    call = CALLS["FetchX509SVID"]
    held = await first(call(machine.stub, HEADER))
    machine.control.failure = Unreachable("away")
    assert await first(call(machine.stub, HEADER)) == held
    clock = machine.book._outside.clock
    assert isinstance(clock, Clock)
    clock.ahead = timedelta(hours=2)
    assert await refusal(call(machine.stub, HEADER)) == (Code.UNAVAILABLE, "identities cannot be had now")


async def test_a_process_gets_a_token_for_its_audience_and_the_same_one_again(machine: Machine) -> None:
    machine.register(Registered(API, MINE), Registered(WEB, MINE, "main"))
    asked = pb.JWTSVIDRequest(audience=["shop", "bank", "shop"], spiffe_id=str(WEB))
    [token] = (await machine.stub.FetchJWTSVID(asked, metadata=HEADER)).svids
    assert (token.spiffe_id, token.hint) == (str(WEB), "main")
    [again] = (await machine.stub.FetchJWTSVID(asked, metadata=HEADER)).svids
    assert (again, [one[:2] for one in machine.control.tokens]) == (token, [(WEB, ("bank", "shop"))])
    valid = await machine.stub.ValidateJWTSVID(
        pb.ValidateJWTSVIDRequest(audience="shop", svid=token.svid), metadata=HEADER
    )
    assert (valid.spiffe_id, valid.claims["sub"], list(valid.claims["aud"])) == (str(WEB), str(WEB), ["bank", "shop"])
    all_of_them = await machine.stub.FetchJWTSVID(pb.JWTSVIDRequest(audience=["shop"]), metadata=HEADER)
    assert [one.spiffe_id for one in all_of_them.svids] == [str(API), str(WEB)]


@pytest.mark.parametrize(
    ("audiences", "spiffe_id", "code"),
    [
        ([], "", Code.INVALID_ARGUMENT),
        ([""], "", Code.INVALID_ARGUMENT),
        (["a"] * 17, "", Code.INVALID_ARGUMENT),
        (["a"], "web", Code.INVALID_ARGUMENT),
        (["a"], "spiffe://cluster.local/ns/default/sa/db", Code.PERMISSION_DENIED),
        (["a"], "spiffe://partner.org/ns/default/sa/web", Code.PERMISSION_DENIED),
    ],
)
async def test_a_token_for_nobody_or_of_somebody_else_is_refused(
    machine: Machine, audiences: list[str], spiffe_id: str, code: grpc.StatusCode
) -> None:
    machine.register(Registered(WEB, MINE))
    asked = pb.JWTSVIDRequest(audience=audiences, spiffe_id=spiffe_id)
    assert (await refusal(machine.stub.FetchJWTSVID(asked, metadata=HEADER)))[0] is code
    assert machine.control.tokens == []


SOON = int(time.time()) + 3600


def claims(**changes: Any) -> dict[str, Any]:
    made = {"sub": str(WEB), "aud": ["shop"], "exp": SOON, **changes}
    return {name: value for name, value in made.items() if value is not None}


BAD_TOKENS: dict[str, Callable[[FakeControl], tuple[str, str]]] = {
    "no token": lambda control: ("shop", ""),
    "no audience": lambda control: ("", control.token(str(WEB), ["shop"], SOON)),
    "another audience": lambda control: ("bank", control.token(str(WEB), ["shop"], SOON)),
    "over": lambda control: ("shop", control.token(str(WEB), ["shop"], 1)),
    "no exp": lambda control: ("shop", signed({"alg": "ES256", "kid": "k1"}, claims(exp=None), control.key)),
    "alg none": lambda control: ("shop", signed({"alg": "none", "kid": "k1"}, claims(), None)),
    "a foreign kid": lambda control: ("shop", signed({"alg": "ES256", "kid": "k9"}, claims(), control.key)),
    "another key": lambda control: ("shop", FakeControl().token(str(WEB), ["shop"], SOON)),
    "another trust domain": lambda control: ("shop", control.token("spiffe://partner.org/a", ["shop"], SOON)),
}


@pytest.mark.parametrize("made", BAD_TOKENS.values(), ids=BAD_TOKENS)
async def test_a_bad_token_is_an_invalid_argument(
    machine: Machine, made: Callable[[FakeControl], tuple[str, str]]
) -> None:
    machine.register(Registered(WEB, MINE))
    audience, token = made(machine.control)
    asked = pb.ValidateJWTSVIDRequest(audience=audience, svid=token)
    assert (await refusal(machine.stub.ValidateJWTSVID(asked, metadata=HEADER)))[0] is Code.INVALID_ARGUMENT


async def test_a_client_can_ask_what_there_is(machine: Machine) -> None:
    asked = iter([reflection_pb2.ServerReflectionRequest(list_services="")])
    stub = reflection_pb2_grpc.ServerReflectionStub(machine.channel)
    told = await first(stub.ServerReflectionInfo(asked))
    names = [one.name for one in told.list_services_response.service]
    assert names == ["SpiffeWorkloadAPI", "grpc.reflection.v1alpha.ServerReflection"]


async def test_wit_svids_are_unimplemented(machine: Machine) -> None:
    machine.register(Registered(WEB, MINE))
    for call in (
        machine.stub.FetchWITSVID(pb.WITSVIDRequest(), metadata=HEADER),
        machine.stub.FetchWITBundles(pb.WITBundlesRequest(), metadata=HEADER),
    ):
        assert (await refusal(call))[0] is Code.UNIMPLEMENTED


async def test_a_user_that_asks_for_more_than_fifty_at_once_waits() -> None:
    async with running(monotonic=lambda: 0.0) as machine:
        machine.register(Registered(WEB, MINE))
        for number in range(50):
            await machine.stub.FetchJWTSVID(pb.JWTSVIDRequest(audience=[f"a{number}"]), metadata=HEADER)
        assert (await refusal(CALLS["FetchJWTSVID"](machine.stub, HEADER)))[0] is Code.UNAVAILABLE
        assert len(machine.control.tokens) == 50


async def test_a_client_that_leaves_leaves_nothing_behind(machine: Machine) -> None:
    machine.register(Registered(WEB, MINE))
    async with grpc.aio.insecure_channel(f"unix:{machine.place.socket}", OWN) as channel:
        await first(CALLS["FetchX509SVID"](stubs.SpiffeWorkloadAPIStub(channel), HEADER))
        assert machine.server._front._callers
    async with asyncio.timeout(PATIENCE):
        while machine.server._front._callers or machine.server._front._tasks:
            await asyncio.sleep(0.02)


OWN = (("grpc.use_local_subchannel_pool", 1),)

# ---- the front


def a_front(folder: Path, look: Callable[..., Caller] = lambda _: Caller(1, 1, MINE)) -> Front:
    return Front(folder / "w", folder / "inner", look)


@pytest.fixture
def short() -> Any:
    with tempfile.TemporaryDirectory(prefix="t") as folder:
        yield Path(folder)


async def test_the_socket_of_an_agent_that_was_killed_is_replaced(short: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(short / "w"))
    front = a_front(short)
    await front.start()
    assert (short / "w").stat().st_mode & 0o777 == 0o600
    await front.stop()
    assert not (short / "w").exists()


async def test_what_is_another_s_is_not_taken(short: Path) -> None:
    (short / "w").write_text("mine")
    with pytest.raises(StateError, match="is there and is no socket"):
        await a_front(short).start()
    assert (short / "w").read_text() == "mine"
    (short / "w").unlink()
    with socket.socket(socket.AF_UNIX) as living:
        living.bind(str(short / "w"))
        living.listen()
        with pytest.raises(StateError, match="somebody listens on"):
            await a_front(short).start()
    with pytest.raises(StateError, match="too long for a socket"):
        await Front(short / ("x" * 120), short / "inner", lambda _: Caller(1, 1, MINE)).start()


async def test_one_user_cannot_take_every_connection(short: Path) -> None:
    async def hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    inner = await asyncio.start_unix_server(hold, short / "inner")
    front = a_front(short)
    await front.start()
    clients = [await asyncio.open_unix_connection(short / "w") for _ in range(MAX_OF_ONE_USER)]
    async with asyncio.timeout(PATIENCE):
        while len(front._callers) < MAX_OF_ONE_USER:
            await asyncio.sleep(0.02)
        one_more, writer = await asyncio.open_unix_connection(short / "w")
        assert await one_more.read() == b""
    for _, other in (*clients, (one_more, writer)):
        other.close()
    await front.stop()
    inner.close()


async def test_a_front_without_a_server_behind_it_hangs_up(short: Path) -> None:
    front = a_front(short)
    await front.start()
    reader, writer = await asyncio.open_unix_connection(short / "w")
    assert await asyncio.wait_for(reader.read(), PATIENCE) == b""
    writer.close()
    await front.stop()
