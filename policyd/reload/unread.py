"""A folder of which some files are no text: what is wrong with the others is told at once, not once they are mended."""

from __future__ import annotations

from collections.abc import Callable

from policyd.errors import InvalidInput
from policyd.mesh.placement import assumed
from policyd.reload.live import Earlier, Schemas
from policyd.reload.parsed import parse
from policyd.sources.files import Folder, UnreadFolder


def every_problem(unread: UnreadFolder, schemas: Schemas, whole: Callable[[Folder], Folder]) -> InvalidInput:
    """The problems of the files that were not read, then those of the others.

    `whole` gives the folder as it is checked, with what is known besides its files. Ports are assumed, and no case is
    run: what it is about may be in a file that was not read.
    """
    if unread.rest is None:
        return unread
    try:
        parse(whole(unread.rest), schemas, assumed, Earlier())
    except InvalidInput as error:
        named = {problem.file for problem in unread.problems}
        return InvalidInput([*unread.problems, *(one for one in error.problems if one.file not in named)])
    return unread
