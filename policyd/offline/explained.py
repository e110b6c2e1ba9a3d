"""Why a recorded decision was as it was: by the policies of its time, which the folder may have no more.

Law: what cannot be explained is said to be so; today's policies never stand in for those of then.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from policyd.audit.record import Record
from policyd.authz.ruling import Ruling
from policyd.errors import PolicydError
from policyd.offline.revisions import live_of
from policyd.policy.authorize import Answer
from policyd.policy.explain import explain
from policyd.policy.recorded import differs, recorded
from policyd.sources.revisions import find, read
from policyd.state_paths import state_paths


class Explainer:
    """Explains records of one folder; what several have in common is loaded once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._revisions = state_paths(folder).revisions
        self._rulings: dict[str, Ruling] = {}

    def explained(self, record: Record) -> tuple[Answer | None, str]:
        """The explanation under the record's revision, or why there is none; "" where it is no decision."""
        if record.kind != "decision" or not record.revision:
            return None, "" if record.kind != "decision" else "no revision was in force"
        try:
            ruling = self._ruling(record.revision, record.time)
            again = recorded(record, ruling)
            explanation = explain(again.request, ruling)
        except PolicydError as error:
            return None, str(error)
        notes = (*again.notes, *filter(None, [differs(record, explanation.decision.word)]))
        return Answer(again.request, explanation, notes), ""

    def _ruling(self, revision: str, at: datetime) -> Ruling:
        """What decided then; the same revision may have been in force with other texts at another time."""
        kept = find(self._revisions, revision, at)
        if kept.name not in self._rulings:
            self._rulings[kept.name] = live_of(read(self._revisions, kept), self._folder).ruling
        return self._rulings[kept.name]
