"""What a rule of an HTTPRoute does to requests and answers, and where else it sends them."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, Field, model_validator
from pydantic.alias_generators import to_camel

from policyd.mesh.gateway_api.common import HeaderFilter, MirrorFilter, PreciseHostname
from policyd.mesh.gateway_api.cors import CorsFilter
from policyd.mesh.matching import check_path
from policyd.strict import Model, PortNumber

NOT_HERE: Final = {
    "ExternalAuth": "every request is decided by the policies of this mesh; write what you ask for in Cedar",
    "ExtensionRef": "no code is loaded into proxies; use the filters of the specification",
}


def check_filter_type(given: Any) -> Any:
    """Return the type of a filter that is there."""
    if isinstance(given, str) and given in NOT_HERE:
        raise ValueError(f"a filter `{given}` is not supported: {NOT_HERE[given]}")
    return given


class PathModifier(Model):
    """What stands in the place of the path, or of the prefix that was matched."""

    type: Literal["ReplaceFullPath", "ReplacePrefixMatch"]
    replace_full_path: Annotated[str, Field(max_length=1024)] | None = None
    replace_prefix_match: Annotated[str, Field(max_length=1024)] | None = None

    @model_validator(mode="after")
    def _one(self) -> PathModifier:
        full = self.type == "ReplaceFullPath"
        if (self.replace_full_path is None) is full or (self.replace_prefix_match is None) is not full:
            raise ValueError(f"`{self.type}` needs `{self.type[0].lower()}{self.type[1:]}`, and nothing else; give it")
        if self.value or full:
            check_path(self.value)
            if "\\" in self.value:
                raise ValueError(f"`{self.value[:80]}` is no path; write it without backslashes")
        return self

    @property
    def value(self) -> str:
        """Whichever was given."""
        return self.replace_full_path if self.replace_full_path is not None else self.replace_prefix_match or ""


class RedirectFilter(Model):
    """The answer that sends the client elsewhere; what is left out is as it was asked for."""

    scheme: Literal["http", "https"] | None = None
    hostname: PreciseHostname | None = None
    path: PathModifier | None = None
    port: PortNumber | None = None
    status_code: Literal[301, 302, 303, 307, 308] = 302


class RewriteFilter(Model):
    """What the destination gets to see instead of what was asked."""

    hostname: PreciseHostname | None = None
    path: PathModifier | None = None


class HttpFilter(Model):
    """One thing that is done, by its type."""

    type: Annotated[
        Literal[
            "RequestHeaderModifier", "ResponseHeaderModifier", "RequestMirror", "RequestRedirect", "URLRewrite", "CORS"
        ],
        BeforeValidator(check_filter_type),
    ]
    request_header_modifier: HeaderFilter | None = None
    response_header_modifier: HeaderFilter | None = None
    request_mirror: MirrorFilter | None = None
    request_redirect: RedirectFilter | None = None
    url_rewrite: Annotated[RewriteFilter | None, Field(alias="urlRewrite")] = None
    cors: CorsFilter | None = None

    @model_validator(mode="after")
    def _one(self) -> HttpFilter:
        check_one(self, self.type, {"URLRewrite": "url_rewrite", "CORS": "cors"})
        return self


def check_one(given: Model, kind: str, odd: dict[str, str]) -> None:
    """Raise ValueError unless a filter has the field of its type, and no other."""
    name = odd.get(kind) or "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in kind)[1:]
    for field in type(given).model_fields:
        if field != "type" and (getattr(given, field) is not None) is not (field == name):
            what = "is missing" if field == name else "is of another one"
            raise ValueError(f"a filter `{kind}`: `{to_camel(field)}` {what}; give the field of its type alone")


def check_filters(filters: tuple[HttpFilter, ...]) -> tuple[HttpFilter, ...]:
    """Return filters of which none but mirrors is there twice, and that do not contradict one another."""
    kinds = [one.type for one in filters if one.type != "RequestMirror"]
    if twice := next((kind for kind in kinds if kinds.count(kind) > 1), None):
        raise ValueError(f"the filter `{twice}` is there twice; keep one")
    if {"RequestRedirect", "URLRewrite"} <= set(kinds):
        raise ValueError("`RequestRedirect` and `URLRewrite` exclude each other; keep one")
    return filters
