"""The stars of reviews v2 and v3: asked of ratings, coloured here. v1 never loads this, nor an HTTP client."""

from __future__ import annotations

from collections.abc import Iterable

from starlette.requests import Request

from bookinfo.settings import Settings
from bookinfo.shapes import Rating, Ratings
from bookinfo.texts import NO_RATINGS
from bookinfo.upstream import Patience, Upstreams, propagated

BLACK_SECONDS = 10.0
"""How long v2 waits for ratings."""
COLOURED_SECONDS = 2.5
"""How long v3 waits for ratings."""


def patience_for(star_color: str) -> Patience:
    """Return how long a version waits for ratings: other colours than black are in a hurry."""
    return Patience(BLACK_SECONDS if star_color == "black" else COLOURED_SECONDS)


def rate(reviewer: str, ratings: Ratings | None, color: str) -> Rating:
    """Return the stars that a reviewer gave, or that there are none to be had."""
    stars = ratings.ratings.get(reviewer) if ratings else None
    return Rating(error=NO_RATINGS) if stars is None else Rating(stars=stars, color=color)


class Stars:
    """Asks ratings, on behalf of a request."""

    def __init__(self, settings: Settings, patience: Patience | None = None) -> None:
        self._color = settings.star_color
        self._patience = patience or patience_for(settings.star_color)
        self._upstreams = Upstreams(settings.addresses)

    async def rate(self, request: Request, book: int, reviewers: Iterable[str]) -> dict[str, Rating]:
        """Return a rating for each reviewer, an error where there is none."""
        answer = await self._upstreams.get("ratings", book, Ratings, propagated(request), self._patience)
        return {reviewer: rate(reviewer, answer.body, self._color) for reviewer in reviewers}

    async def close(self) -> None:
        """Close all connections."""
        await self._upstreams.close()
