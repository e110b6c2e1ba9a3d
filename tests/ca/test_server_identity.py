"""policyd's own certificate is renewed at half of its life, and holds while renewal fails."""

from __future__ import annotations

import pytest
from cryptography import x509

from policyd.ca.server_identity import ServerIdentity
from policyd.errors import JournalError, PolicydError
from tests.ca.samples import Office

MINUTE = 60


def test_the_chain_is_leaf_intermediate_and_root() -> None:
    office = Office()
    served = ServerIdentity(office.issuer, office.clock).current()
    leaf, *authority = x509.load_pem_x509_certificates(served.chain)
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert authority == [office.authority.intermediate, office.authority.root]
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == ["spiffe://cluster.local/policyd/server"]
    assert names.get_values_for_type(x509.DNSName) == ["policyd"]
    assert x509.load_pem_x509_certificates(served.roots) == [office.authority.root]
    assert served.key.decode() not in repr(served)


def test_it_is_renewed_at_half_of_its_life() -> None:
    office = Office()
    identity = ServerIdentity(office.issuer, office.clock)
    first = identity.current()
    office.clock.advance(29 * MINUTE)
    assert identity.current() is first
    office.clock.advance(1 * MINUTE)
    second = identity.current()
    assert (second.key != first.key, second.not_after > first.not_after) == (True, True)


def test_a_renewal_that_fails_keeps_the_old_one_until_its_end() -> None:
    office, heard = Office(), list[PolicydError]()
    identity = ServerIdentity(office.issuer, office.clock, heard.append)
    first = identity.current()
    office.recorder.full = True
    office.clock.advance(59 * MINUTE)
    assert identity.current() is first
    assert [error.code for error in heard] == ["journal"]
    office.clock.advance(1 * MINUTE)
    with pytest.raises(JournalError):
        identity.current()
    office.recorder.full = False
    assert identity.current() is not first
