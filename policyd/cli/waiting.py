"""How far a long piece of work is, on standard error; said on a terminal only, and gone when it is done."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from policyd.cli import output

Tell = Callable[[int, int], None]  # so much is done, of so much
PER_SECOND: Final = 5


@contextmanager
def waiting(what: str) -> Iterator[Tell]:
    """Show `what`, a bar, and an estimate of what is left, from the first time that it is told how far it is."""
    if not sys.stderr.isatty():
        yield lambda done, total: None
        return
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    console = output.console(sys.stderr)
    with Progress(*columns, console=console, transient=True, refresh_per_second=PER_SECOND) as progress:
        task = progress.add_task(what, total=None)

        def tell(done: int, total: int) -> None:
            progress.update(task, completed=done, total=total)

        yield tell


def counted(tell: Tell, size: int) -> Callable[[int], None]:
    """Called with how much was done since the last time, of `size` in all."""
    done = 0

    def passed(count: int) -> None:
        nonlocal done
        done += count
        tell(done, size)

    return passed
