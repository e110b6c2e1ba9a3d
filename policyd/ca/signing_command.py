"""A program that signs: what is to be signed on its input, the signature on its output.

Law: it is started as it is named, by no shell, and ended where it takes longer than a signer may.
"""

from __future__ import annotations

import subprocess
from dataclasses import dataclass

from policyd.ca.elsewhere import MAX_SAID, MAX_SIGNATURE, SECONDS
from policyd.errors import IdentityError


@dataclass(frozen=True, slots=True)
class SigningCommand:
    """The program and its arguments."""

    command: tuple[str, ...]

    @property
    def name(self) -> str:
        """The program's."""
        return self.command[0]

    def __call__(self, data: bytes) -> bytes:
        """What it writes; raises IdentityError."""
        try:
            done = subprocess.run(self.command, input=data, capture_output=True, timeout=SECONDS, check=False)
        except subprocess.TimeoutExpired:
            raise IdentityError(f"`{self.name}` did not sign within {SECONDS:g} seconds") from None
        except OSError as error:
            raise IdentityError(f"`{self.name}` cannot be started: {error.strerror}") from error
        if done.returncode != 0:
            said = done.stderr.decode("utf-8", "replace").strip()[:MAX_SAID]
            raise IdentityError(f"`{self.name}` signs nothing, it ended with {done.returncode}: {said}")
        return done.stdout[:MAX_SIGNATURE]
