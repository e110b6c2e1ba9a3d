"""Where in a policy's text the validator's answer points, and what its author probably meant.

Law: a place is that of a word that the answer names, or of the only literal that it can mean, or none; a remedy names
only what the schema has.
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
_INDEX = re.compile(r"\[\"((?:[^\"\\]|\\.)*)\"\]")
_MIXED = re.compile(r"the types (\S+) and (\S+) are not compatible|expected (\S+) but saw (\S+)")
_EQUAL = frozenset({"==", "!="})  # of which Cedar says "are not compatible"
_ORDER = frozenset({"<", "<=", ">", ">="})  # of which it says what it expected, as of the arguments of methods
_UNORDERED = "texts have no order: compare them with `==` or `like`"
_AS_TEXT: Mapping[str, str] = {  # what to write instead of a mere text
    "Long": "numbers stand without quotes",
    "ipaddr": 'write `ip("…")`; of a range ask `.isInRange(ip("…"))`',
    "datetime": 'write it as in `datetime("2026-12-24T08:00:00Z")`',
    "duration": 'write it as in `duration("1h30m")`',
    "Set<String>": 'it is a set of texts: ask `.contains("…")`',
    "Set<__cedar::internal::Any>": 'only sets contain; of a text ask `like "*…*"`',
    "Bool": "a condition is true or false: compare it with something",
}
_TRUTH = frozenset({"Bool", "__cedar::internal::True", "__cedar::internal::False"})
_FORM = re.compile(r"failed to parse as (?:a )?(IP address|\w+)")
_FORMS: Mapping[str, str] = {
    "IP address": 'write an address or a range, as in `ip("10.0.0.0/8")`',
    "datetime": 'write a day or a time, as in `datetime("2026-12-24")` or `datetime("2026-12-24T08:00:00Z")`',
    "duration": 'write it as in `duration("1h30m")`',
    "decimal": 'write it as in `decimal("1.5")`',
}


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
        form = _FORM.search(message)
        return Hint(_word(tokens, found[1]), _FORMS.get(form[1], "") if form else "")
    if remedy := _of_types(message, schema):
        return Hint(remedy=remedy)
    return _of_literals(tokens, message, schema) or Hint()


def _of_literals(tokens: Sequence[Token], message: str, schema: Schema) -> Hint | None:
    """What to do about a literal of another type than what it stands beside."""
    found = _MIXED.search(message)
    if found is None:
        return None
    one, other = found[1] or found[3], found[2] or found[4]
    if "String" not in (one, other):
        return None
    kind = other if one == "String" else one
    declared = _declared(schema.rendered)
    equal = found[1] is not None
    beside = _EQUAL if equal else _ORDER
    text, number = (
        _literal(tokens, quoted, beside, want, declared) for quoted, want in ((True, kind), (False, "String"))
    )
    if kind == "Long":
        return _of_numbers(text, number, equal=equal, wants_text=found[3] == "String")
    if equal and kind in _TRUTH:
        return Hint(text, "`true` and `false` stand without quotes") if text is not None else None
    remedy = f'write the type too, as in `{kind}::"…"`' if kind in declared.types else _AS_TEXT.get(kind, "")
    return Hint(text, remedy)


def _of_numbers(text: int | None, number: int | None, *, equal: bool, wants_text: bool) -> Hint:
    """What to do where a text and a number meet; which of both is the wrong one, only a literal says."""
    if wants_text:
        return Hint(remedy="texts stand in double quotes")
    if text is not None:
        return Hint(text, "numbers stand without quotes")
    if number is not None:
        return Hint(number, "texts stand in double quotes" if equal else _UNORDERED)
    return Hint(remedy="numbers stand without quotes, texts in double quotes")


def _literal(
    tokens: Sequence[Token], quoted: bool, operators: frozenset[str], want: str, declared: _Declared
) -> int | None:
    """Where the only text or number beside one of the operators stands that can be wrong, as what is compared with it
    may be of type `want`; of several, the one beside an attribute that is.
    """
    own = "String" if quoted else "Long"
    found: list[tuple[int, frozenset[str]]] = []
    for at in range(1, len(tokens) - 1):
        is_literal = tokens[at].text.startswith('"') if quoted else tokens[at].text.isdigit()
        if is_literal and {tokens[at - 1].text, tokens[at + 1].text} & operators:
            kinds = declared.kinds.get(tokens[at - 2].text, frozenset()) if tokens[at - 1].text in operators else ()
            if set(kinds) != {own}:
                found.append((at, frozenset(kinds)))
    chosen = [at for at, kinds in found if want in kinds] or [at for at, _ in found]
    return tokens[chosen[0]].start if len(chosen) == 1 else None


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
    if "expected datetime, or duration, or Long but saw String" in message:
        return _UNORDERED
    return ""


def _attribute(tokens: Sequence[Token], path: str, owner: str | None) -> int | None:
    """Where the last name of `a.b` stands: behind `a` if that is somewhere, else anywhere; without an owner it is the
    context's.
    """
    *above, name = path.split(".") if owner else f"context.{path}".split(".")
    name = index[1] if (index := _INDEX.fullmatch(name)) else name
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
    name = index[1] if (index := _INDEX.fullmatch(name)) else name
    if owner in declared.tagged and not declared.fields.get(owner):
        return f'they are tags: `hasTag("{name}") && ….getTag("{name}") == "…"`'
    if owner:
        known = declared.fields.get(owner, ())
        if kinds := _bearers(name, owner, declared):
            return kinds
        tags = f'a label or claim is a tag: `hasTag("{name}")`' if owner in declared.tagged else ""
        near = _near(name, known)
        there = f"there is {_listed(known)};" if known else ""
        return " ".join(filter(None, (near or there, tags))).removesuffix(";")
    ends: dict[str, list[str]] = {}
    for one in declared.paths:
        ends.setdefault(one.rpartition(".")[2], []).append(one)
    close = [name] if name in ends else difflib.get_close_matches(name, ends, 1, 0.75)
    return f"did you mean `context.{ends[close[0]][0]}`?" if close else ""


def _bearers(name: str, owner: str, declared: _Declared) -> str:
    """What to ask where `owner` has no such attribute, and others that may stand in its place have."""
    for variable, kinds in (("principal", declared.principals), ("resource", declared.resources)):
        others = [kind for kind in kinds if name in declared.fields.get(kind, ())]
        if owner in kinds and others:
            return f"ask for a kind that has it first: `{variable} is {others[0]} && …`"
    return ""


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
    """What a schema declares: entity types, which of them have tags, attributes by type, the types that attributes of a
    name have (`kinds`), all paths of contexts, and the types that its actions apply to.
    """

    types: tuple[str, ...]
    tagged: frozenset[str]
    fields: Mapping[str, tuple[str, ...]]
    kinds: Mapping[str, frozenset[str]]
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
        kinds={
            name: frozenset(one[name] for one in fields.values() if name in one)
            for name in {name for one in fields.values() for name in one}
        },
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
