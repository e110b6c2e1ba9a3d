"""Productpage: the shop window. It shows a book with what details and reviews say, and has a small JSON API."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from urllib.parse import parse_qs, urlsplit

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from bookinfo.book import PRODUCT
from bookinfo.page import Pages, Service
from bookinfo.results import MEDIA_TYPE, Results
from bookinfo.session import COOKIE, LIFETIME, USER_RULE, Sessions, check_user
from bookinfo.settings import Settings
from bookinfo.shapes import Details, Reviews
from bookinfo.shop import PATIENCE, SHAPES, Shop
from bookinfo.texts import sorry
from bookinfo.upstream import Patience, Upstreams
from bookinfo.web import book_id, error, json, main, service

OWN_PAGES = frozenset({"/", "/index.html", "/productpage"})


def build(
    settings: Settings,
    patience: Mapping[str, Patience] = PATIENCE,
    clock: Callable[[], float] = time.time,
) -> Starlette:
    """Make the application; `clock` gives seconds since 1970."""
    key = settings.session_key.encode() or secrets.token_bytes(32)
    upstreams = Upstreams(settings.addresses)
    results = Results()
    shop = Shop(upstreams, Sessions(key, clock), results, patience)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        await upstreams.close()

    return service(Productpage(settings, shop, Pages()).routes(), lifespan)


def back(referer: str) -> str:
    """Return where to go after signing in or out: the own page one came from, never anywhere else."""
    try:
        path = urlsplit(referer).path
    except ValueError:
        return "/productpage"
    return path if path in OWN_PAGES else "/productpage"


class Productpage:
    """The routes."""

    def __init__(self, settings: Settings, shop: Shop, pages: Pages) -> None:
        self._shop, self._pages = shop, pages
        self._services = (
            Service("productpage", settings.instance, "details, reviews"),
            Service("details", settings.addresses["details"], ""),
            Service("reviews", settings.addresses["reviews"], "ratings"),
            Service("ratings", settings.addresses["ratings"], ""),
        )

    def routes(self) -> list[Route]:
        """Return what the service answers to."""
        return [
            Route("/", self.index),
            Route("/index.html", self.index),
            Route("/productpage", self.page),
            Route("/login", self.login, methods=["POST"]),
            Route("/logout", self.logout),
            Route("/static/{name}", self.static),
            Route("/health", self.health),
            Route("/metrics", self.metrics),
            Route("/api/v1/products", self.products),
            Route("/api/v1/products/{id}", self.product),
            Route("/api/v1/products/{id}/{part}", self.part),
        ]

    async def index(self, request: Request) -> Response:
        """Show what the application consists of."""
        return self._pages.index(self._shop.user(request), self._services)

    async def page(self, request: Request) -> Response:
        """Show the book; what cannot be had is said in its place."""
        details, reviews = await asyncio.gather(
            self._shop.get(request, "details", PRODUCT.id, Details),
            self._shop.get(request, "reviews", PRODUCT.id, Reviews),
        )
        return self._pages.product(self._shop.user(request), details.body, reviews.body)

    async def login(self, request: Request) -> Response:
        """Sign in whoever asks, whatever the password."""
        try:
            form = parse_qs((await request.body()).decode(), max_num_fields=10)
            user = check_user(form.get("username", [""])[0])
        except ValueError:
            raise HTTPException(400, USER_RULE) from None
        response = RedirectResponse(back(request.headers.get("referer", "")), 302)
        response.set_cookie(COOKIE, self._shop.sessions.seal(user), max_age=LIFETIME, httponly=True, samesite="lax")
        return response

    async def logout(self, request: Request) -> Response:
        """Forget who is signed in."""
        response = RedirectResponse(back(request.headers.get("referer", "")), 302)
        response.delete_cookie(COOKIE, httponly=True, samesite="lax")
        return response

    async def static(self, request: Request) -> Response:
        """Send the style sheet or the icon."""
        response = self._pages.static(request.path_params["name"])
        return response or error("Not Found", 404)

    async def health(self, _: Request) -> Response:
        """Say that the service runs."""
        return PlainTextResponse("Product page is healthy")

    async def metrics(self, _: Request) -> Response:
        """Report the results of calls to other services."""
        return Response(self._shop.results.render(), media_type=MEDIA_TYPE)

    async def products(self, _: Request) -> Response:
        """List the books: one."""
        return json([PRODUCT])

    async def product(self, request: Request) -> Response:
        """Relay what details says of a book."""
        return await self._relay(request, "details")

    async def part(self, request: Request) -> Response:
        """Relay the reviews or the ratings of a book."""
        if request.path_params["part"] not in ("reviews", "ratings"):
            raise HTTPException(404)
        return await self._relay(request, request.path_params["part"])

    async def _relay(self, request: Request, service: str) -> Response:
        answer = await self._shop.get(request, service, book_id(request), SHAPES[service])
        if answer.body is None:
            return error(sorry(service), answer.status)
        return json(msgspec.to_builtins(answer.body))


if __name__ == "__main__":
    main(build)
