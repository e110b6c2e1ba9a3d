"""One HTTP rule of a VirtualService (HTTPRoute): what it matches, and what is done."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, Field, model_validator

from policyd.mesh.istio.answers import DirectResponse, Redirect, Rewrite
from policyd.mesh.istio.destination import Destination, Headers, MirrorPolicy, Percent, RouteDestination
from policyd.mesh.istio.faults import CorsPolicy, Fault
from policyd.mesh.istio.matches import HttpMatch
from policyd.mesh.matching import RETRY_CONDITIONS
from policyd.strict import Duration, Many, Model, Name


def _check_retry_on(text: str) -> str:
    for condition in text.split(","):
        word = condition.strip()
        if word not in RETRY_CONDITIONS and not re.fullmatch(r"[1-5][0-9][0-9]", word):
            raise ValueError(f"`{word[:80]}` is no retry condition; known are {', '.join(sorted(RETRY_CONDITIONS))}")
    return text


class Retries(Model):
    """`attempts` more tries (0: none), each within `per_try_timeout` seconds, where `retry_on` says so.

    The first waits `backoff` seconds, at another instance unless `retry_ignore_previous_hosts` is false.
    """

    attempts: Annotated[int, Field(ge=0, le=100)]
    per_try_timeout: Duration | None = None
    retry_on: Annotated[str, AfterValidator(_check_retry_on)] | None = None
    retry_remote_localities: bool = False
    retry_ignore_previous_hosts: bool = True
    backoff: Annotated[Duration, Field(ge=0.001)] | None = None


class Delegate(Model):
    """The VirtualService whose rules stand here; without `namespace` one of the same."""

    name: Name
    namespace: Name | None = None


class HttpRoute(Model):
    """One rule; the first whose `match` holds (any of its blocks; none: always) answers.

    `timeout` is in seconds, 0 and None mean none.
    """

    name: Annotated[str, Field(max_length=253)] | None = None
    match: Many[HttpMatch] = ()
    route: Many[RouteDestination] = ()
    redirect: Redirect | None = None
    direct_response: DirectResponse | None = None
    delegate: Delegate | None = None
    rewrite: Rewrite | None = None
    timeout: Duration | None = None
    retries: Retries | None = None
    fault: Fault | None = None
    mirror: Destination | None = None
    mirror_percentage: Percent | None = None
    mirror_percent: Annotated[int, Field(ge=0, le=100)] | None = None
    mirrors: Many[MirrorPolicy] = ()
    cors_policy: CorsPolicy | None = None
    headers: Headers = Headers()

    @model_validator(mode="after")
    def _one_action(self) -> HttpRoute:
        answers = (self.redirect, self.direct_response, self.delegate)
        if bool(self.route) + sum(answer is not None for answer in answers) != 1:
            raise ValueError("give exactly one of `route`, `redirect`, `directResponse` and `delegate`")
        if self.delegate is None and not self.route and (self.rewrite or self.timeout is not None or self.retries):
            raise ValueError("`rewrite`, `timeout` and `retries` need `route`; remove them")
        if self.delegate is None and not self.route and (self.mirror or self.mirrors):
            raise ValueError("`mirror` and `mirrors` need `route`; remove them")
        if len(self.route) > 1 and sum(destination.weight for destination in self.route) == 0:
            raise ValueError("the weights add up to 0; give one destination a `weight`")
        return self

    @model_validator(mode="after")
    def _one_mirror(self) -> HttpRoute:
        if self.mirror is not None and self.mirrors:
            raise ValueError("`mirror` and `mirrors` exclude each other; keep `mirrors`")
        if self.mirror is None and (self.mirror_percentage is not None or self.mirror_percent is not None):
            raise ValueError("a percentage of no `mirror`; add `mirror`")
        return self

    def copies(self) -> tuple[MirrorPolicy, ...]:
        """Return where copies go, whichever way that was written."""
        if self.mirror is None:
            return self.mirrors
        share = self.mirror_percentage
        if share is None and self.mirror_percent is not None:
            share = Percent(value=float(self.mirror_percent))
        return (MirrorPolicy(destination=self.mirror, percentage=share),)
