"""A service that signs: POST with what is to be signed as its body, the signature as that of the answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from policyd.ca.elsewhere import MAX_SIGNATURE
from policyd.ca.web import Service

TYPE: Final = "application/octet-stream"


@dataclass(frozen=True, slots=True)
class SigningService:
    """Signs by asking `service`."""

    service: Service

    @property
    def name(self) -> str:
        """Its address."""
        return self.service.url

    def __call__(self, data: bytes) -> bytes:
        """What it answers; raises IdentityError."""
        return self.service.ask("POST", data, TYPE, MAX_SIGNATURE)
