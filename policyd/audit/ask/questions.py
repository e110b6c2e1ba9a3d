"""The common questions as statements: the newest that match, counts by something, first seen, slowest, totals.

Law: pure. Names of columns are from the table `records`; what users write is a value.
"""

from __future__ import annotations

from typing import Final

from policyd.audit.ask.child import Question
from policyd.audit.ask.columns import FIELDS
from policyd.audit.ask.filters import CHANGE, Filter

# what records are counted by: the name that people write, and its expression
BY: Final = {
    **{name: name for name in ("principal", "action", "resource", "decision", "kind", "method", "host", "path")},
    **{name: name for name in ("status", "revision", "proxy", "writer", "cached")},
    "policy": "CASE WHEN len(reasons) > 0 THEN list_aggregate(reasons, 'string_agg', ', ') ELSE '' END",
    "error": "CASE WHEN len(errors) > 0 THEN errors[1].source ELSE '' END",
    "change": CHANGE,
    "minute": "date_trunc('minute', time)",
    "hour": "date_trunc('hour', time)",
    "day": "date_trunc('day', time)",
}
TIMES: Final = ("minute", "hour", "day")
_FIELDS: Final = ", ".join(f'"{one.name}"' for one in FIELDS)
_PLACE: Final = "time, writer, seq"


def newest(wanted: Filter, limit: int) -> Question:
    """The newest records that match, oldest of them first."""
    return _records(wanted, limit, "time DESC, writer DESC, seq DESC", "time, writer, seq")


def slowest(wanted: Filter, limit: int) -> Question:
    """The records that took longest, the slowest first."""
    order = "duration_us DESC, time DESC, writer, seq"
    return _records(wanted, limit, order, order)


def _records(wanted: Filter, limit: int, chosen: str, shown: str) -> Question:
    """Places are found first, so that the wide columns are read of few records only."""
    condition = wanted.condition()
    places = f"SELECT {_PLACE} FROM records WHERE {condition.sql} ORDER BY {chosen} LIMIT {int(limit)}"  # noqa: S608
    within = "time IN (SELECT time FROM places) AND (writer, seq) IN (SELECT (writer, seq) FROM places)"
    sql = f"WITH places AS MATERIALIZED ({places}) SELECT {_FIELDS} FROM records WHERE {within} ORDER BY {shown}"  # noqa: S608
    return Question(sql, condition.values)


def counted(wanted: Filter, by: tuple[str, ...], limit: int) -> Question:
    """How many match, by what stands in BY, the most first; times in their order."""
    condition = wanted.condition()
    keys = ", ".join(f'{BY[name]} AS "{name}"' for name in by)
    order = ", ".join([*(f'"{name}"' for name in by if name in TIMES), "count DESC", *(f'"{name}"' for name in by)])
    sql = (
        f"SELECT {keys}, count(*) AS count, min(time) AS first_seen, max(time) AS last_seen FROM records"  # noqa: S608
        f" WHERE {condition.sql} GROUP BY ALL ORDER BY {order} LIMIT {int(limit)}"
    )
    return Question(sql, condition.values)


def first_seen(wanted: Filter, limit: int) -> Question:
    """Who called what for the first time in the span: pairs that no earlier record has, the newest first."""
    within = "first_seen >= ?::TIMESTAMP" if wanted.span.since is not None else "true"
    since = () if wanted.span.since is None else (wanted.span.since.replace(tzinfo=None).isoformat(),)
    ever = Filter(**{name: getattr(wanted, name) for name in wanted.__dataclass_fields__ if name != "span"})
    condition = ever.condition()
    before = "" if wanted.span.until is None else " AND time < ?::TIMESTAMP"
    until = () if wanted.span.until is None else (wanted.span.until.replace(tzinfo=None).isoformat(),)
    sql = (
        "SELECT * FROM (SELECT principal, resource, min(time) AS first_seen, max(time) AS last_seen,"  # noqa: S608
        " count(*) AS count, arg_min(decision, time) AS decision,"
        " arg_min(decision_id, time) AS decision_id FROM records"
        f" WHERE kind = 'decision' AND ({condition.sql}){before} GROUP BY principal, resource)"
        f" WHERE {within} ORDER BY first_seen DESC, principal, resource LIMIT {int(limit)}"
    )
    return Question(sql, (*condition.values, *until, *since))


def found_by_id(wanted: str, limit: int) -> Question:
    """The records with this id, or an id that begins so, of the decision; or with this id of the request."""
    sql = (
        f"SELECT {_FIELDS} FROM records WHERE request_id = ? OR starts_with(decision_id, ?)"  # noqa: S608
        f" ORDER BY decision_id <> ?, time, writer, seq LIMIT {int(limit)}"
    )
    return Question(sql, (wanted, wanted, wanted))


def totals(wanted: Filter) -> tuple[Question, ...]:
    """What there is: the whole, by kind and decision, the time that decisions took."""
    condition = wanted.condition()
    where = f"FROM records WHERE {condition.sql}"
    sqls = (
        "SELECT count(*) AS records, min(time) AS first, max(time) AS last, count(DISTINCT writer) AS writers,"
        " count(DISTINCT revision) FILTER (revision <> '') AS revisions,"
        " count(DISTINCT principal) FILTER (principal <> '') AS principals,"
        " count(DISTINCT resource) FILTER (resource <> '') AS resources,"
        f" count(*) FILTER (len(masked) > 0) AS masked {where}",
        f"SELECT kind, coalesce(decision, '') AS decision, count(*) AS count {where} GROUP BY ALL ORDER BY ALL",
        "SELECT count(*) AS decisions, count(*) FILTER (cached) AS cached, quantile_disc(duration_us, 0.5) AS p50_us,"
        " quantile_disc(duration_us, 0.99) AS p99_us, max(duration_us) AS max_us"
        f" {where} AND kind = 'decision'",
    )
    return tuple(Question(sql, condition.values) for sql in sqls)
