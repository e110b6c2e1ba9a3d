"""What a condition saw: the values of a request that an expression reads, in words.

Law: values are looked up, not computed; what is computed of them is Cedar's to say.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from cedarpy import pst

from policyd.audit.match import short_name
from policyd.cedar.model import Entity, Request, Uid
from policyd.cedar.syntax_tree import chain_of, chain_read, nodes_of

MAX_VALUE: Final = 200  # characters shown of one
ABSENT: Final = "absent"


@dataclass(frozen=True, slots=True)
class Seen:
    """One value: `name` as policies write it, `value` for people."""

    name: str
    value: str

    def __str__(self) -> str:
        """In one piece."""
        return f"{self.name} is {self.value}"


def values_seen(expr: pst.Expr, request: Request) -> tuple[Seen, ...]:
    """Every value of the request that an expression reads, in the order in which it does."""
    entities = {one.uid: one for one in request.entities}
    found: dict[str, str] = {}
    for node in reversed(list(nodes_of(expr))):
        chain = chain_read(node)
        if isinstance(node, pst.BinaryOp) and node.op in ("get_tag", "has_tag"):
            base = chain_of(node.left)
            if base is not None and isinstance(node.right, pst.StringLit):
                bearer = _look_up(base, request, entities)
                tags = bearer.tags if isinstance(bearer, Entity) else {}
                found[f"{'.'.join(base)}[{json.dumps(node.right.value)}]"] = _shown(tags.get(node.right.value))
        elif chain is not None:
            value = _look_up(chain, request, entities)
            if not isinstance(value, Entity) or len(chain) == 1 or value.uid.type not in ("Headers", "Labels"):
                found[".".join(chain)] = _shown(value)
    return tuple(Seen(name, value) for name, value in found.items())


def _look_up(chain: tuple[str, ...], request: Request, entities: Mapping[Uid, Entity]) -> Any:
    """The value of `principal.namespace` and the like; None where there is none."""
    named = {"principal": request.principal, "action": request.action, "resource": request.resource}
    value: Any = request.context if chain[0] == "context" else _entity(named[chain[0]], entities)
    for name in chain[1:]:
        holder = value.attrs if isinstance(value, Entity) else value
        value = holder.get(name) if isinstance(holder, Mapping) else None
        if isinstance(value, Mapping) and (reference := value.get("__entity")) is not None:
            value = _entity(Uid(reference["type"], reference["id"]), entities)
    return value


def _entity(uid: Uid, entities: Mapping[Uid, Entity]) -> Entity:
    return entities.get(uid) or Entity(uid)


def _shown(value: Any) -> str:
    if value is None:
        return ABSENT
    if isinstance(value, Entity):
        groups = [str(parent) for parent in value.parents if parent.type == "Group"]
        return short_name(str(value.uid)) + (f" (in {', '.join(groups)})" if groups else "")
    if isinstance(value, Mapping) and (extension := value.get("__extn")) is not None:
        return str(extension["arg"])
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= MAX_VALUE else f"{text[: MAX_VALUE - 1]}…"
