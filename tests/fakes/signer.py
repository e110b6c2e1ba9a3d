"""The control plane as an agent's book sees it: signs certificates and tokens, or does what it is told to instead."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from policyd.errors import PolicydError
from policyd.spiffe import SpiffeId
from policyd.svid import bundle as jwk_set
from policyd.svid.bundle import JwtKey
from proxy.identity import Bundle
from tests.fakes.issuer import signed
from tests.fakes.toy_ca import ToyCa


class FakeControl:
    """`failure` is what every call ends with; `signed` and `tokens` are what was asked for."""

    def __init__(self, life: timedelta = timedelta(hours=1)) -> None:
        self.ca = ToyCa()
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.kid = "k1"
        self.sequence = 1
        self.life = life
        self.failure: PolicydError | None = None
        self.refused: dict[SpiffeId, PolicydError] = {}
        self.signed: list[tuple[SpiffeId, tuple[str, ...]]] = []
        self.tokens: list[tuple[SpiffeId, tuple[str, ...], tuple[str, ...]]] = []

    @property
    def bundle(self) -> Bundle:
        keys = jwk_set.Bundle(self.ca.trust_domain, jwt_keys=(JwtKey(self.kid, self.key.public_key()),))
        return Bundle(self.ca.trust_domain, (self.ca.root.der,), self.sequence, jwk_set.write(keys))

    async def sign(
        self, spiffe_id: SpiffeId, csr: bytes, selectors: Sequence[str] = ()
    ) -> tuple[tuple[bytes, ...], Bundle]:
        self._fail(spiffe_id)
        self.signed.append((spiffe_id, tuple(selectors)))
        key: Any = x509.load_der_x509_csr(csr).public_key()
        return self.ca.sign(key, [str(spiffe_id)], life=self.life), self.bundle

    async def sign_jwt(
        self, spiffe_id: SpiffeId, audiences: Sequence[str], selectors: Sequence[str]
    ) -> tuple[str, datetime]:
        self._fail(spiffe_id)
        self.tokens.append((spiffe_id, tuple(audiences), tuple(selectors)))
        ends = int(time.time()) + 300
        return self.token(str(spiffe_id), list(audiences), ends), datetime.fromtimestamp(ends, UTC)

    def token(self, subject: str, audiences: Sequence[str], ends: int) -> str:
        header = {"alg": "ES256", "kid": self.kid, "typ": "JWT"}
        return signed(header, {"sub": subject, "aud": audiences, "exp": ends, "n": len(self.tokens)}, self.key)

    def _fail(self, spiffe_id: SpiffeId) -> None:
        if failure := self.refused.get(spiffe_id) or self.failure:
            raise failure
