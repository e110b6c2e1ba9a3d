"""What has to be known before any request comes: a name, a text, an entity, a set, and which headers requests bring.

Law: whatever is only the request's is NotCompilable here, never guessed.
"""

from __future__ import annotations

import re
from typing import Final

from policyd.cedar.model import Uid
from policyd.cedar.reads import WITHHELD_HEADERS
from policyd.errors import NotCompilable
from policyd.local.values import Claim, Items, Value

_HEADER: Final = re.compile(r"[!#$%&'*+.^_`|~0-9a-z-]+")
# Envoy keeps these elsewhere than other headers, or does not show them to policyd
_OWN_HEADERS: Final = frozenset({"host", "x-envoy-auth-partial-body", *WITHHELD_HEADERS})


def is_sent(name: str) -> bool:
    """Whether a request may bring a header of this name to policyd, which Envoy then has by the same name."""
    return _HEADER.fullmatch(name) is not None and name not in _OWN_HEADERS


def header_of(name: str) -> str:
    """The name of a header that requests may bring."""
    if not is_sent(name):
        raise NotCompilable(f"the header `{name}`")
    return name


def name_of(value: Value) -> str:
    """A value that is a name, as of a tag."""
    if not isinstance(value, str):
        raise NotCompilable("a name that is computed")
    return value


def text_of(value: Value) -> str:
    """A value that is a text, with which a claim is compared."""
    if not isinstance(value, str):
        raise NotCompilable("a claim compared with what is not known beforehand")
    return value


def entity_of(value: Value) -> Uid:
    """A value that is an entity."""
    if not isinstance(value, Uid):
        raise NotCompilable("an entity that is computed")
    return value


def items_of(value: Value) -> Items:
    """A value that is a set."""
    if isinstance(value, Claim):
        raise NotCompilable("a claim compared as a whole")
    if not isinstance(value, Items):
        raise NotCompilable("a set that is computed")
    return value
