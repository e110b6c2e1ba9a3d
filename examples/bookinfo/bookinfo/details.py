"""Details: what stands on the title page of a book."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from bookinfo.settings import Settings
from bookinfo.shapes import Details
from bookinfo.web import book_id, json, main, service


def details(book: int) -> Details:
    """Every book is the same book, under the number asked for."""
    return Details(
        id=book,
        author="William Shakespeare",
        year=1595,
        type="paperback",
        pages=200,
        publisher="PublisherA",
        language="English",
        isbn_10="1234567890",
        isbn_13="123-1234567890",
    )


def build(_: Settings) -> Starlette:
    """Make the application."""
    return service([Route("/details/{id}", _details), Route("/health", _health)])


async def _details(request: Request) -> Response:
    return json(details(book_id(request)))


async def _health(_: Request) -> Response:
    return json({"status": "Details is healthy"})


if __name__ == "__main__":
    main(build)
