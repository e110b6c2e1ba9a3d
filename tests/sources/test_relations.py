"""Trust domains that a command names: kept over restarts, beside those of policyd.yaml, which win."""

from __future__ import annotations

from pathlib import Path

import pytest

from policyd.config.authority import FederatedSettings
from policyd.config.settings import parse_settings
from policyd.errors import FederationError, JournalError, NotFound, StateError
from policyd.sources.relations import MAX_RELATIONS, Relations, with_relations

PARTNER = FederatedSettings(
    trust_domain="partner.org", bundle_endpoint="https://p/", endpoint_id="spiffe://partner.org/policyd/server"
)
OTHER = FederatedSettings(trust_domain="other.org")


def nothing() -> None:
    """Keeps no record."""


def full() -> None:
    raise JournalError("full")


def test_what_is_created_stays_until_it_is_deleted(tmp_path: Path) -> None:
    file = tmp_path / "federation.json"
    relations = Relations(file)
    assert (relations.all(), relations.text()) == ((), "")
    relations.create(PARTNER, nothing)
    relations.create(OTHER, nothing)
    assert Relations(file).all() == (OTHER, PARTNER)
    assert file.stat().st_mode & 0o777 == 0o600
    with pytest.raises(FederationError, match=r"`partner\.org` is known already"):
        relations.create(PARTNER, nothing)
    relations.delete("partner.org", nothing)
    assert Relations(file).all() == relations.all() == (OTHER,)
    with pytest.raises(NotFound, match=r"no command made `partner\.org` known"):
        relations.delete("partner.org", nothing)


def test_what_is_not_on_record_is_not_done(tmp_path: Path) -> None:
    relations = Relations(tmp_path / "federation.json")
    with pytest.raises(JournalError):
        relations.create(PARTNER, full)
    assert Relations(tmp_path / "federation.json").all() == relations.all() == ()


def test_so_many_are_known_and_no_more(tmp_path: Path) -> None:
    relations = Relations(tmp_path / "federation.json")
    for number in range(MAX_RELATIONS):
        relations.create(FederatedSettings(trust_domain=f"d{number}.org"), nothing)
    with pytest.raises(FederationError, match="64 other trust domains are known"):
        relations.create(PARTNER, nothing)


@pytest.mark.parametrize("text", ["{", '[{"trustDomain": "UPPER"}]', '[{"a": 1}]', "\udcff"])
def test_a_broken_file_is_not_taken_for_none(text: str, tmp_path: Path) -> None:
    file = tmp_path / "federation.json"
    file.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(StateError, match="cannot be read"):
        Relations(file)


def test_the_settings_say_what_holds_of_what_they_name_themselves(tmp_path: Path) -> None:
    relations = Relations(tmp_path / "federation.json")
    for one in (PARTNER, OTHER, FederatedSettings(trust_domain="cluster.local")):
        relations.create(one, nothing)
    named = "ca: {federation: [{trustDomain: partner.org}]}"
    both = with_relations(parse_settings(named), relations.text()).ca.federation
    assert both == (FederatedSettings(trust_domain="partner.org"), OTHER)
    assert with_relations(parse_settings(named), None) == parse_settings(named)
