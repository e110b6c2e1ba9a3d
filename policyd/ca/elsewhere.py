"""A key that is held elsewhere, as in a hardware module: a signer signs with it, and is all that knows it.

Law: a signer gets what is to be signed, whole, and answers with the signature (ECDSA with SHA-256, DER), within
seconds; what it answers is bounded, and verified before it is used.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, NoReturn, Protocol

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed

from policyd.errors import IdentityError

SECONDS: Final = 5.0
MAX_SIGNATURE: Final = 256  # bytes
MAX_SAID: Final = 300  # characters of what it complains of


class Signer(Protocol):
    """Who signs: a program (signing_command), or a service (signing_service)."""

    @property
    def name(self) -> str:
        """Of it, for people."""

    def __call__(self, data: bytes, /) -> bytes:
        """What it answers, of at most MAX_SIGNATURE bytes; raises IdentityError where it signs nothing."""


@dataclass(frozen=True)
class ElsewhereKey(ec.EllipticCurvePrivateKey):
    """Signs by `signer`; its public half is that of the certificate."""

    signer: Signer
    public: ec.EllipticCurvePublicKey

    def sign(self, data: Any, signature_algorithm: ec.EllipticCurveSignatureAlgorithm) -> bytes:
        """The signature of `data`; raises IdentityError where none comes that is right."""
        if isinstance(signature_algorithm.algorithm, Prehashed):
            raise IdentityError("a key that is held elsewhere hashes by itself")
        signature = self.signer(bytes(data))[:MAX_SIGNATURE]
        try:
            self.public.verify(signature, bytes(data), signature_algorithm)
        except InvalidSignature:
            raise IdentityError(
                f"what `{self.signer.name}` answers is no signature by the certificate's key",
                remedy="it gives ECDSA with SHA-256 in DER, of all that it gets",
            ) from None
        return signature

    def public_key(self) -> ec.EllipticCurvePublicKey:
        """The public half."""
        return self.public

    @property
    def curve(self) -> ec.EllipticCurve:
        """Its curve."""
        return self.public.curve

    @property
    def key_size(self) -> int:
        """In bits."""
        return self.public.key_size

    def exchange(self, algorithm: ec.ECDH, peer_public_key: ec.EllipticCurvePublicKey) -> NoReturn:
        """Not with a key that signs."""
        raise _elsewhere()

    def private_numbers(self) -> NoReturn:
        """Nobody here knows them."""
        raise _elsewhere()

    def private_bytes(self, *_: object) -> NoReturn:
        """Nobody here knows them."""
        raise _elsewhere()

    def __copy__(self) -> ElsewhereKey:
        """Itself."""
        return self

    def __deepcopy__(self, _: object) -> ElsewhereKey:
        """Itself."""
        return self


def _elsewhere() -> IdentityError:
    return IdentityError("the key is held elsewhere")
