"""Run by path beside `up`: ends the process groups that it was told of when `up` is gone.

Law: standard library only; small. `up` writes `+<group>` and `-<group>` lines to its standard input; that input ends
when `up` ends, however it ends, SIGKILL included. What is still listed then is killed, grandchildren too.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress


def groups_left(lines: Iterable[str]) -> frozenset[int]:
    """Return the groups that were added and not taken away, once `lines` end."""
    groups: set[int] = set()
    for line in lines:
        sign, number = line[:1], line[1:].strip()
        if sign not in ("+", "-") or not number.isdigit() or int(number) < 2:
            continue  # 0 would be our own group, 1 everyone's
        (groups.add if sign == "+" else groups.discard)(int(number))
    return frozenset(groups)


def end_all(groups: Iterable[int], kill: Callable[[int, int], None]) -> None:
    """Kill every group; one that is gone already is no error."""
    for group in groups:
        with suppress(ProcessLookupError, PermissionError):
            kill(group, signal.SIGKILL)


def main() -> None:
    """Wait for the end of the standard input."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # it ends with `up`, never before
    end_all(groups_left(sys.stdin), os.killpg)


if __name__ == "__main__":
    main()
