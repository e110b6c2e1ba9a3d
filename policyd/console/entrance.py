"""The way in: a link that opens once, the token of a file, or a login with the issuer that the settings name.

Law: a link is good for ten minutes, once, and only for the process that runs now; who guesses is slowed down. What
comes out is a cookie that no script reads and no other site sends.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qs, urlsplit

from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response

from policyd import tickets
from policyd.console.desk import desk_of, page, part
from policyd.console.oidc import LOGIN_SECONDS, LoginFailed, Logins, authorization_url, operator_of
from policyd.errors import PolicydError
from policyd.rate import Rate, RateLimit
from policyd.tickets import Ticket

if TYPE_CHECKING:
    from starlette.requests import Request

    from policyd.console.door import Rules
    from policyd.console.provider import Provider
    from policyd.console.sessions import Sessions

VISITOR: Final = "token:console"  # the Operator that the token proves
OPENED: Final = "console.open"
LEFT: Final = "console.leave"
LEFT_OTHERS: Final = "console.leave_others"
MIN_TOKEN: Final = 32  # characters
GUESSES: Final = Rate(per_second=0.5, burst=5)
BACK: Final = "/enter/back"
MAX_CODE: Final = 4_096  # characters
SLOWLY: Final = "too many tries; wait a little"
WRONG: Final = "this link has been used, has ended, or is of an earlier start; `policyd console` prints a new one"


@dataclass(slots=True)
class Entrance:
    """Who may come in. `token` is "" where none opens, `provider` None where nobody logs in; `since` is when this
    process began.
    """

    rules: Rules
    sessions: Sessions
    now: Callable[[], int]
    limit: RateLimit
    token: str = ""
    since: int = 0
    provider: Provider | None = None
    logins: Logins = field(default_factory=lambda: Logins(secrets.token_bytes))
    spent: dict[str, int] = field(default_factory=dict)

    async def get(self, request: Request) -> Response:
        """Open with a link, else say how."""
        if not request.query_params.get("link"):
            return await self._closed(request, 200, "")
        ticket = self._spend(request.query_params["link"])
        if ticket is None:
            return await self._closed(request, 403, WRONG)
        # a page, and no redirect: the cookie is for requests that come from here only
        return await self._admitted(request, HTMLResponse(part("opened.html")), ticket.who)

    async def post(self, request: Request) -> Response:
        """Open with the token."""
        if not self.limit.allow(_peer(request)):
            return await self._closed(request, 429, SLOWLY)
        given = parse_qs((await request.body()).decode("latin-1")).get("token", [""])[0].strip()
        if not self.token or not tickets.same(given, self.token):
            return await self._closed(request, 403, "this is not the token")
        return await self._admitted(request, RedirectResponse("/", 303), VISITOR)

    async def begin(self, request: Request) -> Response:
        """Send a browser to the issuer; its cookie tells there that it is the same when it comes back."""
        if self.provider is None:
            return await nothing_here(request, LookupError())
        if not self.limit.allow(_peer(request)):
            return await self._closed(request, 429, SLOWLY)
        try:
            places = await self.provider.places()
        except LoginFailed as error:
            return await self._closed(request, 502, str(error))
        back = f"{self.rules.scheme}://{request.headers['host'].lower()}{BACK}"
        login = self.logins.begin(back, self.now())
        answer = RedirectResponse(authorization_url(places, self.provider.client_id, login), 303)
        answer.set_cookie(  # lax: who comes back comes from the issuer's page
            self._login_cookie, login.browser, max_age=LOGIN_SECONDS, path="/enter",
            secure=self.rules.scheme == "https", httponly=True, samesite="lax",
        )  # fmt: skip
        return answer

    async def back(self, request: Request) -> Response:
        """Who comes back from the issuer comes in if it says who they are."""
        if self.provider is None:
            return await nothing_here(request, LookupError())
        query, issuer = request.query_params, self.provider.issuer
        try:
            login = self.logins.end(query.get("state", ""), request.cookies.get(self._login_cookie, ""), self.now())
            if query.get("error") or query.get("iss", issuer) != issuer:
                raise LoginFailed(f"the issuer says no: `{query.get('error', 'it is another one')[:80]}`")
            code = query.get("code", "")[:MAX_CODE]
            subject = await self.provider.subject(code, login.verifier, login.back, login.nonce, self.now)
            who = operator_of(issuer, subject)
        except LoginFailed as error:
            return await self._closed(request, 403, str(error))
        answer = await self._admitted(request, HTMLResponse(part("opened.html")), who)
        answer.delete_cookie(self._login_cookie, path="/enter", httponly=True, samesite="lax")
        return answer

    @property
    def _login_cookie(self) -> str:
        return f"{self.rules.cookie}_login"

    async def _admitted(self, request: Request, answer: Response, who: str) -> Response:
        """Let somebody in whom the operators' policies allow to look, on record."""
        desk = desk_of(request)
        try:
            await desk.ask(desk.source.visit, who, "view", OPENED)
        except PolicydError as error:
            return await self._closed(request, 403, str(error))
        return await desk.ask(self._opened, answer, who)

    async def leave(self, request: Request) -> Response:
        """End the session that asks."""
        answer = await self._end(request, self.sessions.end, LEFT)
        answer.delete_cookie(self.rules.cookie, path="/", httponly=True, samesite="strict")
        return answer

    async def leave_others(self, request: Request) -> Response:
        """End all other sessions of who asks."""
        return await self._end(request, self.sessions.end_others, LEFT_OTHERS)

    async def _end(self, request: Request, end: Callable[[Ticket, int], None], operation: str) -> Response:
        """End sessions, on record; that it could not be kept or recorded is told, and undoes nothing."""
        desk, ticket = desk_of(request), request.scope["ticket"]
        try:
            await desk.ask(end, ticket, self.now())
            await desk.ask(desk.source.visit, ticket.who, "view", operation)
        except (PolicydError, OSError) as error:
            return PlainTextResponse(f"it is done, but not on record: {error}\n", 500)
        return PlainTextResponse("it is done\n")

    def _spend(self, text: str) -> Ticket | None:
        now = self.now()
        self.spent = {nonce: ends for nonce, ends in self.spent.items() if ends > now}
        ticket = tickets.read(self.rules.key, "link", text, now)
        if ticket is None or ticket.nonce in self.spent or ticket.issued < self.since:
            return None
        self.spent[ticket.nonce] = ticket.ends
        return ticket

    def _opened(self, answer: Response, who: str) -> Response:
        now = self.now()
        session = tickets.session(self.rules.key, who, now, secrets.token_bytes(tickets.NONCE_BYTES))
        ticket = tickets.read(self.rules.key, "session", session, now)
        if ticket is not None:
            self.sessions.begun(ticket)
        answer.set_cookie(
            self.rules.cookie, session, max_age=tickets.SESSION_SECONDS, path="/",
            secure=self.rules.scheme == "https", httponly=True, samesite="strict",
        )  # fmt: skip
        return answer

    async def _closed(self, request: Request, status: int, why: str) -> Response:
        return HTMLResponse(part("enter.html", why=why, has_token=bool(self.token), login=self._login), status)

    @property
    def _login(self) -> str:
        """With whom one logs in, as people see it."""
        return urlsplit(self.provider.issuer).netloc if self.provider else ""


def _peer(request: Request) -> str:
    return request.client.host if request.client else ""


async def nothing_here(request: Request, _: Exception) -> Response:
    """What no page is at."""
    if request.scope.get("ticket") is None:
        return HTMLResponse("there is nothing here\n", 404, media_type="text/plain")
    from policyd.errors import Problem

    problem = Problem("not_found", f"there is no page `{request.url.path[:200]}`", remedy="look at the menu")
    return await page(request, "failed.html", 404, problems=[problem])
