"""The steps of a rotation: what follows on what, whom a step waits for, and that nobody is ever cut off."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

import pytest
from cryptography import x509
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from policyd.ca import rotation
from policyd.ca.authority import Svid
from policyd.ca.holdings import Holding, using, waiting
from policyd.ca.rotation import Authorities, Generation
from policyd.errors import RotationError
from policyd.svid.x509 import verify
from tests.ca.samples import DOMAIN, NOW, RATINGS, a_key, a_material

DAY = timedelta(days=1)
LIFE = timedelta(hours=1)


def started() -> Authorities:
    return Authorities((Generation(a_material(), "active", NOW),))


def prepare(held: Authorities, what: rotation.What = "root") -> Authorities:
    return rotation.prepare(held, what, NOW, a_key, os.urandom)


def prepared(what: rotation.What = "root") -> Authorities:
    return prepare(started(), what)


def activated() -> Authorities:
    return rotation.activate(prepared(), {}, NOW)


def tainted() -> Authorities:
    return rotation.taint(activated(), {}, NOW)


def states(held: Authorities) -> list[str]:
    return [one.state for one in held.generations]


def test_a_root_goes_through_its_states_and_the_old_one_is_gone_at_the_end() -> None:
    first, held = started(), prepared()
    assert (states(held), len(held.roots), held.next) == (["active", "prepared"], 2, "activate")
    held = rotation.activate(held, {}, NOW)
    assert (states(held), len(held.roots), held.next) == (["retired", "active"], 2, "taint")
    held = rotation.taint(held, {}, NOW)
    assert (states(held), len(held.roots), held.next) == (["tainted", "active"], 2, "revoke")
    held = rotation.revoke(held, {}, NOW + 2 * DAY)
    assert (states(held), len(held.roots), held.next) == (["active"], 1, "")
    assert held.roots != first.roots


def test_a_new_intermediate_leaves_the_bundle_as_it_is() -> None:
    before, held = started(), prepared("intermediate")
    held = rotation.revoke(rotation.taint(rotation.activate(held, {}, NOW), {}, NOW), {}, NOW + 2 * DAY)
    assert (len(held.roots), held.sequence) == (1, before.sequence)


def test_the_sequence_grows_with_each_change_of_the_roots_and_only_then() -> None:
    steps = [prepared()]
    steps.append(rotation.activate(steps[-1], {}, NOW))
    steps.append(rotation.taint(steps[-1], {}, NOW))
    steps.append(rotation.revoke(steps[-1], {}, NOW, early=True))  # within the same second
    first = int(steps[0].generations[0].material.root.not_valid_before_utc.timestamp())
    sequences = [one.sequence for one in steps]
    assert first < sequences[0] == sequences[1] == sequences[2] < sequences[3]


LATE = {"laptop": "it holds bundle 1 of 2"}
NAMED = "`laptop`"


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (lambda: prepare(prepared()), "under way already; the next step is `activate`, or `abort`"),
        (lambda: rotation.activate(started(), {}, NOW), "no generation is prepared; begin with `prepare`"),
        (lambda: rotation.activate(prepared(), LATE, NOW), f"{NAMED} does not trust the new root yet: it holds"),
        (lambda: rotation.activate(prepared(), LATE, NOW, without=["other"]), NAMED),
        (lambda: rotation.taint(prepared(), {}, NOW), "no generation is retired; the next step is `activate`"),
        (lambda: rotation.taint(activated(), LATE, NOW), f"{NAMED} would be cut off"),
        (lambda: rotation.revoke(activated(), {}, NOW), "no generation is tainted; the next step is `taint`"),
        (lambda: rotation.revoke(tainted(), LATE, NOW + 2 * DAY), f"{NAMED} still uses what the old key signed"),
        (lambda: rotation.revoke(tainted(), {}, NOW + DAY / 2), "may be good until 2026-11-24"),
        (lambda: rotation.abort(started(), {}, NOW), "no rotation is under way"),
        (lambda: rotation.abort(tainted(), {}, NOW), "the old key is tainted"),
        (lambda: rotation.abort(prepared(), LATE, NOW), "uses what the prepared key signed"),
    ],
)  # fmt: skip
def test_a_step_that_does_not_follow_or_would_cut_somebody_off_is_refused(
    step: Callable[[], object], message: str
) -> None:
    with pytest.raises(RotationError) as raised:
        step()
    assert message in str(raised.value)


def test_whoever_is_named_is_left_out_until_it_has_come() -> None:
    held = rotation.activate(prepared(), LATE, NOW, without=["laptop"])
    assert (held.left_out, rotation.authority(held, DOMAIN, NOW).bridging) == (frozenset({"laptop"}), True)
    assert rotation.met(held, LATE) is held
    met = rotation.met(held, {})
    assert (met.left_out, rotation.authority(met, DOMAIN, NOW).bridging) == (frozenset(), False)


def test_a_step_back_lets_the_old_key_sign_again_and_another_forgets_the_new_one() -> None:
    before, held = activated(), rotation.abort(activated(), {}, NOW)
    assert (states(held), len(held.roots)) == (["active", "prepared"], len(before.roots))
    assert states(rotation.abort(held, {}, NOW)) == ["active"]
    assert states(rotation.activate(held, {}, NOW)) == ["retired", "active"]


YEAR = timedelta(days=365)


@pytest.mark.parametrize(
    ("held", "after", "step"),
    [
        (started, YEAR * 0.49, None),
        (started, YEAR * 0.51, ("prepare", "intermediate")),
        (started, YEAR * 5.1, ("prepare", "root")),
        (lambda: prepared("intermediate"), YEAR * 0.83, None),
        (lambda: prepared("intermediate"), YEAR * 0.84, ("activate", None)),
        (prepared, YEAR * 0.83, None),
        (prepared, YEAR * 0.84, ("activate", None)),  # the root has years, but what it signs by has not
        (activated, DAY * 0.9, None),
        (activated, DAY, ("taint", None)),
        (tainted, DAY * 0.9, None),
        (tainted, DAY, ("revoke", None)),
    ],
)
def test_time_prepares_at_half_of_a_life_activates_at_five_sixths_and_clears_away_after_a_day(
    held: Callable[[], Authorities], after: timedelta, step: tuple[str, str | None] | None
) -> None:
    assert rotation.due(held(), NOW + after) == step


@pytest.mark.parametrize(
    ("holdings", "present", "found"),
    [
        ([Holding("a", 5, heard=1000)], {"a"}, {}),
        ([Holding("a", 4, heard=1000)], {"a"}, {"a": "it holds bundle 4 of 5"}),
        ([Holding("a", 5, ("web", "api"), heard=1000)], {"a"}, {
            "a": "the Envoys of `web`, `api` have not confirmed the bundle"
        }),
        ([Holding("a", 4, heard=900)], set(), {"a": "it holds bundle 4 of 5, and it is away"}),
        ([Holding("a", 4, heard=0)], set(), {}),
        ([Holding("a", 4, heard=0)], {"a"}, {"a": "it holds bundle 4 of 5"}),
        ([], {"a"}, {"a": "it has not said yet what it holds"}),
    ],
)  # fmt: skip
def test_who_is_waited_for(holdings: list[Holding], present: set[str], found: dict[str, str]) -> None:
    assert waiting(holdings, 5, present, 1000, timedelta(seconds=500)) == found


@pytest.mark.parametrize(
    ("holding", "found"),
    [
        (Holding("a", 5, authorities=frozenset({b"new"}), heard=1000), {}),
        (Holding("a", 5, (), frozenset({b"new", b"old"}), 1000), {"a": "not all that it shows is renewed"}),
        (Holding("a", 5, ("web",), frozenset({b"new"}), 1000), {}),
    ],
)  # fmt: skip
def test_who_still_uses_what_an_authority_has_signed(holding: Holding, found: dict[str, str]) -> None:
    assert using([holding], {b"old"}, {"a"}, 1000, timedelta(seconds=500)) == found


@dataclass
class Peer:
    """An agent with one Envoy: the roots that it trusts, and the certificate that it shows."""

    roots: tuple[x509.Certificate, ...]
    shown: Svid
    sequence: int
    named: bool = False
    since: list[str] = field(default_factory=list)


class Rotating(RuleBasedStateMachine):
    """Steps, and agents that hear of them, come and renew in any order.

    The law: of those that no operator has named, each verifies what any other shows, at every moment.
    """

    @initialize()
    def begin(self) -> None:
        self.held, self.now = started(), NOW
        self.peers = {name: self.fresh() for name in ("a", "b")}

    def fresh(self) -> Peer:
        return Peer(self.held.roots, self.signed(), self.held.sequence)

    def signed(self) -> Svid:
        authority = rotation.authority(self.held, DOMAIN, self.now)
        return authority.sign(RATINGS, a_key().public_key(), now=self.now, random=os.urandom, ttl=LIFE)

    def late(self) -> dict[str, str]:
        return {name: "late" for name, peer in self.peers.items() if peer.sequence < self.held.sequence}

    def users(self, signers: frozenset[bytes]) -> dict[str, str]:
        return {name: "uses" for name, peer in self.peers.items() if any(signs(one, peer.shown) for one in signers)}

    def attempt(self, step: Callable[[], Authorities]) -> None:
        with contextlib.suppress(RotationError):
            self.held = step()

    @rule(what=st.sampled_from(["root", "intermediate"]))
    def prepare(self, what: rotation.What) -> None:
        self.attempt(lambda: rotation.prepare(self.held, what, self.now, a_key, os.urandom))

    @rule(named=st.sampled_from([(), ("a",), ("a", "b")]))
    def activate(self, named: tuple[str, ...]) -> None:
        self.attempt(lambda: rotation.activate(self.held, self.late(), self.now, without=named))

    @rule()
    def taint(self) -> None:
        self.attempt(lambda: rotation.taint(self.held, self.late(), self.now))

    @rule()
    def revoke(self) -> None:
        users = self.users(self.held.tainted)
        self.attempt(lambda: rotation.revoke(self.held, users, self.now, early=True))

    @rule()
    def abort(self) -> None:
        prepared = self.held.prepared
        users = self.users(prepared.signers) if prepared else {}
        self.attempt(lambda: rotation.abort(self.held, users, self.now))

    @rule()
    def meet(self) -> None:
        self.held = rotation.met(self.held, self.late())

    @rule(name=st.sampled_from("ab"))
    def hear(self, name: str) -> None:
        peer = self.peers[name]
        self.peers[name] = replace(peer, roots=self.held.roots, sequence=self.held.sequence)

    @rule(name=st.sampled_from("ab"))
    def renew(self, name: str) -> None:
        self.peers[name].shown = self.signed()

    @rule()
    def pass_time(self) -> None:
        self.now += timedelta(seconds=1)

    @invariant()
    def everybody_verifies_everybody(self) -> None:
        for peer in self.peers.values():
            for other in self.peers.values():
                assert verified(other.shown, peer.roots, self.now)

    @invariant()
    def policyd_is_verified_by_all(self) -> None:
        """Also by those that an operator has left out: so they come back, and hear of the new root."""
        authority = rotation.authority(self.held, DOMAIN, self.now)
        own = authority.sign(RATINGS, a_key().public_key(), now=self.now, random=os.urandom, ttl=LIFE, own=True)
        for peer in self.peers.values():
            assert verified(own, peer.roots, self.now)


def signs(digest: bytes, svid: Svid) -> bool:
    from cryptography.hazmat.primitives import hashes

    return svid.intermediate.fingerprint(hashes.SHA256()) == digest


def verified(svid: Svid, roots: tuple[x509.Certificate, ...], now: datetime) -> bool:
    return verify((svid.leaf, svid.intermediate), roots, DOMAIN, now) == RATINGS


TestEveryOrderOfSteps = Rotating.TestCase
TestEveryOrderOfSteps.settings = settings(max_examples=80, stateful_step_count=25, deadline=None)
