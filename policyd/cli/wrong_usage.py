"""What the command line's library says of a wrong command line, in our words: what is wrong, and what to write."""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING, Any

from policyd.errors import UsageError

if TYPE_CHECKING:
    import typer

_QUOTED = re.compile(r"'([^']*)'")
_POSSIBLE = re.compile(r" \(Possible options: .*\)$|\. Did you mean .*$")


def as_ours(error: typer.TyperException) -> UsageError:
    """Say it as other errors are said; the remedy has the command's usage, and what was probably meant."""
    said = _POSSIBLE.sub("", " ".join(error.format_message().split()))  # we look for what is near ourselves
    said = said.replace("Value error, ", "").replace(". Choose from: ", "; it is one of ")
    said = _QUOTED.sub(r"`\1`", re.sub(r"(?<=No such option: )(\S+)", r"`\1`", said)).rstrip(".")
    context: Any = getattr(error, "ctx", None)
    if context is None:
        return UsageError(_lower(said))
    wrong, known = _wrong_name(said, context)
    near = [f"did you mean `{one}`?" for one in difflib.get_close_matches(wrong, known, n=1)]
    usage = " ".join(context.get_usage().removeprefix("Usage: ").split())
    return UsageError(
        _lower(said), remedy=" ".join([*near, f"write `{usage}`; `{context.command_path} -h` tells more"])
    )


def is_help(error: typer.TyperException) -> bool:
    """Whether a group was named without a command, to which its help is the answer."""
    return type(error).__name__ == "NoArgsIsHelpError"


def _wrong_name(said: str, context: Any) -> tuple[str, list[str]]:
    """The name that nothing has, and those that could be meant."""
    found = re.search(r"`([^`]*)`", said)
    if found is None:
        return "", []
    if said.startswith("No such command"):
        return found[1], context.command.list_commands(context)
    if said.startswith("No such option"):
        return found[1], [name for one in context.command.params for name in one.opts if name.startswith("--")]
    return "", []


def _lower(said: str) -> str:
    return said[:1].lower() + said[1:]
