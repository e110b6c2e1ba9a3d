"""Faults that callers are given on purpose (HTTPFaultInjection), and answers to browsers of other origins (CORS)."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field, model_validator

from policyd.mesh.istio.common import HeaderName
from policyd.mesh.istio.destination import Percent
from policyd.mesh.istio.matches import StringMatch, ValueMatch
from policyd.strict import Duration, Many, Model

GRPC_STATUSES: Final = (
    "OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS",
    "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED",
    "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED",
)  # fmt: skip


def _check_grpc_status(name: str) -> str:
    if name not in GRPC_STATUSES:
        raise ValueError(f"`{name[:80]}` is no gRPC status; write one as in `UNAVAILABLE`")
    return name


class Delay(Model):
    """`percentage` of the requests (none given: none) wait for `fixed_delay` seconds first."""

    fixed_delay: Annotated[Duration, Field(gt=0.0)]
    percentage: Percent | None = None
    percent: Annotated[int, Field(ge=0, le=100)] | None = None


class Abort(Model):
    """`percentage` of the requests (none given: none) are answered with a status instead."""

    http_status: Annotated[int, Field(ge=200, le=599)] | None = None
    grpc_status: Annotated[str, AfterValidator(_check_grpc_status)] | None = None
    percentage: Percent | None = None

    @model_validator(mode="after")
    def _one(self) -> Abort:
        if (self.http_status is None) == (self.grpc_status is None):
            raise ValueError("give exactly one of `httpStatus` and `grpcStatus`")
        return self


class Fault(Model):
    """Delays and aborts, each for its own share of the requests; timeouts and retries do not hold beside them."""

    delay: Delay | None = None
    abort: Abort | None = None

    @model_validator(mode="after")
    def _some(self) -> Fault:
        if self.delay is None and self.abort is None:
            raise ValueError("neither `delay` nor `abort` is given; add one")
        return self


class CorsPolicy(Model):
    """What browsers of other origins are told.

    Preflights of other origins go on to the service unless `unmatched_preflights` is IGNORE. `allow_origin` is the
    older form of `allow_origins`: whole origins, or `*` for all.
    """

    allow_origins: Many[ValueMatch] = ()
    allow_origin: Many[Annotated[str, Field(min_length=1, max_length=2048)]] = ()
    allow_methods: Many[Annotated[str, Field(pattern=r"^(\*|[A-Z]{1,32})$")]] = ()
    allow_headers: Many[HeaderName] = ()
    expose_headers: Many[HeaderName] = ()
    max_age: Duration | None = None
    allow_credentials: bool = False
    unmatched_preflights: Literal["UNSPECIFIED", "FORWARD", "IGNORE"] = "UNSPECIFIED"

    @model_validator(mode="after")
    def _one_form(self) -> CorsPolicy:
        if self.allow_origin and self.allow_origins:
            raise ValueError("`allowOrigin` and `allowOrigins` exclude each other; keep `allowOrigins`")
        return self

    @property
    def origins(self) -> tuple[StringMatch, ...]:
        """Who is allowed, whichever way that was written."""
        if "*" in self.allow_origin:
            return (StringMatch(regex=".*"),)
        return self.allow_origins or tuple(StringMatch(exact=one) for one in self.allow_origin)
