"""What of a folder's mesh does not work, and what is probably not meant: found where its server would look.

Law: what cannot be loaded is a finding too, under its code, so that all of it is told in one form.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

from policyd.analysis.model import Analysed
from policyd.analysis.refusals import coded
from policyd.analysis.run import analyse, ordered
from policyd.errors import InvalidInput
from policyd.offline.loaded import load_folder, texts_of
from policyd.policy.finding_model import Finding


def examined(directory: Path, suppressed: Collection[str]) -> tuple[list[Finding], Mapping[str, str]]:
    """Return what was found in a folder, and its texts."""
    try:
        loaded = load_folder(directory, cases=False)
    except InvalidInput as error:
        texts = texts_of(directory)
        found = coded(error.problems, texts)
        return ordered(one for one in found if one.code not in suppressed or one.severity == "error"), texts
    live = loaded.live
    read = live.ruling.policy_set.reads.context
    analysed = Analysed(live.declaration, live.mesh, policies_read_users=read is None or "user" in read)
    return analyse(analysed, loaded.findings, suppressed), loaded.folder.every_text
