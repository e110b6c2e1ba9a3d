"""An agent whose certificate ended while policyd was away comes back, over real TLS, and nobody else does."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from policyd._pb import agent_pb2_grpc as stubs
from policyd.ca.assignment import Registration
from policyd.ca.database import open_database
from policyd.ca.server_identity import ServerIdentity
from policyd.ca.serving.attestation import AttestationService
from policyd.ca.tokens import Tokens
from policyd.cedar.model import Decision
from policyd.errors import TokenError
from policyd.rate import Rate
from policyd.spiffe import SpiffeId
from proxy.control import Unreachable
from proxy.entry import Entry, enter
from proxy.identity import Bundle, Svid, make_key
from proxy.join import Joined, come_back
from proxy.outside import Outside
from proxy.state import StateFolder
from tests.ca.samples import DOMAIN, LAPTOP, REVIEWS, Office, an_authority
from tests.fakes.clock import FakeClock

LOST = timedelta(hours=5)


@dataclass
class World:
    """A server whose authority is a week old, and the agent `laptop`, which has registered there."""

    office: Office
    tokens: Tokens
    address: str

    def held(self, identity: SpiffeId = LAPTOP, ended: timedelta = LOST) -> Joined:
        """What an agent has whose certificate ended that long ago."""
        key, authority, now = make_key(), self.office.authority, self.office.clock()
        made = authority.sign(
            identity, key.public_key(), now=now - ended - timedelta(hours=1), random=os.urandom, ttl=timedelta(hours=1)
        )
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        begins = made.leaf.not_valid_before_utc
        svid = Svid(identity, pem, made.chain, begins, made.not_after, made.leaf.serial_number)
        return Joined(svid, Bundle(DOMAIN, (authority.root_der,), 1), "127.0.0.1:1", self.address)

    def now(self) -> datetime:
        return self.office.clock()


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    now = datetime.now(UTC)  # TLS looks at the machine's clock
    office = Office(an_authority(now - timedelta(days=7)), clock=FakeClock(now))
    database = open_database(tmp_path / "tokens.db")
    tokens = Tokens(database)
    made = tokens.create(Registration("laptop"), now=now, random=os.urandom)
    with tokens.claim(made.secret, now):
        pass
    issuer = office.issuer
    served = ServerIdentity(issuer, office.clock).current()
    office.recorder.entries.clear()
    service = AttestationService(issuer, tokens, agents_address="127.0.0.1:1", clock=time.monotonic, rate=Rate(0.0, 3))
    server = grpc.aio.server()
    stubs.add_AttestationServicer_to_server(service, server)
    port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([(served.key, served.chain)]))
    await server.start()
    try:
        yield World(office, tokens, f"127.0.0.1:{port}")
    finally:
        await server.stop(None)
        database.close()


async def test_an_agent_comes_back_with_a_new_key_and_that_is_on_record(world: World) -> None:
    held = world.held()
    back = await come_back(held, world.now())
    assert (back.svid.id, back.svid.not_after > world.now(), back.server) == (LAPTOP, True, held.server)
    assert back.svid.key_pem != held.svid.key_pem
    [entry] = world.office.recorder.entries
    ended = f"ended:{held.svid.not_after:%FT%TZ}"
    assert (entry.kind, entry.decision, entry.principal) == ("issuance", "allow", 'Unauthenticated::"anonymous"')
    assert entry.detail["evidence"] == {"kind": "renewal", "selectors": [f"x509:{LAPTOP}", ended]}


async def test_policies_decide_whether_it_does(world: World) -> None:
    world.office.decider.decision = Decision(False)
    with pytest.raises(TokenError, match=r"does not take this agent back: .* is not granted"):
        await come_back(world.held(), world.now())
    assert [one.decision for one in world.office.recorder.entries] == ["deny"]


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda world: world.office.revoked.add(LAPTOP), "is revoked"),
        (lambda world: world.tokens.forget("laptop"), "is not registered"),
    ],
)
async def test_who_is_nobody_any_more_does_not(world: World, prepare: Any, message: str) -> None:
    prepare(world)
    with pytest.raises(TokenError, match=message):
        await come_back(world.held(), world.now())


async def test_one_whose_last_certificate_is_revoked_does_not(world: World) -> None:
    held = world.held()
    world.office.serials.add(f"{held.svid.serial:032x}")
    with pytest.raises(TokenError, match="its certificate is revoked"):
        await come_back(held, world.now())


async def test_a_workload_is_no_agent(world: World) -> None:
    with pytest.raises(TokenError, match="is no agent"):
        await come_back(world.held(REVIEWS), world.now())
    assert world.office.recorder.entries == []


async def test_after_a_day_it_joins_anew(world: World) -> None:
    with pytest.raises(TokenError, match="more than 1 day, 0:00:00 ago"):
        await come_back(world.held(ended=timedelta(hours=25)), world.now())


@pytest.mark.parametrize(("apart", "whose"), [(-600, "behind"), (600, "ahead of")])
async def test_clocks_that_differ_are_told_apart(world: World, apart: int, whose: str) -> None:
    with pytest.raises(TokenError, match=rf"the agent's clock is (599|600|601) s {whose} policyd's"):
        await come_back(world.held(), world.now() + timedelta(seconds=apart))


async def test_whoever_tries_too_often_waits(world: World) -> None:
    for _ in range(3):
        with pytest.raises(TokenError):
            await come_back(world.held(REVIEWS), world.now())
    with pytest.raises(Unreachable, match="too many attempts"):
        await come_back(world.held(), world.now())


async def test_a_server_that_its_bundle_does_not_vouch_for_is_told_nothing(world: World) -> None:
    held = world.held()
    stranger = Bundle(DOMAIN, (an_authority().root_der,), 1)
    with pytest.raises(Unreachable):
        await come_back(replace(held, bundle=stranger), world.now())


async def test_an_agent_that_is_started_after_that_goes_on_from_its_folder(world: World, tmp_path: Path) -> None:
    said: list[str] = []
    state = StateFolder(tmp_path / "state")
    state.save(world.held())
    outside = Outside(lambda event, **facts: said.append(event), clock=world.office.clock)
    joined = await enter(Entry(state=state), outside)
    assert (joined.svid.id, said) == (LAPTOP, ["agent.came_back"])
    assert state.load(world.now()) == joined
    said.clear()
    assert (await enter(Entry(state=state), outside), said) == (joined, ["agent.resumed"])
    state.close()


async def test_an_agent_of_an_older_version_does_not_know_where_to_come_back_to(world: World) -> None:
    with pytest.raises(TokenError, match="where it joined is not known"):
        await come_back(replace(world.held(), attestation=""), world.now())
