"""The end user of a request: whom the token proves that Envoy has verified before it asked (jwt_authn).

Law: a user is what our own filter wrote, at a listener that believes the issuer; nothing that the request says of
itself. A request without a token has no user; with one that is bad, or with two users, it is refused.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from google.protobuf.json_format import MessageToDict

from policyd.authz.request import Query
from policyd.cedar.claims import MAX_TEXT, claims_of
from policyd.cedar.http import EndUser
from policyd.errors import IncompleteRequest, UnacceptableToken
from policyd.mesh.model import Listener
from policyd.names import METADATA_TOKEN_FAILED, METADATA_TOKENS

# what Envoy calls a failure at a listener of one rule: that there is no token (google::jwt_verify::Status)
_MISSING: Final[Mapping[str, Any]] = {"code": 1}


def identified(query: Query, check: Any) -> Query:
    """The query with its user, if its listener takes tokens and there was one; raises UnacceptableToken."""
    issuers = query.listener.issuers
    found = check.attributes.metadata_context.filter_metadata.get(METADATA_TOKENS) if issuers else None
    if found is None:
        return query
    written = MessageToDict(found)
    failed = written.pop(METADATA_TOKEN_FAILED, _MISSING)
    if failed.get("code") != _MISSING["code"]:
        raise UnacceptableToken("of several tokens one does not hold")
    users = [_user(payload, issuers) for payload in written.values()]
    if not users:
        return query
    if len(users) > 1:
        raise UnacceptableToken("a request is of one user, and this one has tokens of several issuers")
    return query._replace(facts=query.facts._replace(user=users[0]))


def said_user(said: str, listener: Listener) -> EndUser | None:
    """The user of a request that was decided in its proxy, with the claims that policies read.

    `said` is what our own filter said there (policyd.local.users), as JSON; raises IncompleteRequest.
    """
    if not said or not listener.issuers:
        return None
    try:
        user = json.loads(said, parse_constant=_no_number)
        claims = claims_of(user["claims"])
        return _user({"iss": user["issuer"], "sub": user["subject"]}, listener.issuers)._replace(claims=claims)
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError, UnacceptableToken):
        raise IncompleteRequest("this tells of no user that the listener believes") from None


def _no_number(text: str) -> float:
    raise ValueError(f"`{text}` is no number")


def _user(payload: Any, issuers: Mapping[str, frozenset[str]]) -> EndUser:
    issuer = payload.get("iss") if isinstance(payload, dict) else None
    if not isinstance(issuer, str) or issuer not in issuers:
        raise UnacceptableToken("the listener believes no such issuer")
    subject = payload.get("sub")
    if not isinstance(subject, str) or not 0 < len(subject) <= MAX_TEXT:
        raise UnacceptableToken("the token names no user (`sub`)")
    return EndUser(issuer, subject, claims_of(payload, issuers[issuer]))
