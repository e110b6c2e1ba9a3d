"""Bundles of other trust domains: never another's, never an older one, kept over restarts, told where they lack."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from policyd.config.authority import FederatedSettings
from policyd.errors import FederationError, NotFound
from policyd.sources.federation import LEAST_REFRESH, MOST_REFRESH, Federation
from policyd.svid import bundle as bundles
from policyd.svid.bundle import Bundle
from tests.ca.samples import a_key
from tests.fakes.toy_ca import ToyCa

PARTNER, OTHER = ToyCa("partner.org"), ToyCa("other.org")
BUNDLE = Bundle(
    "partner.org", (PARTNER.root.der,), (bundles.JwtKey("k1", a_key().public_key()),), sequence=7, refresh_hint=60
)
FETCHED = FederatedSettings(
    trust_domain="partner.org", bundle_endpoint="https://p/", endpoint_id="spiffe://partner.org/policyd/server"
)
STATIC = FederatedSettings(trust_domain="other.org")


def unheard(_: Bundle) -> None:
    """Nothing is to be recorded."""


@pytest.fixture
def known(tmp_path: Path) -> Federation:
    made = Federation(tmp_path / "federation")
    made.want([FETCHED, STATIC])
    return made


def test_only_what_has_an_endpoint_is_asked_and_at_its_own_hint(known: Federation) -> None:
    assert [one.relation for one in known.due(0.0)] == [FETCHED]
    assert known.took("partner.org", bundles.write(BUNDLE), 0.0, unheard)
    assert (known.due(59.0), known.pause(10.0)) == ([], 50.0)
    assert [one.relation for one in known.due(60.0)] == [FETCHED]


@pytest.mark.parametrize(("hint", "seconds"), [(None, 300.0), (0, 300.0), (1, LEAST_REFRESH), (1 << 60, MOST_REFRESH)])
def test_a_hint_is_taken_within_bounds(known: Federation, hint: int | None, seconds: float) -> None:
    known.took("partner.org", bundles.write(replace(BUNDLE, refresh_hint=hint)), 0.0, unheard)
    assert known.pause(0.0) == seconds


def test_a_failure_waits_for_the_next_interval_and_keeps_what_was_good(known: Federation) -> None:
    known.missed("partner.org", "no answer", 0.0)
    assert (known.pause(0.0), known.bundles()) == (300.0, ())
    known.took("partner.org", bundles.write(BUNDLE), 300.0, unheard)
    known.missed("partner.org", "the answer is 500", 360.0)
    assert (known.bundles(), known.pause(360.0)) == ((BUNDLE,), 60.0)
    assert list(known.problems()) == [
        "the workloads of `other.org` are strangers until `policyd ca bundle import` has its bundle",
        "the bundle of `partner.org` cannot be fetched: the answer is 500; the one from before is used",
    ]


def changed(**members: Any) -> bytes:
    return json.dumps(json.loads(bundles.write(BUNDLE)) | members).encode()


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (b"", "this is no JSON"),
        (b"[]", "this is no JSON object"),
        (b"{}", "a bundle has a list `keys`"),
        (b" " * (bundles.MAX_BYTES + 1), "a bundle has at most 1,048,576 bytes"),
        (bundles.write(Bundle("other.org", (OTHER.root.der,))), "of the trust domain `other.org`, not `partner.org`"),
        (changed(spiffe_sequence=6), "the bundle has the sequence 6, and the one at hand 7"),
        (changed(spiffe_sequence=None), "the bundle has the sequence None, and the one at hand 7"),
        (changed(spiffe_sequence=-1), "`spiffe_sequence` is a whole number"),
    ],
    ids=["nothing", "a list", "no keys", "huge", "another trust domain", "older", "without sequence", "negative"],
)
def test_what_is_no_better_bundle_of_that_trust_domain_is_refused(
    known: Federation, document: bytes, message: str
) -> None:
    known.took("partner.org", bundles.write(BUNDLE), 0.0, unheard)
    with pytest.raises(FederationError) as caught:
        known.took("partner.org", document, 1.0, unheard)
    assert message in caught.value.message
    assert known.bundles() == (BUNDLE,)


def test_a_bundle_with_zero_keys_makes_its_workloads_strangers(known: Federation) -> None:
    empty = Bundle("partner.org", sequence=8)
    assert known.took("partner.org", bundles.write(empty), 0.0, unheard)
    assert known.bundles() == (empty,)
    assert "the bundle of `partner.org` has no root: its workloads are strangers" in list(known.problems())


def test_bundles_are_kept_over_a_restart_until_their_trust_domain_is_known_no_more(
    known: Federation, tmp_path: Path
) -> None:
    known.took("partner.org", bundles.write(BUNDLE), 0.0, unheard)
    again = Federation(tmp_path / "federation")
    assert (again.want([FETCHED]), again.bundles()) == (True, (BUNDLE,))
    assert (again.want([FETCHED]), again.want([STATIC]), again.bundles()) == (False, True, ())
    assert list((tmp_path / "federation").iterdir()) == []
    assert (again.want([FETCHED]), again.bundles()) == (False, ())


@pytest.mark.parametrize("content", [b"{", b"", b"[]", bundles.write(Bundle("other.org", (OTHER.root.der,)))])
def test_a_kept_bundle_that_is_broken_is_as_if_it_were_not_there(
    known: Federation, tmp_path: Path, content: bytes
) -> None:
    known.took("partner.org", bundles.write(BUNDLE), 0.0, unheard)
    (tmp_path / "federation" / "partner.org.json").write_bytes(content)
    again = Federation(tmp_path / "federation")
    assert (again.want([FETCHED]), again.bundles()) == (False, ())


@pytest.mark.parametrize("name", ["third.org", "../partner.org", "partner.org/..", ""])
def test_a_trust_domain_that_no_operator_named_is_none(known: Federation, tmp_path: Path, name: str) -> None:
    for work in (lambda: known.took(name, bundles.write(BUNDLE), 0.0, unheard), lambda: known.hurry(name)):
        with pytest.raises(NotFound, match="no trust domain that is known here; name it under"):
            work()
    assert not (tmp_path / "federation").exists()


def test_nothing_is_asked_where_a_bundle_is_imported(known: Federation) -> None:
    with pytest.raises(FederationError, match=r"`other\.org` has no bundle endpoint; import its bundle"):
        known.hurry("other.org")
