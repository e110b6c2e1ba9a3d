"""Why a recorded decision was as it was: by the policies of its time, which the folder may have no more.

Law: what cannot be explained is said to be so; today's policies never stand in for those of then.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import msgspec

from policyd.audit.record import Record
from policyd.authz.ruling import Ruling
from policyd.errors import PolicydError
from policyd.offline.revisions import live_of
from policyd.policy.authorize import Answer
from policyd.policy.explain import explain
from policyd.policy.recorded import differs, recorded
from policyd.sources.revisions import History, find_in, history, read
from policyd.state_paths import state_paths


class Explainer:
    """Explains records of one folder; what several have in common is loaded once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._revisions = state_paths(folder).revisions
        self._history: History | None = None
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

    def likeness(self, record: Record) -> object:
        """What records have in common that have one explanation: what was decided from what, and what else policies
        ask that the decision did not read (the moment, and the instance asked).
        """
        read = msgspec.json.encode((record.context, record.detail, record.errors), order="sorted")
        asked = (record.principal, record.action, record.resource, record.proxy, read)
        try:
            ruling = self._ruling(record.revision, record.time) if record.revision else None
        except PolicydError as error:  # why there is no explanation
            return asked, record.decision, record.reasons, record.revision, str(error)
        moment = record.time if ruling and ruling.policy_set.reads.time else None
        return asked, record.decision, record.reasons, id(ruling), moment

    def _ruling(self, revision: str, at: datetime) -> Ruling:
        """What decided then; the same revision may have been in force with other texts at another time."""
        if self._history is None:
            self._history = history(self._revisions)
        kept = find_in(self._history, revision, at)
        if kept.name not in self._rulings:
            self._rulings[kept.name] = live_of(read(self._revisions, kept), self._folder).ruling
        return self._rulings[kept.name]
