"""Where in a policy's text the validator's answer points, and what its author probably meant.

Law: a place is that of a word that the answer names, or none; a remedy names only what the schema has.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from policyd.cedar.lexer import Token, tokens_of
from policyd.cedar.schema import Schema

_DECLARED = re.compile(r"^(type|entity) (\w+)\b([^{;]*)(?:\{([^}]*)\})?", re.MULTILINE)  # as Cedar renders a schema
_FIELD = re.compile(r"(\w+)(\?)?: ([\w<>]+)")
_CONTEXT = re.compile(r"context: (\w+)")
_MISSING = re.compile(r"attribute `([^`]+)`(?: on entity type `(\w+)`)? not found")
_OPTIONAL = re.compile(r"optional attribute `([^`]+)`(?: on entity type `(\w+)`)?")
_TAG = re.compile(r"access to tag `(\"(?:[^\"\\]|\\.)*\")`")
_TYPE = re.compile(r"unrecognized entity type `(\w+)`")
_ACTION = re.compile(r"unrecognized action `Action::\"((?:[^\"\\]|\\.)*)\"`")
_INTERNAL = re.compile(r"__cedar::internal::(\w+)")
_KINDS = {"AnyEntity": "an entity", "Any": "anything"}
_APPLIES = re.compile(r"(principal|resource): \[([^]]*)\]")
_QUOTED = re.compile(r"`(\"(?:[^\"\\]|\\.)*\")`")


@dataclass(frozen=True, slots=True)
class Hint:
    """The offset of the word in the policy's text, None where it is not known, and what to do ("": no idea)."""

    offset: int | None = None
    remedy: str = ""


def hint(text: str, message: str, schema: Schema) -> Hint:
    """Look for what the validator's message names."""
    tokens = list(tokens_of(text))
    if found := _MISSING.search(message):
        return Hint(_attribute(tokens, found[1], found[2]), _instead(found[1], found[2] or "", schema))
    if found := _OPTIONAL.search(message):
        name = found[1].rpartition(".")[2]
        owner = "principal" if found[2] else "context"
        return Hint(_attribute(tokens, found[1], found[2]), f"ask for it first: `{owner} has {name} && …`")
    if found := _TAG.search(message):
        return Hint(_word(tokens, found[1], after="("), f"ask for it first: `….hasTag({found[1]}) && …`")
    if found := _TYPE.search(message):
        near = _near(found[1], _declared(schema.rendered).types)
        return Hint(_word(tokens, found[1]), near or "the schema lists the types that policies may name")
    if found := _ACTION.search(message):
        return Hint(_word(tokens, f'"{found[1]}"', after="::"), _other_action(found[1], schema))
    if found := _QUOTED.search(message):
        return Hint(_word(tokens, found[1]))
    return Hint(remedy=_of_types(message, schema))


def plain(message: str) -> str:
    """A message without the names that Cedar has for itself."""
    return _INTERNAL.sub(lambda found: _KINDS.get(found[1], found[1]), message)


def _of_types(message: str, schema: Schema) -> str:
    """What to do about types that do not go together."""
    if "unable to find an applicable action" in message:
        applied = _declared(schema.rendered)
        return f"who asks is {_listed(applied.principals)}, what is asked for is {_listed(applied.resources)}"
    if "AnyEntity" in message and "String" in message:
        return 'of several texts write `["a", "b"].contains(…)`; `in` is for entities'
    if "expected Long but saw String" in message:
        return "numbers stand without quotes"
    return ""


def _attribute(tokens: Sequence[Token], path: str, owner: str | None) -> int | None:
    """Where the last name of `a.b` stands: behind `a` if that is somewhere, else anywhere; without an owner it is the
    context's.
    """
    *above, name = path.split(".") if owner else f"context.{path}".split(".")
    found = [at for at, token in enumerate(tokens) if at and token.text in (name, f'"{name}"') and _reads(tokens, at)]
    below = [at for at in found if not above or (at > 1 and tokens[at - 2].text.strip('"') == above[-1])]
    chosen = below or found
    return tokens[chosen[0]].start if chosen else None


def _reads(tokens: Sequence[Token], at: int) -> bool:
    return tokens[at - 1].text in (".", "[", "has")


def _word(tokens: Sequence[Token], text: str, after: str = "") -> int | None:
    """Where a word stands that has `after` before it."""
    for at, token in enumerate(tokens):
        if token.text == text and (not after or (at and tokens[at - 1].text == after)):
            return token.start
    return None


def _instead(path: str, owner: str, schema: Schema) -> str:
    """What to write instead of an attribute that is none."""
    declared = _declared(schema.rendered)
    name = path.rpartition(".")[2]
    if owner in declared.tagged and not declared.fields.get(owner):
        return f'they are tags: `hasTag("{name}") && ….getTag("{name}") == "…"`'
    if owner:
        known = declared.fields.get(owner, ())
        tags = f'a label or claim is a tag: `hasTag("{name}")`' if owner in declared.tagged else ""
        near = _near(name, known)
        there = f"there is {_listed(known)};" if known else ""
        return " ".join(filter(None, (near or there, tags))).removesuffix(";")
    ends: dict[str, list[str]] = {}
    for one in declared.paths:
        ends.setdefault(one.rpartition(".")[2], []).append(one)
    close = [name] if name in ends else difflib.get_close_matches(name, ends, 1, 0.75)
    return f"did you mean `context.{ends[close[0]][0]}`?" if close else ""


def _other_action(name: str, schema: Schema) -> str:
    known = [uid.id for uid in schema.actions]
    alike = next((one for one in known if one.lower() == name.lower()), None)
    close = [alike] if alike else difflib.get_close_matches(name, known, 1, 0.75)
    meant = f'did you mean `Action::"{close[0]}"`? ' if close else ""
    return f'{meant}the schema lists the actions; any other method is `Action::"other"`'


def _near(name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, known, 1)
    return f"did you mean `{close[0]}`?" if close else ""


def _listed(known: Sequence[str]) -> str:
    return " or ".join(f"`{one}`" for one in known)


@dataclass(frozen=True, slots=True)
class _Declared:
    """What a schema declares: entity types, which of them have tags, attributes by type, all paths of contexts, and
    the types that its actions apply to.
    """

    types: tuple[str, ...]
    tagged: frozenset[str]
    fields: Mapping[str, tuple[str, ...]]
    paths: tuple[str, ...]
    principals: tuple[str, ...]
    resources: tuple[str, ...]


@lru_cache(maxsize=8)
def _declared(rendered: str) -> _Declared:
    types, tagged, fields = [], set(), {}
    for match in _DECLARED.finditer(rendered):
        kind, name, _, body = match.groups()
        fields[name] = {field[1]: field[3] for field in _FIELD.finditer(body or "")}
        if kind == "entity":
            types.append(name)
            if re.match(r"[^;]*\btags\b", rendered[match.start() :]):
                tagged.add(name)
    contexts = dict.fromkeys(_CONTEXT.findall(rendered))
    paths = dict.fromkeys(path for name in contexts for path in _paths(fields, types, name, ""))
    applied: dict[str, dict[str, None]] = {"principal": {}, "resource": {}}
    for match in _APPLIES.finditer(rendered):
        applied[match[1]] |= dict.fromkeys(match[2].split(", "))
    return _Declared(
        types=tuple(types),
        tagged=frozenset(tagged),
        fields={name: tuple(one) for name, one in fields.items()},
        paths=tuple(paths),
        principals=tuple(applied["principal"]),
        resources=tuple(applied["resource"]),
    )


def _paths(fields: Mapping[str, Mapping[str, str]], types: Sequence[str], name: str, above: str) -> Iterator[str]:
    """Every path below a record; entities are its leaves, and Cedar has refused types in themselves."""
    for field, type_ in fields.get(name, {}).items():
        yield f"{above}{field}"
        if type_ in fields and type_ not in types:
            yield from _paths(fields, types, type_, f"{above}{field}.")
