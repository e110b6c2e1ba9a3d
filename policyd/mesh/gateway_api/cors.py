"""What browsers of other origins are told (the CORS filter of an HTTPRoute)."""

from __future__ import annotations

import re
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field, model_validator

from policyd.mesh.istio.common import HeaderName
from policyd.mesh.istio.faults import CorsPolicy
from policyd.mesh.istio.matches import StringMatch
from policyd.strict import Many, Model

_ORIGIN: Final = re.compile(r"\*|https?://[A-Za-z0-9*.-]{1,253}(?::[0-9]{1,5})?")
ALL: Final = ("GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH")
Methods = Literal["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "*"]


def _check_origin(text: str) -> str:
    if not _ORIGIN.fullmatch(text):
        raise ValueError(f"`{text[:80]}` is no origin; write one as in `https://shop.example.com`, or `*`")
    return text


class CorsFilter(Model):
    """Which origins may use the answers, and how; `max_age` is in seconds.

    An origin is told that it may itself, never `*`, which browsers do not take where credentials are allowed.
    """

    allow_origins: Annotated[Many[Annotated[str, AfterValidator(_check_origin)]], Field(max_length=64)] = ()
    allow_credentials: bool = False
    allow_methods: Annotated[Many[Methods], Field(max_length=9)] = ()
    allow_headers: Annotated[Many[HeaderName], Field(max_length=64)] = ()
    expose_headers: Annotated[Many[HeaderName], Field(max_length=64)] = ()
    max_age: Annotated[int, Field(ge=1)] = 5

    @model_validator(mode="after")
    def _all_or_some(self) -> CorsFilter:
        for name, given in (("allowOrigins", self.allow_origins), ("allowMethods", self.allow_methods)):
            if "*" in given and len(given) > 1:
                raise ValueError(f"`*` in `{name}` means all; remove the others")
        if self.allow_credentials and "*" in (*self.allow_headers, *self.expose_headers):
            raise ValueError("browsers take `*` for a header's name where credentials are allowed; list the headers")
        return self

    @property
    def policy(self) -> CorsPolicy:
        """The same in the words of a VirtualService; who is not allowed is told nothing."""
        return CorsPolicy(
            allow_origins=tuple(map(_origin, self.allow_origins)),
            allow_methods=ALL if self.allow_credentials and self.allow_methods == ("*",) else self.allow_methods,
            allow_headers=self.allow_headers,
            expose_headers=self.expose_headers,
            max_age=float(self.max_age),
            allow_credentials=self.allow_credentials,
            unmatched_preflights="IGNORE",
        )


def _origin(text: str) -> StringMatch:
    """An origin, in whose host `*` stands for any number of labels to the left."""
    if "*" not in text:
        return StringMatch(exact=text)
    return StringMatch(regex=".*" if text == "*" else re.escape(text).replace(r"\*", "[A-Za-z0-9.-]+"))
