"""What would have allowed a request that was denied: the smallest changes of it, of a group, or of the policies.

Law: a remedy is told only after the changed question was put to Cedar, and allowed.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from cedarpy import pst

from policyd.audit.match import short_name
from policyd.cedar.model import ANONYMOUS, Decision, Request, Uid
from policyd.cedar.policies import Policy, load_policies
from policyd.cedar.scope import Scopes
from policyd.cedar.syntax_tree import chain_read, nodes_of, uid_of
from policyd.errors import DecisionError, InvalidInput
from policyd.policy.change import OTHER, Change, Kind, apply, callers_of, identifies, methods_of
from policyd.policy.harvest import harvest
from policyd.policy.nearest import ClauseMiss, NearMiss, conditions_of
from policyd.policy.ruling import Ruling
from policyd.policy.whatif import decide_by

MAX_TRIES: Final = 80  # questions put to Cedar for one request
MAX_CALLERS: Final = 3  # that are in a scope, and so as good as one another
MAX_CALLERS_TRIED: Final = 30  # of which a condition has to hold
MAX_REMEDIES: Final = 6

_ORDER: Final[dict[Kind, int]] = {
    "method": 0, "path": 1, "header": 2, "host": 3, "address": 4, "time": 5, "group": 6, "caller": 7,
}  # fmt: skip
_PATH: Final = ("context", "request", "path")
_SEGMENTS: Final = ("context", "request", "segments")
_SEVERAL: Final = 3  # policies named for one remedy


@dataclass(frozen=True, slots=True)
class Remedy:
    """After `changes`, or without the forbids `without`, the request is allowed `by` these policies."""

    changes: tuple[Change, ...]
    by: tuple[str, ...]
    words: str
    without: tuple[str, ...] = ()

    def __str__(self) -> str:
        """What to change, and who allows it then."""
        more = ", …" if len(self.by) > _SEVERAL else ""
        return f"{self.words} (by {', '.join(f'`{one}`' for one in self.by[:_SEVERAL])}{more})"


def remedies_for_misses(misses: Sequence[NearMiss], request: Request, ruling: Ruling) -> tuple[Remedy, ...]:
    """What makes one of these permits apply, the smallest change first."""
    plans = (plan for miss in misses for plan in _plans(miss, request, ruling))
    return _verified(plans, request, ruling)


def remedies_for_forbids(
    forbids: Sequence[Policy], without: Decision, misses: Sequence[NearMiss], request: Request, ruling: Ruling
) -> tuple[Remedy, ...]:
    """What keeps these forbids from applying while something permits, and whether their end would be enough.

    `without` is the decision without them, and `misses` come nearest to permitting where nothing does.
    """
    conditions = [part.expr for one in forbids for part in conditions_of(one)]
    lifting = [*harvest(conditions), *_elsewhere(conditions), *_methods(request, ruling, None)]
    lifting += _callers(request, ruling, (), MAX_CALLERS)
    single = ((change,) for change in lifting)
    permitting = [plan for miss in misses for plan in _plans(miss, request, ruling)]
    both = ((*plan, change) for plan in permitting for change in lifting if _apart(plan, change))
    found = _verified(itertools.chain(single, permitting, both), request, ruling)
    if not without.allowed:
        return found
    names = tuple(one.id for one in forbids)
    words = f"{' and '.join(f'`{name}`' for name in names)} taken out"
    return (*found, Remedy((), without.reasons, words, names))


def proposed_policy(request: Request, ruling: Ruling) -> str:
    """A policy that permits this caller this method on this path, and nothing more; "" where it would not allow it."""
    caller = "is Unauthenticated" if request.principal == ANONYMOUS else f"== {request.principal}"
    path = request.context.get("request", {}).get("path")
    condition = f"\nwhen {{ context.request.path == {_quoted(path)} }}" if isinstance(path, str) else ""
    text = (
        f"@id({_quoted(_new_id(request, ruling))})\npermit (\n  principal {caller},\n  action == {request.action},\n"
        f"  resource == {request.resource}\n){condition};"
    )
    try:
        added = load_policies({"": text}, ruling.schema).policies
        decision = decide_by([*ruling.policy_set.policies, *added], request, ruling.schema)
    except (InvalidInput, DecisionError):
        return ""
    return text if decision.allowed else ""


def _plans(miss: NearMiss, request: Request, ruling: Ruling) -> Iterator[tuple[Change, ...]]:
    """Every way to give a permit all that it misses, one change for each thing."""
    needs: list[list[Change]] = []
    if "principal" in miss.missing:
        needs.append([*_groups(miss.policy.tree.principal), *_callers(request, ruling, [miss.policy], MAX_CALLERS)])
    if "action" in miss.missing:
        needs.append(_methods(request, ruling, miss.policy))
    needs += [_offered(failed, miss.policy, request, ruling) for failed in miss.failed]
    for chosen in itertools.product(*needs):
        subjects: dict[tuple[Kind, str], list[Change]] = {}
        for change in chosen:
            subjects.setdefault(change.subject, []).append(change)
        # two needs of one header or path: one value may do for both
        yield from itertools.product(*map(dict.fromkeys, subjects.values()))


def _offered(failed: ClauseMiss, policy: Policy, request: Request, ruling: Ruling) -> list[Change]:
    """What may make a part of a condition as it has to be."""
    chains = _chains([failed.expr])
    offered = list(harvest([failed.expr]))
    if _SEGMENTS in chains:  # which come of the path that another part asks for
        offered += [one for one in harvest(part.expr for part in conditions_of(policy)) if one.kind == "path"]
    if failed.kind == "unless":
        offered += _elsewhere([failed.expr])
    if any(chain is not None and chain[0] == "principal" for chain in chains):
        offered += _callers(request, ruling, [policy], MAX_CALLERS_TRIED)
    return offered


def _apart(plan: tuple[Change, ...], change: Change) -> bool:
    return all(one.subject != change.subject for one in plan)


def _groups(constraint: pst.PrincipalOrResourceConstraint) -> Iterator[Change]:
    match constraint:
        case pst.ScopeIn(pst.EntityUid() as entity) | pst.ScopeIsIn(_, pst.EntityUid() as entity):
            uid = uid_of(entity)
            if uid.type == "Group":
                yield Change("group", uid.id)
        case _:
            pass


def _elsewhere(expressions: Iterable[pst.Expr]) -> Iterator[Change]:
    """Another path, where one is what keeps a request out."""
    if _PATH in _chains(expressions):
        yield Change("path", "/")


def _chains(expressions: Iterable[pst.Expr]) -> list[tuple[str, ...] | None]:
    return [chain_read(node) for expr in expressions for node in nodes_of(expr)]


def _callers(request: Request, ruling: Ruling, policies: Sequence[Policy], limit: int) -> list[Change]:
    """Other callers, in the scope of these policies; none where a listener takes all for anonymous."""
    if not identifies(ruling.mesh, request.resource.id):
        return []
    found: list[Change] = []
    for uid, id_ in callers_of(ruling.mesh).items():
        entity = ruling.entities.principal(id_)
        asked = Request(uid, request.action, request.resource, {}, (entity,))
        scopes = Scopes(asked, ruling.schema)
        if uid != request.principal and all(scopes.match(one.tree).principal for one in policies):
            found.append(Change("caller", uid.id))
        if len(found) == limit:
            break
    return found


def _methods(request: Request, ruling: Ruling, policy: Policy | None) -> list[Change]:
    """Other methods, those in the scope of `policy` where one is given."""

    def covers(action: Uid) -> bool:
        asked = Request(request.principal, action, request.resource, {}, request.entities)
        return policy is None or Scopes(asked, ruling.schema).match(policy.tree).action

    actions = [one for one in methods_of(ruling.schema) if one.id != OTHER and one != request.action]
    return [Change("method", action.id) for action in actions if covers(action)]


def _verified(plans: Iterable[tuple[Change, ...]], request: Request, ruling: Ruling) -> tuple[Remedy, ...]:
    """Those that allow, one for each set of kinds and policy; no more than MAX_TRIES are tried."""
    found: dict[tuple[object, ...], Remedy] = {}
    for plan in itertools.islice(dict.fromkeys(plans), MAX_TRIES):
        decision = _allowed(plan, request, ruling)
        if decision is not None:
            key = (frozenset((change.kind, *change.subject) for change in plan), decision.reasons)
            found.setdefault(key, Remedy(plan, decision.reasons, _words(plan, request)))
    minimal = [one for one in found.values() if not any(set(two.changes) < set(one.changes) for two in found.values())]
    return tuple(sorted(minimal, key=_size)[:MAX_REMEDIES])


def _allowed(plan: tuple[Change, ...], request: Request, ruling: Ruling) -> Decision | None:
    """The decision after these changes if it allows."""
    changed = apply(plan, request, ruling)
    if changed is None:
        return None
    try:
        decision = ruling.decide(changed)
    except DecisionError:
        return None
    return decision if decision.allowed else None


def _size(remedy: Remedy) -> tuple[object, ...]:
    return (len(remedy.changes), [_ORDER[change.kind] for change in remedy.changes], remedy.words)


def _words(plan: tuple[Change, ...], request: Request) -> str:
    return " and ".join(change.words(request) for change in sorted(plan, key=lambda change: _ORDER[change.kind]))


def _new_id(request: Request, ruling: Ruling) -> str:
    """An id that is not taken."""
    base = f"{short_name(str(request.resource))}-from-{short_name(str(request.principal))}"[:100]
    names = itertools.chain([base], (f"{base}-{number}" for number in itertools.count(2)))
    return next(name for name in names if ruling.policy_set.find(name) is None)


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
