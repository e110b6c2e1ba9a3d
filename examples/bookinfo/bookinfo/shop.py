"""What productpage gets from the other services, and how long it waits for each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TypeVar

from starlette.requests import Request

from bookinfo.results import Results
from bookinfo.session import COOKIE, Sessions
from bookinfo.shapes import Details, Ratings, Reviews
from bookinfo.upstream import Answer, Headers, Patience, Upstreams, propagated

T = TypeVar("T")

PATIENCE: Mapping[str, Patience] = MappingProxyType({
    "details": Patience(seconds=3.0),
    # Twice 3 s is less than the 7 s of the fault injection that mesh users know, and less than reviews itself waits.
    "reviews": Patience(seconds=3.0, attempts=2),
    "ratings": Patience(seconds=3.0),
})  # fmt: skip
SHAPES: Mapping[str, type[Details] | type[Reviews] | type[Ratings]] = MappingProxyType({
    "details": Details, "reviews": Reviews, "ratings": Ratings,
})  # fmt: skip
"""What each service answers with."""


@dataclass(frozen=True, slots=True)
class Shop:
    """Calls the other services on behalf of a request."""

    upstreams: Upstreams
    sessions: Sessions
    results: Results
    patience: Mapping[str, Patience]

    def user(self, request: Request) -> str | None:
        """Return who is signed in."""
        return self.sessions.open(request.cookies.get(COOKIE, ""))

    async def get(self, request: Request, service: str, book: int, shape: type[T]) -> Answer[T]:
        """Ask a service and count the result."""
        answer = await self.upstreams.get(service, book, shape, self._headers(request), self.patience[service])
        self.results.count(service, answer.status)
        return answer

    def _headers(self, request: Request) -> Headers:
        """Only the session says who the end user is; a caller's own word for it goes no further."""
        headers = [(name, value) for name, value in propagated(request) if name != b"end-user"]
        user = self.user(request)
        return [*headers, (b"end-user", user.encode())] if user else headers
