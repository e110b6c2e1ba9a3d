"""Counters in shared memory: several processes count, one looks."""

from __future__ import annotations

import subprocess
import sys

import pytest

from policyd.names import OTHER
from policyd.telemetry.slots import Slots

TABLE = {"asked": (("yes", "no"), ("in", "out")), "lost": ()}
COUNTING = """
import sys
from policyd.telemetry.slots import Slots
slots = Slots({"asked": (("yes", "no"), ("in", "out")), "lost": ()}, 3, int(sys.argv[1]))
own = slots.region(int(sys.argv[2]))
for _ in range(1000):
    own.add("asked", "yes", "in")
own.add("lost", amount=int(sys.argv[2]))
"""


def count(slots: Slots, region: int) -> None:
    words = [sys.executable, "-c", COUNTING, str(slots.descriptor), str(region)]
    subprocess.run(words, check=True, pass_fds=[slots.descriptor], timeout=30)


def test_what_several_processes_count_adds_up_and_outlives_them() -> None:
    slots = Slots(TABLE, 3)
    slots.region(0).add("asked", "yes", "in", amount=5)
    for region in (1, 2, 1):  # the last one follows a process that has ended
        count(slots, region)

    assert dict(slots.sums("asked")) == {("yes", "in"): 3005, ("yes", "out"): 0, ("no", "in"): 0, ("no", "out"): 0}
    assert dict(slots.sums("lost")) == {(): 4}


def test_what_is_of_no_known_value_is_counted_as_other() -> None:
    slots = Slots(TABLE)
    slots.region(0).add("asked", "maybe", "in")
    slots.region(0).add("asked", "perhaps", "nowhere")

    counted = {labels: total for labels, total in slots.sums("asked") if total}
    assert counted == {(OTHER, "in"): 1, (OTHER, OTHER): 1}


def test_labels_that_are_too_few_are_a_fault() -> None:
    with pytest.raises(ValueError, match="argument"):
        Slots(TABLE).place("asked", ("yes",))


def test_what_grows_and_shrinks_is_as_it_was_said_last() -> None:
    slots = Slots(TABLE, 2)
    for region, value in ((0, 7), (1, 2), (0, 3)):
        slots.region(region).put("lost", value=value)
    assert dict(slots.sums("lost")) == {(): 5}
