"""Where requests go, and what is done to their headers on the way (Destination, HTTPRouteDestination, Headers)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from policyd.mesh.istio.common import Distinct, HeaderName, HeaderValue
from policyd.mesh.matching import AUTHORITY, check_host, check_set_header, check_subset_name
from policyd.strict import NOTHING, Many, Model, PortNumber

HeaderToSet = Annotated[str, AfterValidator(check_set_header)]


class PortSelector(Model):
    """A port of the destination service, by number."""

    number: PortNumber


class Destination(Model):
    """A service's host name, its port where it has several, and one of the subsets that a DestinationRule makes."""

    host: Annotated[str, AfterValidator(check_host)]
    subset: Annotated[str, AfterValidator(check_subset_name)] | None = None
    port: PortSelector | None = None


class HeaderOperations(Model):
    """`set` replaces, `add` appends, `remove` removes; in a request `:authority` may be set."""

    set: Annotated[Mapping[HeaderToSet, HeaderValue], Distinct] = NOTHING
    add: Annotated[Mapping[HeaderName, HeaderValue], Distinct] = NOTHING
    remove: Many[HeaderName] = ()


class Headers(Model):
    """What is done to the headers of the request and of the response."""

    request: HeaderOperations = HeaderOperations()
    response: HeaderOperations = HeaderOperations()

    @model_validator(mode="after")
    def _authority(self) -> Headers:
        if AUTHORITY in self.response.set:
            raise ValueError("a response has no `:authority`; remove it")
        return self


class RouteDestination(Model):
    """Where requests go; of several, each gets its weight's share (0: none)."""

    destination: Destination
    weight: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    headers: Headers = Headers()


def _as_number(value: object) -> object:
    """Read a whole number as a percentage too, as YAML's readers do."""
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


class Percent(Model):
    """A share of the requests, in percent; Envoy knows a ten-thousandth of one."""

    value: Annotated[float, Field(ge=0.0, le=100.0), BeforeValidator(_as_number)] = 0.0


class MirrorPolicy(Model):
    """Where a copy of `percentage` (none given: all) of the requests goes; nobody waits for its answer."""

    destination: Destination
    percentage: Percent | None = None
