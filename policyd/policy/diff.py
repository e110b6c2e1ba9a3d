"""What two folders decide differently: who may do what where, newly or no longer, or under other conditions.

Law: only what was decided is claimed. Where a caller, a method and a service meet the same policies over the same
facts, the answers are the same by construction. Everywhere else requests are made from what both sides' conditions ask
for and from both sides' cases, and decided under both; the claim is about these requests.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from policyd.cedar.http import HttpFacts
from policyd.cedar.policies import Policy
from policyd.policy.diff_meets import content_of
from policyd.policy.diff_model import Combination, Difference, PolicyChange
from policyd.policy.diff_pair import Pair, Triple
from policyd.policy.ruling import Ruling

MAX_REQUESTS: Final = 20_000  # decided under both, which takes some seconds
MAX_KEPT: Final = 100_000  # combinations that are remembered to be tried


def compare(old: Ruling, new: Ruling, cases: Sequence[HttpFacts] = ()) -> Difference:
    """Decide whatever can differ under both, `cases` among it; raises DecisionError."""
    pair = Pair(old, new, cases)
    differing = pair.differing()
    waiting = _varied(itertools.islice(differing, MAX_KEPT))
    forgotten = sum(1 for _ in differing)
    found: list[Combination] = []
    requests = 0
    for triple in waiting:
        if requests >= MAX_REQUESTS:
            break
        found.append(pair.combination(triple))
        requests += len(found[-1].tried)
    before, after = _declared(old), _declared(new)
    order = {action.id: at for at, action in enumerate(pair.actions)}
    return Difference(
        callers=tuple(str(uid) for uid in pair.callers),
        methods=tuple(order),
        services=tuple(pair.services),
        total=sum(len(pair.told_apart(service)) for service in pair.services) * len(order),
        only_old=tuple(sorted(before - after)),
        only_new=tuple(sorted(after - before)),
        policies=tuple(_policy_changes(old.policy_set.policies, new.policy_set.policies)),
        combinations=tuple(sorted(found, key=lambda one: (one.service, one.caller, order[one.method]))),
        requests=requests,
        untried=len(waiting) - len(found) + forgotten,
    )


def _varied(triples: Iterable[Triple]) -> list[Triple]:
    """One of each kind before more of the same, so that a bound leaves out the least."""
    first: dict[tuple[str, int, int], Triple] = {}
    more: list[Triple] = []
    for triple in triples:
        key = (triple.service, triple.old, triple.new)
        if first.setdefault(key, triple) is not triple:
            more.append(triple)
    return [*first.values(), *more]


def _declared(ruling: Ruling) -> set[str]:
    """The callers and services of a mesh."""
    return {*map(str, ruling.mesh.workloads), *ruling.mesh.services}


def _policy_changes(old: Sequence[Policy], new: Sequence[Policy]) -> Iterator[PolicyChange]:
    """By id: what is gone, what has come, what says something else; a policy that only moved is none of it."""
    before, after = {one.id: one for one in old}, {one.id: one for one in new}
    for name in sorted({*before, *after}):
        one, two = before.get(name), after.get(name)
        if one is None or two is None or content_of(one) != content_of(two):
            yield PolicyChange(one, two)
