"""Ratings: stars by reviewer, kept in memory."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from bookinfo.faults import Fault, fault
from bookinfo.settings import Settings
from bookinfo.shapes import Ratings, Votes
from bookinfo.web import book_id, error, json, main, service

MAX_BOOKS = 1000
INITIAL = {"Reviewer1": 5, "Reviewer2": 4}


class RatingsService:
    """The routes, and the ratings that were posted to this instance."""

    def __init__(self, version: str, clock: Callable[[], float], chance: Callable[[], float]) -> None:
        self._version, self._clock, self._chance = version, clock, chance
        self._started = clock()
        self._posted: dict[int, dict[str, int]] = {}

    def routes(self) -> list[Route]:
        """Return what the service answers to."""
        return [
            Route("/ratings/{id}", self.get, methods=["GET"]),
            Route("/ratings/{id}", self.post, methods=["POST"]),
            Route("/health", self.health),
        ]

    async def get(self, request: Request) -> Response:
        """Answer with what was posted last, else the two ratings that there are from the start."""
        book = book_id(request)
        fault = self._fault()
        await asyncio.sleep(fault.delay)
        if fault.unavailable:
            return error("Service unavailable", 503)
        return json(Ratings(book, self._posted.get(book, INITIAL)))

    async def post(self, request: Request) -> Response:
        """Keep `{reviewer: stars}` for a book."""
        book = book_id(request)
        try:
            votes = msgspec.json.decode(await request.body(), type=Votes)
        except (ValueError, RecursionError):
            raise HTTPException(400, "please provide ratings as JSON: stars from 0 to 5 by reviewer") from None
        if book not in self._posted and len(self._posted) >= MAX_BOOKS:
            raise HTTPException(507, f"ratings of {MAX_BOOKS} books are kept, no more")
        self._posted[book] = votes
        return json(Ratings(book, votes))

    async def health(self, _: Request) -> Response:
        """Say whether the instance wants requests."""
        if self._fault().unhealthy:
            return json({"status": "Ratings is not healthy"}, 500)
        return json({"status": "Ratings is healthy"})

    def _fault(self) -> Fault:
        return fault(self._version, self._clock() - self._started, self._chance())


def build(
    settings: Settings, clock: Callable[[], float] = time.monotonic, chance: Callable[[], float] = random.random
) -> Starlette:
    """Make the application."""
    return service(RatingsService(settings.version, clock, chance).routes())


if __name__ == "__main__":
    main(build)
