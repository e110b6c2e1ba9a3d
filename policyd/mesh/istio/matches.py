"""Match blocks of HTTP rules (HTTPMatchRequest, StringMatch)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import AfterValidator, Field, model_validator

from policyd.mesh.istio.common import Distinct, Labels
from policyd.mesh.matching import check_match_name, check_path, check_regex, check_stat_prefix, claim_of
from policyd.strict import NOTHING, Many, Model, Name, PortNumber


class StringMatch(Model):
    """At most one of `exact`, `prefix` and `regex` (RE2, whole value); without any, the value is there."""

    exact: Annotated[str, Field(max_length=2048)] | None = None
    prefix: Annotated[str, Field(max_length=2048)] | None = None
    regex: Annotated[str, AfterValidator(check_regex)] | None = None

    @model_validator(mode="after")
    def _one(self) -> StringMatch:
        if sum(value is not None for value in (self.exact, self.prefix, self.regex)) > 1:
            raise ValueError("several of `exact`, `prefix` and `regex`; keep one")
        return self

    @property
    def presence(self) -> bool:
        """Whether any value will do."""
        return self.exact is None and self.prefix is None and self.regex is None


def _check_value_match(match: StringMatch) -> StringMatch:
    if match.presence:
        raise ValueError("one of `exact`, `prefix` and `regex` is missing; add it")
    return match


def _check_uri_match(match: StringMatch) -> StringMatch:
    for path in (match.exact, match.prefix):
        if path is not None:
            check_path(path)
    return match


ValueMatch = Annotated[StringMatch, AfterValidator(_check_value_match)]
UriMatch = Annotated[ValueMatch, AfterValidator(_check_uri_match)]


MatchName = Annotated[str, AfterValidator(check_match_name)]


class HttpMatch(Model):
    """All that is given must hold (HTTPMatchRequest).

    In `headers` and `without_headers`, `@request.auth.claims.NAME` is a claim of a verified token.
    `port`, `source_labels`, `source_namespace` and `gateways` choose the proxies that get the rule.
    """

    name: Annotated[str, Field(max_length=253)] | None = None
    uri: UriMatch | None = None
    ignore_uri_case: bool = False
    scheme: ValueMatch | None = None
    method: ValueMatch | None = None
    authority: ValueMatch | None = None
    headers: Annotated[Mapping[MatchName, StringMatch], Distinct] = NOTHING
    without_headers: Annotated[Mapping[MatchName, StringMatch], Distinct] = NOTHING
    query_params: Mapping[Annotated[str, Field(min_length=1, max_length=256)], StringMatch] = NOTHING
    port: PortNumber | None = None
    source_labels: Labels = NOTHING
    source_namespace: Name | None = None
    gateways: Many[Annotated[str, Field(min_length=1, max_length=512)]] = ()
    stat_prefix: Annotated[str, AfterValidator(check_stat_prefix)] | None = None

    @model_validator(mode="after")
    def _case(self) -> HttpMatch:
        if self.ignore_uri_case and self.uri is not None and self.uri.regex is not None:
            raise ValueError("`ignoreUriCase` does not hold for a regex; write `(?i)` into it")
        return self

    @property
    def claims(self) -> tuple[tuple[tuple[str, ...], StringMatch, bool], ...]:
        """The claims that are to be there (True) or not, each from the outside in."""
        both = ((self.headers, True), (self.without_headers, False))
        return tuple(
            (claim_of(name), wanted, there)
            for given, there in both
            for name, wanted in given.items()
            if name.startswith("@")
        )
