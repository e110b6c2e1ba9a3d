"""The life of a decision process, event by event."""

from __future__ import annotations

import pytest

from policyd.config.addresses import Address
from policyd.server.decider_life import LONGEST_WAIT, STABLE_SECONDS, DeciderLife

NEW = DeciderLife("decide-1", Address("127.0.0.1", 9000))
STARTED = NEW.started(4711, 1.0)
DECIDING = STARTED.took("r1").opened(2.0)


def test_it_decides_once_it_has_a_revision_and_a_journal() -> None:
    lives = (NEW, STARTED, STARTED.took("r1"), STARTED.opened(2.0), DECIDING)
    assert [life.deciding for life in lives] == [False, False, False, False, True]


def test_a_new_process_has_nothing_of_the_last_one() -> None:
    ended = DECIDING.troubled("the disk is full").ended(3.0)
    assert (ended.pid, ended.state, ended.revision, ended.trouble) == (0, "waiting", "", "")
    again = ended.started(4712, 4.0)
    assert (again.pid, again.state, again.starts, again.revision) == (4712, "starting", 2, "")


@pytest.mark.parametrize(("lived", "failures"), [(0.0, 3), (STABLE_SECONDS - 0.1, 3), (STABLE_SECONDS, 1)])
def test_who_decided_long_enough_did_not_fail_to_start(lived: float, failures: int) -> None:
    life = NEW
    for _ in range(2):
        life = life.started(1, 0.0).ended(0.1)
    life = life.started(1, 0.0).took("r1").opened(1.0).ended(1.0 + lived)
    assert life.failures == failures


def test_the_first_loss_is_made_good_at_once_and_each_further_one_later() -> None:
    waits, life = [], NEW
    for _ in range(40):
        life = life.started(1, 0.0).ended(0.1)
        waits.append(life.wait)
    assert waits[:5] == [0.0, 0.1, 0.2, 0.4, 0.8]
    assert waits == sorted(waits)
    assert waits[-1] == LONGEST_WAIT
