"""Entries of processes: what may be said of one, kept whole or not at all, and the desk where they are made."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography.hazmat.primitives import hashes

from policyd._pb import authority_pb2 as pb
from policyd._pb import authority_pb2_grpc as stubs
from policyd.ca.authority import Material
from policyd.ca.database import Database, open_database
from policyd.ca.desk.parts import Parts
from policyd.ca.desk.service import Desk, handler
from policyd.ca.entries import MAX_ENTRIES, Entries, Entry, check_entry, entry_of_instance
from policyd.ca.expiry import Element, elements
from policyd.ca.jwt_keys import LIFE, turn
from policyd.ca.ledger import Ledger
from policyd.ca.revocations import Revocations
from policyd.ca.rotation import Authorities, Generation
from policyd.ca.tokens import Tokens
from policyd.cedar.model import Decision
from policyd.errors import EntryError, JournalError
from policyd.spiffe import SpiffeId
from policyd.svid.bundle import read
from policyd.svid.jwt import validate
from tests.ca.samples import DOMAIN, NOW, RATINGS, REVIEWS, Office, a_key

GOOD = Entry(REVIEWS, frozenset({"unix:uid:1000", "unix:path:/usr/bin/reviews"}), "main", "0a")


@pytest.mark.parametrize(
    "selector",
    ["unix:uid:0", "unix:gid:100", "unix:user:www-data", "unix:group:adm", "unix:path:/", "unix:sha256:" + "0a" * 32],
)
def test_what_an_agent_can_find_out_is_a_selector(selector: str) -> None:
    assert check_entry(Entry(REVIEWS, frozenset({selector}))).selectors == {selector}


@pytest.mark.parametrize(
    "selectors",
    [
        set(), {""}, {"uid:1"}, {"unix:uid:"}, {"unix:uid:-1"}, {"unix:uid:1\n"}, {"unix:uid:99999999999"},
        {"unix:user:"}, {"unix:user:a b"}, {"unix:path:usr"}, {"unix:path:/a\nb"}, {"unix:path:/" + "a" * 1024},
        {"unix:sha256:0a"}, {"unix:sha256:" + "0A" * 32}, {"unix:pid:1"}, {"policyd:instance:reviews-v1"},
        {"k8s:node:n1"}, {"k8s:ns:a", "unix:uid:1"}, {f"unix:uid:{n}" for n in range(17)},
    ],
)  # fmt: skip
def test_anything_else_is_none(selectors: set[str]) -> None:
    with pytest.raises(EntryError):
        check_entry(Entry(REVIEWS, frozenset(selectors)))


@pytest.mark.parametrize("hint", ["x" * 65, "a\nb"])
def test_a_hint_is_short_and_printable(hint: str) -> None:
    with pytest.raises(EntryError, match="at most 64 printable"):
        check_entry(Entry(REVIEWS, frozenset({"unix:uid:1"}), hint))


def test_a_process_has_all_selectors_or_is_not_meant() -> None:
    assert GOOD.fits([*GOOD.selectors, "unix:gid:5"])
    assert not GOOD.fits(["unix:uid:1000"])
    assert not GOOD.fits([])
    assert entry_of_instance("reviews-v1", REVIEWS).fits(["policyd:instance:reviews-v1"])
    assert not entry_of_instance("reviews-v1", REVIEWS).fits(["policyd:instance:reviews-v10"])


def test_entries_are_kept_until_they_are_deleted(database: Database) -> None:
    entries = Entries(database)
    other = Entry(RATINGS, frozenset({"unix:uid:1"}), "", "0b")
    entries.create(GOOD, 1)
    entries.create(other, 1)
    assert entries.all() == (other, GOOD)
    assert (entries.delete("0a"), entries.delete("0a")) == (GOOD, None)
    assert entries.all() == (other,)


def test_the_same_is_not_said_twice_nor_without_end(database: Database) -> None:
    entries = Entries(database)
    entries.create(GOOD, 1)
    with pytest.raises(EntryError, match="the entry `0a` says the same"):
        entries.create(Entry(REVIEWS, GOOD.selectors, "other", "0c"), 1)
    with database.transaction() as connection:
        connection.executemany(
            "INSERT INTO entry VALUES (?, ?, ?, '', 1)",
            [(f"x{n}", str(REVIEWS), f'["unix:uid:{n}"]') for n in range(MAX_ENTRIES - 1)],
        )
    with pytest.raises(EntryError, match="2000 entries already"):
        entries.create(Entry(RATINGS, GOOD.selectors, "", "0d"), 1)


def test_without_a_record_nothing_changes(database: Database) -> None:
    entries = Entries(database)

    def full(*_: object) -> None:
        raise JournalError("full")

    with pytest.raises(JournalError):
        entries.create(GOOD, 1, full)
    assert entries.all() == ()
    entries.create(GOOD, 1)
    with pytest.raises(JournalError):
        entries.delete("0a", full)
    assert entries.all() == (GOOD,)


def test_a_database_of_before_there_were_entries_gets_them(tmp_path: Path) -> None:
    path = tmp_path / "tokens.db"
    open_database(path).close()
    old = sqlite3.connect(path)
    old.executescript("DROP TABLE entry; PRAGMA user_version = 1; INSERT INTO issued VALUES ('agent', 3);")
    old.close()
    database = open_database(path)
    Entries(database).create(GOOD, 1)
    with database.transaction() as connection:
        assert connection.execute("SELECT number FROM issued").fetchall() == [(3,)]
    database.close()


class Counter:
    """The desk on a real server, and what stands behind it."""

    def __init__(self, database: Database) -> None:
        self.office, self.changes = Office(), 0
        self.entries, self.tokens = Entries(database), Tokens(database)
        self.revocations = Revocations(database)
        self.enforced: list[tuple[str, ...]] = []
        self.desk = Desk(
            Parts(
                issuer=self.office.issuer,
                entries=self.entries,
                tokens=self.tokens,
                revocations=self.revocations,
                enforce=self._enforce,
                ledger=Ledger(database),
                elements=self._elements,
                mesh=lambda: self.office.mesh,
                record=self.office.recorder,
                changed=self._changed,
                random=os.urandom,
                uid=1000,
            )
        )
        self.stub: Any = None

    def _elements(self) -> tuple[Element, ...]:
        authority = self.office.authority
        material = Material(authority.root, authority.key, authority.intermediate, authority.key)
        held = Authorities((Generation(material, "active", NOW),))
        return elements(held, self.office.jwt_keys, self.office.clock())

    async def _enforce(self) -> str:
        self.enforced.append(tuple(str(one.spiffe_id) for one in self.revocations.all()))
        return ""

    def _changed(self) -> None:
        self.changes += 1


@pytest.fixture
async def counter(database: Database, tmp_path: Path) -> AsyncIterator[Counter]:
    made = Counter(database)
    server = grpc.aio.server()
    handler(server, made.desk)
    socket = f"unix:{tmp_path / 'admin.sock'}"
    server.add_insecure_port(socket)
    await server.start()
    async with grpc.aio.insecure_channel(socket) as channel:
        made.stub = stubs.CertificateAuthorityStub(channel)
        yield made
    await server.stop(None)


async def refusal(call: Any) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value.code(), caught.value.details() or ""


async def test_the_owner_makes_lists_and_deletes_entries_on_record(counter: Counter) -> None:
    asked = pb.CreateEntryRequest(spiffe_id=str(REVIEWS), selectors=["unix:uid:5"], hint="h")
    made = await counter.stub.CreateEntry(asked)
    assert (made.spiffe_id, list(made.selectors), made.hint) == (str(REVIEWS), ["unix:uid:5"], "h")
    assert list((await counter.stub.ListEntries(pb.ListEntriesRequest())).entries) == [made]
    assert await counter.stub.DeleteEntry(pb.DeleteEntryRequest(id=made.id)) == made
    assert counter.entries.all() == ()
    operations = [(e.kind, e.principal, dict(e.detail)) for e in counter.office.recorder.entries]
    said = {"entry": made.id, "spiffe_id": str(REVIEWS), "selectors": ["unix:uid:5"]}
    assert operations == [
        ("operation", 'Operator::"unix:1000"', {"operation": name, **said}) for name in ("entry.create", "entry.delete")
    ]
    assert counter.changes == 2


@pytest.mark.parametrize(
    ("identity", "selectors", "why"),
    [
        ("spiffe://cluster.local/ns/default/sa/nobody", ["unix:uid:1"], "no workload of this mesh; declare it"),
        ("nobody", ["unix:uid:1"], "is no SPIFFE ID"),
        (str(REVIEWS), [], "1 to 16 selectors"),
        (str(REVIEWS), ["unix:uid:x"], "is no selector; write unix:uid:1000"),
        (str(REVIEWS), ["policyd:instance:reviews-v1"], "is no selector"),
    ],
)
async def test_an_unsound_entry_is_refused(counter: Counter, identity: str, selectors: list[str], why: str) -> None:
    code, text = await refusal(counter.stub.CreateEntry(pb.CreateEntryRequest(spiffe_id=identity, selectors=selectors)))
    is_none = grpc.StatusCode.NOT_FOUND if "no workload" in why else grpc.StatusCode.INVALID_ARGUMENT
    assert (code, why in text) == (is_none, True)
    assert (counter.entries.all(), counter.office.recorder.entries, counter.changes) == ((), [], 0)


async def test_what_is_no_entry_is_not_deleted(counter: Counter) -> None:
    code, text = await refusal(counter.stub.DeleteEntry(pb.DeleteEntryRequest(id="x")))
    assert (code, text) == (grpc.StatusCode.NOT_FOUND, "`x` is no entry; look at `policyd ca entry list`")


async def test_the_owner_gets_a_token_and_the_bundle_that_verifies_it(counter: Counter) -> None:
    asked = pb.IssueJwtRequest(spiffe_id=str(REVIEWS), audiences=["shop"], ttl_seconds=60)
    made = await counter.stub.IssueJwt(asked)
    shown = await counter.stub.ShowBundle(pb.ShowBundleRequest())
    bundle = read(shown.document, shown.trust_domain)
    assert bundle == counter.office.issuer.bundle
    svid = validate(made.token, lambda _: bundle, "shop", NOW)
    assert (svid.spiffe_id, svid.claims["jti"], made.expires_at) == (REVIEWS, made.jti, int(NOW.timestamp()) + 60)


@pytest.mark.parametrize(
    ("fields", "code", "why"),
    [
        ({"spiffe_id": str(SpiffeId.server(DOMAIN))}, grpc.StatusCode.PERMISSION_DENIED, "no workload of this mesh"),
        ({"spiffe_id": "x"}, grpc.StatusCode.INVALID_ARGUMENT, "is no SPIFFE ID"),
        ({"audiences": []}, grpc.StatusCode.INVALID_ARGUMENT, "1 to 16 audiences"),
        ({"ttl_seconds": 7200}, grpc.StatusCode.INVALID_ARGUMENT, "5 seconds to 60 minutes"),
        ({"ttl_seconds": -1}, grpc.StatusCode.INVALID_ARGUMENT, "5 seconds to 60 minutes"),
        ({"ttl_seconds": 1 << 62}, grpc.StatusCode.INVALID_ARGUMENT, "5 seconds to 60 minutes"),
    ],
)
async def test_a_bad_order_of_a_token_is_refused(
    counter: Counter, fields: dict[str, Any], code: grpc.StatusCode, why: str
) -> None:
    good: dict[str, Any] = {"spiffe_id": str(REVIEWS), "audiences": ["shop"]}
    got, text = await refusal(counter.stub.IssueJwt(pb.IssueJwtRequest(**(good | fields))))
    assert (got, why in text) == (code, True)


async def test_policies_have_the_last_word_with_the_owner_too(counter: Counter) -> None:
    counter.office.decider.decision = Decision(False)
    code, text = await refusal(counter.stub.IssueJwt(pb.IssueJwtRequest(spiffe_id=str(REVIEWS), audiences=["shop"])))
    assert (code, text) == (
        grpc.StatusCode.PERMISSION_DENIED, f"`{REVIEWS}` is not granted; look at the issuance policies",
    )  # fmt: skip


async def test_the_status_names_all_that_can_end(counter: Counter) -> None:
    office = counter.office
    office.jwt_keys = turn(office.jwt_keys, NOW + LIFE / 2, a_key)
    old, new = office.jwt_keys.keys
    counter.entries.create(GOOD, 1)
    shown = await counter.stub.CaStatus(pb.CaStatusRequest())
    root = office.authority.root
    assert [(one.name, one.id, one.state, one.ends) for one in shown.elements] == [
        ("root", office.authority.root_sha256, "trusted", int(root.not_valid_after_utc.timestamp())),
        (
            "intermediate",
            office.authority.intermediate.fingerprint(hashes.SHA256()).hex(),
            "signs",
            int(office.authority.intermediate.not_valid_after_utc.timestamp()),
        ),
        ("token key", old.kid, "signs", int((old.signs + LIFE).timestamp())),
        ("token key", new.kid, "published", int((new.signs + LIFE).timestamp())),
    ]
    assert shown.sequence == office.issuer.bundle.sequence
    assert (shown.issued, shown.entries, list(shown.warnings)) == (0, 1, [])
    office.clock.now = office.authority.intermediate.not_valid_after_utc - timedelta(days=10)
    late = await counter.stub.CaStatus(pb.CaStatusRequest())
    assert [text.split(" ends")[0] for text in late.warnings] == ["the intermediate certificate"]
