"""`policyd policy check DIR`: what is wrong with the policies, and what is probably not meant."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from policyd.cli.exits import Exit

if TYPE_CHECKING:
    from policyd.policy.finding_model import Finding


class Format(StrEnum):
    """What a check can print."""

    TEXT = "text"
    JSON = "json"
    SARIF = "sarif"


def check(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="The mesh's folder.", show_default=False)],
    form: Annotated[Format, typer.Option("--format", help="What to print.")] = Format.TEXT,
    as_json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Fail for warnings too.")] = False,
    notes: Annotated[bool, typer.Option("--notes", help="Show notes as well: what is harmless.")] = False,
) -> None:
    """Check the policies of DIR: syntax, types, and what never matches, is without effect or grants too much.

    Exit code 3 if there is an error, 2 if there is a warning and --strict is given.
    """
    from policyd.cli.instance import existing
    from policyd.sources.files import read_folder

    folder = read_folder(existing(directory))
    count, findings = examined(existing(directory))
    show(Format.JSON if as_json else form, findings, count, folder.texts, notes)
    severities = {one.severity for one in findings}
    if "error" in severities:
        raise typer.Exit(Exit.INVALID)
    raise typer.Exit(Exit.DENIED if strict and "warning" in severities else Exit.OK)


def examined(directory: Path) -> tuple[int, list[Finding]]:
    """Return how many policies a folder has, and everything found in them; with an error only errors are found."""
    from policyd.cli.loaded import load_folder
    from policyd.errors import InvalidInput
    from policyd.policy.finding_model import of_problems

    try:
        loaded = load_folder(directory, cases=False)
    except InvalidInput as error:
        return 0, of_problems(error.problems)
    return len(loaded.live.ruling.policy_set.policies), list(loaded.findings)


def show(form: Format, findings: Sequence[Finding], count: int, texts: Mapping[str, str], notes: bool) -> None:
    """Print in the form that was asked for; only people are spared the notes."""
    from dataclasses import asdict

    from policyd import __version__
    from policyd.cli import output
    from policyd.policy.finding_text import counted, finding_lines
    from policyd.policy.sarif import sarif

    if form is Format.JSON:
        values = [{"severity": one.severity, "name": one.rule.name, **asdict(one)} for one in findings]
        output.print_json({"policies": count, "findings": values})
    elif form is Format.SARIF:
        output.print_json(sarif(findings, __version__))
    else:
        shown = [one for one in findings if notes or one.severity != "note"]
        hidden = counted([one for one in findings if one.severity == "note"]) if len(shown) < len(findings) else ""
        summary = (counted(shown) or "ok") + (f"; --notes shows {hidden}" if hidden else "")
        about = f"{count:,} {'policy' if count == 1 else 'policies'}: " if count else ""
        output.show(*(output.clean(line) for line in finding_lines(shown, texts)), about + summary)
