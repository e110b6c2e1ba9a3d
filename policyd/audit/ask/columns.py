"""The table `records`: a column for each field of a record, and some of what a decision's context holds.

Law: made from policyd.audit.record, so that a new field is a new column; a field that is not set has its default, so
that nobody has to ask for null. Left out is `prev`: hashes are for `policyd log verify`.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from policyd.audit.record import Record

LEFT_OUT: Final = frozenset({"prev"})


@dataclass(frozen=True, slots=True)
class Column:
    """One column: `source` is its expression over a line that was read."""

    name: str
    type: str
    meaning: str
    source: str


MEANINGS: Final = {
    "time": "when, in UTC",
    "kind": "`decision`, `issuance`, `change` or `operation`",
    "decision": "`allow`, `deny`, `error`; null where nothing was decided",
    "status": "what the caller got: 200, 400, 401, 403, 503; 0 where nobody waits",
    "decision_id": "the id in the answer to a denial",
    "principal": 'who asked, as Cedar writes it: `Workload::"spiffe://…"`',
    "action": 'the method: `Action::"GET"`',
    "resource": 'what was asked: `Service::"reviews.default"`',
    "reasons": "the ids of the policies that determined the decision",
    "errors": "what failed: `source` and `message`",
    "context": "what the decision read",
    "masked": "paths into `context` that were masked",
    "revision": "what was in force",
    "proxy": "the instance whose Envoy asked",
    "request_id": "the same for all hops of a request, where the caller passes it on",
    "trace_id": "the trace that the request belongs to",
    "span_id": "the span that the request came from",
    "shadow": "what the policies that are tried would have decided; null where there are none",
    "cached": "whether the decision was remembered",
    "duration_us": "microseconds from the check to its reply",
    "decided_by": "`proxy`: by the sidecar itself; empty: by policyd",
    "detail": "more of what is no decision",
    "writer": "the process that wrote it",
    "seq": "its number among the writer's",
}
_EXTRA: Final = (
    Column("method", "VARCHAR", "the HTTP method as it was sent", "coalesce(context->>'$.request.method', '')"),
    Column("host", "VARCHAR", "the host that was asked for", "coalesce(context->>'$.request.host', '')"),
    Column("path", "VARCHAR", "the canonical path", "coalesce(context->>'$.request.path', '')"),
)
_FAULTS: Final = "STRUCT(source VARCHAR, message VARCHAR)[]"
_SCALARS: Final[dict[type, tuple[str, str]]] = {
    msgspec.inspect.IntType: ("BIGINT", "0"),
    msgspec.inspect.BoolType: ("BOOLEAN", "false"),
}


def _fields() -> list[Column]:
    info = msgspec.inspect.type_info(Record)
    assert isinstance(info, msgspec.inspect.StructType)
    return [_column(field) for field in info.fields if field.name not in LEFT_OUT]


def _column(field: msgspec.inspect.Field) -> Column:
    name, meaning = field.name, MEANINGS.get(field.name, "")
    kind, default = _type(field.type)
    given = field.default
    if isinstance(given, str):
        default = f"'{given}'"
    source = f'"{name}"' if given is None or default is None else f'coalesce("{name}", {default})'
    return Column(name, kind, meaning, source)


def _type(found: Any) -> tuple[str, str | None]:
    """The type of a column and its default, None for none."""
    inspect = msgspec.inspect
    kind: type = type(found)
    if kind in _SCALARS:
        return _SCALARS[kind]
    match found:
        case inspect.DateTimeType():
            return "TIMESTAMP", None
        case inspect.FloatType():
            return "DOUBLE", "0"
        case inspect.VarTupleType(item_type=inspect.StructType()):
            return _FAULTS, "[]"
        case inspect.VarTupleType(item_type=inspect.StrType()):
            return "VARCHAR[]", "[]"
        case inspect.StrType() | inspect.LiteralType():
            return "VARCHAR", "''"
        case inspect.UnionType(types=types) if {type(one) for one in types} <= {
            inspect.LiteralType, inspect.StrType, inspect.NoneType
        }:  # fmt: skip
            return "VARCHAR", None
        case _:
            return "JSON", "'{}'"


FIELDS: Final = tuple(_fields())
COLUMNS: Final = (*FIELDS, *_EXTRA)

# names the form of the copy: another form is another folder
FORM: Final = hashlib.sha256(repr([(one.name, one.type, one.source) for one in COLUMNS]).encode()).hexdigest()[:12]


def lines_sql(file: str) -> str:
    """All columns of a file of lines."""
    types = ", ".join(f"'{one.name}': '{one.type}'" for one in FIELDS)
    chosen = ", ".join(f'CAST({one.source} AS {one.type}) AS "{one.name}"' for one in COLUMNS)
    read = (
        f"read_json({quoted(file)}, format = 'newline_delimited', maximum_object_size = 2097152, columns = {{{types}}})"
    )
    return f"SELECT {chosen} FROM {read}"  # noqa: S608 - names and types of our own


def empty_sql() -> str:
    """The table without a record."""
    return "SELECT " + ", ".join(f'CAST(NULL AS {one.type}) AS "{one.name}"' for one in COLUMNS) + " WHERE false"


def quoted(text: str) -> str:
    """A literal of SQL."""
    return "'" + text.replace("'", "''") + "'"
