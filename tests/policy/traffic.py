"""Traffic as the journal has it: requests to Bookinfo decided under a ruling, and recorded as the service does."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from policyd.audit.journal import Journal
from policyd.audit.masking import mask
from policyd.audit.record import Entry, Record, decode, encode, place
from policyd.authz.record import NOTHING, Include, Outcome, entry_of
from policyd.authz.request import Query
from policyd.authz.ruling import Ruling
from policyd.cedar.http import Endpoint, HttpFacts
from policyd.errors import UnacceptablePath
from policyd.mesh.model import Listener, Mesh
from policyd.spiffe import SpiffeId

START = datetime(2026, 11, 20, 12, tzinfo=UTC)
METHODS = ("GET", "GET", "GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PURGE")
PATHS = ("/reviews/{}", "/ratings/{}", "/details/{}", "/productpage", "/health", "/login", "/admin/x", "/api/{}/b")
HEADERS = ("jason", "mary", 'o\'brien "x" \\ ü')


def facts_of(chosen: random.Random, mesh: Mesh, at: datetime) -> tuple[HttpFacts, Listener]:
    """A request that could be."""
    known = [one for _, one in sorted(mesh.listeners.items()) if one.service]
    listener = chosen.choice(known)
    callers: list[SpiffeId | None] = [*mesh.workloads] if listener.verifies_peers else [None]
    headers = {"end-user": chosen.choice(HEADERS)} if chosen.random() < 0.5 else {}
    headers |= {"x-debug": "1"} if chosen.random() < 0.1 else {}
    return (
        HttpFacts(
            principal=chosen.choice(callers),
            service=listener.service,
            method=chosen.choice(METHODS),
            target=chosen.choice(PATHS).format(chosen.randrange(40)),
            host=listener.service.partition(".")[0],
            time=at,
            source=Endpoint(chosen.choice(("203.0.113.9", "10.0.0.1")), chosen.randrange(30_000, 60_000)),
            destination=Endpoint("10.0.0.2", listener.port),
            instance=listener.instance,
            headers=headers,
        ),
        listener,
    )


def entry(facts: HttpFacts, listener: Listener, ruling: Ruling, number: int, include: Include = NOTHING) -> Entry:
    """What is recorded of a request."""
    query = Query(facts, listener, f"r-{number}")
    try:
        question = ruling.engine.question(ruling.request(facts))
    except UnacceptablePath as error:
        return entry_of(Outcome("deny", 400, ruling.revision, query, error=error), f"{number:032x}", facts.time, 1)
    decision = ruling.engine.answer(question)
    outcome = Outcome(decision.word, 200, ruling.revision, query, question.request, decision)
    return mask(entry_of(outcome, f"{number:032x}", facts.time, 12, include))


def entries(ruling: Ruling, count: int, seed: int = 1) -> Iterator[Entry]:
    """So many requests, a second apart."""
    chosen = random.Random(seed)
    for number in range(count):
        at = START + timedelta(seconds=number)
        yield entry(*facts_of(chosen, ruling.mesh, at), ruling, number)


def record(made: Entry) -> Record:
    """An entry as it is read again."""
    return decode(encode(place(made, "w", 1, "")))


def records(ruling: Ruling, count: int, seed: int = 1) -> Iterator[Record]:
    """So many requests, as they are read."""
    return map(record, entries(ruling, count, seed))


def write(folder: Path, made: Iterable[Entry], writer: str = "serve-1") -> None:
    """Put them into the journal of a mesh's folder."""
    (folder / ".policyd").mkdir(mode=0o700, exist_ok=True)
    journal = Journal(folder / ".policyd" / "journal", writer, lambda: START)
    for one in made:
        journal.append(one)
    journal.close()
