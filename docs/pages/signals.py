"""metrics.md, errors.md and records.md: what policyd tells about itself."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any, get_type_hints

import msgspec

from docs.pages.tables import code, codes, prose, table
from policyd import errors, names, signals
from policyd.audit.record import Entry, Fault, Record, Shadow


def metrics() -> Iterator[str]:
    """Every metric: of the server, of agents, of the mesh."""
    text = "What `/metrics` of the server's HTTP port shows; its address is in `policyd status`."
    yield from ("# Metrics", "", text, "", *_metrics("policyd"))
    text = "What an agent says of itself on the page that `policyd-proxy run` serves (`--metrics`)."
    yield from ("", "## Of an agent", "", text, "", *_metrics("agent"))
    text = "What its Envoys count, on the same page, under Istio's names; `proxy` is the instance whose Envoy it was."
    yield from ("", "## Of the mesh", "", text, "", *_metrics("mesh"))
    labels = codes((*signals.standard_labels({}), signals.PROXY), "")
    yield from ("", f"Each has the labels {labels}. What is not known is `{signals.UNKNOWN}`.")
    yield "Counters have `decision` (`allow`, `deny` or `error`), `policy`, the first that determined it, and `reason`"
    yield f"({codes(signals.REASONS, '')}), where the Envoy asked; else these are empty."


def _metrics(of: str) -> Iterator[str]:
    rows = (
        (code(name), metric.kind, codes(metric.labels, "as below" if of == "mesh" else "none"), metric.help)
        for name, metric in names.METRICS.items()
        if metric.of == of
    )
    yield from table(("name", "kind", "labels", "what it is"), rows)


def error_codes() -> Iterator[str]:
    """Every class of the one error tree."""
    yield from ("# Error codes", "", "The `code` of an error, in logs, in records and with `--json`.", "")
    found = [e for e in vars(errors).values() if inspect.isclass(e) and issubclass(e, errors.PolicydError)]
    rows = ((code(e.code), prose(e.__doc__)) for e in sorted(found, key=lambda e: e.code))
    yield from table(("code", "what went wrong"), rows)


def records() -> Iterator[str]:
    """The fields of a record."""
    yield from (
        "# Records",
        "",
        "A line of the journal, `DIR/.policyd/journal/*.jsonl`, and once it is sealed of `*.sealed`, which "
        "`log tail --json` and `log export` unpack. [How the journal proves itself](../concepts/journal.md).",
        "",
    )
    yield from (prose(Entry.__doc__), "", prose(Record.__doc__), "")
    yield from table(("field", "holds", "default, which a line leaves out"), _fields(Record))
    yield from ("## One of `errors`", "", prose(Fault.__doc__), "")
    yield from table(("field", "holds", "default, which a line leaves out"), _fields(Fault))
    yield from ("## `shadow`", "", prose(Shadow.__doc__), "")
    yield from table(("field", "holds", "default, which a line leaves out"), _fields(Shadow))


def _fields(struct: type[msgspec.Struct]) -> Iterator[tuple[str, str, str]]:
    hints = get_type_hints(struct, include_extras=True)
    for field in msgspec.structs.fields(struct):
        yield code(field.encode_name), _holds(hints[field.name]), _default(field)


def _default(field: msgspec.structs.FieldInfo) -> str:
    if field.required:
        return ""
    value = field.default_factory() if field.default is msgspec.NODEFAULT else field.default
    return code(msgspec.json.encode(value).decode())


def _holds(hint: Any) -> str:
    """Name a type as JSON has it."""
    match msgspec.json.schema(hint):
        case {"enum": values} | {"anyOf": [{"enum": values}, *_]}:
            return codes(value for value in values if value is not None)
        case {"format": "date-time"}:
            return "time"
        case {"type": "array", "items": {"type": "string"}}:
            return "list of texts"
        case {"type": "array"}:
            return "list"
        case {"anyOf": [{"type": "null"}, {"$ref": _}] | [{"$ref": _}, {"type": "null"}]}:
            return "mapping"
        case {"type": kind}:
            return {"string": "text", "integer": "whole number", "boolean": "`true` or `false`"}.get(kind, "mapping")
    raise ValueError(f"no word for {hint}")
