"""What the author's checks can find: one table of codes, stable for ever, and the value of one finding."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from policyd.errors import Problem

Severity = Literal["error", "warning", "note"]


@dataclass(frozen=True, slots=True)
class Rule:
    """One kind of finding: `name` in words with dashes, `meaning` a sentence."""

    code: str
    name: str
    severity: Severity
    meaning: str


def _table(*rules: tuple[str, str, Severity, str]) -> dict[str, Rule]:
    return {rule[0]: Rule(*rule) for rule in rules}


RULES: Final[Mapping[str, Rule]] = _table(
    ("PD0001", "input", "error", "a file of the folder is not acceptable"),
    ("PD0002", "syntax", "error", "the text is no Cedar policy"),
    ("PD0003", "bounds", "error", "a file or a policy is too large or too deep"),
    ("PD0004", "id", "error", "a policy lacks its id, or shares it with another one"),
    ("PD0005", "template", "error", "templates are not supported"),
    ("PD0006", "header", "error", "a header that proxies do not send to policyd is read"),
    ("PD0007", "invalid", "error", "a policy is not valid for the schema"),
    ("PD0008", "mark", "error", "`@shadow` stands where it means nothing"),
    ("PD0101", "unknown-service", "warning", "the scope names a service that the mesh does not have"),
    ("PD0102", "unknown-workload", "warning", "the scope names a workload that the mesh does not have"),
    ("PD0103", "unknown-group", "warning", "the scope names a group that nothing declares"),
    ("PD0104", "unknown-namespace", "warning", "the scope names a namespace or trust domain with nothing in it"),
    ("PD0105", "empty-group", "warning", "the scope names a group without a member of the kind that is meant"),
    ("PD0106", "shared-port", "warning", "requests to the service are decided as requests to another one"),
    ("PD0201", "never-holds", "warning", "a condition is false for every request"),
    ("PD0202", "contradiction", "warning", "a condition is false for every request that those before it let through"),
    ("PD0203", "never-carried", "warning", "a condition asks for what no request carries"),
    ("PD0204", "always-holds", "note", "a condition is true for every request, so that it says nothing"),
    ("PD0301", "shadowed", "warning", "a permit is without effect: a forbid without conditions covers it"),
    ("PD0302", "permits-everything", "warning", "a permit grants every request of everyone"),
    ("PD0303", "redundant", "note", "a policy is without effect: one like it, without conditions, covers it"),
    ("PD0304", "open-to-all", "note", "a permit is open to every caller, also to those without an identity"),
    ("PD0401", "unused-group", "note", "no policy names the group"),
    ("PD0402", "tried", "note", "a policy is marked `@shadow`, so that it is tried and enforces nothing"),
)
_OF_PROBLEMS: Final[Mapping[str, str]] = {
    "policy_syntax": "PD0002",
    "policy_bounds": "PD0003",
    "policy_id": "PD0004",
    "policy_template": "PD0005",
    "policy_header": "PD0006",
    "policy_invalid": "PD0007",
    "policy_shadow": "PD0008",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing found; `line` and `column` count from 1 (0: unknown), `width` is in characters of that line."""

    code: str
    message: str
    file: str
    line: int = 0
    column: int = 0
    width: int = 1
    remedy: str = ""
    policy: str = ""

    @property
    def rule(self) -> Rule:
        """Its kind."""
        return RULES[self.code]

    @property
    def severity(self) -> Severity:
        """How bad it is."""
        return self.rule.severity

    def problem(self) -> Problem:
        """As other rooms tell of problems."""
        return Problem(self.code, self.message, self.file, self.line, self.column, self.remedy)


def of_problems(problems: Iterable[Problem]) -> list[Finding]:
    """What loading a folder refuses, as findings; other files than policies have one code together."""
    return [
        Finding(_OF_PROBLEMS.get(one.code, "PD0001"), one.message, one.file, one.line, one.column, remedy=one.remedy)
        for one in problems
    ]
