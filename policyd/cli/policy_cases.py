"""`policyd policy test DIR`: the cases of a folder, and how much of the policies they try."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from policyd.cli.exits import Exit
from policyd.cli.options import Json

if TYPE_CHECKING:
    from policyd.policy.cases import Result


def run(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="The mesh's folder.", show_default=False)],
    as_json: Json = False,
) -> None:
    """Run the cases in DIR/cases against the policies: each says a request and the decision it expects.

    Exit code 2 if one fails.
    """
    from policyd.cli import output
    from policyd.cli.instance import existing
    from policyd.cli.loaded import load_folder
    from policyd.policy.cases import parse_cases, run_cases
    from policyd.sources.files import read_folder

    where = existing(directory)
    live = load_folder(where, cases=False).live
    results = run_cases(parse_cases(read_folder(where).below("cases"), live.mesh), live.ruling)
    if as_json:
        output.print_json({"cases": [value(result) for result in results]})
    else:
        output.show(*lines(results))
    raise typer.Exit(Exit.OK if all(result.passed for result in results) else Exit.DENIED)


def value(result: Result) -> dict[str, Any]:
    """Return a result as JSON has it."""
    case, decision = result.case, result.decision
    return {
        "name": case.name,
        "request": case.asked,
        "expect": case.expect,
        "got": decision.word if decision else None,
        "by": list(decision.reasons) if decision else [],
        "passed": result.passed,
        "different": list(result.different),
        "file": case.file,
        "line": case.line,
    }


def lines(results: Sequence[Result]) -> Sequence[str]:
    """Return what to print: every failure, and how many passed."""
    from policyd.cli import output

    if not results:
        return ["there are no cases; write cases/<name>.yaml, as in examples/bookinfo/cases"]
    failed = [output.clean(str(result.problem())) for result in results if not result.passed]
    return [*failed, f"{len(results)} cases, {len(failed)} failed" if failed else f"{len(results)} cases, all passed"]
