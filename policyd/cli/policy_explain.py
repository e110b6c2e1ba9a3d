"""`policyd policy explain`: why a request is allowed or denied, and what would change that."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, NoReturn

import typer

from policyd.cli.exits import Exit
from policyd.cli.options import Claim, Dir, Header, Json, Shadow, User

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from policyd.audit.record import Record
    from policyd.authz.ruling import Ruling
    from policyd.policy.authorize import Answer
    from policyd.policy.end_user import Shown

From = Annotated[str, typer.Argument(metavar="FROM", help="Who asks, as in `policyd authorize`.", show_default=False)]
Method = Annotated[str, typer.Argument(metavar="METHOD", help="The HTTP method.", show_default=False)]
Url = Annotated[str, typer.Argument(metavar="URL", help="As in http://reviews:9080/reviews/0.", show_default=False)]
Decision = Annotated[
    str, typer.Option("--decision", metavar="ID", help="A recorded decision instead of a request.", show_default=False)
]
Proxy = Annotated[
    str,
    typer.Option(
        "--proxy", metavar="INSTANCE", help="As it is decided now where it reaches this one.", show_default=False
    ),
]


class Explained(NamedTuple):
    """Why, by what is in force, and by the policies that are only tried, where there are such."""

    found: Answer
    tried: Answer | None = None


def explain(
    caller: From = "",
    method: Method = "",
    url: Url = "",
    decision: Decision = "",
    proxy: Proxy = "",
    header: Header = None,
    user: User = "",
    claim: Claim = None,
    directory: Dir = None,
    shadow: Shadow = None,
    as_json: Json = False,
) -> None:
    """Explain a request, or a decision of the journal: the policies, what failed and what it saw, what would help.

    Example: `policyd policy explain reviews GET http://details/details/0 --dir examples/bookinfo`. The id of a decision
    is in the journal and, on a denial, in the answer's header `x-policyd-decision-id`; it is explained under the
    revision that decided, as long as that is kept, else (and with --shadow) under the folder's files. What is said to
    be allowed with a change was decided with that change. What policies that are only tried would say is told below.
    Exit code 0 is allow, 2 is deny.

    With --proxy the running server decides, under the revision in force and not the files; whether the proxy has what
    it was sent is told too. Nothing is sent to it, and nothing recorded.
    """
    from policyd.cli.values import shown_user
    from policyd.instance import folder
    from policyd.policy.header_form import headers

    given, shown = headers(header or ()), shown_user(user, claim or ())
    asked = f"{caller} {method} {url}"
    _check_asked(bool(caller or method or url), decision, bool(given or shown))
    _check_proxy(proxy, bool(decision or shadow or shown))
    where = folder(directory)
    if proxy:
        _live(where, proxy, asked, given, as_json)
    elif decision:
        _show(_of_record(where, decision, shadow), as_json)
    else:
        _show(_of_files(where, shadow, asked, given, shown), as_json)


def _check_asked(has_request: bool, decision: str, has_more: bool) -> None:
    """Raise UsageError for no request and no decision, or both; a decision brings its headers and user."""
    from policyd.errors import UsageError

    if bool(decision) == has_request or (decision and has_more):
        remedy = "write FROM METHOD URL, or --decision ID"
        raise UsageError("explain takes a request or the id of a decision", remedy=remedy)


def _check_proxy(proxy: str, has_more: bool) -> None:
    from policyd.errors import UsageError

    if proxy and has_more:
        remedy = "leave out `--decision`, `--shadow` and `--user`"
        raise UsageError("`--proxy` asks what is in force about a request", remedy=remedy)


def _of_files(
    folder: Path, shadow: Path | None, asked: str, headers: Mapping[str, str], user: Shown | None
) -> Explained:
    """As the folder's files decide a request now."""
    from datetime import UTC, datetime

    from policyd.offline.loaded import load_folder
    from policyd.policy.authorize import authorize

    ruling, now = load_folder(folder, cases=False, shadow=shadow).live.ruling, datetime.now(UTC)
    found = authorize(asked, ruling, now, headers, user)
    return Explained(found, authorize(asked, ruling.shadow, now, headers, user) if ruling.shadow else None)


def _of_record(folder: Path, decision: str, shadow: Path | None) -> Explained:
    """As a recorded question was decided, or is under policies that are tried."""
    from policyd.policy.recorded import of_shadow

    record = _record(folder, decision)
    ruling, why = _of_its_time(folder, record, shadow)
    return Explained(_answer(record, ruling, why), _answer(of_shadow(record), ruling.shadow) if ruling.shadow else None)


def _show(explained: Explained, as_json: bool, more: Mapping[str, Any] = MappingProxyType({})) -> NoReturn:
    from policyd.cli import explain as words
    from policyd.cli import output

    if as_json:
        output.print_json({**words.all_json(*explained), **more})
    else:
        output.show(*words.all_lines(*explained))
    raise typer.Exit(Exit.OK if explained.found.decision.allowed else Exit.DENIED)


def _live(folder: Path, instance: str, text: str, headers: Mapping[str, str], as_json: bool) -> NoReturn:
    from policyd.cli import explain_live

    answered = explain_live.ask(folder, instance, text, headers)
    _show(Explained(answered.found, answered.tried), as_json, explain_live.as_json(answered))


def _record(folder: Path, decision: str) -> Record:
    """The record of a decision; raises StateError where there is no journal, NotFound where it has none."""
    from policyd.audit.read import ends, newest
    from policyd.cli.journal import journal_of
    from policyd.errors import NotFound

    journal = journal_of(folder)
    lines = newest(journal, ends(journal), broken=lambda _: None)
    found = next((line.record for line in lines if line.record.decision_id == decision), None)
    if found is None:
        message = f"the journal of `{folder}` has no decision `{decision[:80]}`"
        raise NotFound(message, remedy="`policyd log tail --json` shows the ids of the last ones")
    return found


def _of_its_time(folder: Path, record: Record, shadow: Path | None) -> tuple[Ruling, str]:
    """What decided then; else, or where policies are to be tried, what the folder has now, and why not that of then."""
    from policyd.errors import PolicydError
    from policyd.offline.loaded import load_folder
    from policyd.offline.revisions import load_revision

    why = ""
    if record.revision and shadow is None:
        try:
            ruling = load_revision(folder, record.revision, record.time)[1].ruling
        except PolicydError as error:
            why = str(error)
        else:
            if record.shadow is None or ruling.shadow is not None:  # a folder elsewhere is not kept
                return ruling, ""
    return load_folder(folder, cases=False, shadow=shadow).live.ruling, why


def _answer(record: Record, ruling: Ruling, why_not_then: str = "") -> Answer:
    from policyd.policy.authorize import Answer
    from policyd.policy.explain import explain as explained
    from policyd.policy.recorded import differs, recorded

    again = recorded(record, ruling)
    explanation = explained(again.request, ruling)
    notes = (*again.notes, *filter(None, [why_not_then, differs(record, explanation.decision.word)]))
    return Answer(again.request, explanation, notes)
