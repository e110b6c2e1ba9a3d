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
    # of the mesh: Istio's codes where they mean the same, else our own
    ("IST0101", "referenced-resource-not-found", "error", "something is referred to that is not there"),
    ("IST0106", "schema-validation-error", "error", "a resource is not as its kind has to be"),
    ("IST0109", "conflicting-virtual-service-hosts", "error", "two VirtualServices have the rules of one host"),
    ("IST0110", "conflicting-sidecar-selectors", "error", "two Sidecars hold for the same workloads"),
    ("IST0112", "destination-port-required", "error", "a destination has several ports, or not the one that is named"),
    ("IST0113", "mtls-policy-conflict", "error", "callers would not speak the TLS that the service wants"),
    ("IST0118", "port-name", "note", "the name of a port says nothing of its protocol"),
    ("IST0122", "invalid-regexp", "error", "a regex is none that proxies read, or too large for them"),
    ("IST0127", "no-matching-workloads", "error", "a selector holds for no workload"),
    ("IST0128", "no-server-verification", "warning", "the certificate of a destination is not verified"),
    ("IST0129", "no-server-verification-at-port", "warning", "the certificate of a port is not verified"),
    ("IST0130", "unreachable-rule", "warning", "a rule is never reached: those before it match all that it does"),
    ("IST0131", "ineffective-match", "note", "a block of a rule is never reached: a rule before it matches the same"),
    ("IST0132", "host-not-in-gateway", "error", "a host of a VirtualService is served by none of its gateways"),
    ("IST0138", "duplicate-certificate", "warning", "one certificate is shown by several Gateways"),
    ("IST0145", "conflicting-gateways", "error", "two servers of one port contradict each other"),
    ("IST0162", "gateway-port-not-open", "error", "a Gateway names a port that its gateway does not open"),
    ("IST0173", "subset-selects-nothing", "error", "no instance bears the labels of a subset"),
    ("IST0174", "unknown-destination-host", "error", "the host of a DestinationRule is no service of the mesh"),
    ("PM0001", "refused", "error", "the folder is refused for this"),
    ("PM0101", "no-share", "note", "a destination has the weight 0, so that nothing goes there"),
    ("PM0102", "unused-subset", "note", "no rule leads to a subset"),
    ("PM0201", "unused-gateway", "warning", "no VirtualService is bound to a Gateway, so that it routes nothing"),
    ("PM0202", "idle-port", "warning", "a gateway opens a port that no Gateway serves"),
    ("PM0203", "not-attached", "warning", "a condition of a resource of the Gateway API is not as it should be"),
    ("PM0301", "in-plain-text", "warning", "callers are told to speak plain text, and are nobody to policies then"),
    ("PM0302", "unverified-callers", "note", "a workload takes plain text too, whose callers are nobody to policies"),
    (
        "PM0303",
        "no-connections-in-plain-text",
        "warning",
        "connections to a port of TCP or TLS come by mutual TLS only",
    ),
    ("PM0401", "unseen-namespace", "warning", "a resource is given to a namespace that has nothing in it"),
    ("PM0501", "unused-tokens", "note", "tokens are verified, and no policy reads of users"),
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
