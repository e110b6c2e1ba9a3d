"""What the owner is told when a question fails: everything."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, Final

import grpc

from policyd.ca.serving.refusals import Refusal, in_full, refused, translated
from policyd.errors import EntryError, FederationError, IdentityError, NotFound, RevocationError, TokenError

Context = Any  # grpc.aio.ServicerContext, whose types lack what is used here
LONGEST_ASKED: Final = 100 * 365 * 86_400  # seconds; what no clock could add to the time is refused as this is
_ASKED_FOR: Final = (  # not what the owner may do, but what was asked for
    IdentityError,
    EntryError,
    FederationError,
    RevocationError,
    TokenError,
)


@asynccontextmanager
async def answered(context: Context) -> AsyncIterator[None]:
    """End the call where what is done within fails; as of `translated`, but the owner is told everything."""
    try:
        with translated():
            try:
                yield
            except NotFound as error:  # here alone: agents are not told what there is
                raise Refusal(grpc.StatusCode.NOT_FOUND, str(error)) from error
    except Refusal as refusal:
        told = in_full(refusal)
        if type(refusal.__cause__) in _ASKED_FOR:
            told = Refusal(grpc.StatusCode.INVALID_ARGUMENT, told.text)
        await refused(context, told)


def length(seconds: int) -> timedelta | None:
    """The life that is asked for; None where none is."""
    return timedelta(seconds=min(max(seconds, -LONGEST_ASKED), LONGEST_ASKED)) if seconds else None
