"""AuthorizationPolicies over a mesh to Cedar files that decide the same, one a service.

Law: Istio asks DENY first and then ALLOW, and where no ALLOW policy is for a workload everybody is allowed; in Cedar a
forbid outdoes every permit, and without a permit nobody is allowed. So DENY becomes forbid, ALLOW becomes permit, and
"no ALLOW policy" a permit of its own. What is not enforced (AUDIT, dry run) becomes a remark.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from policyd.cedar.lexer import statements_of
from policyd.errors import InvalidInput, Problem
from policyd.mesh.istio.common import ROOT_NAMESPACE
from policyd.mesh.model import Mesh
from policyd.policy.fmt import formatted
from policyd.policy.istio.attributes import Reading
from policyd.policy.istio.expression import either, entity
from policyd.policy.istio.field import Place
from policyd.policy.istio.identity import TrustDomains
from policyd.policy.istio.read import Declared
from policyd.policy.istio.rule import EVERYONE, Clause, Matching, matching
from policyd.policy.istio.target import Target, labelled, owners, target_of
from policyd.policy.istio.text import file_text, policy_text

_EFFECTS: Final[Mapping[str, str]] = {"ALLOW": "permit", "DENY": "forbid"}


@dataclass(frozen=True, slots=True)
class Options:
    """What the policies do not say: the default namespace, the root namespace, trust domains, and how Host is sent.

    With `dry_runs` policies that are one are taken as enforced: what would hold without their annotation.
    """

    namespace: str
    domains: TrustDomains
    root: str = ROOT_NAMESPACE
    hosts_without_port: bool = False
    dry_runs: bool = False


@dataclass(frozen=True, slots=True)
class Translation:
    """Cedar files by name, and what is to be known about them."""

    files: Mapping[str, str]
    notes: tuple[Problem, ...] = ()


@dataclass(slots=True)
class _File:
    """What goes into one file; `forbids` come first, as Istio asks for them first."""

    title: str
    remarks: list[str] = field(default_factory=list)
    forbids: list[str] = field(default_factory=list)
    permits: list[str] = field(default_factory=list)


def translate(
    policies: Sequence[Declared], mesh: Mesh, options: Options, canonical: Callable[[str], str]
) -> Translation:
    """Translate policies; raises InvalidInput with every one that has no exact form.

    `canonical` is authz.path.canonical_path: what paths are decided about.
    """
    importer = _Importer(mesh, options, canonical)
    for declared in policies:
        importer.take(declared)
    importer.open_services()
    if importer.problems:
        raise InvalidInput(importer.problems)
    return Translation(dict(importer.texts()), tuple(importer.notes))


class _Importer:
    """Takes policies one by one and keeps what they come to."""

    def __init__(self, mesh: Mesh, options: Options, canonical: Callable[[str], str]) -> None:
        self.problems: list[Problem] = []
        self.notes: list[Problem] = []
        self._mesh = mesh
        self._options = options
        self._canonical = canonical
        self._files: dict[str, _File] = {}
        self._allowing: list[Target] = []
        self._gateways = {one.service for one in mesh.instances.values() if one.role == "gateway"}

    def take(self, declared: Declared) -> None:
        """Translate one policy into the files of what it is for."""
        spec = declared.spec
        place = Place(declared, (), self.problems, self.notes)
        target = target_of(declared, self._mesh, self._options.root, place.at("spec"))
        if spec.action == "CUSTOM":
            message = "a CUSTOM policy asks an external authorizer, whose answer nobody knows here"
            place.at("spec", "action").refuse(message, "write what it decides as policies, then take it out")
            return
        matchings = [self._matching(declared, target, place.at("spec", "rules", at)) for at in range(len(spec.rules))]
        if (declared.policy.dry_run and not self._options.dry_runs) or spec.action == "AUDIT":
            self._remark_unenforced(declared, target, place)
            return
        if spec.action == "ALLOW":
            self._allowing.append(target)
        if not spec.rules:
            self._without_rules(declared, target, place)
        for at, found in enumerate(matchings):
            self._add(declared, target, at, found, place.at("spec", "rules", at))

    def open_services(self) -> None:
        """Permit everything where no ALLOW policy is for the instance that answers."""
        for id_, instances in owners(self._mesh).items():
            closed = [one for one in self._allowing if any(one.covers(instance) for instance in instances)]
            if any(all(one.covers(instance) for instance in instances) for one in closed):
                continue
            covered = all(any(one.covers(instance) for one in closed) for instance in instances)
            if covered:
                continue
            name, selected = self._short(id_), either(labelled(one.services[id_]) for one in closed)
            clauses = (Clause("unless", selected),) if closed else ()
            comment = "no ALLOW policy is for it, and then Istio allows everybody"
            if closed:
                comment = "no ALLOW policy is for its other instances, and then Istio allows everybody"
            everyone = Matching(EVERYONE.principal, EVERYONE.action, clauses)
            text = policy_text(comment, f"open:{name}", "permit", everyone, f"resource == {entity('Service', id_)}")
            self._service_file(id_).permits.append(text)

    def texts(self) -> Iterator[tuple[str, str]]:
        """Give each file by its name, formatted."""
        for name, file in sorted(self._files.items()):
            yield name, formatted(file_text(file.title, file.remarks, [*file.forbids, *file.permits]), name)

    def _matching(self, declared: Declared, target: Target, place: Place) -> Matching:
        services = [id_ for id_, instances in owners(self._mesh).items() if any(target.covers(i) for i in instances)]
        reading = Reading(
            self._options.domains,
            self._canonical,
            declared.namespace,
            bool(services) and all(id_ in self._gateways for id_ in services),
            self._options.hosts_without_port,
        )
        return matching(declared.spec.rules[int(place.path[-1])], reading, place)

    def _add(self, declared: Declared, target: Target, at: int, found: Matching, place: Place) -> None:
        action, rules = declared.spec.action, declared.spec.rules
        name = self._base(declared) + (f"[{at}]" if len(rules) > 1 else "")
        line = declared.document.find(place.path).line
        comment = f"{action} {declared.name}, rule[{at}] ({declared.document.file}:{line})"
        for file, resource, suffix, labels in self._parts(target):
            if found.never:
                file.remarks.append(f"{comment}: never matches")
                continue
            clauses = (Clause("when", labelled(labels)), *found.clauses) if labels else found.clauses
            whole = Matching(found.principal, found.action, clauses)
            effect = _EFFECTS[action]
            text = policy_text(comment, name + suffix, effect, whole, resource)
            self._check_size(text, place)
            (file.permits if effect == "permit" else file.forbids).append(text)

    def _check_size(self, text: str, place: Place) -> None:
        excess = statements_of(text)[0].excess()
        if excess is not None:
            place.refuse(f"the rule is too large: {excess}", "split it into several rules; any one that matches does")

    def _without_rules(self, declared: Declared, target: Target, place: Place) -> None:
        if declared.spec.action == "DENY":
            place.at("spec").refuse(
                "DENY without rules matches nothing; Istio refuses it too", "add rules, or remove it"
            )
        for file, _, _, labels in self._parts(target):
            some = " for the instances with its labels" if labels else ""
            file.remarks.append(f"ALLOW {declared.name} has no rules: it permits nobody{some} ({self._at(declared)})")

    def _remark_unenforced(self, declared: Declared, target: Target, place: Place) -> None:
        action = declared.spec.action
        what = f"{action} {declared.name} is {'a dry run' if declared.policy.dry_run else 'for audit'}"
        remedy = (
            "every decision is in the journal: `policyd log`"
            if action == "AUDIT"
            else "`--dry-runs` writes it to try it"
        )
        place.at("spec").note(
            f"{'dry run' if declared.policy.dry_run else action} is not enforced, so no policy is made", remedy
        )
        for file, _, _, _ in self._parts(target):
            file.remarks.append(f"{what}: it decides nothing ({self._at(declared)})")

    def _parts(self, target: Target) -> Iterator[tuple[_File, str, str, Mapping[str, str]]]:
        """The files that a target is written to: with the scope's resource, an id's suffix and the labels needed."""
        if target.mesh:
            yield self._file("all_services.cedar", "all services"), "resource is Service", "", {}
        elif target.namespace:
            name = target.namespace
            file = self._file(f"all_of_{name}.cedar", f"all services of the namespace `{name}`")
            yield file, f"resource in {entity('Namespace', name)}", "", {}
        for id_, labels in target.services.items():
            suffix = f"@{self._short(id_)}" if len(target.services) > 1 else ""
            yield self._service_file(id_), f"resource == {entity('Service', id_)}", suffix, labels

    def _service_file(self, id_: str) -> _File:
        return self._file(f"{self._short(id_)}.cedar", f"`{self._short(id_)}`")

    def _file(self, name: str, what: str) -> _File:
        title = f"What Istio's AuthorizationPolicies say of {what}, by `policyd policy import istio`."
        return self._files.setdefault(name, _File(title))

    def _short(self, id_: str) -> str:
        name, _, namespace = id_.partition(".")
        return name if namespace == self._options.namespace else id_

    def _base(self, declared: Declared) -> str:
        return declared.policy.metadata.name if declared.namespace == self._options.namespace else declared.name

    def _at(self, declared: Declared) -> str:
        return f"{declared.document.file}:{declared.document.find(('metadata', 'name')).line}"
