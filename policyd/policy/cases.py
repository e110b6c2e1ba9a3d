"""Policy cases: requests with the decision that their author expects, decided exactly as the service would.

Law: a case fails loudly: a wrong decision, a reason that did not determine it, or a policy that failed on the
way.

A file is YAML (the contract's form: requests, and tables of who may do what) or JSON (Cedar's own run-tests
form).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from policyd.cedar.http import HttpFacts
from policyd.cedar.model import Decision, Request
from policyd.errors import InvalidInput, PolicydError, Problem
from policyd.mesh.model import Mesh
from policyd.policy.case_json import parse_json_cases
from policyd.policy.case_model import MAX_CASES, Case
from policyd.policy.case_yaml import parse_yaml_cases
from policyd.policy.ruling import Ruling


@dataclass(frozen=True, slots=True)
class Result:
    """What became of a case; it passed if nothing is `different` from what was expected."""

    case: Case
    decision: Decision | None  # None where there is none; then `different` says why
    different: tuple[str, ...] = ()
    request: Request | None = None  # what was decided

    @property
    def passed(self) -> bool:
        """Whether all was as expected."""
        return not self.different

    def problem(self) -> Problem:
        """The failure, in one line, at its place."""
        message = f"the case `{self.case.name}` fails: {'; '.join(self.different)}"
        remedy = f"`{self.case.asked}`: correct the policies, or the case"
        return Problem("case", message, self.case.file, self.case.line, remedy=remedy)


def parse_cases(files: Mapping[str, str], mesh: Mesh) -> tuple[Case, ...]:
    """Parse `{file name: text}`, JSON where the name says so; raises InvalidInput with every problem of every
    file.
    """
    problems: list[Problem] = []
    cases: list[Case] = []
    for name, text in sorted(files.items()):
        try:
            cases += parse_json_cases(text, name) if name.endswith(".json") else parse_yaml_cases(text, name, mesh)
        except InvalidInput as error:
            problems += error.problems
        if len(cases) > MAX_CASES:
            problems.append(Problem("size", f"there are over {MAX_CASES:,} cases", name, remedy="split the mesh"))
            break
    if problems:
        raise InvalidInput(problems)
    return tuple(cases)


def run_cases(cases: Sequence[Case], ruling: Ruling) -> tuple[Result, ...]:
    """Decide each; never raises."""
    return tuple(_run(case, ruling) for case in cases)


def failures(cases: Sequence[Case], ruling: Ruling) -> list[Problem]:
    """The problems of the cases that fail."""
    return [result.problem() for result in run_cases(cases, ruling) if not result.passed]


def _run(case: Case, ruling: Ruling) -> Result:
    try:
        request = _request(case.question, ruling)
        decision = ruling.decide(request)
    except PolicydError as error:
        return Result(case, None, (f"there is no decision: {error.message}",))
    return Result(case, decision, tuple(_differences(case, decision)), request)


def _request(question: HttpFacts | Request, ruling: Ruling) -> Request:
    return ruling.request(question) if isinstance(question, HttpFacts) else question


def _differences(case: Case, decision: Decision) -> list[str]:
    got = f"{decision.word}{_by(decision.reasons)}"
    found = []
    if decision.word != case.expect or not set(case.by) <= set(decision.reasons):
        found.append(f"expected {case.expect}{_by(case.by)}, got {got}")
    if len(decision.errors) != case.errors:
        told = "".join(f": `{error.policy}` {error.message}" for error in decision.errors)
        found.append(f"expected {case.errors} policies to fail, {len(decision.errors)} did{told}")
    return found


def _by(reasons: Sequence[str]) -> str:
    return f" by {', '.join(f'`{reason}`' for reason in reasons)}" if reasons else ""
