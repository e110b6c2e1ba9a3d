"""How a call ends that is not answered: its status, and the whole reason, since it is the owner who asks."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import grpc

from policyd.admin.mesh import Forbidden
from policyd.ca.serving.refusals import Refusal, refused
from policyd.errors import (
    DecisionError,
    IncompleteRequest,
    InvalidInput,
    JournalError,
    NotFound,
    PolicydError,
    StateError,
    UnacceptablePath,
)

Context = Any  # grpc.aio.ServicerContext, whose types lack what is used here
Code = grpc.StatusCode
STATUSES: Final[tuple[tuple[tuple[type[PolicydError], ...], grpc.StatusCode], ...]] = (
    ((InvalidInput, UnacceptablePath, IncompleteRequest), Code.INVALID_ARGUMENT),
    ((NotFound,), Code.NOT_FOUND),
    ((Forbidden,), Code.PERMISSION_DENIED),
    ((JournalError, StateError, DecisionError), Code.FAILED_PRECONDITION),
)


@asynccontextmanager
async def answered(context: Context) -> AsyncIterator[None]:
    """End the call where what is done within fails by one of ours."""
    try:
        yield
    except Refusal as refusal:
        await refused(context, refusal)
    except PolicydError as error:
        status = next((status for kinds, status in STATUSES if isinstance(error, kinds)), None)
        if status is None:
            raise
        await refused(context, Refusal(status, str(error)))
