"""A rotation as it is done: on the disk before it is in force, on record before that, and whole after any crash."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from policyd.ca import authorities_store, keystore
from policyd.ca.database import open_database
from policyd.ca.holdings import Holding, Holdings, checked
from policyd.ca.issuance import Evidence
from policyd.ca.issuer import Issuer
from policyd.ca.jwt_keys import LEAD
from policyd.ca.jwt_store import JwtKeyStore
from policyd.ca.open import Opened, open_authority
from policyd.ca.rotator import Ports, Rotator, Step
from policyd.cedar.model import Decision
from policyd.errors import JournalError, KeyFileError, PolicydError, RotationError, StateError
from tests.ca.samples import DOMAIN, NOW, REVIEWS, Office, a_csr, an_authority
from tests.fakes.clock import FakeClock

STEPS = (Step("prepare", "root"), Step("activate"), Step("taint"), Step("revoke", early=True))


@dataclass
class House:
    """A folder with an authority, and what rotates it."""

    state: Path
    passphrase: bytes | None = None
    clock: FakeClock = field(default_factory=lambda: FakeClock(NOW))
    decision: Decision = Decision(True, reasons=("owner",))  # noqa: RUF009 - a frozen value
    records: list[Any] = field(default_factory=list)
    present: set[str] = field(default_factory=set)
    holdings: dict[str, Holding] = field(default_factory=dict)
    changes: int = 0
    full: bool = False

    def __post_init__(self) -> None:
        self.start()

    def start(self) -> Opened:
        """As at a start of the server, after an end or a crash."""
        opened = self.opened()
        self.office = Office(authority=opened.authority, clock=self.clock)
        self.issuer: Issuer = self.office.issuer
        ports = Ports(
            clock=self.clock,
            random=os.urandom,
            decide=lambda: self.decision,
            record=self._record,
            present=lambda: self.present,
            holdings=lambda: tuple(self.holdings.values()),
            changed=self._changed,
        )
        self.rotator = Rotator(self.folder, self.issuer, opened.held, ports, self.passphrase)
        return opened

    def opened(self) -> Opened:
        return open_authority(self.state, DOMAIN, clock=self.clock, random=os.urandom, passphrase=self.passphrase)

    @property
    def folder(self) -> Path:
        return self.state / keystore.FOLDER

    def hold(self, agent: str, *, signers: frozenset[bytes] = frozenset()) -> None:
        sequence = self.issuer.bundle.sequence or 0
        self.holdings[agent] = Holding(agent, sequence, (), signers, int(self.clock().timestamp()))

    def states(self) -> list[str]:
        return [one.state for one in self.rotator.held.generations]

    def _record(self, entry: Any) -> None:
        if self.full:
            raise JournalError("the disk is full")
        self.records.append(entry)

    def _changed(self) -> None:
        self.changes += 1


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


def test_each_step_is_on_record_with_what_it_made_and_who_decided(house: House) -> None:
    for step in STEPS:
        house.rotator.do(step)
    assert [one.detail["operation"] for one in house.records] == [
        "ca.rotate.prepare", "ca.rotate.activate", "ca.rotate.taint", "ca.rotate.revoke",
    ]  # fmt: skip
    assert [[text.split()[0] for text in one.detail["generations"]] for one in house.records] == [
        ["active", "prepared"], ["retired", "active"], ["tainted", "active"], ["active"],
    ]  # fmt: skip
    assert {(one.kind, one.decision, one.reasons) for one in house.records} == {("operation", "allow", ("owner",))}
    assert house.changes == len(STEPS)


def test_what_the_operators_policies_forbid_is_recorded_and_not_done(house: House) -> None:
    house.decision = Decision(False, reasons=("never-on-fridays",))
    with pytest.raises(RotationError, match="forbid it: `never-on-fridays`"):
        house.rotator.do(STEPS[0])
    assert [(one.decision, one.reasons) for one in house.records] == [("deny", ("never-on-fridays",))]
    assert (house.states(), house.changes) == (["active"], 0)


def test_what_cannot_be_recorded_is_not_done(house: House) -> None:
    house.full = True
    with pytest.raises(JournalError):
        house.rotator.do(STEPS[0])
    assert (house.states(), authorities_store.exists(house.folder)) == (["active"], False)


@pytest.mark.parametrize(("done", "passphrase"), [(1, None), (2, None), (2, b"correct horse"), (3, None), (4, None)])
def test_after_a_crash_the_steps_that_were_made_are_there_and_the_rest_can_be_made(
    tmp_path: Path, done: int, passphrase: bytes | None
) -> None:
    house = House(tmp_path, passphrase)
    for step in STEPS[:done]:
        house.rotator.do(step)
    before, bundle, authority = house.rotator.held, house.issuer.bundle, house.issuer.authority
    house.start()
    assert house.rotator.held == before
    assert house.issuer.bundle.roots == bundle.roots
    assert house.issuer.authority.bridge == authority.bridge
    assert house.issuer.authority.key.private_numbers() == authority.key.private_numbers()
    for step in STEPS[done:]:
        house.rotator.do(step)
    assert house.states() == ["active"]


def test_a_crash_between_the_write_and_what_follows_leaves_no_key_beside_the_file(house: House) -> None:
    old = {name: (house.folder / name).read_bytes() for name in keystore.FILES}
    house.rotator.do(STEPS[0])
    for name, content in old.items():  # as if it had crashed after the write
        (house.folder / name).write_bytes(content)
        (house.folder / name).chmod(0o600)
    house.start()
    assert sorted(path.name for path in house.folder.iterdir()) == [authorities_store.FILE, keystore.ROOT]
    assert house.states() == ["active", "prepared"]


def test_a_crash_before_the_write_leaves_all_as_it_was(house: House) -> None:
    (house.folder / f".{authorities_store.FILE}.new").write_bytes(b"{half")
    house.start()
    assert house.states() == ["active"]
    house.rotator.do(STEPS[0])
    assert house.states() == ["active", "prepared"]


def test_root_pem_keeps_every_root_that_ever_was_and_the_keys_that_are_forgotten_are_gone(house: House) -> None:
    first = house.rotator.held.active.material
    for step in STEPS:
        house.rotator.do(step)
    kept = (house.folder / keystore.ROOT).read_bytes()
    assert first.root.public_bytes(Encoding.PEM) in kept
    assert house.issuer.authority.root.public_bytes(Encoding.PEM) in kept
    file = json.loads((house.folder / authorities_store.FILE).read_bytes())
    assert len(file["generations"]) == 1


def test_keys_that_lie_in_plain_text_are_encrypted_once_there_is_a_passphrase(house: House) -> None:
    house.rotator.do(STEPS[0])
    house.passphrase = b"correct horse"
    assert house.start().notices == (f"`{house.folder / authorities_store.FILE}` is encrypted from now on",)
    assert "BEGIN PRIVATE KEY" not in (house.folder / authorities_store.FILE).read_text()
    house.passphrase = None
    with pytest.raises(KeyFileError, match="is encrypted"):
        house.opened()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda file: file.update(format=2), "is of a newer version"),
        (lambda file: file.update(generations=[]), "is broken"),
        (lambda file: file["generations"][0].update(state="retired"), "is broken"),
        (lambda file: file["generations"][0].update(root="nothing"), "is broken"),
        (lambda file: file["generations"][0].update(since="2026-11-23T12:00:00"), "is broken"),
        (lambda file: file["generations"][0].update(root_key=file["generations"][1]["root_key"]), "not that of its"),
    ],
)
def test_a_file_that_does_not_hold_together_is_refused(
    house: House, change: Callable[[dict[str, Any]], None], message: str
) -> None:
    house.rotator.do(STEPS[0])
    path = house.folder / authorities_store.FILE
    file = json.loads(path.read_bytes())
    change(file)
    path.write_text(json.dumps(file))
    with pytest.raises((StateError, KeyFileError), match=message):
        house.opened()


def test_a_file_that_others_may_read_is_refused(house: House) -> None:
    house.rotator.do(STEPS[0])
    (house.folder / authorities_store.FILE).chmod(0o644)
    with pytest.raises(KeyFileError, match="others may use it"):
        house.opened()


def test_it_waits_for_the_agents_that_are_there_and_goes_on_without_who_is_named(house: House) -> None:
    house.present = {"laptop", "server"}
    house.hold("laptop"), house.hold("server")
    house.rotator.do(STEPS[0])
    with pytest.raises(RotationError, match="`laptop`, `server` does not trust the new root yet"):
        house.rotator.do(STEPS[1])
    house.hold("server")
    house.rotator.do(replace(STEPS[1], without=("laptop",)))
    assert (house.rotator.held.left_out, house.issuer.authority.bridging) == (frozenset({"laptop"}), True)
    house.hold("laptop")
    assert house.rotator.turn() == ("", "")
    assert (house.rotator.held.left_out, house.issuer.authority.bridging) == (frozenset(), False)


def test_it_forgets_no_key_of_which_something_is_in_use(house: House) -> None:
    old = house.rotator.held.active.signers
    for step in STEPS[:3]:
        house.rotator.do(step)
    house.hold("laptop", signers=old)
    assert house.rotator.waiting() == {"laptop": "not all that it shows is renewed, and it is away"}
    with pytest.raises(RotationError, match="still uses what the old key signed"):
        house.rotator.do(STEPS[3])
    house.hold("laptop")
    house.rotator.do(STEPS[3])


def test_names_of_nobody_are_refused(house: House) -> None:
    house.rotator.do(STEPS[0])
    with pytest.raises(RotationError, match="`lapptop` is no agent"):
        house.rotator.do(Step("activate", without=("lapptop",)))


@pytest.mark.parametrize("step", [Step("prepare"), Step("prepare", "leaf"), Step(""), Step("activte")])
def test_what_is_no_step_is_refused(house: House, step: Step) -> None:
    with pytest.raises(RotationError, match="is no step of a rotation"):
        house.rotator.do(step)


def test_time_rotates_by_itself_and_says_who_keeps_it_from_it(house: House) -> None:
    assert house.rotator.turn() == ("", "")
    house.clock.advance(timedelta(days=183).total_seconds())
    assert house.rotator.turn() == ("prepare", "")
    assert house.records[-1].reasons == ("schedule",)
    house.clock.advance(timedelta(days=122).total_seconds())
    assert house.rotator.turn() == ("activate", "")
    assert house.states() == ["retired", "active"]
    for step, states in (("taint", ["tainted", "active"]), ("revoke", ["active"])):
        assert house.rotator.turn() == ("", "")
        house.clock.advance(timedelta(days=1).total_seconds())
        assert house.rotator.turn() == (step, "")
        assert house.states() == states


def test_a_root_that_is_due_waits_for_all_even_so(house: House) -> None:
    house.rotator.do(STEPS[0])
    house.present = {"laptop"}
    house.clock.advance(timedelta(days=305).total_seconds())
    step, trouble = house.rotator.turn()
    assert (step, "`laptop` does not trust the new root yet" in trouble) == ("activate", True)
    house.hold("laptop")
    assert house.rotator.turn() == ("activate", "")


def test_what_is_signed_under_the_new_key_is_what_the_bundle_verifies(house: House) -> None:
    for step in STEPS[:2]:
        house.rotator.do(step)
    order = house.issuer.order(REVIEWS, None, Evidence("unix"))
    svid = house.issuer.issue(order, a_csr(), kind="workload")
    assert svid.intermediate == house.rotator.held.active.material.intermediate


@pytest.mark.parametrize(
    "said",
    [
        {"behind": ["x"] * 2 + [f"i{n}" for n in range(512)]},
        {"behind": [""]},
        {"behind": ["a\nb"]},
        {"behind": ["x" * 254]},
        {"authorities": [b"short"]},
        {"authorities": [bytes([n]) * 32 for n in range(17)]},
    ],
)
def test_what_no_agent_can_hold_is_refused(said: dict[str, Any]) -> None:
    with pytest.raises(RotationError):
        checked("a", 1, **({"behind": (), "authorities": (), "heard": 0} | said))


def test_what_agents_hold_is_kept_over_a_restart(tmp_path: Path) -> None:
    database = open_database(tmp_path / "tokens.sqlite")
    holding = Holding("laptop", 7, ("api", "web"), frozenset({b"x" * 32}), 100)
    holdings = Holdings(database)
    holdings.hear(holding)
    holdings.hear(Holding("other", 6, (), frozenset(), 100))
    holdings.seen(["laptop"], 200)
    database.close()
    again = open_database(tmp_path / "tokens.sqlite")
    assert Holdings(again).all() == (replace(holding, heard=200), Holding("other", 6, (), frozenset(), 100))
    again.close()


def test_a_bridge_needs_an_old_root_with_life_left(tmp_path: Path) -> None:
    assert an_authority().bridge is None
    house = House(tmp_path)
    house.clock.advance(timedelta(days=364).total_seconds())
    house.rotator.do(Step("prepare", "intermediate"))
    house.rotator.do(Step("activate"))
    with pytest.raises(PolicydError):
        house.rotator.do(Step("prepare", "root"))


def test_keys_of_tokens_change_by_the_same_guards_and_are_on_record(house: House) -> None:
    store = house.rotator.tokens = JwtKeyStore(house.folder, house.clock, os.urandom)
    house.present.add("laptop")
    first = store.keys
    house.full = True
    with pytest.raises(JournalError):
        house.rotator.do(Step("prepare", "token"))
    assert store.keys is first
    house.full = False
    house.rotator.do(Step("prepare", "token"))
    with pytest.raises(RotationError, match="`laptop` does not know the new key of tokens yet"):
        house.rotator.do(Step("activate", "token"))
    house.hold("laptop")
    with pytest.raises(RotationError, match="verifiers elsewhere may not have asked"):
        house.rotator.do(Step("activate", "token"))
    house.clock.advance(LEAD.total_seconds())
    house.rotator.do(Step("activate", "token"))
    assert store.signing().kid == store.keys.keys[1].kid
    assert JwtKeyStore(house.folder, house.clock, os.urandom).keys == store.keys
    house.rotator.do(Step("revoke", "token"))
    assert [one.detail["operation"] for one in house.records] == [
        "ca.rotate.prepare", "ca.rotate.activate", "ca.rotate.revoke",
    ]  # fmt: skip
    assert [len(one.detail["kids"]) for one in house.records] == [2, 2, 1]
    with pytest.raises(RotationError, match="`taint token` is no step of a rotation"):
        house.rotator.do(Step("taint", "token"))
    assert house.states() == ["active"]


def test_a_key_of_tokens_whose_time_comes_waits_for_who_is_behind(house: House) -> None:
    store = house.rotator.tokens = JwtKeyStore(house.folder, house.clock, os.urandom)
    house.rotator.do(Step("prepare", "token"))
    old, new = store.keys.keys
    house.clock.advance((new.signs - house.clock()).total_seconds() - 5)
    for _ in range(30):
        assert not store.turn({"laptop": "it is away"})
        house.clock.advance(5)
        assert store.signing().kid == old.kid
    house.clock.advance(60)
    store.turn({})
    assert store.signing().kid == new.kid
