"""`policyd policy suggest`: a draft of least-privilege policies from traffic that was allowed."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from policyd.cli.exits import Exit
from policyd.cli.moments import Since, Until
from policyd.cli.options import Dir, Json

if TYPE_CHECKING:
    from policyd.audit.scan import Span
    from policyd.authz.ruling import Ruling
    from policyd.policy.replay_tally import Tally
    from policyd.policy.suggest import Observed, Suggestion
    from policyd.sources.files import Folder

MAX_REACH: Final = 20_000  # callers times services that are asked what they may
FORBIDS: Final = "policies/forbids.cedar"
DRAFT: Final = "policies/suggested.cedar"


def suggest(
    directory: Dir = None,
    since: Since = "",
    until: Until = "",
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FOLDER", help="Write it into this new folder instead.", show_default=False),
    ] = None,
    as_json: Json = False,
) -> None:
    """Draft policies that permit what was observed to be allowed, and little else.

    By caller and service; numbers, UUIDs and hashes in paths become `*`; a header is a condition only where every
    request shows it. Each policy says how often and when it was used. What today's policies grant and nobody used is
    listed behind it. The draft is checked by replay, with today's forbids beside it, and nothing is put in force:
    `policyd policy replay --candidate FOLDER` shows what it would change. A rare caller, a yearly job, is not in it
    unless it is in the time range. Exit code 2 where the draft does not allow all that was observed.
    """
    from policyd.cli import output
    from policyd.cli.journal import journal_of
    from policyd.cli.moments import here
    from policyd.errors import UsageError
    from policyd.instance import folder as find_folder
    from policyd.offline.loaded import load_folder

    span = here(since, until)
    journal, where = journal_of(directory), find_folder(directory)
    if out is not None and out.exists():
        raise UsageError(f"`{out}` is there already", remedy="name a new folder: a draft overwrites nothing")
    ruling = load_folder(where, cases=False).live.ruling
    observed = _observe(journal, span)
    suggestions = observed.suggestions()
    texts = {DRAFT: "\n".join(_draft(observed, suggestions, ruling))}
    forbids = [one for one in ruling.policy_set.policies if one.effect == "forbid"]
    if forbids:
        texts[FORBIDS] = "\n\n".join(one.text for one in forbids) + "\n"
    folder, candidate = _candidate(where, texts)
    tally = _check(journal, span, where, folder, candidate)
    if out is not None:
        _write(out, texts)
    if as_json:
        output.print_json(_value(observed, suggestions, ruling, tally))
    else:
        if out is None:
            sys.stdout.write(texts[DRAFT])
        output.show(*_said(observed, suggestions, tally, out), stream=sys.stderr)
    raise typer.Exit(Exit.DENIED if tally.changed else Exit.OK)


def _observe(journal: Path, span: Span) -> Observed:
    from policyd.audit.scan import scan
    from policyd.cli.journal import say_broken
    from policyd.cli.waiting import counted, waiting
    from policyd.policy.suggest import Observed

    chosen, observed = scan(journal, span), Observed()
    with waiting("observing") as tell:
        passed = counted(tell, chosen.size)
        for line in chosen.lines(say_broken, passed):
            observed.add(line.record)
    return observed


def _candidate(where: Path, texts: dict[str, str]) -> tuple[Folder, Ruling]:
    """The draft in the mesh as it is."""
    from policyd.offline.loaded import load_texts
    from policyd.reload.live import shipped_schemas
    from policyd.sources.files import Folder, digest, read_folder

    base = read_folder(where)
    kept = {path: text for path, text in base.texts.items() if not path.startswith(("policies/", "cases/"))}
    folder = Folder(where, kept | texts, digest(kept | texts))
    return folder, load_texts(folder, shipped_schemas()).ruling


def _check(journal: Path, span: Span, where: Path, folder: Folder, candidate: Ruling) -> Tally:
    """Decide what was allowed again, under the draft."""
    from policyd.audit.scan import scan
    from policyd.cli.waiting import counted, waiting
    from policyd.offline.replaying import before_of, deciders, replay
    from policyd.policy.replay import Projector

    chosen = scan(journal, span)
    with waiting("checking the draft") as tell, deciders(folder, candidate) as ask:
        passed = counted(tell, chosen.size)
        lines = chosen.lines(lambda _: None, passed)  # told when it was observed
        allowed = (line.record for line in lines if line.record.decision == "allow")
        return replay(allowed, Projector(candidate, before_of(where)), ask)


def _write(out: Path, texts: dict[str, str]) -> None:
    from policyd.errors import StateError

    try:
        for name, text in texts.items():
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            (out / name).write_text(text, encoding="utf-8")
    except OSError as error:
        raise StateError(f"`{out}` cannot be written: {error.strerror}", remedy="name another folder") from error


def _draft(observed: Observed, suggestions: list[Suggestion], ruling: Ruling) -> Iterator[str]:
    """The text: what it is, the policies, and what nobody used."""
    seen = observed.seen
    if not seen.count:
        yield "// nothing was allowed in this time, so there is nothing to suggest\n"
        return
    first, last = (f"{one:%Y-%m-%d %H:%M:%S}" for one in (seen.first, seen.last))
    yield f"// A draft from {seen.count:,} allowed requests, {first} to {last} UTC."
    yield "// What was not asked for in that time is not in it. Today's forbids stay; they are not repeated here.\n"
    yield from (one.text for one in suggestions)
    unused = _unused(observed, ruling)
    if unused:
        yield "// Granted today, and not used in that time:"
        yield from (f"//   {line}" for line in unused)
        yield ""


def _unused(observed: Observed, ruling: Ruling) -> list[str]:
    """Permits that allowed nothing, then who may do what where and did not."""
    from policyd.policy.suggest import unused_policies

    permits = [one for one in ruling.policy_set.policies if one.effect == "permit"]
    never = unused_policies((one.id for one in permits), observed)
    places = {one.id: f"{one.file}:{one.line}" for one in permits}
    return [f"policy `{id_}` ({places[id_]})" for id_ in never] + list(_unused_grants(observed, ruling))


def _unused_grants(observed: Observed, ruling: Ruling) -> Iterator[str]:
    from policyd.audit.match import entity_id, short_name
    from policyd.cedar.model import Uid
    from policyd.policy.change import callers_of, identifies
    from policyd.policy.reach import what_can
    from policyd.policy.request_form import ANONYMOUS

    callers = callers_of(ruling.mesh)
    if len(callers) * len(ruling.mesh.services) > MAX_REACH:
        yield f"not looked for by caller: {len(callers)} callers and {len(ruling.mesh.services)} services are too many"
        return
    for caller, id_ in callers.items():
        for service, methods in what_can(str(id_) if id_ else ANONYMOUS, ruling).items():
            if identifies(ruling.mesh, service) is (id_ is None):
                continue  # who asks there is somebody else
            resource = str(Uid("Service", service))
            used = {entity_id(action) for action in observed.pairs.get((str(caller), resource), ())}
            unused = [name for name, reach in methods.items() if reach.verdict != "deny" and name not in used]
            if unused:
                yield f"{short_name(str(caller))} on {short_name(resource)}: {', '.join(unused)}"


def _said(observed: Observed, suggestions: list[Suggestion], tally: Tally, out: Path | None) -> Iterator[Any]:
    from policyd.cli.policy_replay import lines

    where = f" in `{out}`" if out else ""
    yield f"{len(suggestions)} policies{where}, from {observed.seen.count:,} allowed requests; none is in force"
    if observed.left_out:
        yield f"{observed.left_out:,} more have a caller or resource that no policy can name"
    if not tally.changed and not tally.undecidable:
        yield f"checked by replay: the draft allows all {tally.records:,} of them"
        return
    yield "checked by replay:"
    yield from lines(tally)


def _value(observed: Observed, suggestions: list[Suggestion], ruling: Ruling, tally: Tally) -> dict[str, Any]:
    from policyd.cli.policy_replay import value

    return {
        "observed": observed.seen.count,
        "first": observed.seen.first.isoformat() if observed.seen.first else None,
        "last": observed.seen.last.isoformat() if observed.seen.last else None,
        "left_out": observed.left_out,
        "policies": [
            {
                "id": one.id,
                "principal": one.principal,
                "actions": list(one.actions),
                "resource": one.resource,
                "count": one.seen.count,
                "text": one.text,
            }
            for one in suggestions
        ],
        "unused": _unused(observed, ruling),
        "check": value(tally, ""),
    }
