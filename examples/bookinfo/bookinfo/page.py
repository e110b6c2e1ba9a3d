"""The pages as HTML: what is shown is decided here, how it looks is in templates/ and static/."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.responses import Response

from bookinfo.book import PRODUCT
from bookinfo.shapes import Details, Reviews
from bookinfo.texts import NO_RATINGS, sorry

HERE = Path(__file__).parent
MOST_STARS = 5
COLORS = frozenset({"black", "red", "orange", "gold", "green", "blue", "purple"})
"""The star colours that static/bookinfo.css knows."""
MEDIA_TYPES = MappingProxyType({".css": "text/css", ".svg": "image/svg+xml"})

HEADERS: Mapping[str, str] = MappingProxyType({
    "content-security-policy": "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "cache-control": "no-store",
})  # fmt: skip


def star_class(color: str | None) -> str:
    """Return the CSS class of a colour; one that the style sheet does not know looks like `other`."""
    return f"stars-{color}" if color in COLORS else "stars-other"


class Pages:
    """Templates and static files, read once."""

    def __init__(self) -> None:
        environment = Environment(
            loader=FileSystemLoader(HERE / "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        environment.globals.update(
            star_class=star_class, most_stars=MOST_STARS, product=PRODUCT, sorry=sorry, no_ratings=NO_RATINGS
        )
        self._product = environment.get_template("page.html")
        self._index = environment.get_template("index.html")
        self._static = {path.name: path.read_bytes() for path in sorted((HERE / "static").iterdir())}

    def product(self, user: str | None, details: Details | None, reviews: Reviews | None) -> Response:
        """Show the book, with what the other services had to say about it."""
        return _html(self._product.render(user=user, details=details, reviews=reviews))

    def index(self, user: str | None, services: tuple[Service, ...]) -> Response:
        """Show what the application consists of."""
        return _html(self._index.render(user=user, services=services))

    def static(self, name: str) -> Response | None:
        """Return a static file, None if there is none of that name."""
        content = self._static.get(name)
        if content is None:
            return None
        headers = {"cache-control": "no-cache", "x-content-type-options": "nosniff"}
        return Response(content, media_type=MEDIA_TYPES[Path(name).suffix], headers=headers)


@dataclass(frozen=True, slots=True)
class Service:
    """A row of the index: a service, where it is, and what it calls."""

    name: str
    address: str
    calls: str


def _html(text: str) -> Response:
    return Response(text, media_type="text/html", headers=HEADERS)
