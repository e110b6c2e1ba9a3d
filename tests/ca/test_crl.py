"""Lists of revoked certificates: signed by who signed these, without what has ended, fresh before they are old."""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509

from policyd.ca import rotation
from policyd.ca.crl import LIFE, Lists, RevokedSerial, turned
from policyd.ca.database import Database
from policyd.ca.revoked_serials import MAX_SERIALS, RevokedSerials
from policyd.ca.rotation import Authorities, Generation
from policyd.errors import JournalError, NotFound, RevocationError
from policyd.mesh.eras import Lost
from policyd.spiffe import SpiffeId
from tests.ca.samples import NOW, REVIEWS, a_key, a_material, full, nothing

SINCE = int(NOW.timestamp())
LOST = RevokedSerial("0" * 30 + "2a", str(REVIEWS), SINCE, SINCE + 3600, "key lost")
HELD = Authorities((Generation(a_material(), "active", NOW),))


def parsed(lists: Lists) -> list[x509.CertificateRevocationList]:
    return [x509.load_der_x509_crl(one) for one in lists.ders]


def test_a_list_is_that_of_the_key_that_signs_and_has_the_serial_numbers_alone() -> None:
    [made] = parsed(turned(Lists(), HELD, [LOST], NOW))
    signer = HELD.active.material.intermediate
    assert made.is_signature_valid(signer.public_key())  # type: ignore[arg-type]
    name = signer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
    known = made.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier
    assert (made.issuer, known) == (signer.subject, name)
    assert (made.last_update_utc, made.next_update_utc) == (NOW - timedelta(minutes=2), NOW + LIFE)
    assert [(one.serial_number, one.revocation_date_utc, list(one.extensions)) for one in made] == [(42, NOW, [])]
    assert made.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number == SINCE


def test_each_key_that_may_have_signed_has_a_list_of_its_own() -> None:
    prepared = rotation.prepare(HELD, "root", NOW, a_key, os.urandom)
    lists = turned(Lists(), prepared, [LOST], NOW)
    assert [one.issuer for one in parsed(lists)] == [one.material.intermediate.subject for one in prepared.generations]


@pytest.mark.parametrize(
    ("later", "revoked", "authorities", "anew"),
    [
        (timedelta(), (LOST,), HELD, False),
        (LIFE / 2 - timedelta(seconds=1), (replace(LOST, ends=SINCE + 10**6),), HELD, False),
        (LIFE / 2, (replace(LOST, ends=SINCE + 10**6),), HELD, True),
        (timedelta(hours=1), (LOST,), HELD, True),  # which has ended, and is left out
        (timedelta(), (LOST, replace(LOST, serial="f" * 32)), HELD, True),
        (timedelta(), (), HELD, True),
        (timedelta(), (LOST,), rotation.prepare(HELD, "intermediate", NOW, a_key, os.urandom), True),
    ],
)
def test_a_list_is_made_anew_when_it_says_something_else_or_is_half_over(
    later: timedelta, revoked: tuple[RevokedSerial, ...], authorities: Authorities, anew: bool
) -> None:
    ends = max((one.ends for one in revoked), default=LOST.ends)
    before = turned(Lists(), HELD, [replace(LOST, ends=ends)], NOW)
    after = turned(before, authorities, revoked, NOW + later)
    assert (after is not before) is anew
    assert after.serials == {one.serial for one in revoked if one.ends > (NOW + later).timestamp()}


def test_a_list_never_ends_before_a_certificate_that_was_issued_under_it() -> None:
    """Who cannot renew the list cannot renew a certificate either, and the certificate is the first to end."""
    [made] = parsed(turned(Lists(), HELD, [], NOW))
    assert made.next_update_utc is not None
    assert made.next_update_utc - (NOW + LIFE / 2) > timedelta(hours=1)


def test_a_certificate_is_revoked_until_that_is_taken_back(database: Database) -> None:
    serials = RevokedSerials(database)
    serials.add(LOST, nothing)
    assert (serials.holds(LOST.serial), serials.holds("0" * 32)) == (True, False)
    assert RevokedSerials(database).all() == (LOST,)
    assert serials.lost() == RevokedSerials(database).lost() == {Lost(LOST.serial, REVIEWS)}
    with pytest.raises(RevocationError, match="is revoked already"):
        serials.add(LOST, nothing)
    serials.remove(LOST.serial, nothing)
    assert (serials.all(), RevokedSerials(database).all(), serials.lost()) == ((), (), frozenset())
    with pytest.raises(NotFound, match="is not revoked"):
        serials.remove(LOST.serial, nothing)


def test_what_an_agent_has_is_shown_to_no_proxy(database: Database) -> None:
    serials = RevokedSerials(database)
    serials.add(replace(LOST, spiffe_id=str(SpiffeId.agent(REVIEWS.trust_domain, "laptop"))), nothing)
    assert (serials.holds(LOST.serial), serials.lost()) == (True, frozenset())


def test_what_cannot_be_recorded_is_not_revoked(database: Database) -> None:
    serials = RevokedSerials(database)
    with pytest.raises(JournalError):
        serials.add(LOST, full)
    assert RevokedSerials(database).all() == serials.all() == ()


def test_what_has_ended_makes_room(database: Database) -> None:
    serials = RevokedSerials(database)
    serials.add(LOST, nothing)
    later = replace(LOST, serial="f" * 32, since=LOST.ends, ends=LOST.ends + 60)
    serials.add(later, nothing)
    assert serials.all() == (later,)


@pytest.mark.parametrize(
    ("revoked", "message"),
    [
        (replace(LOST, serial="2a"), "is no serial number"),
        (replace(LOST, serial="0" * 31 + "A"), "is no serial number"),
        (replace(LOST, serial="0" * 32), "is no serial number"),
        (replace(LOST, serial="../../etc/passwd"), "is no serial number"),
        (replace(LOST, ends=SINCE), "has ended by itself"),
        (replace(LOST, ends=1 << 62), "has ended by itself"),
        (replace(LOST, spiffe_id="spiffe://cluster.local/policyd/server"), "is policyd's own"),
        (replace(LOST, reason="a\nb"), "printable"),
    ],
)
def test_what_is_no_certificate_of_a_workload_is_not_revoked(
    database: Database, revoked: RevokedSerial, message: str
) -> None:
    with pytest.raises(RevocationError, match=message):
        RevokedSerials(database).add(revoked, nothing)


def test_so_many_are_revoked_and_no_more(database: Database) -> None:
    rows = [(f"{number:032x}", str(REVIEWS), SINCE, SINCE + 3600, "") for number in range(MAX_SERIALS)]
    with database.transaction() as connection:
        connection.executemany("INSERT INTO revoked_serial VALUES (?, ?, ?, ?, ?)", rows)
    with pytest.raises(RevocationError, match="2000 certificates are revoked"):
        RevokedSerials(database).add(replace(LOST, serial="f" * 32), nothing)


def test_a_full_list_goes_to_every_agent_in_one_message() -> None:
    """An agent takes a message of 1 MiB, and there are at most two generations."""
    revoked = [replace(LOST, serial=f"{number:x}".rjust(32, "f")) for number in range(MAX_SERIALS)]
    two = rotation.prepare(HELD, "root", NOW, a_key, os.urandom)
    assert sum(map(len, turned(Lists(), two, revoked, datetime.fromtimestamp(SINCE, UTC)).ders)) < 1 << 18
