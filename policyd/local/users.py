"""The end user of a request in the proxy itself: what of a verified token decides there, and what goes to policyd.

Law: a request is decided in its proxy once our own filter has said who its user is, or that it has none: exactly where
policyd would say so too (authz.user, cedar.claims). Whatever that filter is not sure of, a token that policyd would
refuse included, is policyd's: the route of those that are decided here asks for the filter's word, and there is none.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final

from policyd.errors import NotCompilable
from policyd.local.logic import NO, Atom, Formula, Has, OfUser, OneOf, Present
from policyd.names import METADATA_TOKEN_FAILED, METADATA_TOKENS, METADATA_USER, USER_IS

FILTER: Final = "envoy.filters.http.lua"
_LUA: Final = "type.googleapis.com/envoy.extensions.filters.http.lua.v3"


@cache
def _script() -> str:
    """Part of this program, as the code around it is."""
    return Path(__file__).with_name("users.lua").read_text(encoding="utf-8")


def told() -> dict[str, Any]:
    """The filter behind the one that verifies tokens: says nothing on routes where policyd decides (lua.v3.Lua)."""
    config = {
        "@type": f"{_LUA}.Lua",
        "default_source_code": {"inline_string": _script()},
        "clear_route_cache": False,  # it does so itself, once it has said something
    }
    return {"name": FILTER, "typed_config": config}


def asked(issuers: Mapping[str, Collection[str]], claims: Iterable[str]) -> dict[str, Any]:
    """What it is to say, on every route of a table under which the proxy decides (lua.v3.LuaPerRoute): `issuers` are
    those that are believed, each with the claims that are words; `claims` are those that policies read.
    """
    context = {
        "tokens": METADATA_TOKENS,
        "failed": METADATA_TOKEN_FAILED,
        "said": METADATA_USER,
        "issuers": {issuer: {"words": dict.fromkeys(sorted(words), True)} for issuer, words in issuers.items()},
        "claims": dict.fromkeys(sorted(claims), True),
    }
    return {FILTER: {"@type": f"{_LUA}.LuaPerRoute", "filter_context": {"asked": context}}}


def is_told() -> list[dict[str, Any]]:
    """Whether it has said something, of a route (route.v3.RouteMatch.dynamic_metadata)."""
    return [{"filter": METADATA_USER, "path": [{"key": USER_IS}], "value": {"present_match": True}}]


# ---- formulas

IS_ONE: Final = Atom(OfUser(), Present(), "there is a user")


def user_is(ids: Iterable[str]) -> Formula:
    """Whether the user is one of these."""
    known = tuple(sorted(set(ids)))
    words = known[0] if len(known) == 1 else f"one of {', '.join(known)}"
    return Atom(OfUser(("id",)), OneOf(known), f"user is {words}") if known else NO


def has_claim(name: str) -> Formula:
    """Whether the user's token has a claim; raises NotCompilable."""
    if not name:
        raise NotCompilable("a claim without a name")  # which Envoy does not look for
    return Atom(OfUser(("claims", name)), Present(), f"user has a claim {name}")


def claim_holds(name: str, text: str) -> Formula:
    """Whether a claim, which is a set, has an element."""
    return Atom(OfUser(("claims", name)), Has(text), f'claim {name} has "{text}"')
