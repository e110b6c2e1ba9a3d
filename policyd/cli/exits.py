"""The exit codes of every command, by name."""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    """Exit codes of reference/contract; INTERRUPTED is 128 + SIGINT, as shells have it."""

    OK = 0
    ERROR = 1
    DENIED = 2
    INVALID = 3
    USAGE = 64
    INTERRUPTED = 130
