"""Where the console's pages come from: the administration API, the journal's files, and the folder's.

Law: reads; what is to change the server is asked for. Each call is one question and blocks; who serves pages asks from
a thread. What is large is kept only as long as it is what is in force.
"""

from __future__ import annotations

import json
import os
import time
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from threading import Lock
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from policyd.audit.ask.copy import reading, refresh
from policyd.audit.ask.process import Bounds, Rows, asked
from policyd.audit.ask.questions import found_by_id, newest
from policyd.audit.ask.records import record_of
from policyd.audit.read import Line, Position, ends
from policyd.audit.read import newest as newest_lines
from policyd.errors import BrokenRecord, NotRunning, PolicydError, QuestionError, StateError
from policyd.instance import server
from policyd.offline.revisions import load_revision
from policyd.sources.files import Folder, read_folder
from policyd.state_paths import state_paths
from policyd.telemetry.graph import Look, look

if TYPE_CHECKING:
    from policyd._pb import admin_pb2 as pb
    from policyd.admin_client import AdminClient
    from policyd.audit.ask.child import Question
    from policyd.audit.ask.filters import Filter
    from policyd.audit.record import Record
    from policyd.reload.live import Live

MAX_PAGE: Final = 64 << 20  # bytes of one proxy's metrics
AT_ONCE: Final = 2  # proxies that are asked for their metrics together; an agent takes a few questions at once
TRIES: Final = 5
RECENT: Final = 5_000  # records of the journal's end that are looked through without its copy
BOUNDS: Final = Bounds(memory=512 << 20, seconds=20)
KEPT_REVISIONS: Final = 3
NOWHERE: Final[Mapping[str, Position]] = MappingProxyType({})


class Forbidden(PolicydError):
    """What the operators' policies do not allow."""

    code = "forbidden"


@dataclass(frozen=True, slots=True)
class Seen:
    """One look at the mesh: what its proxies counted, which of them did not answer and why, and where instances are."""

    look: Look
    missed: Mapping[str, str]
    places: Sequence[pb.InstancePlace]
    at: float  # of the clock that never goes back


class Source:
    """All questions about the mesh of a folder; raises PolicydError."""

    def __init__(self, directory: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self.directory = directory
        self._paths = state_paths(directory)
        self._clock = clock
        self._revisions: OrderedDict[str, Live] = OrderedDict()
        self._loading = Lock()

    # ---- the server

    @contextmanager
    def client(self) -> Iterator[AdminClient]:
        """Connect to the server for some questions."""
        with server(self.directory) as client:
            yield client

    def status(self) -> pb.StatusReply | None:
        """What is in force; None where no server answers."""
        try:
            with self.client() as client:
                return client.status()
        except (NotRunning, StateError):
            return None

    def visit(self, who: str, act: str, operation: str = "") -> None:
        """Have it decided, and with an `operation` recorded, whether somebody may look; raises Forbidden.

        Without a server the owner reads their own files, and nobody else comes in.
        """
        try:
            with self.client() as client:
                reply = client.visit(who, act, operation)
        except (NotRunning, StateError):
            if who == f"unix:{os.getuid()}":
                return
            raise
        if not reply.allowed:
            why = ", ".join(f"`{one}`" for one in reply.reasons) or "no policy lets them"
            remedy = f'write one for `Operator::"{who}"` in operators.cedar'
            raise Forbidden(f"the operators' policies do not allow `{who}` to {act}: {why}", remedy=remedy)

    def apply(self, who: str, file: str, text: str, before: str) -> pb.ApplyPoliciesReply:
        """Have the server take a file of policies; raises NotRunning, InvalidInput and RefusedError."""
        with self.client() as client:
            return client.apply_policies(who, file, text, before)

    def see(self) -> Seen:
        """Ask every proxy for its counts."""
        with self.client() as client:
            places = client.instances()

            def page(name: str) -> str:
                held = client.inspect(name, "metrics").held
                return zlib.decompressobj().decompress(held, MAX_PAGE).decode(errors="replace")

            pages, missed = _each([place.name for place in places], page)
        gateways = frozenset(place.name for place in places if place.role == "gateway")
        return Seen(look(pages, gateways), missed, places, self._clock())

    # ---- the journal

    @property
    def journal(self) -> Path:
        """Its folder."""
        return self._paths.journal

    def ends(self) -> Mapping[str, Position]:
        """Where the journal ends now; nowhere where there is none."""
        return ends(self.journal) if self.journal.is_dir() else {}

    def recent(self, holds: Callable[[Record], bool], limit: int, within: int = RECENT) -> list[Record]:
        """The newest records that hold, the newest first, of the last so many."""
        lines = islice(self.back(self.ends()), within)
        return list(islice((line.record for line in lines if holds(line.record)), limit))

    def back(self, until: Mapping[str, Position], since: Mapping[str, Position] = NOWHERE) -> Iterator[Line]:
        """The records between two places of the journal, the newest first."""
        return newest_lines(self.journal, until, passed_over, since) if until else iter(())

    def last(self, until: Mapping[str, Position]) -> dict[str, int]:
        """Of each writer the `seq` of the last record before a place."""
        each = ((writer, next(self.back({writer: one}), None)) for writer, one in until.items())
        return {writer: line.record.seq for writer, line in each if line is not None}

    def search(self, wanted: Filter, limit: int) -> list[Record]:
        """The newest records of the whole journal that match, the newest first."""
        with self.ask([newest(wanted, limit)]) as answers:
            return [record_of(value) for value in next(answers).values()][::-1]

    def found(self, wanted: str, limit: int) -> list[Record]:
        """Records by the id of a decision or a request."""
        near = self.recent(lambda record: wanted in (record.decision_id, record.request_id), limit)
        if any(record.decision_id == wanted for record in near):
            return [record for record in near if record.decision_id == wanted]
        with self.ask([found_by_id(wanted, limit)]) as answers:
            return [record_of(value) for value in next(answers).values()]

    @contextmanager
    def ask(self, questions: Sequence[Question]) -> Iterator[Iterator[Rows]]:
        """Ask the copy of the journal, brought up to date first; without a journal nothing matches."""
        self._paths.columns.mkdir(mode=0o700, parents=True, exist_ok=True)
        with ExitStack() as held:
            files = self._copied(held)
            with asked(files, questions, BOUNDS) as answers:
                yield answers

    def _copied(self, held: ExitStack) -> list[Path]:
        """The files of the copy, which stay while `held`; somebody else may remove some before we hold them."""
        for _ in range(TRIES):
            files: list[Path] = []
            if self.journal.is_dir():
                files = refresh(self.journal, self._paths.columns, passed_over, lambda done, size: None)
            with ExitStack() as now:
                now.enter_context(reading(self._paths.columns))
                if all(file.exists() for file in files):
                    held.push(now.pop_all())
                    return files
        raise QuestionError("the journal is rotated faster than it can be read", remedy="ask again")

    # ---- the folder

    def folder(self) -> Folder:
        """Its files as they are now."""
        return read_folder(self.directory)

    def live(self, revision: str, record: Record | None = None) -> Live:
        """What was in force under a revision, or when a record was written; kept for the next questions."""
        known = revision if record is None else f"{revision} {record.time:%FT%T}"
        with self._loading:
            found = self._revisions.get(known)
            if found is None:
                found = load_revision(self.directory, revision, record.time if record else None)[1]
            found = self._revisions.setdefault(found.digest, found)
            self._revisions[known] = found
            while len(self._revisions) > 2 * KEPT_REVISIONS:
                self._revisions.popitem(last=False)
        return found


def _each(names: Sequence[str], ask: Callable[[str], str]) -> tuple[dict[str, str], dict[str, str]]:
    """Ask for each name at once; what failed is told by its words."""
    pages: dict[str, str] = {}
    missed: dict[str, str] = {}

    def one(name: str) -> None:
        try:
            pages[name] = ask(name)
        except (PolicydError, zlib.error) as error:
            missed[name] = str(error)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(one, names))
    return pages, missed


def passed_over(_: BrokenRecord) -> None:
    """What is broken in the journal, `policyd log verify` tells."""


def plain(record: Record) -> dict[str, Any]:
    """A record as JSON has it."""
    from policyd.audit.record import encode

    value: dict[str, Any] = json.loads(encode(record))
    return value
