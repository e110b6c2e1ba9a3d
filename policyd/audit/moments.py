"""Moments as people write them: `1h` ago, `today`, `yesterday`, a date, a date and time, RFC 3339.

Law: pure; what time it is, and of which zone a bare date is, are arguments. Moments are in UTC.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Final

from policyd.audit.scan import Span
from policyd.errors import UsageError
from policyd.strict import parse_duration

_HINT: Final = "write `1h` or `30m` (ago), `today`, `yesterday`, `2026-11-23`, or `2026-11-23T12:00:00Z`"
_DATE: Final = re.compile(r"\d{4}-\d{2}-\d{2}")
_SPELLED: Final = re.compile(r"\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}(?::\d{2}(?:[.]\d{1,6})?)?(?:Z|[+-]\d{2}:\d{2})?")


def span(since: str, until: str, now: datetime, zone: tzinfo) -> Span:
    """The time from `since` to `until`, "" for no bound; raises UsageError."""
    found = Span(moment(since, now, zone) if since else None, moment(until, now, zone) if until else None)
    if found.since and found.until and found.since >= found.until:
        raise UsageError(f"nothing lies between `{since}` and `{until}`", remedy="give the earlier one to `--since`")
    return found


def moment(text: str, now: datetime, zone: tzinfo) -> datetime:
    """What `text` means; raises UsageError."""
    words = text.strip()
    today = now.astimezone(zone).replace(hour=0, minute=0, second=0, microsecond=0)
    try:
        match words.lower():
            case "now":
                return now
            case "today":
                return today.astimezone(UTC)
            case "yesterday":
                return (today - timedelta(days=1)).astimezone(UTC)
        if _DATE.fullmatch(words):
            return datetime.fromisoformat(words).replace(tzinfo=zone).astimezone(UTC)
        if _SPELLED.fullmatch(words):
            spelled = datetime.fromisoformat(words)
            return (spelled if spelled.tzinfo else spelled.replace(tzinfo=zone)).astimezone(UTC)
        return now - timedelta(seconds=parse_duration(words.removesuffix(" ago")))
    except (ValueError, OverflowError):
        raise UsageError(f"`{text[:80]}` is no time", remedy=_HINT) from None
