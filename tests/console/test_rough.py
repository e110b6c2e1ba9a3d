"""What a console meets on a real machine: a journal that is rotated while it is read, and clocks that differ."""

from __future__ import annotations

import asyncio
import os
import shutil
from datetime import datetime, timedelta

from policyd._pb import admin_pb2 as pb
from policyd.audit.appender import Limits
from policyd.audit.journal import Journal
from tests.console.conftest import NOW, Console, Page, World, check_harmless
from tests.console.test_pages import denied, issuance, looked
from tests.fakes.proxies import Calls
from tests.policy import traffic

PAGES = ("/decisions", "/decisions?decision=deny", "/certificates", "/policies/trial?since=7d", f"/decisions/{1:032x}")


class Turning:
    """A journal of files so small that almost every record begins a new one, and old ones go while they are read."""

    def __init__(self, world: World) -> None:
        self.folder = world.folder / ".policyd" / "journal"
        self.journal = Journal(self.folder, "serve-1", self.now, limits=Limits(max_bytes=2_000))
        self.at = 0

    def now(self) -> datetime:
        return NOW

    def turn(self) -> None:
        """Write, and delete the oldest file as retention does."""
        for _ in range(6):
            self.at += 1
            self.journal.append(denied(at=self.at))
        files = sorted(self.folder.glob("*.jsonl*"))
        if len(files) > 3:
            files[0].unlink()


async def test_pages_read_a_journal_while_it_is_rotated(console: Console, world: World) -> None:
    turning = Turning(world)
    turning.turn()

    async def rotate() -> None:
        for _ in range(15):
            await asyncio.to_thread(turning.turn)

    rotating = asyncio.create_task(rotate())
    try:
        for _ in range(2):
            answers = await asyncio.gather(*(console.get(path) for path in PAGES))
            assert {answer.status_code for answer in answers} <= {200, 404}, [
                Page(one.text).text[200:900] for one in answers if one.status_code == 400
            ]
            for answer in answers:
                check_harmless(answer.text)
    finally:
        await rotating
        turning.journal.close()
    page = check_harmless((await console.get("/decisions?decision=deny&count=5")).text)
    assert f"/decisions/{turning.at:032x}" in page.of("a", "href"), "what was written last is found"


async def test_a_journal_that_was_cut_or_taken_away_is_no_error_of_ours(console: Console, world: World) -> None:
    journal = world.folder / ".policyd" / "journal"
    for file in journal.glob("*.jsonl"):
        os.truncate(file, file.stat().st_size // 2)
    for path in PAGES:
        assert (await console.get(path)).status_code in (200, 404), path
    shutil.rmtree(journal)
    for path in PAGES:
        assert (await console.get(path)).status_code in (200, 404), path


async def test_times_of_clocks_that_differ_are_shown_as_they_are(console: Console, world: World) -> None:
    ahead, behind = NOW + timedelta(days=2), NOW - timedelta(days=400)
    traffic.write(
        world.folder,
        [
            denied(at=1, time=ahead, revision=world.ruling.revision),
            denied(at=2, time=behind, revision=world.ruling.revision),
            issuance("spiffe://cluster.local/ns/default/sa/early"),
        ],
    )
    world.fake.replies["Status"] = pb.StatusReply(ready=True, revision=world.ruling.revision, started_at=1 << 40)

    page = check_harmless((await console.get("/decisions")).text)
    links = page.of("a", "href")
    assert {f"/decisions/{at:032x}" for at in (1, 2)} <= set(links)
    for at in (1, 2):
        assert "no policy permits" in check_harmless((await console.get(f"/decisions/{at:032x}")).text).text
    for path in ("/certificates", "/policies/trial", "/?until=1h", "/mesh", "/policies/revisions"):
        assert (await console.get(path)).status_code == 200, path


async def test_a_trace_whose_clocks_differ_stays_on_its_line(console: Console, world: World) -> None:
    day = 86_400 * 10**9
    summary = pb.TraceSummary(id="0a" * 16, name="x", service="a", start_ns=1 << 62, duration_ns=10_000_000, spans=2)
    rows = [
        pb.TraceRow(name="early", service="a", offset_ns=0, duration_ns=2 * day, moved_ns=day),
        pb.TraceRow(name="late", service="b", offset_ns=day, duration_ns=0),
    ]
    world.fake.replies["Trace"] = pb.TraceReply(summary=summary, rows=rows)

    page = check_harmless((await console.get(f"/traces/{'0a' * 16}")).text)

    bars = [a for tag, a in page.elements if tag == "rect" and "track" not in a.get("class", "")]
    assert bars
    for bar in bars:
        assert 0 <= float(bar["x"]) <= 100
        assert 0 < float(bar["width"]) <= 100 - float(bar["x"])


async def test_a_graph_of_a_clock_that_stands_still_has_no_endless_rate(console: Console, world: World) -> None:
    await looked(console, world)
    world.later(0.0, Calls("reviews-v1", "details-v1", 5))
    await console.desk.watch.look()

    assert (await console.get("/?range=10s")).status_code == 200
    assert (await console.get("/?until=500h")).status_code == 200
