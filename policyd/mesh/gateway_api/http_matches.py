"""What requests a rule of an HTTPRoute is for."""

from __future__ import annotations

import re
from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, Field, model_validator

from policyd.mesh.istio.common import HeaderName
from policyd.mesh.matching import check_regex
from policyd.strict import Many, Model

_PATH: Final = re.compile(r"(?:[-A-Za-z0-9/._~!$&'()*+,;=:@]|%[0-9a-fA-F]{2})+")
_NEVER: Final = re.compile(r"//|/\.\.?(?:/|$)|%2[fF]")  # what no canonical path has
Method = Literal["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH"]


def _check_method(given: Any) -> Any:
    if given == "CONNECT":
        raise ValueError("`CONNECT` asks for a tunnel, which no HTTPRoute leads on; write a TCPRoute, or a TLSRoute")
    return given


def _check_value(kind: str, value: str) -> None:
    if kind == "RegularExpression":
        check_regex(value)


class PathMatch(Model):
    """A path: the very one, one that begins with whole segments, or one that a regex (RE2) matches as a whole."""

    type: Literal["Exact", "PathPrefix", "RegularExpression"] = "PathPrefix"
    value: Annotated[str, Field(min_length=1, max_length=1024)] = "/"

    @model_validator(mode="after")
    def _form(self) -> PathMatch:
        _check_value(self.type, self.value)
        if self.type == "RegularExpression":
            return self
        if not self.value.startswith("/") or not _PATH.fullmatch(self.value) or _NEVER.search(self.value):
            raise ValueError(
                f"`{self.value[:80]}` is no path; start it with a slash, without `//`, `/./`, `/../`, `%2f`, `?`, `#`"
            )
        return self

    @property
    def segments(self) -> str:
        """The prefix without the slash at its end, which means nothing."""
        return self.value.rstrip("/")


class HeaderMatch(Model):
    """A header, by its value or by a regex (RE2) that matches the whole of it."""

    type: Literal["Exact", "RegularExpression"] = "Exact"
    name: HeaderName
    value: Annotated[str, Field(min_length=1, max_length=4096)]

    @model_validator(mode="after")
    def _form(self) -> HeaderMatch:
        _check_value(self.type, self.value)
        return self


class QueryParamMatch(Model):
    """A parameter of the query, by its value or by a regex (RE2) that matches the whole of it."""

    type: Literal["Exact", "RegularExpression"] = "Exact"
    name: Annotated[str, Field(min_length=1, max_length=256)]
    value: Annotated[str, Field(min_length=1, max_length=1024)]

    @model_validator(mode="after")
    def _form(self) -> QueryParamMatch:
        _check_value(self.type, self.value)
        return self


class HttpRouteMatch(Model):
    """All that is given must hold."""

    path: PathMatch = PathMatch()
    headers: Annotated[Many[HeaderMatch], Field(max_length=16)] = ()
    query_params: Annotated[Many[QueryParamMatch], Field(max_length=16)] = ()
    method: Annotated[Method | None, BeforeValidator(_check_method)] = None
