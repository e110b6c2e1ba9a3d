"""Every way in which identity is attacked, and the test that shows it refused: one table, which cannot go stale.

A row names a test, and where it is one row of a table there, that row too; both have to be found in the file.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

X509, CHECK = "svid/test_x509.py", "ca/test_check.py"
REFUSED: list[tuple[str, str, str, str]] = [
    # what is tried, the file, the test, the row of its table
    ("a join token used by two at once", "ca/test_tokens.py", "test_of_many_claims_at_once_one_wins", ""),
    ("a join token used again", "ca/test_tokens.py", "test_a_token_is_claimed_once_and_registers_its_agent", ""),
    ("a join token after its end", "ca/test_tokens.py", "test_a_token_ends_after_its_time", ""),
    (
        "why a token was refused, asked by whoever guesses",
        "ca/test_service.py", "test_wrong_used_and_expired_tokens_look_the_same_and_are_told_apart_on_record", "",
    ),
    ("attestation said again", "ca/test_service.py", "test_an_attestation_that_is_said_again_gets_nothing", ""),
    ("a request with another's key", "ca/test_csr.py", "test_a_key_in_place_of_another_is_not_proven", ""),
    ("a request with the authority's key", "ca/test_csr.py", "test_the_authority_s_own_key_is_refused", ""),
    ("a request with a broken signature", "ca/test_csr.py", "test_a_request_for_anything_else_is_refused", "a bad sig"),
    ("a request with extra extensions", "ca/test_csr.py", "test_a_request_for_anything_else_is_refused", "a purpose"),
    ("a request to be a CA", "ca/test_csr.py", "test_a_request_for_anything_else_is_refused", "to be an authority"),
    ("a request with another's URI", "ca/test_csr.py", "test_a_request_for_anything_else_is_refused", "a foreign URI"),
    ("a request with two URIs", "ca/test_csr.py", "test_a_request_for_anything_else_is_refused", "a second URI"),
    ("a weak key", "ca/test_csr.py", "test_a_request_for_anything_else_is_refused", "weak RSA"),
    ("an odd key", "ca/test_csr.py", "test_a_request_for_anything_else_is_refused", "a Bitcoin curve"),
    ("a key that costs too much", "ca/test_check.py", "test_a_key_that_tls_cannot_use_well_is_refused", "8192 bits"),
    ("an SVID past its end, verified", X509, "test_a_leaf_with_one_thing_wrong_is_refused", "compare the clocks"),
    ("an SVID past its end, signed", "ca/test_check.py", "test_an_expired_certificate_is_refused", ""),
    (
        "an SVID past its end, on a connection that was opened before",
        "ca/test_service.py", "test_a_connection_that_outlives_its_certificate_is_refused", "",
    ),
    ("an SVID with two URIs, verified", X509, "test_a_leaf_with_one_thing_wrong_is_refused", "exactly one"),
    ("an SVID with two URIs, signed", CHECK, "test_a_certificate_with_one_thing_wrong_is_refused", "two URIs"),
    ("a bundle with zero keys", "svid/test_bundle.py", "test_a_bundle_with_zero_keys_is_one_that_trusts_nobody", ""),
    (
        "a bundle with zero keys, of another trust domain",
        "sources/test_federation.py", "test_a_bundle_with_zero_keys_makes_its_workloads_strangers", "",
    ),
    (
        "a session that is resumed after a bundle changed",
        "e2e/test_federation.py", "test_a_trust_domain_that_is_known_no_more_is_one_of_strangers", "",
    ),
    ("a token without an end", "svid/test_jwt.py", "test_a_token_with_one_thing_wrong_is_refused", "no exp"),
    ("a token with alg none", "svid/test_jwt.py", "test_a_token_with_one_thing_wrong_is_refused", "alg none"),
    ("a token with a foreign kid", "svid/test_jwt.py", "test_a_token_with_one_thing_wrong_is_refused", "a foreign kid"),
    (
        "a token of one trust domain signed by another",
        "proxy/test_workload_api.py",
        "test_a_token_of_another_trust_domain_is_good_by_that_one_s_keys_alone", "",
    ),
    (
        "a bundle endpoint with the wrong trust domain",
        "sources/test_federation.py", "test_what_is_no_better_bundle_of_that_trust_domain_is_refused",
        "another trust domain",
    ),
    (
        "a bundle endpoint that gives an older bundle",
        "sources/test_federation.py", "test_what_is_no_better_bundle_of_that_trust_domain_is_refused", "older",
    ),
    (
        "a bundle endpoint that is huge",
        "sources/test_bundle_fetch.py", "test_an_answer_that_is_no_bundle_is_refused_within_bounds", "huge",
    ),
    ("a bundle endpoint that is slow", "sources/test_bundle_fetch.py", "test_who_is_slow_is_not_waited_for", ""),
    (
        "a bundle endpoint that is somebody else",
        "sources/test_bundle_fetch.py", "test_whoever_is_not_the_endpoint_is_not_read", "another workload",
    ),
    (
        "an agent that asks for another workload",
        "ca/test_service.py", "test_an_identity_that_is_not_registered_to_the_agent_is_refused_and_recorded", "",
    ),
    (
        "an agent that asks for another workload's token",
        "ca/test_service.py", "test_an_agent_gets_no_token_of_another_workload_nor_a_bad_one", "",
    ),
    ("a path in the name of an agent", "test_join_token.py", "test_what_is_no_token_is_refused", "../etc"),
    ("a path in the name of an instance", "proxy/test_control.py", "test_one_wrong_part_refuses_the_whole", "../web"),
    ("a path in a SPIFFE ID", "test_spiffe.py", "test_what_is_no_id_is_refused", "/../a"),
    (
        "a path in the name of a trust domain",
        "sources/test_federation.py", "test_a_trust_domain_that_no_operator_named_is_none", "../partner.org",
    ),
    (
        "an authority's key that others can read",
        "ca/test_keystore.py", "test_a_damaged_store_stops_the_start_and_nothing_is_made_anew", "others may use it",
    ),
    (
        "a passphrase that others can read",
        "ca/test_keystore.py", "test_an_empty_or_open_passphrase_file_is_refused", "",
    ),
    ("an agent's key that others can read", "proxy/test_state.py", "test_a_file_that_others_can_read_is_not_used", ""),
    (
        "a bundle endpoint's key that others can read",
        "server/test_bundle_endpoint.py", "test_files_that_cannot_be_shown_stop_the_start", "readable by others",
    ),
    ("a database that others can read", "ca/test_tokens.py", "test_a_file_that_others_may_use_is_refused", ""),
]  # fmt: skip


@pytest.mark.parametrize(("file", "test", "row"), [one[1:] for one in REFUSED], ids=[one[0] for one in REFUSED])
def test_what_is_refused_has_its_test(file: str, test: str, row: str) -> None:
    text = (Path(__file__).parent / file).read_text(encoding="utf-8")
    assert re.search(rf"^(async )?def {test}", text, re.MULTILINE), f"`{test}` is no test of `{file}`"
    assert row in text, f"no row of `{file}` has `{row}`"


def test_each_is_said_once() -> None:
    sentences = [one[0] for one in REFUSED]
    assert len(set(sentences)) == len(sentences)
