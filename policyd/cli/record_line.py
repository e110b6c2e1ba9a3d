"""A record of the journal in one line, for people."""

from __future__ import annotations

from datetime import UTC
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from rich.text import Text

    from policyd.audit.record import Record

UNREADABLE: Final = frozenset({"csr_sha256", "spiffe_id", "serial"})  # beside the names of who and what


def describe(record: Record) -> Text:
    """One record in one line, for people; times are UTC."""
    from rich.text import Text

    from policyd.audit.match import short_name
    from policyd.cli.output import STYLES
    from policyd.wording import clean

    word = record.decision or "-"
    subject = _request(record) if record.kind == "decision" else _happening(record)
    parties = " -> ".join(filter(None, (short_name(record.principal), short_name(record.resource))))
    rest = "  ".join(filter(None, (parties, subject, describe_reason(record), _tried(record), _duration(record))))
    when = record.time.astimezone(UTC)
    line = Text(f"{when:%Y-%m-%d %H:%M:%S}.{when.microsecond // 1000:03d}Z  ")
    line.append(f"{word:<5}", style=STYLES.get(word, "yellow"))
    return line.append(clean(f"  {rest}").replace("\n", "�").rstrip())


def _request(record: Record) -> str:
    from policyd.audit.match import entity_id

    request = record.context.get("request")
    facts: dict[str, Any] = {**record.detail, **(request if isinstance(request, dict) else {})}
    method = str(facts.get("method") or entity_id(record.action))
    return f"{method} {facts['path']}" if facts.get("path") else method


def _happening(record: Record) -> str:
    """What a record that is no decision says: its own facts, as `name=value`, the hashes left to `--json`."""
    shown = {name: value for name, value in record.detail.items() if name not in UNREADABLE}
    if record.kind == "change":
        return f"change of {', '.join(shown.get('files', ())) or 'the folder'}"
    return " ".join([record.kind, *(f"{name}={_value(value)}" for name, value in shown.items())])


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return str(value.get("kind", "…"))
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def describe_reason(record: Record) -> str:
    """Which policies decided, what failed, or that no policy allows it."""
    faults = "; ".join(f"{fault.source}: {fault.message}" for fault in record.errors)
    if faults or record.reasons:
        return " ".join(filter(None, (", ".join(record.reasons), faults)))
    return "no policy allows it" if record.kind == "decision" and record.decision == "deny" else ""


def _tried(record: Record) -> str:
    """What the shadow policies would have done, where that is something else."""
    from policyd.audit.record import change_of

    shadow = record.shadow
    if shadow is None or change_of(record) == "agree":
        return ""
    by = ", ".join(shadow.reasons) or "; ".join(f"{fault.source}: {fault.message}" for fault in shadow.errors)
    return f"(shadow: {' by '.join(filter(None, (shadow.decision, by)))})"


def _duration(record: Record) -> str:
    if record.decided_by:
        return f"by its {record.decided_by}"
    cached = " (cached)" if record.cached else ""
    return f"{record.duration_us / 1000:.1f} ms{cached}" if record.duration_us else ""
