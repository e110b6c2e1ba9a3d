"""What a proxy holds of one type, version by name: a large mapping, and apart from it the few that changed since.

Law: what is held is never changed, so a state of before stays what it was; a change of one name copies a few.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

FEW: Final = 64  # more changed names than these are laid together with the rest


class Held(Mapping[str, str]):
    """Versions by name: those of `base`, but for what `over` says; None there: the name is gone."""

    __slots__ = ("base", "over")

    def __init__(self, base: Mapping[str, str], over: Mapping[str, str | None]) -> None:
        """Neither may be changed afterwards."""
        self.base, self.over = base, over

    def get(self, name: str, default: Any = None) -> Any:
        """The version of a name."""
        if name in self.over:
            found = self.over[name]
            return default if found is None else found
        return self.base.get(name, default)

    def __getitem__(self, name: str) -> str:
        """The version of a name that is there."""
        found: str | None = self.get(name)
        if found is None:
            raise KeyError(name)
        return found

    def __contains__(self, name: object) -> bool:
        """Whether the name is there."""
        return self.over[name] is not None if name in self.over else name in self.base  # type: ignore[index]

    def __iter__(self) -> Iterator[str]:
        """The names."""
        yield from (name for name in self.base if name not in self.over)
        yield from (name for name, version in self.over.items() if version is not None)

    def __len__(self) -> int:
        """How many names there are."""
        gone = sum(name in self.base for name in self.over)
        return len(self.base) - gone + sum(version is not None for version in self.over.values())


def changed(held: Mapping[str, str], removed: Iterable[str], came: Mapping[str, str]) -> Mapping[str, str]:
    """What is held once some names are gone and others came, or have another version."""
    base, over = (held.base, held.over) if isinstance(held, Held) else (held, {})
    over = {**over, **dict.fromkeys(removed), **came}
    now = Held(base, over)
    return now if len(over) <= FEW < len(base) else dict(now)
