"""The journal: what is recorded, what is masked, how long it is kept and where it is streamed to.

Law: a mask names one value; a name that no record can have is refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Final, Literal

from annotated_types import MaxLen
from pydantic import AfterValidator, Field, model_validator

from policyd.config.urls import CollectorUrl
from policyd.strict import Duration, Many, Model, Name, Size

MAX_CLAIM: Final = 256  # characters of its name
_HEADER: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}")  # RFC 9110, 5.6.2
_ATTRIBUTE: Final = re.compile(r"[a-z_]{1,64}(?:\.[a-z_]{1,64}){0,7}")
_USERS_OWN: Final[Mapping[str, tuple[tuple[str, ...], ...]]] = {
    "iss": (("user", "issuer"), ("user", "__entity", "id")),
    "sub": (("user", "subject"), ("user", "__entity", "id")),
}


def check_header(name: str) -> str:
    """Return the name of a header in lower case, as records have it; raises ValueError."""
    if not _HEADER.fullmatch(name):
        raise ValueError(f"`{name[:80]}` is no name of a header; write it as in `end-user`")
    return name.lower()


def check_attribute(path: str) -> str:
    """Return a path into the context of a record; raises ValueError."""
    if not _ATTRIBUTE.fullmatch(path):
        raise ValueError(f"`{path[:80]}` is no attribute; write it as in `request.path` or `client_ip`")
    return path


def check_claim(name: str) -> str:
    """Return the name of a claim, as records have it; raises ValueError."""
    if not 0 < len(name) <= MAX_CLAIM or not name.isprintable() or name != name.strip():
        text = f"`{name[:80]!a}` is no name of a claim; write it as in `email`, or `outer.inner` for one inside another"
        raise ValueError(text)
    return name


HeaderName = Annotated[str, AfterValidator(check_header)]
ClaimName = Annotated[str, AfterValidator(check_claim)]


class ExportSettings(Model):
    """Where the journal is streamed to, as OTLP logs over HTTP; `name` is in the name of the file that says how far."""

    otlp: CollectorUrl
    name: Annotated[Name, Field(max_length=31)] = "otlp"
    headers_file: Annotated[str, Field(min_length=1)] | None = None  # relative to the folder
    ca_file: Annotated[str, Field(min_length=1)] | None = None  # relative to the folder


class IncludeSettings(Model):
    """What is recorded of requests besides what policies read."""

    headers: Annotated[Many[HeaderName], MaxLen(64)] = ()
    claims: Annotated[Many[ClaimName], MaxLen(64)] = ()


class MaskSettings(Model):
    """One value that is not recorded as it is: of a `header`, of a `claim`, or at a path of the context."""

    header: HeaderName | None = None
    claim: ClaimName | None = None
    attribute: Annotated[str, AfterValidator(check_attribute)] | None = None
    how: Literal["remove", "hash", "truncate"] = "remove"
    length: Annotated[int, Field(ge=1, le=1024)] | None = None

    @model_validator(mode="after")
    def _whole(self) -> MaskSettings:
        if [self.header, self.claim, self.attribute].count(None) != 2:
            raise ValueError("a mask names one thing: a `header`, a `claim` or an `attribute`")
        if (self.length is None) == (self.how == "truncate"):
            raise ValueError("`length` goes with `how: truncate`, and with nothing else")
        return self

    @property
    def paths(self) -> tuple[tuple[str, ...], ...]:
        """Where the value stands in the context of a record; who a user is stands there in other words too."""
        if self.header is not None:
            return (("request", "headers", self.header),)
        if self.claim is not None:
            return (("user", "claims", self.claim), *_USERS_OWN.get(self.claim, ()))
        return (tuple((self.attribute or "").split(".")),)


class AuditSettings(Model):
    """The journal: how safe a record is before its decision takes effect, what holds when it is full."""

    durability: Literal["written", "fsync", "async"] = "written"
    on_full: Literal["deny", "drop"] = "deny"
    segment_size: Annotated[Size, Field(ge=1 << 20, le=1 << 32)] = 64 << 20
    segment_age: Annotated[Duration, Field(ge=1, le=86_400)] = 3600.0  # seconds
    retain: Annotated[Duration, Field(ge=3600)] = 7 * 86_400.0  # seconds
    export: ExportSettings | None = None
    max_size: Annotated[Size, Field(ge=1 << 20)] | None = None
    include: IncludeSettings = IncludeSettings()
    mask: Annotated[Many[MaskSettings], MaxLen(64)] = ()
