"""The Live in force, and the looking for a better one when the folder changes.

Law: a change takes effect as a whole and after it is on record, or it is refused with all its problems and the old Live
stays; nothing that goes wrong on the way ends the server.
"""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock
from typing import Final

from policyd.config.settings import SETTINGS_FILE, Settings, parse_settings
from policyd.errors import InvalidInput, PolicydError, Problem
from policyd.reload.live import Live
from policyd.sources.files import Folder
from policyd.yaml import load_one

MAX_PROBLEMS: Final = 100  # of a change that is refused


class Keeper:
    """Holds the Live in force, and looks for a better one when told to. Readers in any thread see one whole Live.

    `read` reads the folder and `build` checks it all (see `load`). `keep` makes durable what a Live needs before it
    is in force; where it raises, the Live is refused. `heard` is told of each outcome: the Live that is in force now,
    or None and the problems for which a change was refused. `first` is what to begin with where the folder as it is has
    the problems `refused`; else it begins with that.
    """

    def __init__(
        self,
        read: Callable[[], Folder],
        build: Callable[[Folder], Live],
        keep: Callable[[Live], object],
        heard: Callable[[Live | None, tuple[Problem, ...]], object],
        first: Folder | None = None,
        refused: tuple[Problem, ...] = (),
    ) -> None:
        self._read = read
        self._build = build
        self._keep = keep
        self._heard = heard
        self._looking = Lock()
        self._live = build(first or read())
        self._looked_at = "" if first else self._live.digest
        self.refused = bounded(refused)

    @property
    def live(self) -> Live:
        """What is in force."""
        return self._live

    def look(self) -> None:
        """Read the folder; put what it says in force if it is new and good, else say what is wrong with it.

        A text that is bad is looked at once; what failed for another reason is tried again at the next look.
        """
        with self._looking:
            try:
                live = self._better()
                if live is not None:
                    self._settle(live)
            except InvalidInput as error:
                self._refuse(tuple(error.problems))
            except PolicydError as error:
                self._try_again(Problem(error.code, error.message, remedy=error.remedy))
            except Exception as error:  # noqa: BLE001 - a fault of ours refuses the change and ends nothing
                self._try_again(Problem("fault", f"an unforeseen fault: {type(error).__name__}: {error}"))

    def change(self, write: Callable[[], None]) -> None:
        """Have files of the folder written while nobody looks, so that a change is seen whole; then look."""
        with self._looking:
            write()
        self.look()

    def renew(self, change: Callable[[Live], Live]) -> None:
        """Put in force what follows from the Live in force and from something besides the folder."""
        with self._looking:
            self._live = change(self._live)

    def _better(self) -> Live | None:
        """What the folder says, checked; None if it was looked at before."""
        before, self._looked_at = self._looked_at, ""
        folder = self._read()
        self._looked_at = folder.digest
        if folder.digest == before:
            return None
        if folder.digest == self._live.digest:
            return self._live
        problems = _need_restart(self._live.settings, folder)
        try:
            live = self._build(folder)
        except InvalidInput as error:
            raise InvalidInput([*problems, *error.problems]) from None
        if problems:
            raise InvalidInput(problems)
        return live

    def _settle(self, live: Live) -> None:
        self._keep(live)
        self._live, self.refused = live, ()
        self._heard(live, ())

    def _try_again(self, problem: Problem) -> None:
        self._looked_at = ""
        self._refuse((problem,))

    def _refuse(self, problems: tuple[Problem, ...]) -> None:
        problems = bounded(problems)
        if problems != self.refused:
            self.refused = problems
            self._heard(None, problems)


def bounded(problems: tuple[Problem, ...]) -> tuple[Problem, ...]:
    """The first MAX_PROBLEMS, and how many more there are: a log line, a record and a reply have to hold them."""
    more = len(problems) - MAX_PROBLEMS
    if more <= 0:
        return problems
    return (*problems[:MAX_PROBLEMS], Problem("more", f"and {more:,} more", remedy="`policyd check --json` has all"))


def _need_restart(before: Settings, folder: Folder) -> list[Problem]:
    """Identities, listeners and the journal are made at the start; a change of theirs cannot be half done."""
    text = folder.text(SETTINGS_FILE) or ""
    try:
        after, document = parse_settings(text), load_one(text, SETTINGS_FILE)
    except InvalidInput:  # which is said when all of the folder is checked
        return []
    changed = {
        ("trustDomain",): before.trust_domain != after.trust_domain,
        ("audit",): before.audit != after.audit,
        ("listen",): before.listen != after.listen,
        ("workers",): before.workers != after.workers,
        ("ca", "passphraseFile"): before.ca.passphrase_file != after.ca.passphrase_file,
        ("ca", "passphraseCommand"): before.ca.passphrase_command != after.ca.passphrase_command,
        ("ca", "bundleEndpoint"): before.ca.bundle_endpoint != after.ca.bundle_endpoint,
    }
    remedy = "restart policyd, or put it back"
    return [
        document.problem("restart", f"a change of `{'.'.join(path)}` needs a restart", path, remedy)
        for path, is_changed in changed.items()
        if is_changed
    ]
