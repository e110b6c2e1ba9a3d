"""The life of one decision process, as a value.

Law: pure. What happens becomes the next state; who is told to start again waits longer after each failure.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final, Literal

from policyd.config.addresses import Address

State = Literal["starting", "deciding", "waiting"]

FIRST_WAIT: Final = 0.1  # seconds
LONGEST_WAIT: Final = 5.0
STABLE_SECONDS: Final = 10.0  # who has run so long did not fail to start


@dataclass(frozen=True, slots=True)
class DeciderLife:
    """A decision process as the control process knows it; `revision` is what it answers under, "" for none.

    `since` is when it came into this state (a clock's seconds), `failures` how often in a row it ended too soon.
    """

    name: str
    address: Address
    pid: int = 0
    state: State = "starting"
    revision: str = ""
    trouble: str = ""
    starts: int = 0
    failures: int = 0
    since: float = 0.0

    def started(self, pid: int, now: float) -> DeciderLife:
        """A process of this id begins."""
        return replace(self, pid=pid, state="starting", revision="", trouble="", starts=self.starts + 1, since=now)

    def took(self, revision: str) -> DeciderLife:
        """It answers under this revision."""
        return replace(self, revision=revision)

    def opened(self, now: float) -> DeciderLife:
        """Its journal is open: it answers."""
        return replace(self, state="deciding", since=now)

    def troubled(self, reason: str) -> DeciderLife:
        """It keeps no records, for this reason; "" if it does again."""
        return replace(self, trouble=reason)

    def ended(self, now: float) -> DeciderLife:
        """The process has gone, unasked."""
        failures = 1 if self.state == "deciding" and now - self.since >= STABLE_SECONDS else self.failures + 1
        return replace(self, pid=0, state="waiting", revision="", trouble="", failures=failures, since=now)

    @property
    def wait(self) -> float:
        """Seconds until the next start; the first one that is lost is followed at once."""
        return 0.0 if self.failures <= 1 else float(min(LONGEST_WAIT, FIRST_WAIT * 2 ** min(self.failures - 2, 30)))

    @property
    def deciding(self) -> bool:
        """Whether checks are answered."""
        return self.state == "deciding" and bool(self.revision)
