"""Least-privilege policies from traffic that was allowed: who did what to what, and under which conditions.

Law: a draft. It permits all that was observed and as little else as the data tells; a condition stands in it only where
every observed request shows it. What was not observed is not in it, however right it may be.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from policyd.audit.match import entity_id, short_name
from policyd.audit.record import Record
from policyd.cedar.model import Uid
from policyd.policy.fmt import formatted
from policyd.policy.replay import has_question
from policyd.policy.replay_tally import Seen
from policyd.policy.suggest_paths import PathTree, all_conditions, quoted

FEW: Final = 3  # values of a header that make a condition
ENOUGH: Final = 20  # requests that show it
MAX_ID: Final = 100
_UID: Final = re.compile(r'([A-Za-z_:]+)::"(.*)"', re.DOTALL)
_HIDDEN: Final = re.compile(r"[^\x20-\x7e]")
_ASKED: Final = frozenset({"method", "host", "path", "segments", "headers"})
_OTHER: Final = 'Action::"other"'
_MASKED: Final = "request.path"


@dataclass(slots=True)
class Method:
    """One action of a caller on a resource, as it was observed."""

    seen: Seen = field(default_factory=Seen)
    paths: PathTree = field(default_factory=PathTree)
    names: set[str] = field(default_factory=set)  # of methods that the schema has not
    headers: dict[str, Counter[str]] = field(default_factory=dict)
    looked_at: set[str] = field(default_factory=set)  # by the policies of then, besides

    def add(self, record: Record) -> None:
        """Take in one more."""
        self.seen.add(record)
        request = record.context.get("request")
        facts: Mapping[str, Any] = request if isinstance(request, Mapping) else {}
        known = not any(one == _MASKED or _MASKED.startswith(f"{one}.") for one in record.masked)
        self.paths.add(str(facts.get("path", "")), known=known and "path" in facts)
        if record.action == _OTHER:
            self.names.add(str(facts.get("method", "")))
        sent = facts.get("headers")
        if isinstance(sent, Mapping):
            for name, value in sent.items():
                values = self.headers.setdefault(name, Counter())
                if len(values) <= FEW and f"request.headers.{name}" not in record.masked:
                    values[str(value)] += 1
        self.looked_at |= {f"context.{name}" for name in record.context if name != "request"}
        self.looked_at |= {f"context.request.{name}" for name in facts if name not in _ASKED}

    def conditions(self) -> tuple[str, ...]:
        """What every request shows, in Cedar's words."""
        found = [all_conditions(self.paths.patterns())]
        if self.names and all(self.names):
            found.append(f"[{', '.join(map(quoted, sorted(self.names)))}].contains(context.request.method)")
        found += self._header_conditions()
        return tuple(filter(None, found))

    def _header_conditions(self) -> Iterator[str]:
        for name, values in sorted(self.headers.items()):
            shown = self.seen.count >= ENOUGH and values.total() == self.seen.count and len(values) <= FEW
            if shown and not any(map(_HIDDEN.search, (name, *values))):
                tag = f"context.request.headers.getTag({quoted(name)})"
                listed = ", ".join(map(quoted, sorted(values)))
                either = f"{tag} == {listed}" if len(values) == 1 else f"[{listed}].contains({tag})"
                yield f"context.request.headers.hasTag({quoted(name)}) && {either}"


@dataclass(frozen=True, slots=True)
class Suggestion:
    """One policy of the draft, and what it was made of."""

    id: str
    principal: str
    resource: str
    actions: tuple[str, ...]
    text: str
    seen: Seen


@dataclass(slots=True)
class Observed:
    """What was allowed, by caller and resource; `policies` are those that determined it."""

    pairs: dict[tuple[str, str], dict[str, Method]] = field(default_factory=dict)
    policies: Counter[str] = field(default_factory=Counter)
    seen: Seen = field(default_factory=Seen)
    left_out: int = 0  # callers or resources that policies cannot name

    def add(self, record: Record) -> None:
        """Take in a record, if a request was allowed."""
        if not has_question(record) or record.decision != "allow":
            return
        if not (_uid(record.principal) and _uid(record.resource) and _uid(record.action)):
            self.left_out += 1
            return
        self.seen.add(record)
        self.policies.update(record.reasons)
        methods = self.pairs.setdefault((record.principal, record.resource), {})
        methods.setdefault(record.action, Method()).add(record)

    def suggestions(self) -> list[Suggestion]:
        """A policy for the methods of a caller on a resource that have the same conditions."""
        taken: set[str] = set()
        return [
            made
            for (principal, resource), methods in sorted(self.pairs.items(), key=lambda item: item[0][::-1])
            for made in _of_pair(principal, resource, methods, taken)
        ]


def _of_pair(principal: str, resource: str, methods: Mapping[str, Method], taken: set[str]) -> Iterator[Suggestion]:
    alike: dict[tuple[str, ...], list[str]] = {}
    for action, method in sorted(methods.items()):
        alike.setdefault(method.conditions(), []).append(action)
    for conditions, actions in alike.items():
        seen = Seen()
        for action in actions:
            seen.join(methods[action].seen)
        id_ = _new_id(principal, resource, taken)
        looked_at = sorted(set().union(*(methods[action].looked_at for action in actions)))
        text = _text(id_, principal, resource, actions, conditions, seen, methods, looked_at)
        yield Suggestion(id_, principal, resource, tuple(actions), text, seen)


def _text(
    id_: str,
    principal: str,
    resource: str,
    actions: list[str],
    conditions: tuple[str, ...],
    seen: Seen,
    methods: Mapping[str, Method],
    looked_at: list[str],
) -> str:
    counts = ", ".join(f"{entity_id(one)} {methods[one].seen.count:,}" for one in actions)
    comments = [f"// {counts}"]
    if looked_at:
        comments.append(f"// the policies of then looked at {', '.join(looked_at)} too; no condition was made of it")
    requests = "request" if seen.count == 1 else "requests"
    window = f"{seen.count:,} {requests}, {_when(seen.first)} to {_when(seen.last)}"
    who = "principal is Unauthenticated" if principal.startswith("Unauthenticated::") else f"principal == {principal}"
    what = f"action == {actions[0]}" if len(actions) == 1 else f"action in [{', '.join(actions)}]"
    when = "".join(f"\nwhen {{ {condition} }}" for condition in conditions)
    made = f"@id({quoted(id_)})\n@observed({quoted(window)})\npermit ({who}, {what}, resource == {resource}){when};\n"
    return formatted("\n".join([*comments, made]), "draft")


def _new_id(principal: str, resource: str, taken: set[str]) -> str:
    base = f"{short_name(resource)}-from-{short_name(principal)}"[:MAX_ID]
    name, number = base, 1
    while name in taken:
        number += 1
        name = f"{base}-{number}"
    taken.add(name)
    return name


def _when(moment: datetime | None) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}" if moment else ""


def _uid(text: str) -> Uid | None:
    """The Uid that a text is, if a policy can name it."""
    found = _UID.fullmatch(text)
    return None if found is None or _HIDDEN.search(text) else Uid(found[1], entity_id(text))


def unused_policies(ids: Iterable[str], observed: Observed) -> list[str]:
    """Permits that allowed nothing that was observed."""
    return sorted(one for one in ids if one not in observed.policies)
