"""`policyd ca list`, `log` and `show SERIAL`: what was issued, to whom, by which evidence, and when it ends.

Law: reads the journal, whose records of issuance are the ledger; needs no server. No token and no key is in it.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import typer

from policyd.cli.moments import Since, Until
from policyd.cli.options import Dir, Json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from policyd.audit.record import Record

MAX_SHOWN: Final = 20

Identity = Annotated[
    str | None,
    typer.Option("--identity", help="Only of this workload: `reviews`, or a whole SPIFFE ID.", show_default=False),
]
OfAgent = Annotated[str, typer.Option("--agent", help="Only what this agent got.", show_default=False)]
ByEvidence = Annotated[
    str,
    typer.Option(
        "--evidence",
        metavar="KIND|SELECTOR",
        help="Only by this evidence: `join_token`, `renewal`, `unix`, `kubernetes`, `x509`, or as `k8s:ns:shop`.",
        show_default=False,
    ),
]
EndsWithin = Annotated[
    str, typer.Option("--ends-within", metavar="TIME", help="Only what ends so soon: `10m`.", show_default=False)
]


def listed(
    directory: Dir = None,
    as_json: Json = False,
    identity: Identity = None,
    agent: OfAgent = "",
    evidence: ByEvidence = "",
    ends_within: EndsWithin = "",
    everything: Annotated[bool, typer.Option("--all", help="What has ended too.")] = False,
    lines: Annotated[int, typer.Option("-n", "--lines", min=1, max=1_000_000, help="At most so many.")] = 100,
) -> None:
    """List the certificates and tokens that are good now, the first to end first."""
    from policyd.audit.ask.issuance import Issued, issued
    from policyd.cli import output
    from policyd.cli.journal_copy import ask

    now = datetime.now(UTC)
    valid, before = None if everything else now, _before(ends_within, now)
    wanted = Issued(identity=identity, agent=agent, evidence=evidence, valid_at=valid, ends_before=before)
    with ask(directory, [issued(wanted, lines)]) as answers:
        rows = [_row(value) for value in next(answers).values()]
    if as_json:
        output.print_json(rows)
        return
    headers = ("serial or jti", "kind", "identity", "ends", "", "agent", "evidence")
    output.show(output.table(headers, [_cells(row, now) for row in rows]))


def log(
    directory: Dir = None,
    as_json: Json = False,
    since: Since = "",
    until: Until = "",
    identity: Identity = None,
    agent: OfAgent = "",
    evidence: ByEvidence = "",
    ends_within: EndsWithin = "",
    decision: Annotated[
        Literal["allow", "deny", "error"] | None, typer.Option(help="Only these.", show_default=False)
    ] = None,
    lines: Annotated[int, typer.Option("-n", "--lines", min=1, max=1_000_000, help="At most so many.")] = MAX_SHOWN,
) -> None:
    """Show the newest records of issuance, refusals too: who asked for what, by which evidence, and what came of it."""
    from policyd.audit.ask.issuance import Issued, newest
    from policyd.audit.ask.records import record_of
    from policyd.cli import output
    from policyd.cli.journal_copy import ask
    from policyd.cli.moments import here
    from policyd.cli.record_line import describe

    now = datetime.now(UTC)
    ends = {"valid_at": now, "ends_before": _before(ends_within, now)} if ends_within else {}
    question = newest(Issued(here(since, until), identity, agent, evidence, **ends), decision, lines)
    with ask(directory, [question]) as answers:
        records = [record_of(value) for value in next(answers).values()]
    if as_json:
        output.print_json([_plain(one) for one in records])
        return
    for one in records:
        output.console().print(describe(one), soft_wrap=True)


def _before(within: str, now: datetime) -> datetime | None:
    from policyd.cli.values import seconds

    return now + timedelta(seconds=seconds(within)) if within else None


def show_record(text: str, directory: Path | None, *, as_json: bool) -> None:
    """Show the record of one certificate or token; raises NotFound where there is none, or several."""
    from policyd.cli import output

    found = recorded(text, directory)
    if as_json:
        output.print_json(_plain(found))
    else:
        output.show(output.facts(_facts(found, datetime.now(UTC))))


def recorded(text: str, directory: Path | None) -> Record:
    """The record of one certificate or token; raises NotFound where there is none, or several."""
    from policyd.audit.ask.issuance import by_name, serial_of
    from policyd.audit.ask.records import record_of
    from policyd.cli.journal_copy import ask
    from policyd.errors import NotFound, UsageError

    try:
        name = serial_of(text)
    except ValueError as error:
        message, _, remedy = str(error).partition("; ")
        raise UsageError(message, remedy=remedy) from None
    with ask(directory, [by_name(name, 2)]) as answers:
        found = [record_of(value) for value in next(answers).values()]
    if len(found) != 1:
        what = "several certificates begin with" if found else "the journal has no certificate or token"
        remedy = "write more digits of it" if found else "look at `policyd ca list --all`"
        raise NotFound(f"{what} `{name}`", remedy=remedy)
    return found[0]


def _facts(record: Record, now: datetime) -> Sequence[tuple[str, str]]:
    from policyd.audit.match import entity_id

    detail = record.detail
    evidence = detail.get("evidence", {})
    end = datetime.fromisoformat(str(detail["not_after"]))
    shown = [
        ("kind", _kind(record.action)),
        ("serial" if "serial" in detail else "jti", str(detail.get("serial") or detail.get("jti"))),
        ("identity", str(detail.get("spiffe_id"))),
        ("issued", f"{record.time:%FT%TZ}"),
        ("ends", f"{end:%FT%TZ} ({_left(end, now)})"),
        ("asked by", f"{entity_id(record.principal)} as {detail.get('requested_by')}"),
        ("agent", str(detail.get("agent", "-"))),
        ("evidence", " ".join([str(evidence.get("kind", "-")), *evidence.get("selectors", [])])),
        ("allowed by", ", ".join(record.reasons) or "-"),
        ("revision", record.revision or "-"),
        ("request SHA-256", str(detail.get("csr_sha256", "-"))),
        ("record", f"{record.writer} {record.seq}"),
    ]
    return [(name, value) for name, value in shown if value != "-"]


def _row(value: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": value["name"],
        "kind": _kind(value["action"]),
        "spiffe_id": value["spiffe_id"],
        "issued": _moment(value["issued"]),
        "ends": _moment(value["ends"]),
        "agent": value["agent"],
        "requested_by": value["requested_by"],
        "evidence": value["evidence"],
    }


def _cells(row: dict[str, Any], now: datetime) -> Sequence[str]:
    end = datetime.fromisoformat(row["ends"])
    who = row["agent"] or row["requested_by"]
    return row["name"], row["kind"], row["spiffe_id"], row["ends"], _left(end, now), who, row["evidence"]


def _moment(value: Any) -> str:
    time = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
    return f"{time:%FT%TZ}"


def _kind(action: str) -> str:
    return "token" if action.endswith('"jwt"') else "certificate"


def _left(end: datetime, now: datetime) -> str:
    from policyd.wording import span

    left = int((end - now).total_seconds())
    return f"in {span(left)}" if left > 0 else f"{span(-left)} ago"


def _plain(record: Record) -> dict[str, Any]:
    import json

    from policyd.audit.record import encode

    value: dict[str, Any] = json.loads(encode(record))
    del value["prev"]  # the copy has none
    return value
