"""Who calls, by the certificate: principals, namespaces, service accounts and trust domains.

Law: each test here is for a principal that is a Workload; without an identity none of them matches, so that every
`not…` does (Istio: NOT of a matcher that found no certificate). Identities are Istio's, `/ns/<namespace>/sa/<account>`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from policyd.errors import SpiffeIdError
from policyd.policy.istio.expression import TRUE, Test, both, either, entity, equal, like
from policyd.policy.istio.field import Place
from policyd.policy.istio.pattern import pattern_of
from policyd.spiffe import SCHEME, SpiffeId, check_trust_domain
from policyd.strict import check_label

LOCAL: Final = "cluster.local"  # in policies the mesh's own trust domain, whatever its name (istio.md, 2.1)

_LITERAL = re.compile(r"[A-Za-z0-9_/-]+")  # what a regular expression takes for itself
_NAMESPACE = re.compile(r"[a-z0-9*-]+")


@dataclass(frozen=True, slots=True)
class TrustDomains:
    """The mesh's trust domain and its aliases (meshConfig.trustDomain, trustDomainAliases)."""

    own: str
    aliases: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """All of them, the own one first."""
        return (self.own, *self.aliases)

    def principals(self, value: str) -> tuple[str, ...]:
        """Return what stands for a principal under all names; one of another trust domain, or of any, as it is."""
        domain, *rest = value.split("/")
        if len(rest) != 4 or domain == "*" or not (domain == LOCAL or any(_meets(domain, own) for own in self.names)):
            return (value,)
        kept = (
            value if domain[:1] == "*" and name.endswith(domain[1:]) else "/".join((name, *rest)) for name in self.names
        )
        return tuple(dict.fromkeys(kept))

    def domains(self, value: str) -> tuple[str, ...]:
        """Return all names of a trust domain."""
        return self.names if value in self.names else (value,)


def _meets(domain: str, name: str) -> bool:
    """Whether a policy's trust domain, perhaps with a star at one end, is this one."""
    pattern = pattern_of(domain)
    match pattern.kind:
        case "prefix":
            return name.startswith(pattern.text)
        case "suffix":
            return name.endswith(pattern.text)
        case _:
            return name == domain


def principals(values: Sequence[str], domains: TrustDomains, place: Place) -> tuple[Test, str]:
    """Return the test for `principals`, and the one id that it asks for, "" where it is not one."""
    ids: list[str] = []
    tests: list[Test] = []
    for at, value in enumerate(values):
        for one in domains.principals(value):
            pattern = pattern_of(one)
            if pattern.kind == "exact":
                ids += _id(one, place.at(at))
            else:
                tests += _principal(pattern.kind, pattern.text, place.at(at))
    distinct = list(dict.fromkeys(ids))
    return either([*_one_of(distinct), *tests]), distinct[0] if len(distinct) == 1 and not tests else ""


def _id(value: str, place: Place) -> Iterator[str]:
    try:
        yield str(SpiffeId.parse(SCHEME + value))
    except SpiffeIdError:
        remedy = "write `<trust domain>/ns/<namespace>/sa/<service account>`, without `spiffe://`"
        place.refuse(f"`{value[:120]}` is no identity that a caller can have", remedy)


def _one_of(ids: Sequence[str]) -> Iterator[Test]:
    literals = [entity("Workload", one) for one in ids]
    if len(literals) == 1:
        yield Test(f"principal == {literals[0]}", opposite=f"principal != {literals[0]}")
    elif literals:
        yield Test(f"principal in [{', '.join(literals)}]")


def _principal(kind: str, text: str, place: Place) -> Iterator[Test]:
    """A principal with a star at one end; the trust domain and the path are attributes of their own here."""
    head, slash, rest = text.partition("/")
    match kind:
        case "present":
            yield TRUE
        case "prefix" if slash:
            path = like("principal.path", f"/{rest}", "") if rest else TRUE
            yield both([equal("principal.trust_domain", [head]), path])
        case "prefix":
            yield like("principal.trust_domain", head, "")
        case "suffix" if _LITERAL.fullmatch(text):
            across = both([like("principal.trust_domain", "", head), equal("principal.path", [f"/{rest}"])])
            yield either([like("principal.path", "", text), *([across] if head and slash else [])])
        case _:
            message = f"Istio reads the end of `*{text[:120]}` as a regular expression"
            place.refuse(message, "write the principals out, or an end of letters, digits, dashes and slashes only")


def namespaces(values: Sequence[str], place: Place) -> Test:
    """Return the test for `namespaces`, which is of any trust domain."""
    named: list[str] = []
    tests: list[Test] = []
    for at, value in enumerate(values):
        if not _NAMESPACE.fullmatch(value):
            place.at(at).refuse(f"`{value[:80]}` is no namespace", "use lower-case letters, digits and dashes")
        elif "*" in value or value == "sa":  # Istio's regex is .*/ns/<value>/.*, so `sa` is the namespace `ns` too
            tests.append(like("principal.path", *f"*/ns/{value}/*".split("*")))
        else:
            named.append(value)
    if named:
        tests.insert(0, both([Test("principal has namespace"), equal("principal.namespace", named)]))
    return either(tests)


def service_accounts(values: Sequence[str], namespace: str, place: Place) -> Test:
    """Return the test for `serviceAccounts`; one without a namespace is of the policy's own."""
    paths: list[str] = []
    for at, value in enumerate(values):
        before, slash, after = value.partition("/")
        names = (before, after) if slash else (namespace, before)
        try:
            paths.append(f"/ns/{check_label(names[0])}/sa/{check_label(names[1])}")
        except ValueError:
            remedy = "write `<namespace>/<name>` or `<name>`, of letters, digits and dashes"
            place.at(at).refuse(f"`{value[:80]}` is no service account that is matched by its name alone", remedy)
    return equal("principal.path", paths)


def trust_domains(values: Sequence[str], domains: TrustDomains, place: Place) -> Test:
    """Return the test for `trustDomains`."""
    names: list[str] = []
    for at, value in enumerate(values):
        try:
            names += domains.domains(check_trust_domain(value))
        except SpiffeIdError:
            place.at(at).refuse(
                f"`{value[:80]}` is no trust domain name", "write names out, in lower case, without stars"
            )
    return equal("principal.trust_domain", names)
