"""`policyd policy check DIR`: what is wrong with the policies, and what is probably not meant."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from policyd.cli.exits import Exit
from policyd.cli.options import AlsoDir, Folder, Shadow, named

if TYPE_CHECKING:
    from policyd.policy.finding_model import Finding


class Format(StrEnum):
    """What a check can print."""

    TEXT = "text"
    JSON = "json"
    SARIF = "sarif"


@dataclass(frozen=True, slots=True)
class Counts:
    """How many policies are active, and how many are in the shadow set; None where there is none."""

    active: int = 0
    shadow: int | None = None

    def __str__(self) -> str:
        """In words."""
        active = f"{self.active:,} {'policy' if self.active == 1 else 'policies'}"
        return active if self.shadow is None else f"{active}, {self.shadow:,} in the shadow set"


def check(
    directory: Folder = None,
    form: Annotated[Format, typer.Option("--format", help="What to print.")] = Format.TEXT,
    as_json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Fail for warnings too.")] = False,
    notes: Annotated[bool, typer.Option("--notes", help="Show notes as well: what is harmless.")] = False,
    shadow: Shadow = None,
    also: AlsoDir = None,
) -> None:
    """Check the policies of DIR: syntax, types, and what never matches, is without effect or grants too much.

    Policies that are tried beside the active ones are checked as if they were active. Exit code 3 if there is an
    error, 2 if there is a warning and --strict is given.
    """
    counts, findings, texts = examined(named(directory, also), shadow)
    show(Format.JSON if as_json else form, findings, counts, texts, notes)
    severities = {one.severity for one in findings}
    if "error" in severities:
        raise typer.Exit(Exit.INVALID)
    raise typer.Exit(Exit.DENIED if strict and "warning" in severities else Exit.OK)


def examined(directory: Path, shadow: Path | None = None) -> tuple[Counts, list[Finding], Mapping[str, str]]:
    """Return how many policies a folder has, what was found in them (errors alone if there are some), and its texts."""
    from policyd.errors import InvalidInput
    from policyd.offline.loaded import load_folder, texts_of
    from policyd.policy.finding_model import of_problems

    try:
        loaded = load_folder(directory, cases=False, shadow=shadow)
    except InvalidInput as error:
        return Counts(), of_problems(error.problems), texts_of(directory)
    ruling = loaded.live.ruling
    tried = len(ruling.shadow.policy_set.policies) if ruling.shadow else None
    return Counts(len(ruling.policy_set.policies), tried), list(loaded.findings), loaded.folder.every_text


def show(form: Format, findings: Sequence[Finding], counts: Counts, texts: Mapping[str, str], notes: bool) -> None:
    """Print in the form that was asked for; only people are spared the notes."""
    from dataclasses import asdict

    from policyd import __version__
    from policyd.cli import output
    from policyd.policy.finding_text import counted, finding_lines
    from policyd.policy.sarif import sarif
    from policyd.wording import clean

    if form is Format.JSON:
        tried = {} if counts.shadow is None else {"shadow_policies": counts.shadow}
        values = [{"severity": one.severity, "name": one.rule.name, **asdict(one)} for one in findings]
        output.print_json({"policies": counts.active} | tried | {"findings": values})
    elif form is Format.SARIF:
        output.print_json(sarif(findings, __version__))
    else:
        shown = [one for one in findings if notes or one.severity != "note"]
        hidden = counted([one for one in findings if one.severity == "note"]) if len(shown) < len(findings) else ""
        summary = (counted(shown) or "ok") + (f"; --notes shows {hidden}" if hidden else "")
        about = f"{counts}: " if counts.active or counts.shadow else ""
        nothing = "" if findings or about else "there are no policies: every request is denied"
        output.show(*(clean(line) for line in finding_lines(shown, texts)), nothing or about + summary)
