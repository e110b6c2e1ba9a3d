"""The issuer that people log in with, asked over HTTPS: what it publishes, and a code for a token.

Law: thin. No redirect is followed and no proxy of the environment used; what comes is bounded in size and time. What is
published is kept for a while; a token by a key that is not known asks for the keys once more.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import httpx

from policyd.console.oidc import LoginFailed, NotSigned, Places, places_of, subject_of
from policyd.mesh.istio.request_authentication import DISCOVERY, is_fetchable

KEPT_SECONDS: Final = 300.0
PATIENCE_SECONDS: Final = 10.0
MAX_ANSWER: Final = 256 << 10  # bytes


@dataclass(slots=True)
class Provider:
    """One issuer, and who we are to it; `secret` is "" for a client without one. `clock` never goes back."""

    issuer: str
    client_id: str
    secret: str = field(repr=False)
    clock: Callable[[], float]
    _places: Places | None = None
    _keys: str = ""
    _asked: float = 0.0
    _one: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def places(self) -> Places:
        """Where it is asked; raises LoginFailed."""
        async with self._one:
            if self._places is None or self.clock() - self._asked > KEPT_SECONDS:
                await self._look()
            assert self._places is not None
            return self._places

    async def subject(self, code: str, verifier: str, back: str, nonce: str, now: Callable[[], int]) -> str:
        """Whom a code is of; raises LoginFailed."""
        places = await self.places()
        token = await self._token(places, code, verifier, back)
        try:
            return subject_of(token, self._keys, self.issuer, self.client_id, nonce, now())
        except NotSigned:
            async with self._one:
                before = self._keys
                await self._look()
            if self._keys == before:
                raise
        return subject_of(token, self._keys, self.issuer, self.client_id, nonce, now())

    async def _look(self) -> None:
        """Read what it publishes."""
        document = await _asked("GET", self.issuer.removesuffix("/") + DISCOVERY)
        places = places_of(document, self.issuer, is_fetchable)
        self._keys = json.dumps(await _asked("GET", places.keys))
        self._places, self._asked = places, self.clock()

    async def _token(self, places: Places, code: str, verifier: str, back: str) -> str:
        form = {"grant_type": "authorization_code", "code": code, "redirect_uri": back, "code_verifier": verifier}
        identity = (self.client_id, self.secret) if self.secret else None
        found = await _asked(
            "POST", places.token, form if identity else {**form, "client_id": self.client_id}, identity
        )
        token = found.get("id_token") if isinstance(found, Mapping) else None
        if not isinstance(token, str):
            raise LoginFailed("the issuer gave no ID token for the code")
        return token


async def _asked(method: str, url: str, form: Mapping[str, str] | None = None, who: Any = None) -> Any:
    """The JSON of an answer; raises LoginFailed."""
    try:
        async with (
            asyncio.timeout(PATIENCE_SECONDS),
            httpx.AsyncClient(trust_env=False, timeout=PATIENCE_SECONDS) as client,
            client.stream(method, url, data=form, auth=who, headers={"accept": "application/json"}) as answer,
        ):
            return json.loads(await _body(answer, url))
    except (httpx.HTTPError, httpx.InvalidURL, TimeoutError) as error:
        raise LoginFailed(f"the issuer does not answer at `{_shown(url)}`: {type(error).__name__}") from None
    except (ValueError, RecursionError):
        raise LoginFailed(f"the issuer's answer at `{_shown(url)}` is no JSON") from None


async def _body(answer: httpx.Response, url: str) -> bytes:
    if answer.status_code != httpx.codes.OK:
        raise LoginFailed(f"the issuer answers {answer.status_code} at `{_shown(url)}`")
    body = b""
    async for chunk in answer.aiter_bytes():
        body += chunk
        if len(body) > MAX_ANSWER:
            raise LoginFailed(f"the issuer's answer at `{_shown(url)}` is too large")
    return body


def _shown(url: str) -> str:
    return url.partition("?")[0][:200]
