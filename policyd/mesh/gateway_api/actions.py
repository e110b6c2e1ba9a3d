"""What a rule for requests does, in the words of VirtualServices: filters, destinations in shares, patience.

Law: what would have gone to a backend that is not there is answered with 500, calls with UNAVAILABLE, in its share;
what is done for one backend alone is done in that backend's share of the requests.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from policyd.mesh.gateway_api.common import HeaderFilter, MirrorFilter
from policyd.mesh.gateway_api.conditions import Fault
from policyd.mesh.gateway_api.grpc_route import GrpcFilter, GrpcRouteRule
from policyd.mesh.gateway_api.http_filters import HttpFilter
from policyd.mesh.gateway_api.http_route import HttpRouteRule, Retry, Timeouts
from policyd.mesh.gateway_api.paths import Place, redirect, rewrite
from policyd.mesh.gateway_api.values import MILLION
from policyd.mesh.istio.answers import DirectResponse
from policyd.mesh.istio.destination import (
    Destination,
    HeaderOperations,
    Headers,
    MirrorPolicy,
    Percent,
    RouteDestination,
)
from policyd.mesh.istio.http_route import Retries
from policyd.mesh.matching import AUTHORITY

DEFAULT_ATTEMPTS: Final = 2  # as where nothing is said
NOT_PROCESSED: Final = "connect-failure,refused-stream,unavailable,cancelled"
NOBODY: Final = DirectResponse(status=500)
UNAVAILABLE: Final = DirectResponse(status=503)  # which is that in the words of gRPC

AnyRule = HttpRouteRule | GrpcRouteRule
AnyFilter = HttpFilter | GrpcFilter


@dataclass(frozen=True, slots=True)
class Led:
    """A backend of a rule: where it leads, or why it does not; its weight, and its own filters."""

    to: Destination | Fault
    weight: int
    filters: Sequence[AnyFilter] = ()
    mirrors: Sequence[MirrorPolicy] = ()

    @property
    def is_plain(self) -> bool:
        """Whether it can be one of several shares of one route."""
        only = ("request_header_modifier", "response_header_modifier")
        own = all(any(getattr(one, name) is not None for name in only) for one in self.filters)
        return isinstance(self.to, Destination) and own


@dataclass(frozen=True, slots=True)
class Action:
    """Fields of an HTTP rule; `below` of every million requests are its own, those of the actions before it not."""

    fields: dict[str, Any] = field(default_factory=dict)
    below: int = MILLION


def actions(
    rule: AnyRule, filters: Sequence[AnyFilter], led: Sequence[Led], mirrors: Sequence[MirrorPolicy], place: Place
) -> Iterator[Action]:
    """What is done with the requests of a rule; more than one thing where single backends need it."""
    whole = _of_filters(filters, mirrors, place)
    redirected = _first(filters, "request_redirect")
    if redirected is not None:
        yield Action({**whole, "redirect": redirect(redirected, place)})
        return
    given = [one for one in led if one.weight]
    if not given:
        yield Action({**_answers(whole), "direct_response": _nobody(rule)})
    elif all(one.is_plain for one in given):
        yield Action({**whole, **patience(rule), "route": tuple(_route(given))})
    else:
        yield from _shares(rule, filters, given, mirrors, place)


def _shares(
    rule: AnyRule, filters: Sequence[AnyFilter], led: Sequence[Led], mirrors: Sequence[MirrorPolicy], place: Place
) -> Iterator[Action]:
    total = sum(one.weight for one in led)
    below = 0
    for one in led:
        below += one.weight
        share = round(MILLION * below / total)
        own = _of_filters((*filters, *one.filters), (*mirrors, *one.mirrors), place)
        redirected = _first(one.filters, "request_redirect")
        if isinstance(one.to, Fault):
            yield Action({**_answers(own), "direct_response": _nobody(rule)}, share)
        elif redirected is not None:
            yield Action({**_answers(own), "redirect": redirect(redirected, place)}, share)
        else:
            yield Action({**own, **patience(rule), "route": (RouteDestination(destination=one.to),)}, share)


def _nobody(rule: AnyRule) -> DirectResponse:
    return UNAVAILABLE if isinstance(rule, GrpcRouteRule) else NOBODY


def _route(led: Sequence[Led]) -> Iterator[RouteDestination]:
    for one in led:
        if isinstance(one.to, Destination):
            yield RouteDestination(destination=one.to, weight=one.weight, headers=_headers(one.filters))


def _of_filters(filters: Sequence[AnyFilter], mirrors: Sequence[MirrorPolicy], place: Place) -> dict[str, Any]:
    found: dict[str, Any] = {"headers": _headers(filters)}
    if mirrors:
        found["mirrors"] = tuple(mirrors)
    if (cors := _first(filters, "cors")) is not None:
        found["cors_policy"] = cors.policy
    if (changed := _first(filters, "url_rewrite")) is not None and (made := rewrite(changed, place)) is not None:
        found["rewrite"] = made
    return found


def _answers(fields: dict[str, Any]) -> dict[str, Any]:
    """What of it holds for an answer without a destination."""
    return {name: value for name, value in fields.items() if name not in ("mirrors", "rewrite")}


def _first(filters: Iterable[AnyFilter], name: str) -> Any:
    """The last filter of a kind: a backend's own comes after its rule's."""
    found = [value for one in filters if (value := getattr(one, name, None)) is not None]
    return found[-1] if found else None


def _headers(filters: Sequence[AnyFilter]) -> Headers:
    return Headers(
        request=_operations([one.request_header_modifier for one in filters]),
        response=_operations([one.response_header_modifier for one in filters]),
    )


def _operations(given: Iterable[HeaderFilter | None]) -> HeaderOperations:
    filters = [one for one in given if one is not None]
    return HeaderOperations(
        set={header.name: header.value for one in filters for header in one.set if header.name != AUTHORITY},
        add={header.name: header.value for one in filters for header in one.add},
        remove=tuple(dict.fromkeys(name for one in filters for name in one.remove)),
    )


def mirrored(mirror: MirrorFilter, to: Destination) -> MirrorPolicy:
    """Where copies go."""
    share = mirror.share
    return MirrorPolicy(destination=to, percentage=None if share is None else Percent(value=share))


def patience(rule: AnyRule) -> dict[str, Any]:
    """How long requests may take, and how often they are tried."""
    if isinstance(rule, GrpcRouteRule) or (rule.timeouts is None and rule.retry is None):
        return {}
    timeouts, retry = rule.timeouts or Timeouts(), rule.retry
    attempts = DEFAULT_ATTEMPTS if retry is None or retry.attempts is None else retry.attempts
    if attempts == 0:
        # the only try is the whole
        only = timeouts.backend_request or timeouts.request
        return {"timeout": only, "retries": Retries(attempts=0)}
    retries = Retries(
        attempts=attempts,
        per_try_timeout=timeouts.backend_request or None,
        retry_on=_conditions(retry),
        backoff=retry.backoff if retry is not None else None,
    )
    return {"timeout": timeouts.request, "retries": retries}


def _conditions(retry: Retry | None) -> str | None:
    if retry is None or not retry.codes:
        return None
    return ",".join((NOT_PROCESSED, *(str(code) for code in dict.fromkeys(retry.codes))))
