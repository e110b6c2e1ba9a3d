"""`policyd traces ...`: the window of traces that policyd keeps, and one trace as a tree with times."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from policyd.cli.lazy import group
from policyd.cli.options import Dir, Json

if TYPE_CHECKING:
    from policyd._pb import admin_pb2 as pb

BAR: Final = 30  # characters of the time line
HTTP: Final = ("http.method", "http.url", "http.status_code")

app = group("The traces of the last while: where a request spent its time.")


@app.command("list")
def list_(
    directory: Dir = None,
    service: Annotated[str, typer.Option(help="Only those that it took part in: `reviews`, `reviews.default`.")] = "",
    denied: Annotated[bool, typer.Option("--denied", help="Only those in which something was denied.")] = False,
    failed: Annotated[bool, typer.Option("--failed", help="Only those in which something failed.")] = False,
    slower: Annotated[str, typer.Option(metavar="TIME", help="Only those that took at least `100ms`.")] = "",
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many at most.")] = 20,
    as_json: Json = False,
) -> None:
    """Show the traces that policyd has now, the newest first, and how full its window is.

    Which requests are traced, `tracing` of policyd.yaml says; one that comes with a sampled `traceparent` always is.
    """
    from policyd._pb import admin_pb2 as pb
    from policyd.cli import output
    from policyd.cli.show import as_dict
    from policyd.instance import folder, server

    wanted = pb.TracesRequest(
        service=service, denied=denied, failed=failed, slower_ns=_nanoseconds(slower), limit=limit
    )
    with server(folder(directory)) as client:
        reply = client.traces(wanted)
    if as_json:
        output.print_json(as_dict(reply))
    else:
        output.show(*listed(reply))


@app.command()
def show(
    trace: Annotated[str, typer.Argument(metavar="TRACE", help="Its id, of `policyd traces list` or of a record.")],
    directory: Dir = None,
    as_json: Json = False,
) -> None:
    """Show one trace as a tree: who was busy with the request, since when and how long, and what was decided.

    `policyd log show ID` tells more of a decision. A time with `~` was put right, as its clock cannot be.
    """
    from policyd.cli import output
    from policyd.cli.show import as_dict
    from policyd.instance import folder, server

    with server(folder(directory)) as client:
        reply = client.trace(trace.lower())
    if as_json:
        output.print_json(as_dict(reply))
    else:
        output.show(*tree(reply))


def _nanoseconds(text: str) -> int:
    from policyd.errors import UsageError
    from policyd.strict import parse_duration

    try:
        return round(parse_duration(text) * 1e9) if text else 0
    except ValueError as error:
        raise UsageError(f"--slower: {error}") from None


def listed(reply: pb.TracesReply) -> Sequence[Any]:
    """What `list` prints."""
    from policyd.cli import output

    window = reply.window
    mib = 1 << 20
    fill = f"{window.traces} traces, {window.used / mib:.1f} of {window.bound / mib:.0f} MiB"
    if not reply.traces:
        return [f"no such trace is in the window ({fill}); `tracing` of policyd.yaml says which requests are traced"]
    rows = [
        (
            one.id, _clock(one.start_ns), _milliseconds(one.duration_ns), str(one.spans), _became(one),
            one.service, one.name,
        )
        for one in reply.traces
    ]  # fmt: skip
    return [output.table(("TRACE", "AT", "TOOK", "SPANS", "RESULT", "FROM", "REQUEST"), rows), "", fill]


def tree(reply: pb.TraceReply) -> Sequence[Any]:
    """What `show` prints."""
    from policyd.cli import output

    total = max(1, reply.summary.duration_ns)
    rows = [
        (
            _since(row),
            _milliseconds(row.duration_ns),
            bar(row.offset_ns, row.duration_ns, total),
            row.service,
            row.decision or ("fail" if row.failed else ""),
            f"{'  ' * min(row.depth, 40)}{'… ' if row.orphan else ''}{row.name}{_told(row)}",
        )
        for row in reply.rows
    ]
    missing = [] if reply.summary.whole else ["", _missing(reply)]
    return [output.table(("SINCE", "TOOK", "", "SERVICE", "DECISION", "SPAN"), rows), *missing]


def bar(offset: int, duration: int, total: int) -> str:
    """A span's place on the time line, never empty."""
    begin = min(BAR - 1, offset * BAR // total)
    length = max(1, min(BAR - begin, round(duration * BAR / total)))
    return "·" * begin + "━" * length + "·" * (BAR - begin - length)


def _told(row: pb.TraceRow) -> str:
    """What a span says of its request, and which policy decided."""
    tags = {tag.name: tag.value for tag in row.tags}
    said = [tags[name] for name in HTTP if name in tags]
    if row.decision:
        said.append(f"({row.policy or 'no policy'}, {row.decision_id})")
    return f"  {' '.join(said)}" if said else ""


def _missing(reply: pb.TraceReply) -> str:
    cut = f"; {reply.cut} more spans were told of than a trace may have" if reply.cut else ""
    return f"not whole: what caused a span with … is not here, or not yet{cut}"


def _became(one: pb.TraceSummary) -> str:
    return "deny" if one.denied else "fail" if one.failed else "ok"


def _since(row: pb.TraceRow) -> str:
    return f"{'~' if row.moved_ns else ''}{_milliseconds(row.offset_ns)}"


def _milliseconds(nanoseconds: int) -> str:
    return f"{nanoseconds / 1e6:.1f} ms"


def _clock(nanoseconds: int) -> str:
    return datetime.fromtimestamp(nanoseconds // 1_000_000_000, UTC).strftime("%H:%M:%S")
