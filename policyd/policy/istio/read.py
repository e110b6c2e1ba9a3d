"""Files to AuthorizationPolicies, each with its document, so that what is found later has file and line.

Law: every document of every file is read or refused; a `List`, as kubectl prints one, is read entry by entry.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from policyd.errors import InvalidInput, Problem
from policyd.policy.istio.model import KIND, AuthorizationPolicy, Spec
from policyd.strict import describe, parse
from policyd.yaml import Document, Path, load

_LIST_FIELDS: Final = frozenset({"apiVersion", "kind", "metadata", "items"})


@dataclass(frozen=True, slots=True)
class Declared:
    """A policy, its namespace filled in, and where it stands."""

    policy: AuthorizationPolicy
    namespace: str
    document: Document

    @property
    def spec(self) -> Spec:
        """Its spec; one that is absent is empty."""
        return self.policy.spec or Spec()

    @property
    def name(self) -> str:
        """As people write it: `<namespace>/<name>`."""
        return f"{self.namespace}/{self.policy.metadata.name}"

    def problem(self, code: str, message: str, path: Path = (), remedy: str = "") -> Problem:
        """Return a Problem at `path` of the policy, which it names."""
        return self.document.problem(code, f"`{self.name}`: {message}", path, remedy)


def read_policies(files: Mapping[str, str], namespace: str) -> tuple[Declared, ...]:
    """Parse `{file: text}`; `namespace` is that of policies without one. Raises InvalidInput with every Problem."""
    problems: list[Problem] = []
    found: list[Declared] = []
    for file, text in files.items():
        try:
            documents = [one for document in load(text, file) for one in _entries(document, problems)]
        except InvalidInput as error:
            problems += error.problems
            continue
        found += [one for document in documents for one in _policies(document, namespace, problems)]
    first: dict[str, Declared] = {}
    for one in found:
        there = first.setdefault(one.name, one)
        if there is not one:
            at = f"{there.document.file}:{there.document.find(('metadata', 'name')).line}"
            remedy = f"the other one is {at}"
            problems.append(one.problem("duplicate", "there are two of this name", ("metadata", "name"), remedy))
    if problems:
        raise InvalidInput(problems)
    return tuple(found)


def _entries(document: Document, problems: list[Problem]) -> Iterator[Document]:
    """A document, or the entries of a `List`."""
    value = document.value
    if value is None:
        return
    if not isinstance(value, dict) or value.get("kind") not in ("List", f"{KIND}List"):
        yield document
        return
    if unknown := sorted(set(value) - _LIST_FIELDS):
        problems.append(document.problem("field", f"unknown field `{unknown[0][:80]}` of a list", (unknown[0],)))
    items = value.get("items")
    if not isinstance(items, list):
        problems.append(document.problem("field", "`items` must be a list", ("items",)))
        return
    for at, item in enumerate(items):
        yield Document(document.file, item, document.find(("items", at)))


def _policies(document: Document, namespace: str, problems: list[Problem]) -> Iterator[Declared]:
    value: Any = document.value
    kind = value.get("kind") if isinstance(value, dict) else None
    if kind != KIND:
        shown = f"the kind `{str(kind)[:80]}` is no {KIND}" if kind else f"{describe(value)} is no {KIND}"
        problems.append(document.problem("kind", shown, ("kind",), "take it out of the file; nothing else is imported"))
        return
    policy = parse(AuthorizationPolicy, document, problems)
    if policy is not None:
        yield Declared(policy, policy.metadata.namespace or namespace, document)
