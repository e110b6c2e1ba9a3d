"""A recorded decision under other policies: a revision that was in force, the folder as it is, what is on trial.

Law: the question is that of the record; whatever the other policies need to know beyond it is assumed, and said to be.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from policyd.console.views.explained import Explained, shown_answer
from policyd.errors import NotFound, PolicydError, UsageError
from policyd.offline.loaded import load_folder
from policyd.policy.authorize import Answer
from policyd.policy.explain import explain
from policyd.policy.recorded import recorded
from policyd.sources.revisions import SHORT, history
from policyd.state_paths import state_paths

if TYPE_CHECKING:
    from policyd.audit.record import Record
    from policyd.authz.ruling import Ruling
    from policyd.console.desk import Desk

FOLDER: Final = "folder"
TRIAL: Final = "trial"
MAX_CHOICES: Final = 50


@dataclass(frozen=True, slots=True)
class Choice:
    """What a decision can be replayed under, and what people call it."""

    value: str
    words: str


@dataclass(frozen=True, slots=True)
class Again:
    """What it would be there, by its explanation or why there is none; "" for a `word` where nothing was decided."""

    choice: Choice
    explained: Explained
    word: str = ""


def choices(desk: Desk, record: Record) -> list[Choice]:
    """The folder, what is on trial, and the newest revisions but the record's own."""
    kept = history(state_paths(desk.source.directory).revisions).kept[::-1]
    newest = {one.revision: one for one in kept if one.revision != record.revision}
    revisions = [
        Choice(one.revision[:SHORT], f"revision {one.revision[:SHORT]}, from {one.last:%Y-%m-%d %H:%M} UTC")
        for one in list(newest.values())[:MAX_CHOICES]
    ]
    status = desk.source.status()
    on_trial = status is not None and status.HasField("shadow")
    trial = [Choice(TRIAL, "the policies on trial")] if on_trial else []
    return [Choice(FOLDER, "the folder as it is now"), *trial, *revisions]


def again(desk: Desk, record: Record, wanted: str) -> Again:
    """Decide a record again; raises NotFound or UsageError for what cannot be chosen."""
    choice = Choice(wanted, {FOLDER: "the folder as it is now", TRIAL: "the policies on trial"}.get(wanted, wanted))
    try:
        ruling = _ruling(desk, record, wanted)
        asked = recorded(record, ruling, f"which is {choice.words}" if wanted in (FOLDER, TRIAL) else "as you chose")
        found = explain(asked.request, ruling)
    except (NotFound, UsageError):
        raise
    except PolicydError as error:
        return Again(choice, Explained(why_not=str(error)))
    return Again(choice, shown_answer(Answer(asked.request, found, asked.notes)), found.decision.word)


def _ruling(desk: Desk, record: Record, wanted: str) -> Ruling:
    if wanted == FOLDER:
        return load_folder(desk.source.directory, cases=False).live.ruling
    if wanted == TRIAL:
        status = desk.source.status()
        live = desk.source.live(status.revision if status else record.revision)
        if live.ruling.shadow is None:
            raise UsageError("no policies are on trial", remedy="mark some `@shadow`")
        return live.ruling.shadow
    return desk.source.live(wanted).ruling
