"""metrics.md, errors.md and records.md: what policyd tells about itself."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from typing import Any, Final, get_type_hints

import msgspec

import policyd
import proxy
from docs.pages.tables import code, codes, prose, table
from policyd import errors, names, signals
from policyd.audit.ask.columns import MEANINGS
from policyd.audit.record import Entry, Fault, Record, Shadow

OPERATIONS: Final = (
    ("`server.start`", "the server began", "`version`; `last_good` where the folder is bad"),
    ("`deciders.restart`", "the decision processes were replaced", ""),
    ("`log.level`", "how much is logged was changed", "the level, and whose"),
    ("`mesh.apply`, `policies.apply`", "files were written by a command or the console", "the files"),
    ("`token.create`, `token.revoke`", "a join token", "`agent`"),
    ("`entry.create`, `entry.delete`", "a registration entry", "`entry`, `spiffe_id`, `selectors`"),
    ("`identity.revoke`, `identity.unrevoke`", "an identity was revoked, or no more", "which, and the reason"),
    ("`certificate.revoke`, `certificate.unrevoke`", "one certificate", "its serial number, and the reason"),
    ("`ca.rotate.prepare`, `.activate`, `.taint`, `.revoke`, `.abort`", "a step of a rotation", "of what"),
    ("`ca.export`, `ca.import`", "a copy of the authority was taken, or put in its place", "`file`"),
    ("`ca.expiry`", "a certificate of the authority's chain ends soon", "which, and when"),
    ("`bundle.fetch`, `bundle.import`", "another trust domain's bundle", "its roots"),
    ("`federation.create`, `federation.delete`", "another trust domain was named, or no more", "`trust_domain`"),
    (
        "`console.open`, `.view`, `.decide`, `.replay`, `.leave`, `.leave_others`",
        "what a visitor of the console did",
        "",
    ),
    ("`journal.gap`", "records could not be kept", "how many were `refused` or `dropped`, `since`, `until`, `reason`"),
    ("`journal.recovered`", "after a crash a half-written line was put aside", "where"),
    (
        "`local.gap`",
        "decisions of a proxy that did not come to be on record",
        "`instance`, `lost`, `reason`; which `message` of which agent's `spool` says so",
    ),
    ("`local.differs`", "a proxy and policyd decided differently: an alarm", "both answers"),
)


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
    rows = {(code(each.code), prose(each.__doc__)) for each in _error_classes() if "code" in vars(each)}
    yield from table(("code", "what went wrong"), sorted(rows))


def _error_classes() -> set[type[errors.PolicydError]]:
    """All of them: most are in policyd.errors, some beside the one thing that raises them."""
    for package in (policyd, proxy):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not module.name.endswith("__main__"):  # which would run
                importlib.import_module(module.name)
    found, ahead = {errors.PolicydError}, [errors.PolicydError]
    while ahead:
        ahead += (more := set(ahead.pop().__subclasses__()) - found)
        found |= more
    return {each for each in found if each.__module__.partition(".")[0] in ("policyd", "proxy")}


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
    rows = ((*row, meaning) for row, meaning in zip(_fields(Record), _meanings(), strict=True))
    yield from table(("field", "holds", "default, which a line leaves out", "what it is"), rows)
    yield from ("## Operations", "", "`detail.operation` of a record of the kind `operation` says what was done.", "")
    yield from table(("operation", "what it is", "besides, in `detail`"), OPERATIONS)
    yield from ("## One of `errors`", "", prose(Fault.__doc__), "")
    yield from table(("field", "holds", "default, which a line leaves out"), _fields(Fault))
    yield from ("## `shadow`", "", prose(Shadow.__doc__), "")
    yield from table(("field", "holds", "default, which a line leaves out"), _fields(Shadow))


def _meanings() -> Iterator[str]:
    """What the fields of a record are, in their order: as of the columns of `log sql`, and what is no column."""
    meanings = {**MEANINGS, "prev": "the SHA-256 of the writer's line before, its newline included"}
    return (meanings[field.name] for field in msgspec.structs.fields(Record))


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
            return codes(value for value in values if value)
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
