"""Answers without a destination, and what a destination gets to see instead of what was asked."""

from __future__ import annotations

import base64
import binascii
import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from policyd.mesh.istio.common import Authority, Path
from policyd.mesh.matching import check_regex
from policyd.strict import Model, PortNumber

MAX_BODY = 65_536


def _check_base64(text: str) -> str:
    try:
        size = len(base64.b64decode(text, validate=True))
    except (binascii.Error, ValueError):
        raise ValueError("it is no base64; encode the bytes with `base64`") from None
    if size > MAX_BODY:
        raise ValueError(f"a body has at most {MAX_BODY} bytes, this one {size}")
    return text


def _check_body(text: str) -> str:
    if (size := len(text.encode())) > MAX_BODY:
        raise ValueError(f"a body has at most {MAX_BODY} bytes, this one {size}")
    return text


def _check_substitution(text: str) -> str:
    """Return what a regex's match is replaced by: `\\1` stands for its first group."""
    if not re.fullmatch(r"(?:[^\x00-\x20\x7f?#\\]|\\[0-9])*", text):
        raise ValueError(f"`{text[:80]}` is no part of a path with `\\1` for groups; write it without `?`, `#`, spaces")
    return text


class RegexRewrite(Model):
    """What the regex `match` finds in the path is replaced by `rewrite`, in which `\\1` is its first group."""

    match: Annotated[str, AfterValidator(check_regex)]
    rewrite: Annotated[str, Field(max_length=2048), AfterValidator(_check_substitution)]

    @model_validator(mode="after")
    def _groups(self) -> RegexRewrite:
        wanted = max((int(number) for number in re.findall(r"\\([0-9])", self.rewrite)), default=0)
        try:
            has = re.compile(self.match).groups
        except re.error:
            return self  # RE2's own syntax, which Envoy reads
        if wanted > has:
            raise ValueError(f"`rewrite` names group {wanted}, and `match` has {has}")
        return self


class Rewrite(Model):
    """What the destination gets: `uri` instead of the matched prefix (or whole path), `authority` as Host."""

    uri: Path | None = None
    authority: Authority | None = None
    uri_regex_rewrite: RegexRewrite | None = None

    @model_validator(mode="after")
    def _some(self) -> Rewrite:
        if self.uri is not None and self.uri_regex_rewrite is not None:
            raise ValueError("`uri` and `uriRegexRewrite` exclude each other; keep one")
        if self.uri is None and self.authority is None and self.uri_regex_rewrite is None:
            raise ValueError("none of `uri`, `uriRegexRewrite` and `authority` is given; add one")
        return self


class Redirect(Model):
    """The answer that sends the client elsewhere: `uri` replaces the whole path, `prefixRewrite` what matched.

    `derivePort: FROM_REQUEST_PORT` names the port that was asked, `FROM_PROTOCOL_DEFAULT` leaves it as it is.
    """

    uri: Path | None = None
    prefix_rewrite: Path | None = None
    authority: Authority | None = None
    scheme: Literal["http", "https"] | None = None
    port: PortNumber | None = None
    derive_port: Literal["FROM_PROTOCOL_DEFAULT", "FROM_REQUEST_PORT"] | None = None
    redirect_code: Literal[301, 302, 303, 307, 308] = 301

    @model_validator(mode="after")
    def _some(self) -> Redirect:
        if self.uri is not None and self.prefix_rewrite is not None:
            raise ValueError("`uri` and `prefixRewrite` exclude each other; keep one")
        if self.port is not None and self.derive_port is not None:
            raise ValueError("`port` and `derivePort` exclude each other; keep one")
        given = (self.uri, self.prefix_rewrite, self.authority, self.scheme, self.port, self.derive_port)
        if all(value is None for value in given):
            raise ValueError("it leads nowhere else; give `uri`, `authority`, `scheme` or `port`")
        return self


class Body(Model):
    """A response's body, as text or as base64 of its bytes."""

    string: Annotated[str, AfterValidator(_check_body)] | None = None
    bytes: Annotated[str, AfterValidator(_check_base64)] | None = None

    @model_validator(mode="after")
    def _one(self) -> Body:
        if (self.string is None) == (self.bytes is None):
            raise ValueError("give exactly one of `string` and `bytes`")
        return self


class DirectResponse(Model):
    """An answer without a destination."""

    status: Annotated[int, Field(ge=200, le=599)]
    body: Body | None = None
