"""`policyd mesh analyze DIR`: what of a mesh does not work, and what is probably not meant."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from policyd.cli.exits import Exit
from policyd.cli.options import AlsoDir, Folder, named
from policyd.cli.policy_check import Format

if TYPE_CHECKING:
    from policyd.policy.finding_model import Finding


class Level(StrEnum):
    """How bad a finding is."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


def analyze(
    directory: Folder = None,
    also: AlsoDir = None,
    form: Annotated[Format, typer.Option("--format", help="What to print.")] = Format.TEXT,
    as_json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
    failure: Annotated[
        Level, typer.Option("--failure-threshold", help="The least level that is no success.")
    ] = Level.ERROR,
    shown: Annotated[Level, typer.Option("--output-threshold", help="The least level to show.")] = Level.NOTE,
    suppress: Annotated[
        list[str] | None, typer.Option("--suppress", "-S", help="A code to leave out; repeatable.")
    ] = None,
) -> None:
    """Look for what does not work in the mesh of DIR and for what is probably not meant, under Istio's codes.

    References to what is not there, conflicting hosts, rules that are never reached, gateways without listeners, names
    of ports, mutual TLS that does not fit, policies that can match nothing. A resource says with the annotation
    `galley.istio.io/analyze-suppress` which codes are meant so. Exit code 3 if there is an error, 2 if something else
    reaches the failure threshold.
    """
    from policyd.analysis.run import ORDER, reaches
    from policyd.offline.examined import examined

    found, texts = examined(named(directory, also), frozenset(suppress or ()))
    least = ORDER.index(shown.value)
    show(Format.JSON if as_json else form, [one for one in found if ORDER.index(one.severity) <= least], texts)
    if any(one.severity == "error" for one in found):
        raise typer.Exit(Exit.INVALID)
    raise typer.Exit(Exit.DENIED if reaches(found, failure.value) else Exit.OK)


def show(form: Format, found: Sequence[Finding], texts: Mapping[str, str]) -> None:
    """Print in the form that was asked for."""
    from dataclasses import asdict

    from policyd import __version__
    from policyd.cli import output
    from policyd.policy.finding_text import counted, finding_lines
    from policyd.policy.sarif import sarif
    from policyd.wording import clean

    if form is Format.JSON:
        values = [{"severity": one.severity, "name": one.rule.name, **asdict(one)} for one in found]
        output.print_json({"findings": values})
    elif form is Format.SARIF:
        output.print_json(sarif(found, __version__))
    else:
        shown = (clean(line) for line in finding_lines(found, texts))
        output.show(*shown, counted(found) or "ok: nothing found")
