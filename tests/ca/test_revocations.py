"""Revoked identities: kept on record, denied by policies of their own, given nothing, whoever asks."""

from __future__ import annotations

import os
from datetime import timedelta

import grpc
import pytest

from policyd._pb import authority_pb2 as pb
from policyd.ca.assignment import Registration
from policyd.ca.database import Database
from policyd.ca.issuance import Evidence
from policyd.ca.revocations import FILE, Revocation, Revocations, check_revocable, forbids
from policyd.ca.tokens import Tokens
from policyd.cedar.policies import load_policies
from policyd.cedar.schema import parse_schema
from policyd.errors import IssuanceDenied, JournalError, NotFound, RevocationError
from policyd.sources.shipped import shipped_schema
from policyd.spiffe import SpiffeId
from tests.ca.samples import DOMAIN, LAPTOP, NOW, RATINGS, REVIEWS, Office, a_csr, full, nothing
from tests.ca.test_entries import Counter, counter, refusal

__all__ = ["counter"]  # the desk on a real server

UNIX = Evidence("unix", ("unix:uid:1",))
LOST = Revocation(REVIEWS, 7, "lost")


def test_a_revocation_is_kept_until_it_is_taken_back(database: Database) -> None:
    revocations = Revocations(database)
    revocations.add(LOST, nothing)
    assert (revocations.holds(REVIEWS), revocations.holds(RATINGS)) == (True, False)
    assert Revocations(database).all() == (LOST,)
    with pytest.raises(RevocationError, match="is revoked already"):
        revocations.add(LOST, nothing)
    revocations.remove(REVIEWS, nothing)
    assert (revocations.all(), Revocations(database).holds(REVIEWS)) == ((), False)
    with pytest.raises(NotFound, match="is not revoked"):
        revocations.remove(REVIEWS, nothing)


def test_without_a_record_nothing_is_revoked_nor_taken_back(database: Database) -> None:
    revocations = Revocations(database)
    with pytest.raises(JournalError):
        revocations.add(LOST, full)
    assert (revocations.all(), Revocations(database).all()) == ((), ())
    revocations.add(LOST, nothing)
    with pytest.raises(JournalError):
        revocations.remove(REVIEWS, full)
    assert (revocations.all(), Revocations(database).all()) == ((LOST,), (LOST,))


@pytest.mark.parametrize(
    ("spiffe_id", "reason"),
    [
        (SpiffeId.server(DOMAIN), ""),
        (SpiffeId.journal(DOMAIN), ""),
        (SpiffeId(DOMAIN, ""), ""),
        (REVIEWS, "x" * 201),
        (REVIEWS, "a\nb"),
    ],
)
def test_policyd_itself_is_not_revoked_and_reasons_are_bounded(spiffe_id: SpiffeId, reason: str) -> None:
    with pytest.raises(RevocationError):
        check_revocable(spiffe_id, reason)


def test_what_denies_them_is_valid_under_the_schema_and_names_each() -> None:
    text = forbids([LOST, Revocation(RATINGS, 8), Revocation(LAPTOP, 9)])
    loaded = load_policies({FILE: text}, parse_schema(shipped_schema("mesh"), "mesh"))
    assert [policy.file for policy in loaded.policies] == [FILE, FILE]
    assert len({policy.id for policy in loaded.policies}) == 2
    assert all(f'principal == Workload::"{one}"' in text for one in (REVIEWS, RATINGS))
    assert str(LAPTOP) not in text  # an agent sends no requests
    assert forbids([]) == ""


@pytest.mark.parametrize(("identity", "principal"), [(REVIEWS, LAPTOP), (RATINGS, REVIEWS), (REVIEWS, None)])
def test_nothing_is_issued_for_a_revoked_identity_nor_to_one(identity: SpiffeId, principal: SpiffeId | None) -> None:
    office = Office(revoked={REVIEWS})
    certificate = office.issuer.order(identity, principal, UNIX)
    token = office.issuer.order_jwt(identity, principal, UNIX, ("shop",))
    with pytest.raises(IssuanceDenied, match="reviews` is revoked"):
        office.issuer.issue(certificate, a_csr(), kind="workload")
    with pytest.raises(IssuanceDenied, match="reviews` is revoked"):
        office.issuer.issue_jwt(token, kind="workload")
    assert [entry.decision for entry in office.recorder.entries] == ["deny", "deny"]
    assert office.counted == []


async def test_the_owner_revokes_and_takes_back_on_record(counter: Counter) -> None:
    assert (await counter.stub.Revoke(pb.RevokeRequest(spiffe_id=str(REVIEWS), reason="lost"))).pending == ""
    [shown] = (await counter.stub.ListRevoked(pb.ListRevokedRequest())).revoked
    assert (shown.spiffe_id, shown.since, shown.reason) == (str(REVIEWS), int(NOW.timestamp()), "lost")
    await counter.stub.Revoke(pb.RevokeRequest(spiffe_id=str(LAPTOP)))
    await counter.stub.Unrevoke(pb.RevokeRequest(spiffe_id=str(REVIEWS)))
    assert counter.enforced == [(str(REVIEWS),), (str(LAPTOP), str(REVIEWS)), (str(LAPTOP),)]
    assert [entry.detail["operation"] for entry in counter.office.recorder.entries] == [
        "identity.revoke", "identity.revoke", "identity.unrevoke",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("nobody", "is no SPIFFE ID"),
        ("spiffe://cluster.local/ns/default/sa/nobody", "no identity of this mesh"),
        ("spiffe://partner.org/agent/laptop", "no identity of this mesh"),
        (str(SpiffeId.server(DOMAIN)), "no identity of this mesh"),
    ],
)
async def test_what_is_no_identity_of_the_mesh_is_not_revoked(counter: Counter, text: str, why: str) -> None:
    code, said = await refusal(counter.stub.Revoke(pb.RevokeRequest(spiffe_id=text)))
    is_none = grpc.StatusCode.INVALID_ARGUMENT if "SPIFFE" in why else grpc.StatusCode.NOT_FOUND
    assert (code, why in said, counter.enforced) == (is_none, True, [])


async def test_join_tokens_are_listed_without_their_secrets_and_made_worthless(counter: Counter) -> None:
    tokens = counter.tokens
    secret = tokens.create(Registration("laptop", frozenset({REVIEWS})), now=NOW, random=os.urandom).secret
    shown = await counter.stub.ListTokens(pb.ListTokensRequest())
    [made] = shown.tokens
    assert (made.agent, list(made.workloads), made.used_at) == ("laptop", [str(REVIEWS)], 0)
    assert secret not in str(shown)
    assert (await counter.stub.RevokeToken(pb.RevokeTokenRequest(id=made.id))).agent == "laptop"
    with tokens.claim(secret, NOW) as claimed:
        assert not isinstance(claimed, Registration)
    code, said = await refusal(counter.stub.RevokeToken(pb.RevokeTokenRequest(id=made.id)))
    assert (code, "no token that could still be used" in said) == (grpc.StatusCode.NOT_FOUND, True)
    [entry] = counter.office.recorder.entries
    assert entry.detail == {"operation": "token.revoke", "token": made.id, "agent": "laptop"}


def test_only_a_token_that_could_be_used_is_revoked(database: Database) -> None:
    tokens = Tokens(database)
    secret = tokens.create(Registration("laptop"), now=NOW, random=os.urandom).secret
    [made] = tokens.all()
    with pytest.raises(NotFound):
        tokens.revoke(made.id, NOW + timedelta(minutes=11))
    with pytest.raises(NotFound):
        tokens.revoke("%", NOW)
    with tokens.claim(secret, NOW):
        pass
    with pytest.raises(NotFound):
        tokens.revoke(made.id, NOW)
