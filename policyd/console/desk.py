"""What every page works on, and how it is rendered.

Law: a template gets values and makes text of them: everything is escaped, and no control or direction character of
others' text reaches a page. A query that is wrong, and a server that does not answer, is a page too.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, Final, TypeVar

import jinja2
from markupsafe import Markup, escape
from starlette.responses import HTMLResponse

from policyd import tickets
from policyd.audit.match import entity_id, short_name
from policyd.console.graph import drawing
from policyd.console.source import Forbidden
from policyd.errors import InvalidInput, NotFound, PolicydError, Problem
from policyd.wording import clean, short, since, span

if TYPE_CHECKING:
    from starlette.requests import Request

    from policyd.console.door import Rules
    from policyd.console.source import Source
    from policyd.console.watch import Watch

HERE: Final = Path(__file__).parent
MAX_TEXT: Final = 200_000  # characters of one value on a page
_TICKED: Final = re.compile(r"`([^`\n]{1,300})`")
_PART: Final = re.compile(r"([/._:]+)(?=[^/._:])")  # none of which stands in an escape
ADMITTED_SECONDS: Final = 3.0
MAX_KEPT: Final = 16  # pictures and parts of pages that several may ask for
AT_ONCE: Final = 4  # questions that are worked on together
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Desk:
    """What views need."""

    source: Source
    watch: Watch
    rules: Rules
    now: Callable[[], datetime]
    applies: bool = False  # whether policies can be enforced from here, as far as this folder's settings go
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    _kept: OrderedDict[object, Any] = field(default_factory=OrderedDict)
    _keeping: Lock = field(default_factory=Lock)
    _admitted: dict[str, float] = field(default_factory=dict)
    _turns: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(AT_ONCE))

    async def ask(self, question: Callable[..., T], *values: Any) -> T:
        """Ask something that blocks; a few are worked on at once, others wait for their turn."""
        async with self._turns:
            return await asyncio.to_thread(question, *values)

    def kept(self, key: object, make: Callable[[], T]) -> T:
        """What was made for a key, if it was asked for not long ago."""
        with self._keeping:
            found: T | None = self._kept.get(key)
            if found is not None:
                self._kept.move_to_end(key)
        if found is None:
            found = make()
            with self._keeping:
                self._kept[key] = found
                while len(self._kept) > MAX_KEPT:
                    self._kept.popitem(last=False)
        return found

    def admits(self, who: str) -> bool:
        """Whether somebody was let in just now."""
        return self._admitted.get(who, 0.0) > self.now().timestamp()

    def admit(self, who: str) -> None:
        """Let somebody in for a moment."""
        self._admitted.clear()
        self._admitted[who] = self.now().timestamp() + ADMITTED_SECONDS

    async def pause(self, seconds: float) -> None:
        """Wait, but not beyond the console's end."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self.stopping.wait(), seconds)


def desk_of(request: Request) -> Desk:
    """The desk of a request's application."""
    found: Desk = request.app.state.desk
    return found


async def page(request: Request, template: str, status: int = 200, /, **values: Any) -> HTMLResponse:
    """Render a whole page."""
    desk = desk_of(request)
    ticket = request.scope.get("ticket")
    common = {
        "path": request.url.path,
        "query": dict(request.query_params),
        "status": await desk.ask(desk.source.status),
        "folder": desk.source.directory.name,
        "proof": tickets.proof(desk.rules.key, ticket) if ticket else "",
        "session": ticket,
        "now": desk.now(),
    }
    return HTMLResponse(part(template, **common, **values), status)


def part(template: str, **values: Any) -> str:
    """Render a page, or a part of one."""
    return environment().get_template(template).render(**values)


def failing(view: Callable[[Request], Awaitable[Any]]) -> Callable[[Request], Awaitable[Any]]:
    """A view whose expected errors are a page."""

    async def shown(request: Request) -> Any:
        try:
            await admitted(request)
            return await view(request)
        except Forbidden as error:
            return HTMLResponse(part("enter.html", why=str(error), has_token=False, login=""), 403)
        except PolicydError as error:
            status = 404 if isinstance(error, NotFound) else 400
            return await page(request, "failed.html", status, problems=problems_of(error))

    return shown


async def admitted(request: Request, act: str = "view", operation: str = "") -> None:
    """Have it decided whether who asks may; what was allowed without a record holds for a moment. Raises Forbidden."""
    desk, who = desk_of(request), request.scope["ticket"].who
    if operation:
        await desk.ask(desk.source.visit, who, act, operation)
    elif not desk.admits(who):
        await desk.ask(desk.source.visit, who, act)
        desk.admit(who)


def problems_of(error: PolicydError) -> list[Problem]:
    """An error as what there is to say of it."""
    if isinstance(error, InvalidInput):
        return list(error.problems)
    return [Problem(error.code, error.message, remedy=error.remedy)]


@lru_cache(1)
def environment() -> jinja2.Environment:
    """The templates, and what they may call."""
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_cleaned,
    )
    made.filters |= {
        "short_name": short_name,
        "entity_id": entity_id,
        "short": short,
        "ticks": ticks,
        "breaks": breaks,
        "rate": drawing.rate,
        "ms": drawing.milliseconds,
        "share": drawing.share,
        "clock": _clock,
        "moment": _moment,
        "span": span,
        "iso": lambda moment: f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%S.%fZ}",
    }
    made.globals |= {"static": static, "since": since, "link_to": link_to}
    return made


def static(name: str) -> str:
    """The address of a file of ours, which changes with what is in any of them, for they import one another."""
    return f"/static/{static_version()}/{name}"


def link_to(path: str, query: Mapping[str, Any] | None = None, **changes: Any) -> str:
    """An address with a query, some of it changed; what is None is left out."""
    from urllib.parse import urlencode

    asked = {name: value for name, value in {**(query or {}), **changes}.items() if value not in (None, "")}
    return f"{path}?{urlencode(asked)}" if asked else path


@lru_cache(1)
def static_version() -> str:
    """What stands for all files of ours as they are."""
    found = hashlib.sha256()
    for file in sorted((HERE / "static").iterdir()):
        found.update(hashlib.sha256(file.read_bytes()).digest())
    return found.hexdigest()[:12]


def ticks(text: str) -> Markup:
    """A message with what stands in backticks as code; all of it escaped first."""
    return Markup(_TICKED.sub(r"<code>\1</code>", str(escape(clean(text, MAX_TEXT)))))  # noqa: S704 - escaped


def breaks(text: str) -> Markup:
    """A name or path that may break after its parts, where it is too long for its place; all of it escaped first."""
    return Markup(_PART.sub(r"\1<wbr>", str(escape(clean(text, MAX_TEXT)))))  # noqa: S704 - escaped


def _cleaned(value: Any) -> Any:
    """What an expression gives, as a page may show it."""
    if isinstance(value, Markup) or not isinstance(value, str):
        return value
    return clean(value, MAX_TEXT)


def _clock(moment: datetime) -> str:
    """The time of a day, in UTC."""
    found = moment.astimezone(UTC)
    return f"{found:%H:%M:%S}.{found.microsecond // 1000:03d}"


def _moment(value: datetime | int) -> str:
    """A day and a time, in UTC."""
    found = datetime.fromtimestamp(value, UTC) if isinstance(value, int) else value.astimezone(UTC)
    return f"{found:%Y-%m-%d %H:%M:%S}"
