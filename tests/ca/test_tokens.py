"""A join token works once, in time, for one agent; its secret is nowhere on disk."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from policyd.ca.assignment import Registration
from policyd.ca.database import Database, open_database
from policyd.ca.ledger import Ledger
from policyd.ca.tokens import Refused, Tokens
from policyd.errors import KeyFileError, StateError, TokenError
from tests.ca.samples import NOW, RATINGS, REVIEWS

LAPTOP = Registration("laptop", frozenset({REVIEWS, RATINGS}))
MINUTE = timedelta(minutes=1)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tokens.db"


@pytest.fixture
def database(path: Path) -> Iterator[Database]:
    database = open_database(path)
    yield database
    database.close()


@pytest.fixture
def tokens(database: Database) -> Tokens:
    return Tokens(database)


def claim(tokens: Tokens, secret: str, after: timedelta = 0 * MINUTE) -> Registration | Refused:
    with tokens.claim(secret, NOW + after) as claimed:
        return claimed


def test_a_token_is_claimed_once_and_registers_its_agent(tokens: Tokens) -> None:
    token = tokens.create(LAPTOP, now=NOW, random=os.urandom)
    assert token.expires_at == NOW + 10 * MINUTE
    assert tokens.registration("laptop") is None
    assert claim(tokens, token.secret) == LAPTOP
    assert tokens.registration("laptop") == LAPTOP
    assert claim(tokens, token.secret) == Refused("used", "laptop")


def test_a_token_without_identities_is_for_all_of_the_mesh(tokens: Tokens) -> None:
    token = tokens.create(Registration("laptop"), now=NOW, random=os.urandom)
    assert claim(tokens, token.secret) == Registration("laptop", frozenset())


@pytest.mark.parametrize(("after", "accepted"), [(9.99, True), (10, False), (11, False), (60 * 24 * 6, False)])
def test_a_token_ends_after_its_time(tokens: Tokens, after: float, accepted: bool) -> None:
    token = tokens.create(LAPTOP, now=NOW, random=os.urandom)
    assert claim(tokens, token.secret, after * MINUTE) == (LAPTOP if accepted else Refused("expired", "laptop"))


@pytest.mark.parametrize("wrong", ["", "x", "A" * 43, "\udcff", "' OR 1=1 --", "\x00"])
def test_a_wrong_secret_is_unknown(tokens: Tokens, wrong: str) -> None:
    tokens.create(LAPTOP, now=NOW, random=os.urandom)
    assert claim(tokens, wrong) == Refused("unknown")


def test_a_claim_whose_purpose_fails_leaves_the_token_unused(tokens: Tokens) -> None:
    token = tokens.create(LAPTOP, now=NOW, random=os.urandom)
    with pytest.raises(RuntimeError), tokens.claim(token.secret, NOW):
        raise RuntimeError("the journal is full")
    assert tokens.registration("laptop") is None
    assert claim(tokens, token.secret) == LAPTOP


def test_of_many_claims_at_once_one_wins(path: Path) -> None:
    """Threads on connections of their own, as two processes would be, and threads that share one."""
    first, second = open_database(path), open_database(path)
    secret = Tokens(first).create(LAPTOP, now=NOW, random=os.urandom).secret
    start = threading.Barrier(8)
    results: list[Registration | Refused] = []

    def race(database: Database) -> None:
        start.wait()
        results.append(claim(Tokens(database), secret))

    threads = [threading.Thread(target=race, args=(database,)) for database in (first, second) * 4]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    first.close()
    second.close()
    assert sorted(results, key=str) == sorted([LAPTOP, *[Refused("used", "laptop")] * 7], key=str)


def test_what_an_agent_may_obtain_survives_a_restart(path: Path) -> None:
    before = open_database(path)
    secret = Tokens(before).create(LAPTOP, now=NOW, random=os.urandom).secret
    claim(Tokens(before), secret)
    before.close()
    after = open_database(path)
    assert Tokens(after).agents() == (LAPTOP,)
    assert claim(Tokens(after), secret) == Refused("used", "laptop")
    after.close()


def test_joining_again_replaces_what_an_agent_may_obtain(tokens: Tokens) -> None:
    narrow = Registration("laptop", frozenset({REVIEWS}))
    for registration in (LAPTOP, narrow):
        claim(tokens, tokens.create(registration, now=NOW, random=os.urandom).secret)
    assert tokens.registration("laptop") == narrow


def test_who_has_joined_is_known_as_it_is_now_however_often_it_was_asked(tokens: Tokens) -> None:
    narrow, tablet = Registration("laptop", frozenset({REVIEWS})), Registration("tablet")
    seen = [tokens.agents()]
    for registration in (LAPTOP, tablet, narrow):
        claim(tokens, tokens.create(registration, now=NOW, random=os.urandom).secret)
        seen.append(tokens.agents())
    tokens.forget("laptop")
    assert [*seen, tokens.agents()] == [(), (LAPTOP,), (LAPTOP, tablet), (narrow, tablet), (tablet,)]


def test_a_join_that_failed_after_all_is_of_nobody(tokens: Tokens) -> None:
    token = tokens.create(LAPTOP, now=NOW, random=os.urandom)
    seen = []
    with pytest.raises(ZeroDivisionError), tokens.claim(token.secret, NOW):
        seen.append(1 // len(tokens.agents()) // 0)  # within the claim it is somebody's already
    assert (seen, tokens.agents()) == ([], ())


def test_an_agent_that_is_forgotten_is_registered_no_more(tokens: Tokens) -> None:
    claim(tokens, tokens.create(LAPTOP, now=NOW, random=os.urandom).secret)
    assert [tokens.forget("laptop"), tokens.forget("laptop")] == [True, False]
    assert tokens.registration("laptop") is None


@pytest.mark.parametrize(
    ("agent", "ttl", "message"),
    [
        ("a/b", 10 * MINUTE, "`a/b` is no name for an agent"),
        ("laptop", 0 * MINUTE, "lives up to 7 days, not 0:00:00"),
        ("laptop", timedelta(days=8), "lives up to 7 days, not 8 days"),
    ],
)
def test_a_token_for_a_bad_name_or_life_is_refused(tokens: Tokens, agent: str, ttl: timedelta, message: str) -> None:
    with pytest.raises(TokenError) as caught:
        tokens.create(Registration(agent), now=NOW, random=os.urandom, ttl=ttl)
    assert message in caught.value.message


def test_no_secret_is_on_the_disk_and_the_files_are_the_owner_s_alone(path: Path, tokens: Tokens) -> None:
    token = tokens.create(LAPTOP, now=NOW, random=os.urandom)
    files = sorted(path.parent.iterdir())
    assert {file.stat().st_mode & 0o777 for file in files} == {0o600}
    assert not any(token.secret.encode() in file.read_bytes() for file in files)
    assert token.secret not in repr(token)


def test_old_tokens_are_swept_when_a_new_one_is_made(database: Database, tokens: Tokens) -> None:
    old = tokens.create(LAPTOP, now=NOW, random=os.urandom).secret
    tokens.create(LAPTOP, now=NOW + timedelta(days=8), random=os.urandom)
    assert claim(tokens, old, timedelta(days=8)) == Refused("unknown")


def test_certificates_are_counted_across_restarts(path: Path) -> None:
    for _ in range(2):
        database = open_database(path)
        ledger = Ledger(database)
        ledger.add("workload")
        ledger.add("workload")
        ledger.write()
        ledger.add("server")
        assert ledger.total() in (3, 6)
        database.close()
    database = open_database(path)
    assert Ledger(database).total() == 6
    database.close()


def test_counts_that_cannot_be_written_are_kept_for_later(path: Path) -> None:
    database = open_database(path)
    ledger = Ledger(database)
    ledger.add("workload")
    other = sqlite3.connect(path)
    other.execute("BEGIN EXCLUSIVE")
    with closing(other), pytest.raises(StateError, match="is locked"):
        ledger.write()
    assert ledger.total() == 1
    database.close()


@contextmanager
def writing_waits(path: Path) -> Iterator[Ledger]:
    """Within a transaction, for whose end another thread waits that is to write a count of one."""
    database = open_database(path)
    ledger = Ledger(database)
    ledger.add("agent")
    writer = threading.Thread(target=ledger.write, daemon=True)  # a deadlock would outlive the test
    with database.transaction():
        writer.start()
        writer.join(0.1)
        yield ledger
    writer.join()
    database.close()


def test_what_is_counted_within_a_transaction_waits_for_no_writer_that_waits_for_it(path: Path) -> None:
    with writing_waits(path) as ledger:
        counting = threading.Thread(target=ledger.add, args=["workload"], daemon=True)
        counting.start()
        counting.join(20)
        assert not counting.is_alive()


def test_all_that_were_issued_are_told_also_while_another_thread_writes_them(path: Path) -> None:
    with writing_waits(path) as ledger:
        ledger.add("workload")
        assert ledger.total() == 2


def test_a_registration_that_changed_is_known_at_once(tokens: Tokens) -> None:
    for wanted in (LAPTOP, replace(LAPTOP, workloads=frozenset({REVIEWS}))):
        with tokens.claim(tokens.create(wanted, now=NOW, random=os.urandom).secret, NOW):
            pass
        assert tokens.registration("laptop") == tokens.registration("laptop") == wanted


def test_a_file_that_others_may_use_is_refused(path: Path) -> None:
    open_database(path).close()
    path.chmod(0o644)
    with pytest.raises(KeyFileError, match="has mode 0644"):
        open_database(path)


def test_a_damaged_file_is_refused(path: Path) -> None:
    path.write_bytes(b"no database at all" * 100)
    path.chmod(0o600)
    with pytest.raises(StateError, match="is damaged"):
        open_database(path)


def test_a_newer_format_is_refused(path: Path) -> None:
    open_database(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(StateError, match="is of a newer version of policyd; start that version"):
        open_database(path)


def test_a_missing_folder_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(StateError, match="cannot be opened: No such file or directory"):
        open_database(tmp_path / "missing" / "tokens.db")


@pytest.mark.parametrize(("at_once", "mode"), [(True, 2), (False, 1)])
def test_what_must_not_be_forgotten_is_on_the_disk_at_once(database: Database, at_once: bool, mode: int) -> None:
    with database.transaction(at_once=not at_once):  # the other one before changes nothing
        pass
    with database.transaction(at_once=at_once) as connection:
        assert connection.execute("PRAGMA synchronous").fetchone() == (mode,)
        with database.transaction(at_once=not at_once) as inner:  # part of the outer one
            assert inner.execute("PRAGMA synchronous").fetchone() == (mode,)
