"""Who is let in at the socket of the Workload API, and how a call is refused there.

Law: why somebody gets no identity is said by the agent, and not to the caller.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

import grpc

from policyd.errors import IssuanceDenied, PolicydError
from proxy.caller import Caller

Code = grpc.StatusCode
Context = Any  # grpc.aio.ServicerContext, whose types lack what is used here


class Admission:
    """`caller` tells who is behind a peer as gRPC names it, None for who came past the front; `say` logs."""

    def __init__(self, caller: Callable[[str], Caller | None], say: Callable[..., None]) -> None:
        self._caller = caller
        self._say = say

    async def admit(self, context: Context) -> Caller:
        """The caller; ends the call where it came past the front."""
        caller = self._caller(context.peer())
        if caller is None:
            await context.abort(Code.PERMISSION_DENIED, "no identity issued")
        assert caller is not None, "abort raises"
        return caller

    async def refuse(self, context: Context, caller: Caller, error: PolicydError) -> NoReturn:
        """End the call as SPIFFE's specification has it: PermissionDenied for nobody, else Unavailable."""
        self._say("workload.refused", pid=caller.pid, uid=caller.uid, code=error.code, reason=str(error)[:500])
        if isinstance(error, IssuanceDenied):
            await context.abort(Code.PERMISSION_DENIED, "no identity issued")
        await context.abort(Code.UNAVAILABLE, "identities cannot be had now")
        raise AssertionError("abort raises")
