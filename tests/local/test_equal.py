"""The compiled filter and policyd give the same answers: generated policy sets and requests, in a real Envoy.

LOCAL_REQUESTS chooses how many, and with them how many sets (LOCAL_SETS), LOCAL_SEED which; at night there are more.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from policyd.cedar.schema import Schema
from tests.local.rig import Answer, Place, answers, running
from tests.local.world import CALLERS, SOURCES, TOKEN_HEADERS, Asked, Case, asked, cases, connected, connection_cases

pytestmark = pytest.mark.e2e

REQUESTS = int(os.environ.get("LOCAL_REQUESTS", "20000"))
SETS = int(os.environ.get("LOCAL_SETS") or max(400, REQUESTS // 500))
SEED = int(os.environ.get("LOCAL_SEED", "1"))


def told(case: Case, caller: str, source: str, request: Asked, answer: Answer) -> str:
    """A difference, with all that it takes to see it again."""
    return f"\ncentral {answer.central}, local {answer.local} of {caller!r} {source} {request.raw!r}\n{case.text}"


@pytest.mark.timeout(1800)
def test_generated_policies_have_the_same_answers_in_the_proxy(schema: Schema) -> None:
    chosen = random.Random(SEED)
    made = list(cases(chosen, SETS, schema))
    verified = [one.number for one in made if one.listener.verifies_peers]
    strangers = [one.number for one in made if not one.listener.verifies_peers]
    who = [(caller, source) for caller in (*CALLERS, *[""] * len(CALLERS)) for source in SOURCES]
    each = -(-REQUESTS // len(who))

    def one_of(cases: list[int]) -> Asked:
        number = chosen.choice(cases)
        return asked(chosen, number, with_tokens=bool(made[number].listener.issuers))

    plan = [
        (caller, source, [one_of(verified if caller else strangers) for _ in range(each)]) for caller, source in who
    ]

    def ask(place: Place, caller: str, source: str, requests: list[Asked]) -> list[tuple[Asked, Answer, str]]:
        found = answers(place, caller, source, requests)
        return [(one, answer, told(made[one.case], caller, source, one, answer)) for one, answer in found]

    with running(made) as place, ThreadPoolExecutor(6) as threads:
        results = [one for some in threads.map(lambda work: ask(place, *work), plan) for one in some]
    differences = [text for _, answer, text in results if answer.central != answer.local]
    assert differences[:5] == []
    assert len(results) >= REQUESTS
    seen = Counter(answer.central[0] if answer.central else 0 for _, answer, _ in results)
    assert all(seen[status] > REQUESTS / 100 for status in (200, 400, 403, 503)), seen
    assert seen[401] > REQUESTS / 200
    with_users = [answer for one, answer, _ in results if any(name in TOKEN_HEADERS for name, _ in one.headers)]
    local = [answer for answer in with_users if answer.local and not answer.is_left]
    assert len(local) > len(with_users) / 4 > REQUESTS / 40
    assert len({answer.central for _, answer, _ in results}) > SETS / 2  # many policies are reasons


@pytest.mark.timeout(1800)
def test_generated_policies_have_the_same_answers_about_connections(schema: Schema) -> None:
    chosen = random.Random(SEED)
    made = list(connection_cases(chosen, SETS // 4, schema))
    plan = []
    for _ in range(REQUESTS // 10):
        case = chosen.choice(made)
        caller = chosen.choice(CALLERS) if case.listener.verifies_peers else ""
        plan.append((caller, chosen.choice(SOURCES), connected(chosen, case.number)))

    def ask(place: Place, caller: str, source: str, request: Asked) -> tuple[Answer, str]:
        [(_, answer)] = answers(place, caller, source, [request])  # a tunnel has its connection to itself
        return answer, told(made[request.case], caller, source, request, answer)

    with running(made) as place, ThreadPoolExecutor(6) as threads:
        results = list(threads.map(lambda one: ask(place, *one), plan))

    assert [text for answer, text in results if answer.central != answer.local][:5] == []
    seen = Counter(answer.central[0] if answer.central else 0 for answer, _ in results)
    assert all(seen[status] > len(plan) / 20 for status in (200, 403, 503)), seen
    assert len({answer.central for answer, _ in results}) > SETS / 10  # many policies are reasons
