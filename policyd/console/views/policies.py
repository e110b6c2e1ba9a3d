"""Policies: what is in force, what is found in it, its cases, what its revisions changed; and the playground."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC
from difflib import unified_diff
from typing import TYPE_CHECKING, Any, Final

from starlette.responses import HTMLResponse, JSONResponse

from policyd.amend import hash_of
from policyd.audit.moments import span
from policyd.audit.scan import scan
from policyd.console import playground as drafts
from policyd.console.cedar_text import Line, lines_of
from policyd.console.desk import Desk, admitted, desk_of, page, part, problems_of
from policyd.console.playground import Draft
from policyd.console.views.explained import shown_answer
from policyd.errors import InvalidInput, PolicydError, StateError, UsageError
from policyd.offline.loaded import load_folder
from policyd.offline.replaying import before_of
from policyd.offline.revisions import live_of
from policyd.policy import coverage as covering
from policyd.policy.cases import Result, parse_cases, run_cases
from policyd.policy.diff import compare
from policyd.policy.finding_model import Finding, of_problems
from policyd.sources.revisions import SHORT, Kept, changed, find, history, read
from policyd.state_paths import state_paths

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from policyd.cedar.policies import Policy
    from policyd.policy.diff_model import Difference
    from policyd.reload.live import Live

MAX_REVISIONS: Final = 100
MAX_FILES: Final = 60  # of policies on one page
MAX_ROWS: Final = 200
MAX_DIFF: Final = 4_000  # lines of one file's difference
REPLAYED: Final = ("15m", "1h", "24h", "7d")
RANK: Final = {"error": 0, "warning": 1, "note": 2}


@dataclass(frozen=True, slots=True)
class File:
    """A file of policies as it is written, and what was found in it."""

    name: str
    lines: Sequence[Line]
    findings: Sequence[Finding]
    count: int
    on_trial: int  # of those marked so


@dataclass(frozen=True, slots=True)
class Row:
    """A revision, and what came with it; None where that cannot be told any more."""

    kept: Kept
    changed: Sequence[tuple[str, str]] | None
    in_force: bool
    before: str = ""


def in_force(desk: Desk) -> tuple[Live, str]:
    """What is in force, and where that is known from; raises PolicydError."""
    status = desk.source.status()
    if status is not None and status.revision:
        return desk.source.live(status.revision), "in force"
    return load_folder(desk.source.directory, cases=False).live, "as the folder is; no server runs"


async def policies(request: Request) -> Response:
    """The set in force, file by file."""
    desk = desk_of(request)
    live, where = await desk.ask(in_force, desk)
    findings, problems = await desk.ask(_findings, desk)
    wanted = request.query_params.get("q", "")[:200]
    found = _files(live, findings, wanted)
    return await page(
        request, "policies.html", live=live, where=where, files=found[:MAX_FILES], more=len(found) - MAX_FILES,
        findings=findings, problems=problems, wanted=wanted,
    )  # fmt: skip


async def tests(request: Request) -> Response:
    """Cases, and what they try of the policies; and what policies on trial would change."""
    desk = desk_of(request)
    results, coverage = await desk.ask(_tested, desk)
    return await page(request, "policy_tests.html", results=results, coverage=coverage)


async def revisions(request: Request) -> Response:
    """What was in force; and of two, what differs."""
    desk, query = desk_of(request), request.query_params
    rows = await desk.ask(_revisions, desk)
    compared = None
    if query.get("old") and query.get("new"):
        compared = await desk.ask(_compared, desk, query["old"], query["new"])
    return await page(request, "revisions.html", rows=rows, compared=compared)


async def playground(request: Request) -> Response:
    """A file to edit, a request to try."""
    desk, query = desk_of(request), request.query_params
    live, where = await desk.ask(in_force, desk)
    files = drafts.files_of(live)
    chosen = query.get("file", "")
    file = chosen if chosen in files else next(iter(files), drafts.NEW_FILE)
    before = hash_of(files.get(file))
    return await page(
        request, "playground.html", live=live, where=where, files=tuple(files), file=file, text=files.get(file, ""),
        asked=query.get("request", "")[:2_000], headers=query.get("headers", "")[:4_000], replayed=REPLAYED,
        before=before, applies=desk.applies,
    )  # fmt: skip


async def playground_check(request: Request) -> Response:
    """Diagnostics of a draft."""
    desk, value = desk_of(request), await _sent(request)

    def checked() -> tuple[Finding, ...]:
        return drafts.check(Draft.of(value), in_force(desk)[0])

    try:
        found = await desk.ask(checked)
    except PolicydError as error:
        return JSONResponse({"findings": [_diagnostic(one) for one in of_problems(problems_of(error))]}, 400)
    return JSONResponse({"findings": [_diagnostic(one) for one in sorted(found, key=_by_rank)]})


async def playground_decide(request: Request) -> Response:
    """A request's answer in force and under a draft."""
    desk, value = desk_of(request), await _sent(request)

    def answered() -> str:
        asked, headers = str(value.get("request", "")), drafts.headers_of(str(value.get("headers", "")))
        before, after = drafts.decide(Draft.of(value), in_force(desk)[0], asked, headers, desk.now())
        return part("playground_answer.html", before=shown_answer(before), after=shown_answer(after))

    return await _answered(request, answered, "console.decide")


async def playground_replay(request: Request) -> Response:
    """What a draft changes of recorded decisions."""
    desk, value = desk_of(request), await _sent(request)

    def replayed() -> str:
        live = in_force(desk)[0]
        since = str(value.get("since", ""))
        within = span(since if since in REPLAYED else REPLAYED[0], "", desk.now(), UTC)
        records = (line.record for line in scan(desk.source.journal, within).lines(lambda error: None))
        before = before_of(desk.source.directory, live.ruling)
        tally = drafts.replay(Draft.of(value), live, desk.source.directory, records, before)
        changes = sorted(tally.changed.items(), key=lambda item: (-item[1].seen.count, item[0]))
        return part(
            "playground_replay.html", tally=tally, changes=changes[:MAX_ROWS], more=len(changes) - MAX_ROWS,
            limit=drafts.MAX_RECORDS,
        )  # fmt: skip

    return await _answered(request, replayed, "console.replay")


async def playground_apply(request: Request) -> Response:
    """Have a draft enforced, which the server decides, checks and records."""
    desk, value, who = desk_of(request), await _sent(request), request.scope["ticket"].who

    def applied() -> Response:
        draft, before = Draft.of(value), value.get("before")
        if not desk.applies or not isinstance(before, str):
            remedy = "switch it on with `console: {apply: true}` in policyd.yaml"
            raise UsageError("nothing is enforced from here", remedy=remedy)
        reply = desk.source.apply(who, draft.file, draft.text, before)
        status = 400 if reply.refused else 200
        answer = part("playground_applied.html", refused=reply.refused, revision=reply.revision, file=draft.file)
        return HTMLResponse(answer, status)

    try:
        return await desk.ask(applied)
    except PolicydError as error:
        return HTMLResponse(part("problems.html", problems=problems_of(error)), 400)


async def _answered(request: Request, work: Any, operation: str) -> Response:
    """A part of the page, or why there is none; who asks is on record."""
    desk = desk_of(request)
    try:
        await admitted(request, "explain", operation)
        return HTMLResponse(await desk.ask(work))
    except PolicydError as error:
        return HTMLResponse(part("problems.html", problems=problems_of(error)), 400)


async def _sent(request: Request) -> Mapping[str, Any]:
    """The JSON of an action; what is none is empty, and refused for what it lacks."""
    try:
        value = await request.json()
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _diagnostic(one: Finding) -> dict[str, Any]:
    return {**asdict(one), "severity": one.severity}


def _by_rank(one: Finding) -> tuple[int, int, int]:
    return RANK.get(one.severity, 0), one.line, one.column


def _findings(desk: Desk) -> tuple[list[Finding], Sequence[Any]]:
    """What is found in the folder's policies as they are, and why the folder is refused, where it is."""
    try:
        found = list(load_folder(desk.source.directory, cases=False).findings)
    except InvalidInput as error:
        return [], error.problems
    return sorted(found, key=_by_rank), ()


def _files(live: Live, findings: Sequence[Finding], wanted: str) -> list[File]:
    of_file: dict[str, list[Finding]] = defaultdict(list)
    for one in findings:
        of_file[one.file].append(one)
    counts: dict[str, int] = defaultdict(int)
    for policy in live.ruling.policy_set.policies:
        counts[policy.file] += 1
    beside = live.ruling.shadow.policy_set.policies if live.ruling.shadow else ()
    active = {policy.id for policy in live.ruling.policy_set.policies}
    tried = [policy for policy in beside if policy.id not in active]
    return [
        File(name, lines_of(text.rstrip("\n")), of_file[name], counts[name], _on_trial(tried, name, text))
        for name, text in drafts.files_of(live).items()
        if wanted.lower() in name.lower() or wanted.lower() in text.lower()
    ]


def _on_trial(tried: Sequence[Policy], file: str, text: str) -> int:
    """How many policies of a file are tried beside it; a folder on trial may have a file of the same name."""
    return sum(1 for policy in tried if policy.file == file and policy.text in text)


def _tested(desk: Desk) -> tuple[Sequence[Result], Any]:
    live = load_folder(desk.source.directory, cases=False).live
    cases = parse_cases(desk.source.folder().below("cases"), live.mesh)
    results = run_cases(cases, live.ruling)
    return results, covering.coverage(results, live.ruling.policy_set, live.ruling.schema)


def _revisions(desk: Desk) -> list[Row]:
    root = state_paths(desk.source.directory).revisions
    known = history(root).kept[-MAX_REVISIONS - 1 :]
    status = desk.source.status()
    rows: list[Row] = []
    before: Kept | None = None
    old: Mapping[str, str] | None = None
    for one in known:
        try:
            new: Mapping[str, str] | None = read(root, one).texts
        except StateError:
            new = None
        differing = None if old is None or new is None else list(changed(old, new))
        is_now = one is known[-1] and status is not None and status.revision == one.revision
        rows.append(Row(one, differing, is_now, before.revision if before else ""))
        before, old = one, new
    return rows[::-1][:MAX_REVISIONS]


def _compared(desk: Desk, old: str, new: str) -> Mapping[str, Any]:
    """Two revisions: how their files differ, and what is decided differently."""
    root = state_paths(desk.source.directory).revisions
    before, after = (read(root, find(root, one)) for one in (old, new))
    if len(before.texts) + len(after.texts) > 20_000:
        raise UsageError("these revisions are too large to compare here", remedy="use `policyd policy diff`")
    left, right = live_of(before, desk.source.directory), live_of(after, desk.source.directory)
    found = compare(left.ruling, right.ruling, ())
    return {
        "old": before.kept.revision[:SHORT],
        "new": after.kept.revision[:SHORT],
        "files": [(path, what, _difference(before.texts, after.texts, path)) for path, what in
                  changed(before.texts, after.texts)],
        "found": found,
        "rows": list(_changes(found))[:MAX_ROWS],
    }  # fmt: skip


def _difference(before: Mapping[str, str], after: Mapping[str, str], path: str) -> Sequence[str]:
    old, new = (texts.get(path, "").splitlines() for texts in (before, after))
    return [line.rstrip("\n") for line in unified_diff(old, new, n=3, lineterm="")][2 : 2 + MAX_DIFF]


def _changes(found: Difference) -> Iterator[tuple[Any, Any]]:
    """Requests that are answered differently, with the combination that they are of."""
    for one in found.combinations:
        for tried in one.tried:
            if tried.differs:
                yield one, tried
                break
