"""What stands before every page: who is asked (Host), how much is sent, who comes in, from where an action comes.

Law: nothing is looked at before the Host is ours; a page needs a session, an action its proof too. Every answer, of
whatever status, carries the headers that keep a browser to this origin.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, MutableMapping, Sequence
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from typing import Any, Final

from starlette.exceptions import HTTPException
from starlette.responses import PlainTextResponse, RedirectResponse, Response

from policyd import tickets
from policyd.console.sessions import Sessions
from policyd.tickets import Ticket

MAX_BODY: Final = 1 << 20  # bytes
TOO_LARGE: Final = f"at most {MAX_BODY >> 20} MiB are taken at once\n"
MAX_TARGET: Final = 8 << 10  # bytes of path and query
METHODS: Final = frozenset({"GET", "HEAD", "POST"})
OPEN: Final = frozenset({"/enter", "/enter/oidc", "/enter/back"})  # what needs no session, besides our own files
PROOF: Final = b"x-policyd-proof"
POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
HEADERS: Final[Sequence[tuple[bytes, bytes]]] = (
    (b"content-security-policy", POLICY.encode()),
    (b"x-frame-options", b"DENY"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), geolocation=(), microphone=()"),
)

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Rules:
    """Who may come in: `hosts` as browsers write them, the key of tickets, the scheme, and the name of the cookie."""

    hosts: frozenset[str]
    key: bytes
    cookie: str
    scheme: str = "http"

    @property
    def origins(self) -> frozenset[str]:
        """Where an action may come from."""
        return frozenset(f"{self.scheme}://{host}" for host in self.hosts)


class Door:
    """Lets requests through to `app`; `scope["ticket"]` is then the session's, `scope["holds"]` tells if it goes on."""

    def __init__(self, app: App, rules: Rules, sessions: Sessions, now: Callable[[], int]) -> None:
        self._app = app
        self._rules = rules
        self._sessions = sessions
        self._now = now

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":  # there are no web sockets here
            await send({"type": "websocket.close", "code": 1003})
            return
        guarded = _with_headers(send, is_static=scope["path"].startswith("/static/"))
        ticket = session_of(scope["headers"], self._rules, self._now())
        ticket = ticket if ticket and self._sessions.holds(ticket) else None
        refusal = refused(scope, self._rules, ticket)
        if refusal is not None:
            await refusal(scope, receive, guarded)
            return
        scope["ticket"], scope["holds"] = ticket, lambda: self._holds(ticket)
        await self._app(scope, _bounded(receive), guarded)

    def _holds(self, ticket: Ticket | None) -> bool:
        return ticket is not None and self._now() < ticket.ends and self._sessions.holds(ticket)


def session_of(headers: Iterable[tuple[bytes, bytes]], rules: Rules, now: int) -> Ticket | None:
    """The session that a request's cookies prove."""
    for name, value in headers:
        if name != b"cookie":
            continue
        try:
            found = SimpleCookie(value.decode("latin-1")).get(rules.cookie)
        except CookieError:
            continue
        if found is not None:
            return tickets.read(rules.key, "session", found.value, now)
    return None


def refused(scope: Scope, rules: Rules, ticket: Ticket | None) -> Response | None:
    """Why a request goes no further, as the answer to it; None where it may."""
    headers = list(scope["headers"])
    hosts = [value.decode("latin-1").lower() for name, value in headers if name == b"host"]
    if len(hosts) != 1 or hosts[0] not in rules.hosts:
        return PlainTextResponse("this is not the console's name; open the address that policyd printed\n", 421)
    if scope["method"] not in METHODS:
        return PlainTextResponse("there is nothing here but to read and to ask\n", 405, {"allow": "GET, HEAD, POST"})
    if len(scope.get("raw_path") or b"") + len(scope["query_string"]) > MAX_TARGET:
        return PlainTextResponse("the address is too long\n", 414)
    if _announced(headers) > MAX_BODY:
        return PlainTextResponse(TOO_LARGE, 413)
    path = scope["path"]
    is_open = path.startswith("/static/") or path in OPEN
    if ticket is None and not is_open:
        return _to_the_entrance(scope["method"], headers)
    if scope["method"] == "POST":
        return _not_ours(headers, rules, ticket, needs_proof=not is_open)
    return None


def _to_the_entrance(method: str, headers: list[tuple[bytes, bytes]]) -> Response:
    asks_for_page = any(name == b"accept" and b"text/html" in value for name, value in headers)
    if method == "GET" and asks_for_page:
        return RedirectResponse("/enter", 303)
    return PlainTextResponse("there is no session; `policyd console` prints a link that opens one\n", 401)


def _not_ours(
    headers: list[tuple[bytes, bytes]], rules: Rules, ticket: Ticket | None, *, needs_proof: bool
) -> Response | None:
    """An action comes from a page of ours, which its browser says and the page proves."""
    origins = [value.decode("latin-1") for name, value in headers if name == b"origin"]
    if len(origins) != 1 or origins[0] not in rules.origins:
        return PlainTextResponse("this action comes from another page\n", 403)
    if needs_proof:
        proofs = [value.decode("latin-1") for name, value in headers if name == PROOF]
        if ticket is None or len(proofs) != 1 or not tickets.same(proofs[0], tickets.proof(rules.key, ticket)):
            return PlainTextResponse("this action lacks the proof of the page that it comes from; load it again\n", 403)
    return None


def _announced(headers: list[tuple[bytes, bytes]]) -> int:
    lengths = [value for name, value in headers if name == b"content-length"]
    return max((int(one) for one in lengths if one.isdigit()), default=0)


def _bounded(receive: Receive) -> Receive:
    """Count a body that does not say how long it is."""
    taken = 0

    async def bounded() -> Message:
        nonlocal taken
        message = await receive()
        taken += len(message.get("body", b""))
        if taken > MAX_BODY:
            raise HTTPException(413, TOO_LARGE)
        return message

    return bounded


def _with_headers(send: Send, *, is_static: bool) -> Send:
    async def guarded(message: Message) -> None:
        if message["type"] == "http.response.start":
            is_kept = is_static and message["status"] < 400
            kept = b"public, max-age=31536000, immutable" if is_kept else b"no-store"
            there = {name for name, _ in message.get("headers", ())}
            more = [pair for pair in (*HEADERS, (b"cache-control", kept)) if pair[0] not in there]
            message["headers"] = [*message.get("headers", ()), *more]
        await send(message)

    return guarded
