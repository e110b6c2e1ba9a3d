"""What a server starts with whose folder is bad: all of it as it was in force when it served last.

Law: a folder that was never good serves nobody; which one serves, since when, and why, is said everywhere until the
folder is mended. Files of credentials, and policies on trial, are not kept: the first are read as they are now, the
others wait for a good folder.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Protocol, TypeVar

import structlog

from policyd.ca.revocations import FILE as REVOKED_FILE
from policyd.environment import Environment
from policyd.errors import InvalidInput, Problem, StateError
from policyd.sources.credentials import read_credentials
from policyd.sources.files import FILES, FOLDERS, Folder, digest
from policyd.sources.revisions import Kept, history, read
from policyd.state_paths import StatePaths

_log = structlog.get_logger("policyd.server")


@dataclass(frozen=True, slots=True)
class LastGood:
    """A folder as it was in force last, since when, and the problems of the one that is there now."""

    folder: Folder
    since: datetime
    problems: tuple[Problem, ...]

    def __str__(self) -> str:
        """What people are told of it."""
        return f"the folder is refused, what was in force since {self.since:%Y-%m-%d %H:%M:%S} UTC serves on"


class Starts(Protocol):
    """What can be started; all that has to be undone is put on the stack."""

    async def start(self, stack: AsyncExitStack, environment: Environment) -> None:
        """Start; raises PolicydError."""


S = TypeVar("S", bound=Starts)


async def started(
    stack: AsyncExitStack,
    make: Callable[[LastGood | None], S],
    directory: Path,
    paths: StatePaths,
    environment: Environment,
) -> S:
    """Start with the folder as it is; where it is bad, start anew with what was in force last, if anything was.

    Raises InvalidInput with the problems of the folder where there is nothing else to serve.
    """
    try:
        return await _tried(stack, make(None), environment)
    except InvalidInput as error:
        good = last_good(directory, paths, tuple(error.problems))
        if good is None:
            raise
        try:
            return await _tried(stack, make(good), environment)
        except InvalidInput as again:
            _log.error("server.last_good_refused", problems=[str(problem) for problem in again.problems])
            raise error from None


async def _tried(stack: AsyncExitStack, server: S, environment: Environment) -> S:
    """Start it, or leave nothing of the attempt."""
    async with AsyncExitStack() as attempt:
        await server.start(attempt, environment)
        stack.push_async_exit(attempt.pop_all())
    return server


def last_good(directory: Path, paths: StatePaths, problems: tuple[Problem, ...]) -> LastGood | None:
    """What was in force last; None where nothing was, or where that cannot be read for certain."""
    try:
        kept = _last(paths.revisions)
        kit = None if kept is None else read(paths.revisions, kept)
    except StateError as error:
        _log.error("server.last_good_damaged", error=error.message)
        return None
    if kept is None or kit is None:
        return None
    texts = {path: text for path, text in kit.texts.items() if _is_file(path)}
    folder = Folder(directory, texts, "", credentials=read_credentials(directory))
    return LastGood(replace(folder, digest=digest(folder.known)), kept.last, problems)


def _last(revisions: Path) -> Kept | None:
    """The newest one; a damaged one could be newer, and an older folder must not come back unasked."""
    found = history(revisions)
    if found.damaged:
        raise StateError(f"`{found.damaged[0]}` is damaged: what was in force last is not known")
    return found.kept[-1] if found.kept else None


def _is_file(path: str) -> bool:
    """Whether it is a file of the folder, and not what the server knew besides: keys it fetched, who is revoked."""
    return path in FILES or (path.partition("/")[0] in FOLDERS and path != REVOKED_FILE)
