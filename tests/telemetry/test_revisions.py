"""Decisions by revision: which are shown, whose seat is taken, and that what is shown never falls."""

from __future__ import annotations

import threading
from hashlib import sha256

from hypothesis import given
from hypothesis import strategies as st

from policyd.telemetry.revisions import SHOWN, TABLE, RevisionCounts, Revisions
from policyd.telemetry.slots import Slots


def revision(number: int) -> str:
    return sha256(str(number).encode()).hexdigest()


def decide(slots: Slots, region: int, under: str, word: str = "allow", times: int = 1) -> None:
    own = slots.region(region)
    own.add_all(((RevisionCounts(slots, own).place(under, word), times),))


def test_what_all_processes_decided_under_a_revision_is_one_number() -> None:
    slots = Slots(TABLE, 3)
    shown = Revisions(slots)
    shown.ruled(revision(1))
    shown.ruled(revision(2))
    decide(slots, 1, revision(1), "deny", 5)
    decide(slots, 2, revision(2), "allow", 7)
    decide(slots, 2, revision(1), "deny", 2)  # was begun before the change
    decide(slots, 1, "", "error")  # nothing was in force

    assert dict(shown.sums()) == {
        ("allow", revision(1)): 0, ("deny", revision(1)): 7, ("error", revision(1)): 0,
        ("allow", revision(2)): 7, ("deny", revision(2)): 0, ("error", revision(2)): 0,
        ("error", ""): 1,
    }  # fmt: skip


def test_only_the_last_revisions_are_shown_and_one_that_comes_back_goes_on() -> None:
    slots = Slots(TABLE)
    shown = Revisions(slots)
    own = slots.region(0)
    counts = RevisionCounts(slots, own)
    for number in (*range(SHOWN + 1), 0):
        shown.ruled(revision(number))
        own.add_all(((counts.place(revision(number), "allow"), 1),))

    allowed = {of: count for (word, of), count in shown.sums() if word == "allow"}
    assert allowed == {revision(0): 2, **{revision(number): 1 for number in range(2, SHOWN + 1)}}


def test_a_process_that_follows_another_counts_on() -> None:
    slots = Slots(TABLE)
    shown = Revisions(slots)
    shown.ruled(revision(1))
    decide(slots, 0, revision(1), times=3)
    decide(slots, 0, revision(1), times=4)

    assert dict(shown.sums())["allow", revision(1)] == 7


def test_a_word_that_nobody_knows_is_another() -> None:
    slots = Slots(TABLE)
    shown = Revisions(slots)
    shown.ruled(revision(1))
    decide(slots, 0, revision(1), "evil")

    assert dict(shown.sums())["other", revision(1)] == 1


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 11), st.booleans()), max_size=60))
def test_what_is_shown_never_falls(steps: list[tuple[int, int, bool]]) -> None:
    """Revisions come into force in any order, in every process; each decides under that which is in force, or the one
    before.
    """
    slots = Slots(TABLE, 2)
    shown = Revisions(slots)
    counts = [RevisionCounts(slots, slots.region(number)) for number in range(2)]
    now = before = revision(0)
    shown.ruled(now)
    for one in counts:
        one.place(now, "allow")
    seen: dict[tuple[str, ...], int] = {}
    for process, number, old in steps:
        if revision(number) != now:
            before, now = now, revision(number)
            shown.ruled(now)
            for one in counts:
                one.place(now, "allow")
        region = slots.region(process)
        region.add_all(((counts[process].place(before if old else now, "allow"), 1),))
        found = dict(shown.sums())
        assert all(found[key] >= count for key, count in seen.items() if key in found)
        seen = found


def test_threads_lose_no_decision_while_revisions_change() -> None:
    slots = Slots(TABLE)
    shown = Revisions(slots)
    own = slots.region(0)
    counts = RevisionCounts(slots, own)
    used = [revision(number) for number in range(SHOWN)]
    for one in used:
        shown.ruled(one)

    def decide_many(first: int) -> None:
        for number in range(2000):
            own.add_all(((counts.place(used[(first + number) % SHOWN], "allow"), 1),))

    threads = [threading.Thread(target=decide_many, args=(first,)) for first in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert {of: count for (word, of), count in shown.sums() if word == "allow"} == dict.fromkeys(used, 2000)
