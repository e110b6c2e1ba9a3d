"""Which records are asked for, as a condition over the table `records`; the same as policyd.audit.match says of one.

Law: pure; what users write is a value for a `?`, never part of the statement.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from typing import Any, Final, Literal, NamedTuple

from policyd.audit.match import DEFAULT_NAMESPACE
from policyd.audit.scan import Span
from policyd.errors import ShadowSkipped
from policyd.spiffe import SCHEME

Decider = Literal["policyd", "proxy"]
CENTRAL: Final[Decider] = "policyd"  # of which records say nothing
# of a Uid's text the id, with Cedar's escapes undone; other text as it is
_ID: Final = (
    r"""CASE WHEN regexp_full_match(uid, '[A-Za-z_:]+::".*"', 's')"""
    r""" THEN regexp_replace(regexp_extract(uid, '^[A-Za-z_:]+::"(.*)"$', 1, 's'), '\\(["\\])', '\1', 'g')"""
    " ELSE uid END"
)


_TRIED: Final = "shadow->>'$.decision'"
_SKIPPED: Final = ShadowSkipped.code
# audit.record.change_of, '' where nothing was tried
CHANGE: Final = (
    f"CASE WHEN shadow IS NULL THEN '' WHEN {_TRIED} = 'error' AND shadow->>'$.errors[*].source' = ['{_SKIPPED}']"
    f" THEN 'skipped' WHEN {_TRIED} = 'error' THEN 'error' WHEN {_TRIED} = decision THEN 'agree'"
    f" WHEN {_TRIED} = 'deny' THEN 'would_deny' ELSE 'would_allow' END"
)


class Condition(NamedTuple):
    """A condition of SQL, and what its `?` stand for."""

    sql: str
    values: tuple[Any, ...] = ()


@dataclass(frozen=True, slots=True)
class Filter:
    """What records must be; None asks nothing. `path` may have `*`; `failed` wants what has errors.
    `change` is what the policies that are tried would change (audit.record.Change), `decided_by` a Decider.
    """

    span: Span = field(default_factory=Span)
    decision: str | None = None
    principal: str | None = None
    resource: str | None = None
    kind: str | None = None
    method: str | None = None
    path: str | None = None
    policy: str | None = None
    revision: str | None = None
    request_id: str | None = None
    status: int | None = None
    failed: bool | None = None
    change: str | None = None
    decided_by: str | None = None

    def condition(self) -> Condition:
        """All of it in one; `true` where nothing is asked."""
        parts = list(_conditions(self))
        return Condition(
            " AND ".join(f"({one.sql})" for one in parts) or "true", tuple(v for one in parts for v in one.values)
        )


def _conditions(wanted: Filter) -> Iterator[Condition]:
    yield from _within(wanted.span)
    for one in fields(wanted):
        value = getattr(wanted, one.name)
        if value is None:
            continue
        match one.name:
            case "decision" | "kind" | "method" | "status" | "request_id":
                yield Condition(f"{one.name} = ?", (value,))
            case "principal" | "resource":
                yield named(one.name, value)
            case "path":
                yield Condition("path GLOB ?", (_glob(value),)) if "*" in value else Condition("path = ?", (value,))
            case "policy":
                yield Condition("list_contains(reasons, ?)", (value,))
            case "revision":
                yield Condition("starts_with(revision, ?)", (value,))
            case "decided_by":
                yield Condition("kind = 'decision' AND decided_by = ?", ("" if value == CENTRAL else value,))
            case "change":
                yield Condition(f"{CHANGE} = ?", (value,))
            case "failed":
                yield Condition("(len(errors) > 0 OR decision IS NOT DISTINCT FROM 'error') = ?", (value,))


def _within(span: Span) -> Iterator[Condition]:
    for bound, sign in ((span.since, ">="), (span.until, "<")):
        if bound is not None:
            yield Condition(f"time {sign} ?::TIMESTAMP", (_utc(bound),))


def named(column: str, wanted: str) -> Condition:
    """Whether `wanted` names what stands in `column`, as policyd.audit.match.names does; looked at once a value."""
    ways = list(_ways(wanted))
    any_of = " OR ".join(f"({one.sql})" for one in ways)
    # the limit is none, but below it no condition is moved: else every record's text would be looked at
    distinct = f"SELECT DISTINCT {column} AS uid FROM records LIMIT {1 << 40}"  # noqa: S608 - a column of ours
    # a list and not IN, which would be a join
    chosen = f"SELECT list(uid) FROM (SELECT uid, {_ID} AS id FROM ({distinct})) WHERE {any_of}"  # noqa: S608
    return Condition(f"list_contains(({chosen}), {column})", tuple(value for one in ways for value in one.values))


def _ways(wanted: str) -> Iterator[Condition]:
    yield Condition("uid = ?", (wanted,))
    yield Condition("id = ?", (wanted,))
    yield Condition("ends_with(id, ?)", (f"/{wanted}",))
    yield Condition("starts_with(uid, 'Service::') AND id = ?", (f"{wanted}.{DEFAULT_NAMESPACE}",))
    domain, slash, short = wanted.partition("/")
    if slash and "/" not in short:  # as who is of another trust domain is shown
        for account, namespace in ((short, DEFAULT_NAMESPACE), *_parted(short)):
            yield Condition("id = ?", (f"{SCHEME}{domain}/ns/{namespace}/sa/{account}",))
    for account, namespace in _parted(wanted) if not slash else ():
        whole = f"/ns/{namespace}/sa/{account}"
        parted = "starts_with(id, ?) AND ends_with(id, ?) AND len(string_split(id, '/')) = 7"
        yield Condition(parted, (SCHEME, whole))


def _parted(short: str) -> Iterator[tuple[str, str]]:
    """The accounts and namespaces that a short name may mean; that of the default namespace has no namespace in it."""
    parts = short.split(".")
    for at in range(1, len(parts)):
        account, namespace = ".".join(parts[:at]), ".".join(parts[at:])
        if namespace != DEFAULT_NAMESPACE:
            yield account, namespace


def _glob(pattern: str) -> str:
    """Only `*` has a meaning."""
    return "".join(f"[{char}]" if char in "?[" else char for char in pattern)


def _utc(moment: datetime) -> str:
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat()
