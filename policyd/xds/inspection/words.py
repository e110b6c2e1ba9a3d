"""The states of what a proxy was sent, in the words that Istio's users know."""

from __future__ import annotations

from typing import Final, Protocol

TYPES: Final = ("clusters", "endpoints", "listeners", "routes")  # as they are shown, of all that is sent
WORDS: Final = {"synced": "synced", "sent": "stale", "rejected": "NACK", "none": "not sent"}


class Stated(Protocol):
    """One type at one proxy, as the administration API or the service itself has it."""

    @property
    def state(self) -> str:
        """As policyd.xds.status.State."""


def word(one: Stated | None) -> str:
    """A state in the word that Istio's users know for it."""
    return WORDS.get(one.state, one.state) if one is not None else WORDS["none"]
