"""`policyd top`: who calls whom now, how often, what is denied and what is slow, as proxies count it."""

from __future__ import annotations

import sys
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Final

import typer

from policyd.cli.lazy import leaf
from policyd.cli.options import Dir

if TYPE_CHECKING:
    from policyd.admin_client import AdminClient
    from policyd.telemetry.graph import Look, Traffic

MAX_PAGE: Final = 64 << 20  # bytes of one proxy's page


app = leaf()


@app.command()
def top(
    directory: Dir = None,
    every: Annotated[float, typer.Option(min=0.5, max=60, help="Seconds between two looks.")] = 2.0,
    once: Annotated[bool, typer.Option("--once", help="Look twice, print once, end.")] = False,
    everything: Annotated[bool, typer.Option("--all", help="Also who called before, and rests now.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON a look, a line.")] = False,
) -> None:
    """Show who calls whom, live: rates, denials, failures, durations. Ends with Ctrl-C.

    What is shown happened between two looks. A denial is a decision, a failure an answer with 5xx. Without a terminal
    and with --once it prints once and ends.
    """
    from policyd.instance import folder, server

    where = folder(directory)
    with server(where) as client:
        looks = _between(client, every)
        if as_json:
            for seconds, edges, missed in looks:
                _print_json(seconds, edges, missed)
                if once:
                    return
        elif once or not sys.stdout.isatty():
            _, edges, missed = next(looks)
            _show(edges, missed, everything=everything)
        else:
            _live(where.name, looks, every, everything=everything)


Between = tuple[float, "list[Traffic]", Sequence[str]]


def _between(client: AdminClient, every: float) -> Iterator[Between]:
    """What happened between each look and the one before; which proxies were not seen, and why."""
    from policyd.telemetry.graph import traffic

    before, _ = _look(client)
    at = time.monotonic()
    while True:
        time.sleep(every)
        now, missed = _look(client)
        seen = time.monotonic()
        yield seen - at, traffic(before, now, seen - at), missed
        before, at = now, seen


def _look(client: AdminClient) -> tuple[Look, Sequence[str]]:
    from policyd.errors import NotRunning, PolicydError
    from policyd.telemetry.graph import look

    pages, missed = {}, []
    places = client.instances()
    for place in places:
        try:
            held = client.inspect(place.name, "metrics").held
            pages[place.name] = zlib.decompressobj().decompress(held, MAX_PAGE).decode(errors="replace")
        except NotRunning:
            raise
        except (PolicydError, zlib.error) as error:
            missed.append(f"{place.name}: {error}")
    return look(pages, frozenset(place.name for place in places if place.role == "gateway")), missed


def chosen(edges: Sequence[Traffic], *, everything: bool) -> list[Traffic]:
    """Of all those that are busy, or `everything`; what is wrong first."""
    from policyd.cli.top_screen import worst_first

    return worst_first([one for one in edges if everything or one.rate or one.connections])


def _show(edges: Sequence[Traffic], missed: Sequence[str], *, everything: bool) -> None:
    from policyd.cli import output
    from policyd.cli.top_screen import HEADERS, cells
    from policyd.wording import clean

    found = [cells(one) for one in chosen(edges, everything=everything)]
    told = output.table(HEADERS, found) if found else "no request ended meanwhile"
    output.show(told, *(clean(f"not seen: {one}") for one in missed))


def _live(name: str, looks: Iterator[Between], every: float, *, everything: bool) -> None:
    from rich.live import Live

    from policyd.cli import output
    from policyd.cli.top_screen import Screen

    with Live(console=output.console(), screen=True, auto_refresh=False) as live:
        live.update(f"counting what passes in the next {every:g} s", refresh=True)
        for seconds, edges, missed in looks:
            shown = Screen(name, seconds, chosen(edges, everything=everything), missed)
            live.update(shown, refresh=True)


def _print_json(seconds: float, edges: Sequence[Traffic], missed: Sequence[str]) -> None:
    import json

    def flat(one: Traffic) -> Mapping[str, object]:
        return {**one.edge._asdict(), **{name: value for name, value in asdict(one).items() if name != "edge"}}

    value = {"seconds": round(seconds, 3), "edges": [flat(one) for one in edges], "not_seen": list(missed)}
    sys.stdout.write(json.dumps(value, ensure_ascii=False) + "\n")
    sys.stdout.flush()
