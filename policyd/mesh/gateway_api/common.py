"""What kinds of the Gateway API share: how they are named, and how they refer to one another."""

from __future__ import annotations

import re
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field, model_validator

from policyd.mesh.istio.common import HeaderName, HeaderValue, Metadata, Resource
from policyd.strict import Many, Model, Name, PortNumber

GROUP: Final = "gateway.networking.k8s.io"
Stable = Literal["gateway.networking.k8s.io/v1", "gateway.networking.k8s.io/v1beta1"]
_SUBDOMAIN: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?)*")
_GROUP_FORM: Final = re.compile(rf"(?:{_SUBDOMAIN.pattern})?")
_KIND_FORM: Final = re.compile(r"[a-zA-Z](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?")
_TIME: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z")


def check_subdomain(name: str) -> str:
    """Return a DNS name in lower case, as resources and listeners are called."""
    if len(name) > 253 or not _SUBDOMAIN.fullmatch(name):
        raise ValueError(f"`{name[:80]}` is no name; use lower-case letters, digits, dashes and dots")
    return name


def check_hostname(host: str) -> str:
    """Return a host name, or `*.` and one; an address is none."""
    bare = host.removeprefix("*.")
    if len(host) > 253 or not _SUBDOMAIN.fullmatch(bare) or bare.replace(".", "").isdigit():
        raise ValueError(f"`{host[:80]}` is no host name; write one as in `shop.example.com` or `*.example.com`")
    return host


def check_precise(host: str) -> str:
    """Return a host name without `*`."""
    if host.startswith("*"):
        raise ValueError(f"`{host[:80]}` means many hosts; write one")
    return check_hostname(host)


def _check_group(text: str) -> str:
    if len(text) > 253 or not _GROUP_FORM.fullmatch(text):
        raise ValueError(f"`{text[:80]}` is no group of kinds; write one as in `{GROUP}`, or nothing for the core's")
    return text


def _check_kind(text: str) -> str:
    if not _KIND_FORM.fullmatch(text):
        raise ValueError(f"`{text[:80]}` is no kind; write one as in `Service`")
    return text


def _check_creation(text: str) -> str:
    if not _TIME.fullmatch(text):
        raise ValueError(f"`{text[:80]}` is no time; write it as in `2026-01-31T12:00:00Z`")
    return text


ObjectName = Annotated[str, AfterValidator(check_subdomain)]
Hostname = Annotated[str, AfterValidator(check_hostname)]
PreciseHostname = Annotated[str, AfterValidator(check_precise)]
GroupName = Annotated[str, AfterValidator(_check_group)]
KindName = Annotated[str, AfterValidator(_check_kind)]


class RouteMetadata(Metadata):
    """Names a resource; of several that claim the same, the one that was created first has it."""

    name: ObjectName
    creation_timestamp: Annotated[str, AfterValidator(_check_creation)] | None = None


class GatewayApiResource(Resource):
    """What every resource of the Gateway API has."""

    metadata: RouteMetadata

    @property
    def age(self) -> tuple[str, str]:
        """By this the resources of a kind come in order: the oldest first, then by namespace and name."""
        return self.metadata.creation_timestamp or "9999", self.id


class ParentReference(Model):
    """What a route is attached to: a Gateway, a listener of it (`section_name`) or a port, or a Service."""

    group: GroupName = GROUP
    kind: KindName = "Gateway"
    namespace: Name | None = None
    name: ObjectName
    section_name: ObjectName | None = None
    port: PortNumber | None = None


def _check_parents(parents: tuple[ParentReference, ...]) -> tuple[ParentReference, ...]:
    seen: set[ParentReference] = set()
    for parent in parents:
        if parent in seen:
            raise ValueError(f"`{parent.name}` is there twice; keep one, or give each its own `sectionName` or `port`")
        seen.add(parent)
    return parents


Parents = Annotated[Many[ParentReference], Field(max_length=32), AfterValidator(_check_parents)]
Hostnames = Annotated[Many[Hostname], Field(max_length=16)]


class ObjectReference(Model):
    """A thing of some kind in a namespace (none given: the own one)."""

    group: GroupName = ""
    kind: KindName = "Service"
    name: ObjectName
    namespace: Name | None = None
    port: PortNumber | None = None


class BackendRef(ObjectReference):
    """Where something goes; of several, each gets its weight's share."""

    weight: Annotated[int, Field(ge=0, le=1_000_000)] = 1


class NamedHeader(Model):
    """A header and what it is to say."""

    name: HeaderName
    value: Annotated[HeaderValue, Field(min_length=1)]


Headers16 = Annotated[Many[NamedHeader], Field(max_length=16)]


class HeaderFilter(Model):
    """What is done to headers: `set` replaces, `add` appends, `remove` removes."""

    set: Headers16 = ()
    add: Headers16 = ()
    remove: Annotated[Many[HeaderName], Field(max_length=16)] = ()

    @model_validator(mode="after")
    def _once(self) -> HeaderFilter:
        names = [*(one.name for one in (*self.set, *self.add)), *self.remove]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise ValueError(f"the header `{twice}` is there twice; keep one action for each header")
        return self


class Fraction(Model):
    """So many of so many."""

    numerator: Annotated[int, Field(ge=0)]
    denominator: Annotated[int, Field(ge=1)] = 100

    @model_validator(mode="after")
    def _part(self) -> Fraction:
        if self.numerator > self.denominator:
            raise ValueError("the numerator is more than the denominator; write at most all")
        return self


class MirrorFilter(Model):
    """Where a copy of requests goes: of all, unless `percent` or `fraction` says of how many."""

    backend_ref: ObjectReference
    percent: Annotated[int, Field(ge=0, le=100)] | None = None
    fraction: Fraction | None = None

    @model_validator(mode="after")
    def _one(self) -> MirrorFilter:
        if self.percent is not None and self.fraction is not None:
            raise ValueError("`percent` and `fraction` exclude each other; keep one")
        return self

    @property
    def share(self) -> float | None:
        """Of how many requests, in percent; None: of all."""
        if self.fraction is not None:
            return 100 * self.fraction.numerator / self.fraction.denominator
        return None if self.percent is None else float(self.percent)
