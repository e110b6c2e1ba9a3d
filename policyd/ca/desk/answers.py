"""What the owner is told when a question fails: everything."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Final

import grpc

from policyd.ca.serving.refusals import Refusal, translated
from policyd.errors import EntryError, FederationError, IdentityError, PolicydError, RevocationError, TokenError

Context = Any  # grpc.aio.ServicerContext, whose types lack what is used here
LONGEST_ASKED: Final = 366 * 86_400  # seconds; what is longer is refused as this is


@contextmanager
def answered() -> Iterator[None]:
    """As `translated`, but the owner is told everything."""
    try:
        with translated():
            yield
    except Refusal as refusal:
        cause = refusal.__cause__
        if not isinstance(cause, PolicydError):
            raise
        ours = type(cause) in (
            IdentityError,
            EntryError,
            FederationError,
            RevocationError,
            TokenError,
        )  # not what the owner may do, but what was asked for
        status = grpc.StatusCode.INVALID_ARGUMENT if ours else refusal.status
        raise Refusal(status, str(cause)) from cause


def length(seconds: int) -> timedelta | None:
    """The life that is asked for; None where none is."""
    return timedelta(seconds=min(max(seconds, -LONGEST_ASKED), LONGEST_ASKED)) if seconds else None
