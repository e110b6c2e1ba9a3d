"""Under another's root: what its operator laid down is verified whole, and taken in by a rotation."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from policyd.ca import authorities_store, keystore, rotation
from policyd.ca.authority import Authority
from policyd.ca.elsewhere import ElsewhereKey
from policyd.ca.open import Opened, open_authority
from policyd.ca.rotator import Step
from policyd.ca.sealing import JournalTrust, SealingKeys
from policyd.ca.signing_command import SigningCommand
from policyd.ca.upstream import Upstream, read
from policyd.errors import IdentityError, KeyFileError, PolicydError, RotationError, StateError
from policyd.spiffe import SpiffeId
from policyd.svid.x509 import verify
from tests.ca.company import YEAR, Company, lay
from tests.ca.samples import DOMAIN, NOW, RATINGS, a_key
from tests.ca.test_rotator import House
from tests.fakes.clock import FakeClock

OPENSSL = ("openssl", "dgst", "-sha256", "-sign")


@dataclass
class Desk:
    """A company, its files for us, and a state folder."""

    folder: Path
    company: Company = field(default_factory=Company)
    key: ec.EllipticCurvePrivateKey = field(default_factory=a_key)
    clock: FakeClock = field(default_factory=lambda: FakeClock(NOW))

    def __post_init__(self) -> None:
        self.upstream = self.lay(self.company.chain(self.key))

    def lay(self, chain: tuple[x509.Certificate, ...], key: ec.EllipticCurvePrivateKey | None = None) -> Upstream:
        return Upstream(*lay(self.folder, chain, key or self.key))

    def open(self, upstream: Upstream | None, passphrase: bytes | None = None) -> Opened:
        state = self.folder / "state"
        state.mkdir(exist_ok=True)
        return open_authority(
            state, DOMAIN, clock=self.clock, random=os.urandom, passphrase=passphrase, upstream=upstream
        )


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def verified(authority: Authority, *, own: bool = False) -> SpiffeId:
    """Whom a new certificate proves, to somebody who trusts the company's root."""
    svid = authority.sign(RATINGS, a_key().public_key(), now=NOW, random=os.urandom, own=own)
    chain = [x509.load_der_x509_certificate(one) for one in svid.chain]
    return verify(chain, authority.roots, DOMAIN, NOW)


def test_a_first_start_under_another_s_root_shows_its_whole_chain(desk: Desk) -> None:
    opened = desk.open(desk.upstream)
    assert opened.created
    assert opened.authority.roots == (desk.company.root,)
    assert verified(opened.authority) == RATINGS
    again = desk.open(desk.upstream)
    assert (again.created, again.held) == (False, opened.held)
    assert verified(again.authority) == RATINGS


def test_its_keys_are_encrypted_where_there_is_a_passphrase(desk: Desk) -> None:
    desk.open(desk.upstream, b"correct horse")
    folder = desk.folder / "state" / keystore.FOLDER
    assert "BEGIN PRIVATE KEY" not in (folder / authorities_store.FILE).read_text()
    assert verified(desk.open(desk.upstream, b"correct horse").authority) == RATINGS


def test_the_journal_s_seals_are_verified_under_it(desk: Desk) -> None:
    authority = desk.open(desk.upstream).authority
    journal = SpiffeId.journal(DOMAIN)
    keys = SealingKeys(lambda key: authority.sign(journal, key, now=NOW, random=os.urandom), desk.clock)
    seal = keys()
    JournalTrust(desk.company.root)(seal.chain, NOW).verify(seal.sign(b"sealed"), b"sealed", NOW)
    with pytest.raises(IdentityError):
        JournalTrust(Company().root)(seal.chain, NOW)


def under_a_narrow_one(desk: Desk) -> Upstream:
    """The issuing certificate may sign leaves alone."""
    company = desk.company
    narrow = company.certify("Company Issuing", company.issuing_key, company.root, company.key, path_length=0)
    return desk.lay((company.ours(desk.key), narrow, company.root))


BAD: list[tuple[str, Callable[[Desk], Upstream], str]] = [
    ("another's key", lambda d: d.lay(d.company.chain(d.key), a_key()), "the key is not that of the certificate"),
    ("no authority's", lambda d: d.lay(d.company.chain(d.key, ca=False)), "no valid path|cA=true|does not chain"),
    ("of another trust domain", lambda d: d.lay(d.company.chain(d.key, spiffe="spiffe://other")), "domain `other`"),
    ("over", lambda d: d.lay(d.company.chain(d.key, begins=NOW - 2 * YEAR)), "less than five minutes|ended at"),
    ("no root", lambda d: d.lay(d.company.chain(d.key)[:2]), "the last certificate of .* is no root"),
    ("alone", lambda d: d.lay(d.company.chain(d.key)[:1]), "holds 1 certificates, and no chain"),
    ("another's root", lambda d: d.lay((*d.company.chain(d.key)[:2], Company().root)), "does not chain|not signed"),
    ("in the wrong order", lambda d: d.lay((d.company.issuing, d.company.ours(d.key), d.company.root)), "not that of"),
    ("of one that may sign none", under_a_narrow_one, "does not chain"),
    ("nothing", lambda d: d.lay(()), "this is no certificate"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "message"), [row[1:] for row in BAD], ids=[row[0] for row in BAD])
def test_a_chain_that_verifiers_would_refuse_is_refused_at_once(
    desk: Desk, change: Callable[[Desk], Upstream], message: str
) -> None:
    with pytest.raises(PolicydError, match=message):
        desk.open(change(desk))
    assert not (desk.folder / "state" / keystore.FOLDER).exists()


def test_a_key_that_others_may_read_is_refused(desk: Desk) -> None:
    (desk.folder / "upstream.key").chmod(0o644)
    with pytest.raises(KeyFileError, match="others may use it"):
        desk.open(desk.upstream)


def test_certificates_end_with_the_first_of_their_chain(desk: Desk) -> None:
    company = desk.company
    brief = company.certify(
        "Company Issuing", company.issuing_key, company.root, company.key, life=timedelta(minutes=50)
    )
    authority = desk.open(desk.lay((company.ours(desk.key), brief, company.root)))
    svid = authority.authority.sign(RATINGS, a_key().public_key(), now=NOW, random=os.urandom)
    assert svid.not_after == brief.not_valid_after_utc


def test_a_mesh_with_a_root_of_its_own_comes_under_another_s_by_a_rotation(tmp_path: Path) -> None:
    house, company, key = House(tmp_path), Company(), a_key()
    upstream = Upstream(*lay(tmp_path, company.chain(key), key))
    own = house.issuer.authority.root
    house.present = {"laptop"}
    house.hold("laptop")
    assert house.rotator.adopt(read(upstream, None))
    assert not house.rotator.adopt(read(upstream, None))
    assert set(house.issuer.authority.roots) == {own, company.root}
    step, trouble = house.rotator.turn()
    assert (step, "`laptop` does not trust the new root yet" in trouble) == ("activate", True)
    house.hold("laptop")
    assert house.rotator.turn() == ("activate", "")
    assert verified(house.issuer.authority) == RATINGS
    bridge = house.issuer.authority.bridge
    assert bridge is not None
    assert bridge.root == own
    assert verified(house.issuer.authority, own=True) == RATINGS
    house.start()
    assert [one.state for one in house.rotator.held.generations] == ["retired", "active"]
    assert house.records[0].reasons == ("upstream",)


def test_what_was_taken_back_is_not_taken_into_use_again_by_the_clock(tmp_path: Path) -> None:
    house, company, key = House(tmp_path), Company(), a_key()
    house.clock.advance(60)
    house.rotator.adopt(read(Upstream(*lay(tmp_path, company.chain(key), key)), None))
    assert house.rotator.turn() == ("activate", "")
    house.rotator.do(Step("abort"))
    house.clock.advance(3600)
    assert house.rotator.turn() == ("", "")
    assert [one.state for one in house.rotator.held.generations] == ["active", "prepared"]


def test_under_another_s_root_nothing_is_made_here_and_the_clock_says_what_is_missing(desk: Desk) -> None:
    held = desk.open(desk.upstream).held
    with pytest.raises(RotationError, match=r"the root is another's.* lay the next certificate and its key"):
        rotation.prepare(held, "intermediate", NOW, a_key, os.urandom)
    assert rotation.due(held, NOW + 0.6 * YEAR) == ("prepare", "intermediate")


def signing(desk: Desk) -> Upstream:
    return Upstream(desk.upstream.chain, signer=SigningCommand((*OPENSSL, str(desk.upstream.key))))


@pytest.mark.needs("openssl")
def test_a_key_behind_a_command_signs_and_is_never_here(desk: Desk) -> None:
    upstream = signing(desk)
    assert verified(desk.open(upstream).authority) == RATINGS
    again = desk.open(upstream)
    assert isinstance(again.authority.key, ElsewhereKey)
    assert verified(again.authority) == RATINGS
    kept = (desk.folder / "state" / keystore.FOLDER / authorities_store.FILE).read_text()
    assert "PRIVATE KEY" not in kept
    with pytest.raises(KeyFileError, match=r"the key is held elsewhere; name `ca\.upstream\.signCommand`"):
        desk.open(None)


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("import sys; sys.exit('the module is locked')", "ended with 1: the module is locked"),
        ("print('no signature')", "is no signature by the certificate's key"),
        ("", "is no signature by the certificate's key"),
        ("import os; os.write(1, b'x' * 1_000_000)", "is no signature by the certificate's key"),
    ],
)
def test_a_command_that_does_not_sign_is_an_error_that_says_so(desk: Desk, script: str, message: str) -> None:
    with pytest.raises(StateError, match=message):
        desk.open(Upstream(desk.upstream.chain, signer=SigningCommand((sys.executable, "-c", script))))


def test_a_command_that_is_not_there_is_an_error(desk: Desk) -> None:
    with pytest.raises(StateError, match="cannot be started: No such file"):
        desk.open(Upstream(desk.upstream.chain, signer=SigningCommand(("/nowhere/sign",))))


@pytest.mark.parametrize(
    "use", [lambda key: key.private_numbers(), lambda key: key.private_bytes(), lambda key: key.exchange(None, None)]
)
def test_nobody_gets_a_key_out_of_a_command(use: Callable[[Any], object]) -> None:
    with pytest.raises(IdentityError, match="the key is held elsewhere"):
        use(ElsewhereKey(SigningCommand(("sign",)), a_key().public_key()))
