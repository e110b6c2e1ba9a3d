"""What a caller is told when a call ends without what it asked for: a status, and a text that gives nothing away."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import grpc
import structlog

from policyd.errors import (
    CsrError,
    IssuanceDenied,
    PolicydError,
    RotationError,
    SpiffeIdError,
    TokenError,
)

Context = Any  # grpc.aio.ServicerContext, whose types lack what is used here

_log = structlog.get_logger("policyd.ca")


class Refusal(Exception):
    """A status and a text for the caller."""

    def __init__(self, status: grpc.StatusCode, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


@contextmanager
def translated() -> Iterator[None]:
    """Turn errors of ours into a Refusal, and a fault of the program into one that tells nothing."""
    try:
        yield
    except Refusal:
        raise
    except (CsrError, SpiffeIdError) as error:
        raise Refusal(grpc.StatusCode.INVALID_ARGUMENT, str(error)) from error
    except RotationError as error:
        raise Refusal(grpc.StatusCode.FAILED_PRECONDITION, str(error)) from error
    except (TokenError, IssuanceDenied) as error:
        raise Refusal(grpc.StatusCode.PERMISSION_DENIED, error.message) from error
    except PolicydError as error:
        _log.warning("certificate.not_issued", code=error.code, error=str(error))
        raise Refusal(grpc.StatusCode.UNAVAILABLE, "no certificate can be issued now") from error
    except Exception as error:
        _log.exception("certificate.not_issued")
        raise Refusal(grpc.StatusCode.INTERNAL, "no certificate can be issued now") from error


def in_full(refusal: Refusal) -> Refusal:
    """The same for the owner of the folder, who is told everything of an error of ours.

    To commands UNAVAILABLE says that nothing runs, which is not so.
    """
    cause = refusal.__cause__
    if not isinstance(cause, PolicydError):
        return refusal
    is_away = refusal.status is grpc.StatusCode.UNAVAILABLE
    return Refusal(grpc.StatusCode.FAILED_PRECONDITION if is_away else refusal.status, str(cause))


async def refused(context: Context, refusal: Refusal) -> NoReturn:
    """End the call with the refusal's status."""
    await context.abort(refusal.status, refusal.text)
    raise AssertionError("abort raises")
