"""The exit codes of every command, by name, and what each means; endings.py has when a command ends with which."""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    """Exit codes of reference/contract; INTERRUPTED is 128 + SIGINT, as shells have it."""

    meaning: str

    def __new__(cls, code: int, meaning: str) -> Exit:
        """Make one of its number and of what it means for all commands."""
        made = int.__new__(cls, code)
        made._value_ = code
        made.meaning = meaning
        return made

    OK = 0, "It is done, or the answer is yes: allow, the same, true."
    ERROR = (
        1,
        "It could not be done, or something is broken: nothing runs, the server refuses, a file cannot be written.",
    )
    DENIED = 2, "It is done, and the answer is no: deny, a failed test, a difference."
    INVALID = (
        3,
        "What was read is not valid, or what was named by a name or an id is not there; the message says where.",
    )
    USAGE = 64, "The command line means nothing, or names a file or folder that is not there or cannot be used."
    INTERRUPTED = 130, "Ctrl-C ended it before it was done."
