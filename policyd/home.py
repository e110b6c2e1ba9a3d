"""The trust domain that a process works for, whose workloads people call by their short names.

Law: until a process says which it is, it is the one that a mesh has without a word. Where none is known, a name is
longer than need be, and never another's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

DEFAULT: Final = "cluster.local"


class Home:
    """`moved` once at the start of a process; read when a name is shown, so that a folder is read where one is."""

    def __init__(self) -> None:
        self._read: Callable[[], str] = lambda: DEFAULT
        self._trust_domain: str | None = None

    def moved(self, read: Callable[[], str]) -> None:
        """From now on it is what `read` says, which is asked once; "" is none."""
        self._read, self._trust_domain = read, None

    @property
    def trust_domain(self) -> str:
        """Whose workloads need no trust domain in their names."""
        if self._trust_domain is None:
            self._trust_domain = self._read()
        return self._trust_domain


HOME: Final = Home()
