"""What `up` tells once everything is up: addresses, warnings, the checks' table, then changes of the files."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from policyd.cli import check_table, output
from policyd.cli.check_run import pages
from policyd.cli.console import link
from policyd.cli.exits import Exit
from policyd.cli.places import addresses
from policyd.errors import NotRunning, PolicydError, Problem
from policyd.instance import server
from policyd.state_paths import state_paths
from policyd.wording import clean

if TYPE_CHECKING:
    from policyd.cli.check_table import Outcome
    from policyd.cli.running import RunningMesh
    from policyd.offline.loaded import Loaded

LOOK_SECONDS: Final = 1.0


def after_start(mesh: RunningMesh, loaded: Loaded, outcomes: Sequence[Outcome], *, as_json: bool) -> int:
    """Print addresses, warnings and outcomes; returns the exit code that the checks give."""
    places, front_pages = mesh.places, pages(loaded, mesh.places)
    warnings = list(dict.fromkeys([*map(str, loaded.warnings), *mesh.warnings]))
    passed = all(outcome.passed for outcome in outcomes)
    if as_json:
        value = {
            "ok": passed,
            "addresses": addresses(places),
            "pages": front_pages,
            "metrics": mesh.metrics,
            **({"console": link(state_paths(loaded.directory))} if mesh.console else {}),
            "warnings": warnings,
            "checks": check_table.as_json(outcomes),
        }
        output.print_json(value)
        sys.stdout.flush()
    else:
        opened = [f"open  {url}" for url in front_pages or addresses(places)]
        opened += [f"console  {link(state_paths(loaded.directory))}"] if mesh.console else []
        opened += [f"metrics  {mesh.metrics}"] if mesh.metrics else []
        warned = [f"warning: {clean(warning)}" for warning in warnings]
        output.show(
            "", *opened, *warned, *(["", *check_table.lines(outcomes, output.console().width)] if outcomes else [])
        )
    return Exit.OK if passed else Exit.ERROR


def staying() -> None:
    """Say how to end it."""
    output.show("", "everything is up; changed files take effect at once; Ctrl-C ends it all")


async def changes(directory: Path) -> None:
    """Print what becomes of changed files, without end: which revision is in force, or why a change is refused."""
    known: tuple[str, tuple[str, ...], str] | None = None
    while True:
        found = await asyncio.to_thread(_in_force, directory)
        if found is not None and found != known:
            if known is not None:
                output.show(*change_lines(*found))
            known = found
        await asyncio.sleep(LOOK_SECONDS)


def change_lines(revision: str, refused: Sequence[str], shadow: str = "") -> Sequence[str]:
    """Say what a change came to."""
    if refused:
        return ["changed     refused, the last good revision stays in force:", *(f"  {line}" for line in refused)]
    tried = f", shadow revision {shadow[:12]} is tried beside it" if shadow else ""
    return [f"changed     revision {revision[:12]} is in force{tried}"]


def _in_force(directory: Path) -> tuple[str, tuple[str, ...], str] | None:
    try:
        with server(directory) as client:
            status = client.status()
    except (NotRunning, PolicydError):
        return None
    refused = (Problem(p.code, p.message, p.file, p.line, remedy=p.remedy) for p in status.refused)
    return f"{status.revision}", tuple(clean(str(problem)) for problem in refused), status.shadow.revision
