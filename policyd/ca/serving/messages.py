"""Certificates and bundles as agents get them."""

from __future__ import annotations

from policyd._pb import agent_pb2
from policyd.ca.authority import Svid
from policyd.svid.bundle import JWT_SVID, Bundle, write


class BundleMessages:
    """Bundles as they are sent; the last one is kept, since it goes out with every certificate."""

    def __init__(self) -> None:
        self._last: tuple[Bundle, agent_pb2.Bundle] | None = None

    def of(self, bundle: Bundle) -> agent_pb2.Bundle:
        """The message of `bundle`."""
        if self._last is None or self._last[0] is not bundle:
            self._last = (bundle, bundle_message(bundle))
        return self._last[1]


def svid_message(svid: Svid, bundle: agent_pb2.Bundle) -> agent_pb2.Svid:
    """An SVID with what its peers are verified by."""
    return agent_pb2.Svid(spiffe_id=str(svid.spiffe_id), chain=svid.chain, bundle=bundle)


def bundle_message(bundle: Bundle) -> agent_pb2.Bundle:
    """What verifies identities of the trust domain."""
    return agent_pb2.Bundle(
        trust_domain=bundle.trust_domain,
        roots=bundle.roots,
        sequence=bundle.sequence,
        jwt_keys=write(bundle, (JWT_SVID,)),
    )
