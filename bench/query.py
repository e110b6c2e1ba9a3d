"""What it costs to ask the journal, and to try a candidate on it.

A sealed segment of decisions on Bookinfo is copied as the commands copy it; the copy of ten million records is made of
it, with times, numbers and ids of their own, since only the copy is asked. The process that answers starts before the
watch does. Questions of a replay all differ in what the candidate reads.
"""

from __future__ import annotations

import random
import statistics
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import duckdb

from bench.processes import ROOT
from bench.table import Row, row
from policyd.audit.ask.child import Question
from policyd.audit.ask.columns import COLUMNS
from policyd.audit.ask.copy import Part, build
from policyd.audit.ask.filters import Filter
from policyd.audit.ask.process import Bounds, asked
from policyd.audit.ask.questions import counted, newest
from policyd.audit.block import Start
from policyd.audit.record import FIRST_SEQ, Record, digest, encode, genesis, place
from policyd.audit.sealed import write_sealed
from policyd.audit.segments import Segment, segment_name
from policyd.authz.record import Outcome, entry_of
from policyd.authz.request import Query
from policyd.authz.ruling import Ruling
from policyd.cedar.http import Endpoint, HttpFacts
from policyd.offline.loaded import load_texts
from policyd.offline.replaying import deciders, replay
from policyd.policy.replay import Projector, decide
from policyd.reload.live import shipped_schemas
from policyd.sources.files import Folder, read_folder
from policyd.sources.files import digest as folder_digest
from policyd.spiffe import SpiffeId

RECORDS: Final = 10_000_000
SEGMENT: Final = 125_000  # about what 64 MiB of lines hold
ASKED: Final = 5  # times, of which the median counts
DISTINCT: Final = 60_000
REPEATED: Final = 200_000
START: Final = datetime(2026, 11, 1, tzinfo=UTC)
WRITER: Final = "serve-00000000"
READS_PATHS: Final = """@id("paths")
permit (principal, action == Action::"GET", resource) when { context.request.path like "/reviews/*" };
"""


def _ruling(more: str = "") -> tuple[Folder, Ruling]:
    """Bookinfo in force, with a policy more."""
    base = read_folder(ROOT / "examples/bookinfo")
    texts = {path: text for path, text in base.texts.items() if not path.startswith("cases/")}
    if more:
        texts["policies/more.cedar"] = more
    folder = Folder(base.directory, texts, folder_digest(texts))
    return folder, load_texts(folder, shipped_schemas()).ruling


def _records(ruling: Ruling, count: int, books: int) -> Iterator[Record]:
    """Visits of the product page, decided and recorded as the service does."""
    chosen = random.Random(1)
    prev = genesis(WRITER)
    page = SpiffeId.parse("spiffe://cluster.local/ns/default/sa/bookinfo-productpage")
    listeners = [ruling.mesh.listeners[f"{name}/inbound"] for name in ("details-v1", "reviews-v1", "ratings-v1")]
    for number in range(count):
        listener = listeners[number % 3]
        name = listener.service.partition(".")[0]
        facts = HttpFacts(
            page, listener.service, "GET" if chosen.random() < 0.97 else "DELETE", f"/{name}/{number % books}", name,
            START + timedelta(milliseconds=number * 100), Endpoint("127.0.0.1", chosen.randrange(30_000, 60_000)),
            Endpoint("127.0.0.1", 9080), listener.instance,
        )  # fmt: skip
        question = ruling.engine.question(ruling.request(facts))
        decision = ruling.engine.answer(question)
        query = Query(facts, listener, f"{chosen.getrandbits(128):032x}", f"{chosen.getrandbits(128):032x}")
        outcome = Outcome(decision.word, 200, ruling.revision, query, question.request, decision)
        entry = entry_of(outcome, f"{chosen.getrandbits(128):032x}", facts.time, chosen.randrange(40, 900))
        record = place(entry, WRITER, FIRST_SEQ + number, prev)
        prev = digest(encode(record))
        yield record


def _copy(folder: Path, ruling: Ruling) -> tuple[list[Path], list[Row]]:
    """The copy of RECORDS records, and how fast a segment is copied."""
    lines = [encode(record) for record in _records(ruling, SEGMENT, 40)]
    segment = Segment(WRITER, FIRST_SEQ, folder / segment_name(WRITER, FIRST_SEQ)).sealed
    with segment.path.open("wb") as file:
        write_sealed(file, lines, Start(WRITER, FIRST_SEQ, genesis(WRITER)))
    first = folder / "000.parquet"
    start = time.perf_counter()
    problems = build(Part(segment, None, first))
    seconds = time.perf_counter() - start
    assert not problems
    files = [first]
    with duckdb.connect() as connection:
        for number in range(1, RECORDS // SEGMENT):
            own = {
                "time": f"time + INTERVAL {number * SEGMENT * 100} MILLISECOND",
                "seq": f"seq + {number * SEGMENT}",
                **{name: f"md5({name} || '{number}')" for name in ("decision_id", "request_id", "trace_id")},
            }
            chosen = ", ".join(f'{own.get(one.name, one.name)} AS "{one.name}"' for one in COLUMNS)
            files.append(folder / f"{number:03}.parquet")
            options = "FORMAT parquet, COMPRESSION zstd"
            connection.execute(f"COPY (SELECT {chosen} FROM '{first}') TO '{files[-1]}' ({options})")
    size = sum(path.stat().st_size for path in files)
    return files, [
        row("sealed records copied into columns, one core", SEGMENT / seconds, "records/s"),
        row("the copy, a record", size / RECORDS, "bytes"),
    ]


def _asked(files: list[Path], question: Question, rows: int) -> float:
    """Seconds from the question to the last row of its answer."""
    times = []
    for _ in range(ASKED):
        with asked(files, [Question("SELECT 1"), question], Bounds()) as answers:
            list(next(answers).rows)
            start = time.perf_counter()
            found = list(next(answers).rows)
            times.append(time.perf_counter() - start)
        assert len(found) == rows, len(found)
    return statistics.median(times)


def _started(files: list[Path]) -> float:
    """Seconds until a process is there and has answered the least."""
    times = []
    for _ in range(ASKED):
        start = time.perf_counter()
        with asked(files, [Question("SELECT 1")], Bounds()) as answers:
            list(next(answers).rows)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def _questions(files: list[Path]) -> list[Row]:
    denied = Filter(decision="deny")
    by_caller = counted(denied, ("principal", "resource"), 100)
    latest = newest(Filter(decision="deny", resource="reviews", method="DELETE"), 100)
    files.reverse()  # the newest first, as the commands have them
    return [
        row("grouped count over 10 million records", _asked(files, by_caller, 3), "s", at_most=0.5),
        row("newest 100 matches of a filter, 10 million records", _asked(files, latest, 100), "s", at_most=3),
        row("before each, the start of the process that answers", _started(files), "s"),
    ]


def _replays() -> list[Row]:
    folder, ruling = _ruling(READS_PATHS)

    def rate(records: list[Record]) -> tuple[float, float, int]:
        with deciders(folder, ruling, few=-1) as ask:
            for started in [ask([]) for _ in range(8)]:
                started.result()  # the processes are there
            start = time.perf_counter()
            tally = replay(iter(records), Projector(ruling, lambda *_: ruling), ask)
            seconds = time.perf_counter() - start
        assert tally.agreeing == tally.records == len(records)
        return tally.records / seconds, tally.asked / seconds, tally.asked

    different = list(_records(ruling, DISTINCT, DISTINCT))
    repeated = list(_records(ruling, REPEATED // 10, 10)) * 10
    _, asked_rate, _ = rate(different)
    all_rate, _, count = rate(repeated)
    return [
        row("replay, different decisions, all cores", asked_rate, "decisions/s", at_least=10_000),
        row("of one of them, on one core", _cpu_of_one(ruling, different) * 1e6, "us of processor"),
        row("replay, repeated requests", all_rate, "records/s"),
        row("of which are decided", count, "decisions", at_most=120),
    ]


def _cpu_of_one(ruling: Ruling, records: list[Record]) -> float:
    """What projecting and deciding takes of a processor, however busy the machine is."""
    projector = Projector(ruling, lambda *_: ruling)
    some = records[:5_000]
    start = time.process_time()
    questions = [projector.question(record) for record in some]
    for question in questions:
        assert isinstance(question, bytes)
        decide(question, ruling)
    return (time.process_time() - start) / len(some)


def run() -> list[Row]:
    """Measure all of it."""
    with tempfile.TemporaryDirectory(prefix="policyd-bench") as name:
        files, rows = _copy(Path(name), _ruling()[1])
        return [*rows, *_questions(files), *_replays()]
