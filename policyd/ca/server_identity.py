"""policyd's own certificate: renewed at half of its life and with its authority, handed to every new connection.

Law: the chain holds the root as well, so that a joining agent can pin it before it trusts anything. A renewal that
fails changes nothing while the old certificate lasts; the key never touches the disk.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import datetime

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from policyd.ca.authority import Authority, Svid
from policyd.ca.issuer import Issuer
from policyd.ca.server_certificate import ServerCertificate
from policyd.errors import PolicydError


class ServerIdentity:
    """Gives the certificate in force; safe for calls from gRPC's own threads.

    `failed` hears of a renewal that failed while the old certificate still holds.
    """

    def __init__(
        self,
        issuer: Issuer,
        clock: Callable[[], datetime],
        failed: Callable[[PolicydError], object] = lambda error: None,
    ) -> None:
        self._issuer = issuer
        self._clock = clock
        self._failed = failed
        self._lock = threading.Lock()
        self._authority = issuer.authority
        self._current = self._issue()

    def current(self) -> ServerCertificate:
        """The certificate for a connection of now; raises what issuing raises once the last one has ended."""
        with self._lock:
            now = self._clock()
            if now >= self._current.renew_at or self._issuer.authority is not self._authority:
                try:
                    self._current = self._issue()
                except PolicydError as error:
                    if now >= self._current.not_after:
                        raise
                    self._failed(error)
            return self._current

    def _issue(self) -> ServerCertificate:
        key, authority = ec.generate_private_key(ec.SECP256R1()), self._issuer.authority
        made = server_certificate(self._issuer.issue_server(key.public_key()), key, authority, self._clock())
        self._authority = authority
        return made


def server_certificate(
    svid: Svid, key: ec.EllipticCurvePrivateKey, authority: Authority, now: datetime
) -> ServerCertificate:
    """Put together what a TLS server needs; renewal is due at half of what is left of the certificate's life."""
    shown = (svid.leaf, svid.intermediate, *svid.above, authority.anchor)
    return ServerCertificate(
        key=key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        chain=b"".join(one.public_bytes(Encoding.PEM) for one in shown),
        roots=b"".join(root.public_bytes(Encoding.PEM) for root in authority.roots),
        not_after=svid.not_after,
        renew_at=now + (svid.not_after - now) / 2,
    )
