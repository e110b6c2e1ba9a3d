"""`policyd policy test DIR`: the cases of a folder, and how much of the policies they try."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from policyd.cli.exits import Exit
from policyd.cli.options import AlsoDir, Folder, Json, Shadow, named

if TYPE_CHECKING:
    from policyd.policy.cases import Result

MinCoverage = Annotated[
    float | None,
    typer.Option("--min-coverage", metavar="N", min=0, max=100, help="Fail below N %.", show_default=False),
]
_XML_HELP = "Write the results as JUnit XML."
_HTML_HELP = "Write results and coverage as a page."


def run(
    directory: Folder = None,
    junit: Annotated[Path | None, typer.Option(metavar="FILE", help=_XML_HELP, show_default=False)] = None,
    coverage: Annotated[bool, typer.Option("--coverage", help="Show what no case tries.")] = False,
    min_coverage: MinCoverage = None,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help=_HTML_HELP, show_default=False)] = None,
    shadow: Shadow = None,
    as_json: Json = False,
    also: AlsoDir = None,
) -> None:
    """Run the cases in DIR/cases against the policies: each says a request and the decision it expects.

    Coverage counts for each policy whether it decided a case, and for each of its conditions whether it let the policy
    apply and whether it kept it from applying. Exit code 2 if a case fails, or less than --min-coverage is covered.
    Cases that would fail if policies that are only tried were active are shown, and fail nothing.
    """
    from policyd.cli import output
    from policyd.offline.loaded import load_folder
    from policyd.policy import coverage as covering
    from policyd.policy.cases import parse_cases, run_cases
    from policyd.policy.coverage_text import coverage_lines, coverage_value
    from policyd.policy.junit import junit as as_junit
    from policyd.policy.report_html import report_html
    from policyd.sources.files import read_folder
    from policyd.wording import clean

    where = named(directory, also)
    live = load_folder(where, cases=False, shadow=shadow).live
    cases = parse_cases(read_folder(where).below("cases"), live.mesh)
    results = run_cases(cases, live.ruling)
    tried = run_cases(cases, live.ruling.shadow) if live.ruling.shadow else None
    wanted = coverage or min_coverage is not None or html is not None
    found = covering.coverage(results if wanted else (), live.ruling.policy_set, live.ruling.schema)
    if junit:
        write(junit, as_junit(results))
    if html:
        write(html, report_html(where.name, results, found))
    if as_json:
        shown = {"cases": [value(result) for result in results]}
        if tried is not None:
            shown["shadow_cases"] = [value(result) for result in tried]
        output.print_json(shown | ({"coverage": coverage_value(found)} if wanted else {}))
    else:
        output.show(*lines(results), *shadow_lines(tried or ()), *map(clean, coverage_lines(found) if wanted else ()))
    too_little = min_coverage is not None and found.percent < min_coverage
    if too_little and not as_json:
        output.show(f"coverage is below {min_coverage:g} %")
    passed = all(result.passed for result in results) and not too_little
    raise typer.Exit(Exit.OK if passed else Exit.DENIED)


def write(path: Path, text: str) -> None:
    """Write a report; raises StateError where it cannot be written."""
    from policyd.errors import StateError

    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        raise StateError(f"`{path}` cannot be written: {why}", remedy="name another file") from None


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
    from policyd.error_text import problem_lines

    if not results:
        return ["there are no cases; write cases/<name>.yaml, as in examples/bookinfo/cases"]
    failed = [result.problem() for result in results if not result.passed]
    count = f"{len(results):,} case{'s' if len(results) > 1 else ''}"
    return [*problem_lines(failed), f"{count}, {f'{len(failed):,} failed' if failed else 'all passed'}"]


def shadow_lines(results: Sequence[Result]) -> Sequence[str]:
    """Return what to print of the cases under the shadow policies: those that would fail."""
    from policyd.wording import clean

    if not results:
        return []
    failed = [f"  {result.case.name}: {'; '.join(result.different)}" for result in results if not result.passed]
    if not failed:
        return ["under the shadow policies all would pass too"]
    return [f"under the shadow policies {len(failed)} would fail:", *map(clean, failed)]
