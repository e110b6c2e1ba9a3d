"""Evidence leads to an identity where an entry says so and policies agree; every refusal is on record. Real TLS."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from policyd._pb import agent_pb2 as pb
from policyd._pb import agent_pb2_grpc as stubs
from policyd.ca.assignment import Registration, entries_for
from policyd.ca.check import check_svid
from policyd.ca.database import open_database
from policyd.ca.entries import Entry, check_entry
from policyd.ca.kubernetes import ByKeys
from policyd.ca.possession import Challenges
from policyd.ca.server_identity import ServerIdentity
from policyd.ca.serving.attestation import AttestationService
from policyd.ca.serving.proving import REFUSED, Evidences, Proving
from policyd.ca.tokens import Tokens
from policyd.cedar.model import Decision
from policyd.errors import EntryError
from policyd.rate import Rate
from policyd.spiffe import SpiffeId
from tests.ca.machines import ISSUER, Cluster, Machines, shown
from tests.ca.samples import DOMAIN, RATINGS, REVIEWS, Office, a_csr, a_key, a_mesh, an_authority
from tests.ca.test_service import NAMED, code_of
from tests.fakes.clock import FakeClock

Code = grpc.StatusCode


@dataclass
class Desk:
    """A server that takes evidence, and what stands behind it."""

    office: Office
    channel: grpc.aio.Channel
    cluster: Cluster
    machines: Machines
    entries: list[Entry] = field(default_factory=list)

    def entry(self, *selectors: str, identity: SpiffeId = REVIEWS) -> None:
        self.entries.append(check_entry(Entry(identity, frozenset(selectors), id=f"e{len(self.entries)}")))

    async def pod(self, identity: SpiffeId | str = REVIEWS, csr: bytes | None = None, **claims: Any) -> pb.Svid:
        token = self.cluster.token(**claims)
        return await self.prove(pb.ProveRequest(spiffe_id=str(identity), csr=csr or a_csr(), kubernetes_token=token))

    async def machine(
        self, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey, *, signed: bytes | None = None
    ) -> pb.Svid:
        challenge = (await stubs.AttestationStub(self.channel).Challenge(pb.ChallengeRequest())).challenge
        csr = a_csr()
        answer = shown(certificate, key, challenge, signed or csr)
        proof = pb.Possession(chain=answer.chain, challenge=answer.challenge, signature=answer.signature)
        return await self.prove(pb.ProveRequest(spiffe_id=str(REVIEWS), csr=csr, possession=proof))

    async def prove(self, request: pb.ProveRequest) -> pb.Svid:
        return await stubs.AttestationStub(self.channel).Prove(request, timeout=20)

    @property
    def last(self) -> tuple[str | None, str, dict[str, Any]]:
        entry = self.office.recorder.entries[-1]
        return entry.decision, entry.errors[-1].message if entry.errors else "", dict(entry.detail["evidence"])


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    clock = FakeClock(datetime.now(UTC))  # TLS looks at the machine's clock
    office = Office(an_authority(clock()), clock=clock)
    cluster, machines = Cluster(now=clock()), Machines(now=clock())
    database = open_database(tmp_path / "tokens.db")
    issuer, server = office.issuer, grpc.aio.server()
    served = ServerIdentity(issuer, clock).current()
    office.recorder.entries.clear()
    entries: list[Entry] = []
    believed = Evidences((ByKeys(ISSUER, "policyd", cluster.keys),), (machines.root,))
    proving = Proving(
        issuer, mesh=lambda: office.mesh, entries=lambda: entries, evidences=lambda: believed,
        challenges=Challenges(os.urandom),
    )  # fmt: skip
    service = AttestationService(
        issuer, Tokens(database), agents_address="127.0.0.1:1", clock=lambda: 0.0, rate=Rate(0.0, 6),
        proving=proving, beside=asyncio.to_thread,
    )  # fmt: skip
    stubs.add_AttestationServicer_to_server(service, server)
    credentials = grpc.ssl_server_credentials([(served.key, served.chain)])
    port = server.add_secure_port("127.0.0.1:0", credentials)
    await server.start()
    trust = grpc.ssl_channel_credentials(served.roots)
    async with grpc.aio.secure_channel(f"127.0.0.1:{port}", trust, NAMED) as channel:
        yield Desk(office, channel, cluster, machines, entries)
    await server.stop(None)
    database.close()


async def test_a_pod_gets_what_its_entry_says(desk: Desk) -> None:
    desk.entry("k8s:ns:shop", "k8s:sa:reviews")
    reply = await desk.pod()
    chain = [x509.load_der_x509_certificate(one) for one in reply.chain]
    assert check_svid(chain, desk.office.authority.root, desk.office.clock()) == REVIEWS
    pod = ["k8s:ns:shop", "k8s:sa:reviews", "k8s:pod:reviews-7d9"]
    assert desk.last == ("allow", "", {"kind": "kubernetes", "selectors": pod})
    [asked] = desk.office.decider.asked
    assert (str(asked.principal), asked.context["evidence"]) == (
        'Unauthenticated::"anonymous"',
        {"kind": "kubernetes", "selectors": pod},
    )


async def test_a_machine_gets_what_its_entry_says(desk: Desk) -> None:
    key = a_key()
    desk.entry("x509:dns:db1.example")
    assert (await desk.machine(desk.machines.certify(key), key)).spiffe_id == str(REVIEWS)
    assert (desk.last[0], desk.last[2]["kind"]) == ("allow", "x509")


async def test_a_machine_that_signed_for_another_request_gets_nothing(desk: Desk) -> None:
    key = a_key()
    desk.entry("x509:dns:db1.example")
    code = await code_of(desk.machine(desk.machines.certify(key), key, signed=a_csr()))
    assert code == (Code.PERMISSION_DENIED, REFUSED)
    assert desk.last[:2] == ("deny", "the challenge was not signed with the certificate's key")


@pytest.mark.parametrize(
    ("selectors", "identity", "claims", "why"),
    [
        ([], REVIEWS, {}, "no entry makes"),
        (["k8s:ns:shop", "k8s:sa:admin"], REVIEWS, {}, "no entry makes"),
        (["k8s:ns:shop", "k8s:sa:reviews"], RATINGS, {}, "no entry makes"),
        (["k8s:ns:shop"], SpiffeId.workload(DOMAIN, "default", "nobody"), {}, "is no workload of this mesh"),
        (["k8s:ns:shop"], SpiffeId.agent(DOMAIN, "laptop"), {}, "is no workload of this mesh"),
        (["k8s:ns:shop"], SpiffeId.server(DOMAIN), {}, "is no workload of this mesh"),
        (["k8s:ns:shop"], REVIEWS, {"aud": ["vault"]}, "the token is for another audience"),
        (["k8s:ns:shop"], REVIEWS, {"exp": 1}, "the token ended at"),
        (["x509:cn:shop"], REVIEWS, {}, "no entry makes"),
        (["unix:uid:0"], REVIEWS, {}, "no entry makes"),
    ],
)
async def test_who_is_refused_hears_no_reason_and_the_record_has_it(
    desk: Desk, selectors: list[str], identity: SpiffeId, claims: dict[str, Any], why: str
) -> None:
    if selectors:
        desk.entry(*selectors)
    assert await code_of(desk.pod(identity, **claims)) == (Code.PERMISSION_DENIED, REFUSED)
    decision, said, _ = desk.last
    assert (decision, why in said) == ("deny", True)
    assert desk.office.decider.asked == []


async def test_policy_has_the_last_word(desk: Desk) -> None:
    desk.entry("k8s:ns:shop")
    desk.office.decider.decision = Decision(False)
    assert (await code_of(desk.pod()))[0] is Code.PERMISSION_DENIED


async def test_a_revoked_identity_is_nobody_s(desk: Desk) -> None:
    desk.entry("k8s:ns:shop")
    desk.office.revoked.add(REVIEWS)
    assert (await code_of(desk.pod()))[0] is Code.PERMISSION_DENIED


async def test_a_request_with_another_s_name_is_refused(desk: Desk) -> None:
    desk.entry("k8s:ns:shop")
    csr = a_csr(names=[x509.UniformResourceIdentifier(str(RATINGS))])
    assert (await code_of(desk.pod(csr=csr)))[0] is Code.INVALID_ARGUMENT


async def test_without_evidence_there_is_nothing(desk: Desk) -> None:
    request = pb.ProveRequest(spiffe_id=str(REVIEWS), csr=a_csr())
    assert (await code_of(desk.prove(request)))[0] is Code.INVALID_ARGUMENT


async def test_who_tries_too_often_waits(desk: Desk) -> None:
    for _ in range(6):
        assert (await code_of(desk.pod()))[0] is Code.PERMISSION_DENIED
    assert (await code_of(desk.pod()))[0] is Code.RESOURCE_EXHAUSTED
    challenge = stubs.AttestationStub(desk.channel).Challenge(pb.ChallengeRequest())
    assert (await code_of(challenge))[0] is Code.RESOURCE_EXHAUSTED


def test_an_agent_vouches_for_processes_and_for_no_pod_or_machine() -> None:
    """Whatever an agent claims to have found of a process, entries of pods and machines are not for it."""
    entries = [Entry(REVIEWS, frozenset({one})) for one in ("unix:uid:7", "k8s:ns:shop", "x509:cn:a")]
    found = entries_for(Registration("laptop"), a_mesh(instances={}), (), entries)
    assert [sorted(one.selectors) for one in found] == [["unix:uid:7"]]


@pytest.mark.parametrize(
    "selectors",
    [["k8s:ns:shop", "unix:uid:7"], ["k8s:ns:Shop"], ["k8s:node:n1"], ["x509:sha256:00"], ["x509:cn:"], ["x509:uri:a"]],
)
def test_selectors_that_are_none_or_of_two_kinds_make_no_entry(selectors: list[str]) -> None:
    with pytest.raises(EntryError):
        check_entry(Entry(REVIEWS, frozenset(selectors)))
