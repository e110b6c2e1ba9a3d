"""A whole folder analysed: what it is refused for, or what is found in what came of it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Final

from policyd.analysis import attachments, destinations, gateways, peers, routes, scope, services, tokens
from policyd.analysis.model import Analysed, Findings
from policyd.policy.finding_model import Finding, Severity

FAMILIES: Final[tuple[Callable[[Analysed], Findings], ...]] = (
    routes.find, destinations.find, gateways.find, services.find, peers.find, scope.find, tokens.find,
    attachments.find,
)  # fmt: skip
ORDER: Final[tuple[Severity, ...]] = ("error", "warning", "note")
# of the findings about policies: those that say that a policy can match nothing
OF_POLICIES: Final = frozenset(
    {"PD0101", "PD0102", "PD0103", "PD0104", "PD0105", "PD0106", "PD0201", "PD0202", "PD0203", "PD0301"}
)


def analyse(analysed: Analysed, policies: Iterable[Finding] = (), suppressed: Collection[str] = ()) -> list[Finding]:
    """Everything found, the worst first, then by place; `policies` are the findings about these."""
    every = [one for family in FAMILIES for one in family(analysed)]
    found = [one.finding for one in every if not one.is_suppressed]
    found += [one for one in policies if one.code in OF_POLICIES]
    return ordered(one for one in found if one.code not in suppressed)


def ordered(found: Iterable[Finding]) -> list[Finding]:
    """The worst first, then by place."""
    return sorted(found, key=lambda one: (ORDER.index(one.severity), one.file, one.line, one.column, one.code))


def reaches(found: Iterable[Finding], threshold: Severity) -> bool:
    """Whether some finding is as bad as the threshold, or worse."""
    return any(ORDER.index(one.severity) <= ORDER.index(threshold) for one in found)
