"""Matches by the claims of a verified token: jwt_authn has written them when a route is chosen anew (MetadataMatcher).

Law: what is matched is what our own filter verified, under the name of the rule that was believed; a claim is a text or
a list of texts, or words with spaces between them where its rule says so.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from policyd.mesh.istio.matches import HttpMatch, StringMatch
from policyd.mesh.model import Mesh
from policyd.mesh.tokens import Believed
from policyd.names import METADATA_TOKENS
from policyd.xds.resources.matches import string_match

Matchers = list[dict[str, Any]]


def are_matched(mesh: Mesh) -> bool:
    """Whether some route of a mesh goes by claims, so that routes are chosen anew once a token was verified."""
    matches = (match for one in mesh.virtual_services for _, match in one.matches())
    return any(isinstance(match, HttpMatch) and match.claims for match in matches)


def variants(match: HttpMatch, believed: Sequence[Believed]) -> list[Matchers]:
    """What a block says of claims: of each list all have to hold, one list is enough."""
    claims = match.claims
    absent = [
        _matcher(one, path, wanted, there=False) for path, wanted, there in claims if not there for one in believed
    ]
    wanted = [(path, text) for path, text, there in claims if there]
    if not wanted:
        return [absent]
    return [[*(_matcher(one, path, text, there=True) for path, text in wanted), *absent] for one in believed]


def _matcher(one: Believed, path: tuple[str, ...], wanted: StringMatch, *, there: bool) -> dict[str, Any]:
    is_words = len(path) == 1 and path[0] in one.rule.split_claims
    value = {"present_match": True} if wanted.presence else _value(_among_words(wanted) if is_words else wanted)
    matcher = {"filter": METADATA_TOKENS, "path": [{"key": key} for key in (one.name, *path)], "value": value}
    return matcher if there else {**matcher, "invert": True}


def _value(wanted: StringMatch) -> dict[str, Any]:
    text = {"string_match": string_match(wanted)}
    return {"or_match": {"value_matchers": [text, {"list_match": {"one_of": text}}]}}


def _among_words(wanted: StringMatch) -> StringMatch:
    """The same for one of several words."""
    word = wanted.regex
    if wanted.exact is not None:
        word = re.escape(wanted.exact)
    elif wanted.prefix is not None:
        word = f"{re.escape(wanted.prefix)}[^ ]*"
    return StringMatch.model_construct(regex=f"(?:.* )?(?:{word})(?: .*)?")
