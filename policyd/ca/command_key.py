"""A key that is held elsewhere, as in a hardware module: a program signs with it and is all that knows it.

Law: the program gets what is to be signed on its input and answers with the signature (ECDSA with SHA-256, DER), within
seconds; what it answers is verified before it is used. It is started as it is named, by no shell.
"""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from typing import Any, Final, NoReturn

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed

from policyd.errors import IdentityError

SECONDS: Final = 5.0
MAX_SIGNATURE: Final = 256  # bytes
MAX_SAID: Final = 300  # characters of what it complains of


@dataclass(frozen=True)
class CommandKey(ec.EllipticCurvePrivateKey):
    """Signs by `command`; its public half is that of the certificate."""

    command: tuple[str, ...]
    public: ec.EllipticCurvePublicKey

    def sign(self, data: Any, signature_algorithm: ec.EllipticCurveSignatureAlgorithm) -> bytes:
        """The program's signature of `data`; raises IdentityError where it gives none that is right."""
        if isinstance(signature_algorithm.algorithm, Prehashed):
            raise IdentityError("a key behind a command hashes by itself")
        try:
            done = subprocess.run(self.command, input=bytes(data), capture_output=True, timeout=SECONDS, check=False)
        except subprocess.TimeoutExpired:
            raise IdentityError(f"`{self.command[0]}` did not sign within {SECONDS:g} seconds") from None
        except OSError as error:
            raise IdentityError(f"`{self.command[0]}` cannot be started: {error.strerror}") from error
        if done.returncode != 0:
            said = done.stderr.decode("utf-8", "replace").strip()[:MAX_SAID]
            raise IdentityError(f"`{self.command[0]}` signs nothing, it ended with {done.returncode}: {said}")
        try:
            self.public.verify(done.stdout[:MAX_SIGNATURE], bytes(data), signature_algorithm)
        except InvalidSignature:
            raise IdentityError(
                f"what `{self.command[0]}` answers is no signature by the certificate's key",
                remedy="it writes ECDSA with SHA-256 in DER, of its whole input",
            ) from None
        return done.stdout[:MAX_SIGNATURE]

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

    def __copy__(self) -> CommandKey:
        """Itself."""
        return self

    def __deepcopy__(self, _: object) -> CommandKey:
        """Itself."""
        return self


def _elsewhere() -> IdentityError:
    return IdentityError("the key is held elsewhere")
