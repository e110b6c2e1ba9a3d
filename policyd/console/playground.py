"""Policies as somebody edits them: checked, asked, and tried on what was recorded, over the mesh that is in force.

Law: pure but for the journal that is read. Nothing is written and nothing enforced; a text that is refused decides
nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Final

from policyd.audit.record import Record
from policyd.authz.ruling import make_ruling
from policyd.cedar.policies import load_policies
from policyd.cedar.shadow import Sets, split
from policyd.errors import InvalidInput, UsageError
from policyd.offline.replaying import deciders
from policyd.offline.replaying import replay as decide_again
from policyd.policy.authorize import Answer, authorize
from policyd.policy.finding_model import Finding, of_problems
from policyd.policy.findings import find_all
from policyd.policy.replay import Projector
from policyd.policy.universe import universe_of
from policyd.sources.files import Folder, digest

if TYPE_CHECKING:
    from policyd.authz.ruling import Ruling
    from policyd.policy.replay_tally import Tally
    from policyd.reload.live import Live

MAX_TEXT: Final = 256 << 10  # characters of a file
MAX_RECORDS: Final = 100_000  # that are decided again
POLICIES: Final = "policies/"
NEW_FILE: Final = "policies/new.cedar"


@dataclass(frozen=True, slots=True)
class Draft:
    """A file of policies with another text."""

    file: str
    text: str

    @classmethod
    def of(cls, value: object) -> Draft:
        """Read what a page sends; raises UsageError."""
        found = value if isinstance(value, Mapping) else {}
        file, text = found.get("file"), found.get("text")
        if not isinstance(file, str) or not isinstance(text, str):
            raise UsageError("a draft has a `file` and a `text`")
        if not _is_text(file) or not _is_text(text):
            raise UsageError("a draft is text; this has halves of characters")
        if len(text) > MAX_TEXT:
            raise UsageError(f"a file of policies has at most {MAX_TEXT >> 10} KiB here")
        is_below = file.startswith(POLICIES) and file.endswith(".cedar") and ".." not in file.split("/")
        if not is_below or len(file) > 300:
            raise UsageError(f"`{file[:80]}` is no file of policies", remedy=f"name it as in `{NEW_FILE}`")
        return cls(file, text)


def _is_text(value: str) -> bool:
    """Whether a file can hold it; JSON can name halves of characters."""
    return not any("\ud800" <= char <= "\udfff" for char in value)


def files_of(live: Live) -> Mapping[str, str]:
    """The files of policies that are in force."""
    found = {path: text for path, text in live.texts.items() if path.startswith(POLICIES) and path.endswith(".cedar")}
    return dict(sorted(found.items()))


def check(draft: Draft, live: Live) -> tuple[Finding, ...]:
    """What is wrong with a draft, and what is probably not meant; only of its own file."""
    try:
        sets = _sets(draft, live)
    except InvalidInput as error:
        return tuple(one for one in of_problems(error.problems) if one.file in ("", draft.file))
    universe = universe_of(live.mesh, live.ruling.entities.content())
    texts = {**live.texts, draft.file: draft.text}
    return tuple(one for one in find_all(sets, live.ruling.schema, universe, texts) if one.file == draft.file)


def ruling_of(draft: Draft, live: Live) -> Ruling:
    """The ruling that the draft would come to; raises InvalidInput."""
    return make_ruling(live.mesh, _sets(draft, live).active, live.ruling.schema)


def decide(draft: Draft, live: Live, request: str, headers: Mapping[str, str], now: datetime) -> tuple[Answer, Answer]:
    """What a request is answered in force, and under the draft; raises InvalidInput, and as `authorize`."""
    return (
        authorize(request, live.ruling, now, headers),
        authorize(request, ruling_of(draft, live), now, headers),
    )


def replay(
    draft: Draft,
    live: Live,
    directory: Path,
    records: Iterable[Record],
    before: Callable[[str, datetime], Ruling | None],
) -> Tally:
    """What the draft would have decided on records, at most MAX_RECORDS; raises InvalidInput."""
    ruling = ruling_of(draft, live)
    texts = {path: text for path, text in live.texts.items() if not path.startswith("cases/")}
    texts[draft.file] = draft.text
    folder = Folder(directory, texts, digest(texts))
    with deciders(folder, ruling) as ask:
        return decide_again(islice(records, MAX_RECORDS), Projector(ruling, before), ask)


def _sets(draft: Draft, live: Live) -> Sets:
    return split(load_policies({**files_of(live), draft.file: draft.text}, live.ruling.schema))


def headers_of(text: str) -> dict[str, str]:
    """Headers, a line each, as in `end-user: jason`; raises UsageError."""
    from policyd.policy.header_form import headers

    return headers([line for line in text.splitlines() if line.strip()])
