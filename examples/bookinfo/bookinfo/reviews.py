"""Reviews: what two readers think; v1 without stars, v2 with black ones, v3 with red ones."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from bookinfo.settings import Settings
from bookinfo.shapes import Review, Reviews
from bookinfo.web import book_id, json, main, service

if TYPE_CHECKING:
    from bookinfo.stars import Stars
    from bookinfo.upstream import Patience

TEXTS = {
    "Reviewer1": "Two hours of doors opening at exactly the wrong moment. I have not laughed so much since the "
    "last shipwreck.",
    "Reviewer2": "The jokes land and the twins are a joy. Do not look for depth: nobody on this stage stands "
    "still for long enough to have any.",
}


def build(settings: Settings, patience: Patience | None = None) -> Starlette:
    """Make the application; `patience` replaces how long it waits for ratings."""
    if not settings.ratings_enabled:
        return service(ReviewsService(settings).routes())
    from bookinfo.stars import Stars  # v1 calls nobody, and starts faster for it

    stars = Stars(settings, patience)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        await stars.close()

    return service(ReviewsService(settings, stars).routes(), lifespan)


class ReviewsService:
    """The routes; without `stars` reviews have no ratings."""

    def __init__(self, settings: Settings, stars: Stars | None = None) -> None:
        self._settings, self._stars = settings, stars

    def routes(self) -> list[Route]:
        """Return what the service answers to."""
        return [Route("/reviews/{id}", self.get), Route("/health", self.health)]

    async def get(self, request: Request) -> Response:
        """Answer with the reviews of a book, rated where this version rates."""
        book = book_id(request)
        ratings = await self._stars.rate(request, book, TEXTS) if self._stars else {}
        reviews = tuple(Review(reviewer, text, ratings.get(reviewer)) for reviewer, text in TEXTS.items())
        return json(Reviews(str(book), self._settings.instance, self._settings.cluster, reviews))

    async def health(self, _: Request) -> Response:
        """Say that the service runs."""
        return json({"status": "Reviews is healthy"})


if __name__ == "__main__":
    main(build)
