"""Walks over Cedar's typed syntax tree.

Law: a chain, `context.a.b` or `context has a.b`, is one node: what is read there is `b`, not the whole of
`a`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any

from cedarpy import pst

from policyd.cedar.model import Uid


def uid_of(uid: pst.EntityUid) -> Uid:
    """Our own value for the id of an entity."""
    return Uid(str(uid.type), uid.id)


def nodes_of(root: object) -> Iterator[Any]:
    """Every node under `root`, itself first; a stack of our own, so depth costs no recursion."""
    stack: list[Any] = [root]
    while stack:
        node = stack.pop()
        kind: Any = type(node)
        if isinstance(node, dict):  # what pst makes its mappings of
            stack.extend(node.values())
        elif isinstance(node, tuple):
            stack.extend(node)
        elif (names := _fields(kind)) is not None:
            yield node
            if chain_read(node) is None:
                stack.extend([getattr(node, name) for name in names])


@cache
def _fields(kind: type) -> tuple[str, ...] | None:
    """The names of the fields of a kind of node; None of what is no node."""
    return tuple(one.name for one in fields(kind)) if is_dataclass(kind) else None


def chain_of(node: object) -> tuple[str, ...] | None:
    """`context.request.path` as its names, the variable first; None for anything but attributes of a
    variable.
    """
    names: list[str] = []
    while isinstance(node, pst.GetAttr):
        names.append(node.attr)
        node = node.base
    return (node.name, *reversed(names)) if isinstance(node, pst.Var) else None


def chain_read(node: object) -> tuple[str, ...] | None:
    """As `chain_of`, and for a `has` on a chain with the attributes that it asks for."""
    if isinstance(node, pst.HasAttr):
        base = chain_of(node.base)
        return None if base is None else (*base, *node.attrs)
    return chain_of(node)


def attributes_read(node: object) -> tuple[str, ...]:
    """The names of attributes that a node, by itself, asks for."""
    chain = chain_read(node)
    if chain is not None:
        return chain[1:]
    if isinstance(node, pst.GetAttr):
        return (node.attr,)
    return node.attrs if isinstance(node, pst.HasAttr) else ()


def ancestors_computed(node: object) -> bool:
    """Whether an `in` asks for an ancestor that the policy does not name."""
    right = node.right if isinstance(node, pst.BinaryOp) and node.op == "in" else None
    if isinstance(node, pst.Is):
        right = node.in_expr
    if right is None or isinstance(right, pst.EntityLit):
        return False
    return not (isinstance(right, pst.Set) and all(isinstance(one, pst.EntityLit) for one in right.elements))


def compared_entities(node: object) -> Iterator[Uid]:
    """The entities that a node names only to compare with: their ids decide, nothing is asked of them."""
    if not isinstance(node, pst.BinaryOp):
        return
    sides = {"eq": (node.left, node.right), "not_eq": (node.left, node.right), "in": (node.right,)}
    for side in sides.get(node.op, ()):
        for one in side.elements if isinstance(side, pst.Set) else (side,):
            if isinstance(one, pst.EntityLit):
                yield uid_of(one.value)
    if node.op == "contains" and isinstance(node.left, pst.Set):
        yield from (uid_of(one.value) for one in node.left.elements if isinstance(one, pst.EntityLit))
