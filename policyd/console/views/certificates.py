"""Certificates: the authority's own on a time line, what was issued and is good now, the ledger, what is revoked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from policyd.audit.ask.issuance import Issued, issued
from policyd.audit.ask.issuance import newest as newest_issuances
from policyd.audit.ask.records import record_of
from policyd.console.desk import Desk, desk_of, page
from policyd.errors import NotRunning, PolicydError, UsageError
from policyd.strict import parse_duration
from policyd.wording import span

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from policyd.audit.record import Record

SHOWN: Final = 300
MAX_VALUE: Final = 300  # characters
LEDGER: Final = 60
WINDOW: Final = 3_600.0  # seconds of the time line at least


@dataclass(frozen=True, slots=True)
class Asked:
    """What the address bar asks: whose, on which evidence, by which agent, and what ends within a length of time."""

    identity: str = ""
    evidence: str = ""
    agent: str = ""
    ends: str = ""

    @classmethod
    def of(cls, query: Mapping[str, str]) -> Asked:
        """Read a query."""
        return cls(**{name: query.get(name, "").strip()[:MAX_VALUE] for name in cls.__dataclass_fields__})

    def wanted(self) -> Issued:
        """What the ledger is asked, whenever it ends."""
        return Issued(identity=self.identity or None, agent=self.agent, evidence=self.evidence)

    def good(self, now: datetime) -> Issued:
        """The same of what is good now; raises UsageError for what is no length of time."""
        before = None
        if self.ends:
            try:
                before = now + timedelta(seconds=parse_duration(self.ends))
            except (ValueError, OverflowError):
                remedy = "write it as in 30m, 8h or 2d"
                raise UsageError(f"`{self.ends[:80]}` is no length of time", remedy=remedy) from None
        return replace(self.wanted(), valid_at=now, ends_before=before)


@dataclass(frozen=True, slots=True)
class Bar:
    """A certificate on the time line: where it begins and ends, and where now is, in hundredths of its row."""

    name: str
    kind: str
    identity: str
    agent: str
    evidence: str
    begins: datetime
    ends: datetime
    left: float
    width: float
    is_soon: bool
    words: str


async def certificates(request: Request) -> Response:
    """The page."""
    desk = desk_of(request)
    asked = Asked.of(request.query_params)
    good = asked.good(desk.now())
    authority, revoked = await desk.ask(_authority, desk)
    rotation = await desk.ask(_rotation, desk)
    rows, ledger = await desk.ask(_ledger, desk, good, asked.wanted())
    bars, place = timeline(rows, desk.now())
    return await page(
        request, "certificates.html", authority=authority, revoked=revoked, rotation=rotation, bars=bars,
        place=place, ledger=ledger, limit=SHOWN,
    )  # fmt: skip


def timeline(rows: Sequence[Mapping[str, Any]], now: datetime) -> tuple[list[Bar], float]:
    """Certificates that are good now as bars, and where now is, in hundredths."""
    spans = [(row, _time(row["issued"]), _time(row["ends"])) for row in rows]
    if not spans:
        return [], 0.0
    first = min(begins for _, begins, _ in spans)
    ordered = sorted((ends for _, _, ends in spans))
    last = ordered[int(0.98 * (len(ordered) - 1))]  # one that outlives all others by far does not squeeze them
    whole = max((max(last, now) - first).total_seconds(), WINDOW)

    def at(moment: datetime) -> float:
        return round(min(max((moment - first).total_seconds() / whole, 0.0), 1.0) * 100, 2)

    bars = [
        Bar(
            name=str(row["name"]),
            kind="token" if str(row["action"]).endswith('"jwt"') else "certificate",
            identity=str(row["spiffe_id"] or ""),
            agent=str(row["agent"] or row["requested_by"] or ""),
            evidence=str(row["evidence"] or ""),
            begins=begins,
            ends=ends,
            left=at(begins),
            width=max(at(ends) - at(begins), 0.5),
            is_soon=(ends - now) < (ends - begins) * 0.2,
            words=_left(ends, now),
        )
        for row, begins, ends in spans
    ]
    return bars, at(now)


def _authority(desk: Desk) -> tuple[Any, Sequence[Any]]:
    """What the server says of its authority; None where none answers."""
    with suppress(NotRunning, PolicydError), desk.source.client() as client:
        return client.ca_status(), client.revoked()
    return None, ()


def _rotation(desk: Desk) -> Any:
    """How far a rotation is; None where nobody says."""
    with suppress(NotRunning, PolicydError), desk.source.client() as client:
        return client.rotation()
    return None


def _ledger(desk: Desk, good: Issued, wanted: Issued) -> tuple[list[dict[str, Any]], list[Record]]:
    questions = [issued(good, SHOWN), newest_issuances(wanted, None, LEDGER)]
    with desk.source.ask(questions) as answers:
        rows = list(next(answers).values())
        records = [record_of(value) for value in next(answers).values()]
    return rows, records[::-1]


def _time(value: Any) -> datetime:
    found = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _left(end: datetime, now: datetime) -> str:
    left = int((end - now).total_seconds())
    return f"in {span(left)}" if left > 0 else f"{span(-left)} ago"
