"""Policy files to one checked set: whoever holds a PolicySet holds policies that parse, validate strictly and
have ids.

Law: Cedar skips a policy that fails while it is evaluated, so what could fail is refused at load; all
problems of all files are found at once, each with its place.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Literal

from cedarpy import pst

from policyd.cedar.lexer import Lines
from policyd.cedar.parsing import Source, read_all, sources_of
from policyd.cedar.reads import WITHHELD_HEADERS, Reads, header_names, reads_of, union
from policyd.cedar.schema import Schema
from policyd.cedar.syntax_tree import nodes_of
from policyd.cedar.validation import Finding, Place, cedar_errors, validation_problems
from policyd.errors import InvalidInput, Problem
from policyd.signals import PEER_HEADER

MAX_FILES = 10_000
MAX_FILE_BYTES = 1 << 20
MAX_POLICIES = 100_000
MAX_ID_CHARACTERS = 128

# controls but tab and line ends, halves of pairs, what shows text in another order than it is read, and what shows
# nothing: in a text it makes a pattern that never matches
_HIDDEN = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\xad\u061c\u200b\u200e\u200f\u202a-\u202e\u2060-\u2069\ufeff\ud800-\udfff]"
)


@dataclass(frozen=True, slots=True)
class Policy:
    """One policy: its `@id`, all its annotations, its text as written, and where its first line stands."""

    id: str
    effect: Literal["permit", "forbid"]
    annotations: Mapping[str, str]
    text: str
    file: str
    line: int
    tree: pst.Template = field(repr=False)
    reads: Reads = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Find what it reads, once."""
        object.__setattr__(self, "reads", reads_of((self.tree,)))


@dataclass(frozen=True, slots=True)
class PolicySet:
    """A checked set, and what all of it reads."""

    policies: Sequence[Policy]
    reads: Reads

    def find(self, policy_id: str) -> Policy | None:
        """The policy with that `@id`, or None."""
        return next((policy for policy in self.policies if policy.id == policy_id), None)


def set_of(policies: Iterable[Policy]) -> PolicySet:
    """A set of policies that were checked together."""
    chosen = tuple(policies)
    return PolicySet(chosen, union(policy.reads for policy in chosen))


class Checked:
    """The files that were found good under one schema, with their policies: what did not change is not read again.

    What is wrong with a policy is wrong with it alone, but for its id, which is looked at again each time.
    """

    def __init__(self) -> None:
        self._files: dict[str, tuple[str, tuple[Policy, ...]]] = {}

    def policies(self, name: str, text: str) -> tuple[Policy, ...] | None:
        """The policies of a file with this text; None where it has not been looked at."""
        known = self._files.get(name)
        return known[1] if known is not None and known[0] == text else None

    def keep(self, files: Mapping[str, str], policies: Sequence[Policy]) -> None:
        """These files are good, and no others are asked for again."""
        found: dict[str, list[Policy]] = {name: [] for name in files}
        for policy in policies:
            found[policy.file].append(policy)
        self._files = {name: (files[name], tuple(of_file)) for name, of_file in found.items()}


def load_policies(files: Mapping[str, str], schema: Schema, checked: Checked | None = None) -> PolicySet:
    """Load `{file name: text}`; an empty set is a set (it denies everything).

    Files that are in `checked`, which is of the same schema, are taken from there; it holds these files afterwards.
    Raises InvalidInput with every problem of every file: sizes, characters, syntax, ids, templates, withheld
    headers, and strict validation against `schema`.
    """
    problems: list[Problem] = []
    checked = checked or Checked()
    if len(files) > MAX_FILES:
        raise InvalidInput([Problem("policy_bounds", f"there are over {MAX_FILES} policy files")])
    known: list[Policy] = []
    sources: list[Source] = []
    for name in sorted(files):
        good = checked.policies(name, files[name])
        bad = None if good is not None else _file_problem(name, files[name])
        if good is not None:
            known += good
        elif bad is None:
            sources += sources_of(name, files[name])
        else:
            problems.append(bad)
    if len(known) + len(sources) > MAX_POLICIES:
        raise InvalidInput([*problems, Problem("policy_bounds", f"there are over {MAX_POLICIES} policies")])
    new, places, unread, errors = _read_and_validate(sources, schema)
    policies = sorted([*known, *new], key=lambda policy: policy.file) if known else new
    problems += unread
    problems += _id_problems(policies)
    problems += [problem for policy in new for problem in _header_problems(policy)]
    problems += validation_problems(errors, places, schema)
    if problems:
        raise InvalidInput(sorted(problems, key=lambda problem: (problem.file, problem.line, problem.column)))
    checked.keep(files, policies)
    return set_of(policies)


def _read_and_validate(
    sources: Sequence[Source], schema: Schema
) -> tuple[list[Policy], list[Place], list[Problem], list[Finding]]:
    """The policies and their places, the problems of the statements that are none, and what Cedar finds wrong with the
    policies.

    Both take long for thousands, and Cedar validates beside: all of them, in the hope that all are policies.
    """
    with ThreadPoolExecutor(1, "validate") as beside:
        bounded = all(source.excess is None for source in sources)
        hoped = beside.submit(cedar_errors, [source.text for source in sources], schema) if bounded else None
        policies: list[Policy] = []
        places: list[Place] = []
        problems: list[Problem] = []
        for source, read in zip(sources, read_all(sources), strict=True):
            if isinstance(read, Problem):
                problems.append(read)
            else:
                policies.append(_policy(source, read))
                places.append((policies[-1].id, source))
        if problems or hoped is None:
            return policies, places, problems, cedar_errors([policy.text for policy in policies], schema)
        return policies, places, problems, hoped.result()


def _policy(source: Source, tree: pst.Template) -> Policy:
    """The policy that a statement is; its id is empty where it has none."""
    names = tree.annotations
    return Policy(names.get("id", ""), tree.effect, names, source.text, source.file, source.line, tree)


def _file_problem(name: str, text: str) -> Problem | None:
    if len(text.encode("utf-8", "surrogatepass")) > MAX_FILE_BYTES:
        return Problem("policy_bounds", f"a policy file has at most {MAX_FILE_BYTES} bytes", name, remedy="split it")
    hidden = _HIDDEN.search(text)
    if hidden is not None:
        line, column = Lines(text).place(hidden.start())
        message = f"the character U+{ord(hidden.group()):04X} does not belong in a policy"
        return Problem("policy_syntax", message, name, line, column, "remove it")
    return None


def _id_problems(policies: Sequence[Policy]) -> Iterator[Problem]:
    first: dict[str, Policy] = {}
    for policy in policies:
        message = remedy = ""
        if not policy.id:
            message, remedy = (
                "a policy has no `@id`",
                'write `@id("…")` in front of it: decisions are recorded by id',
            )
        elif len(policy.id) > MAX_ID_CHARACTERS or not policy.id.isprintable() or policy.id != policy.id.strip():
            message = f"`{policy.id[:MAX_ID_CHARACTERS]!a}` is no policy id"
            remedy = f"use at most {MAX_ID_CHARACTERS} printable characters, no space around them"
        elif policy.id in first:
            there = first[policy.id]
            message, remedy = (
                f"two policies have the id `{policy.id}`",
                f"the other one is {there.file}:{there.line}",
            )
        first.setdefault(policy.id, policy)
        if message:
            yield Problem("policy_id", message, policy.file, policy.line, remedy=remedy)


def _header_problems(policy: Policy) -> Iterator[Problem]:
    """Not sent is not absent: a policy that reads what Envoy withholds would decide on nothing."""
    if policy.reads.tags == frozenset():  # headers are tags
        return
    names = {name for clause in policy.tree.clauses for node in nodes_of(clause) for name in header_names(node)}
    for name in sorted(names, key=str):
        message = remedy = ""
        if name is None:
            message = f"`{policy.id}` computes the name of a header"
            remedy = "write the name out, so that it is known which headers are read"
        elif name.lower() in WITHHELD_HEADERS:
            message = f"`{policy.id}` reads the header `{name}`, which proxies never send here"
            remedy = "decide on the verified user (`context has user`) instead"
            if name.lower() == PEER_HEADER:
                remedy = "decide on who asks, the `principal`: what a peer calls itself proves nothing"
        elif name != name.lower():
            message, remedy = (
                f"`{policy.id}` reads the header `{name}`",
                "names are in lower case; this one never matches",
            )
        if message:
            yield Problem("policy_header", message, policy.file, policy.line, remedy=remedy)
