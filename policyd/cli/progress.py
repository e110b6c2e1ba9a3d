"""How a mesh comes up, shown: a live table on a terminal, a line for each change elsewhere.

Law: what is awaited is always said with its reason; after the start a line for each thing that goes or comes back.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol, TextIO

from policyd.cli import output
from policyd.cli.life import Phase
from policyd.wording import clean

if TYPE_CHECKING:
    from rich.live import Live

FRAMES: Final = 8  # a second


@dataclass(frozen=True, slots=True)
class Item:
    """One thing that comes up: an application, a sidecar, a gateway, the agent, the server."""

    name: str
    kind: str
    phase: Phase
    why: str = ""

    @property
    def key(self) -> tuple[str, str]:
        """What tells it apart."""
        return self.kind, self.name


class View(Protocol):
    """Shows items, again after each change."""

    def show(self, items: Sequence[Item]) -> None:
        """Show how things are now."""

    def settle(self) -> None:
        """The start is over: from now on only changes are shown."""

    def close(self) -> None:
        """Nothing more is shown."""


def changes(before: Mapping[tuple[str, str], Item], items: Iterable[Item]) -> Sequence[str]:
    """Return a line for each item whose phase changed."""
    return [
        sentence(item)
        for item in items
        if (item.key not in before or before[item.key].phase is not item.phase) and item.phase is not Phase.STOPPED
    ]


def sentence(item: Item) -> str:
    """Say how an item is: `up          details-v1 (sidecar)`."""
    why = f": {item.why}" if item.why and item.phase is not Phase.HEALTHY else ""
    return f"{item.phase.value:<12}{item.name} ({item.kind}){clean(why, 300)}"


class Lines:
    """For files and pipes: a line a change."""

    def __init__(self, stream: TextIO, known: Sequence[Item] = (), *, settled: bool = False) -> None:
        self._stream = stream
        self._before = {item.key: item for item in known}
        self._settled = settled

    def show(self, items: Sequence[Item]) -> None:
        """Print what changed; before all is up, what is awaited from the start is not news."""
        lines = changes(self._before, items)
        if not self._settled:
            lines = [line for line in lines if not line.startswith(Phase.STARTING.value)]
        for line in lines:
            self._stream.write(line + "\n")
        self._stream.flush()
        self._before = {item.key: item for item in items}

    def settle(self) -> None:
        """From now on a thing that is awaited again is news."""
        self._settled = True

    def close(self) -> None:
        """Nothing is held."""


class Table:
    """For terminals: a table that follows until `settle`, then a line a change."""

    def __init__(self, stream: TextIO) -> None:
        from rich.live import Live

        self._stream = stream
        self._live: Live | None = Live(
            console=output.console(stream), refresh_per_second=FRAMES, auto_refresh=True, redirect_stdout=False
        )
        self._after = Lines(stream)
        self._items: Sequence[Item] = ()
        self._live.start()

    def show(self, items: Sequence[Item]) -> None:
        """Redraw, or print what changed."""
        self._items = items
        if self._live is None:
            self._after.show(items)
        else:
            self._live.update(draw(items))

    def settle(self) -> None:
        """Leave the last table on the screen."""
        if self._live is not None:
            self._live.update(draw(self._items), refresh=True)
        self.close()
        self._after = Lines(self._stream, self._items, settled=True)

    def close(self) -> None:
        """Give the terminal back."""
        if self._live is not None:
            self._live.stop()
            self._live = None


def draw(items: Sequence[Item]) -> Any:
    """Return the table of all items."""
    rows = [(item.name, item.kind, item.phase.value, "" if item.phase is Phase.HEALTHY else item.why) for item in items]
    return output.table(("NAME", "KIND", "STATE", ""), rows)


def view(stream: TextIO) -> View:
    """Return the view that fits where the output goes."""
    return Table(stream) if stream.isatty() else Lines(stream)
