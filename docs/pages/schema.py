"""schema.md: what traffic policies may name, read from the text of policies/mesh.cedarschema, comments included."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from docs.pages.tables import code, codes, table

_ENTITY: Final = re.compile(
    r"entity (?P<name>\w+)(?: enum \[(?P<values>[^]]*)\])?(?: in \[(?P<parents>[^]]*)\])?"
    r"(?: =? ?\{(?P<fields>.*)\})?(?: tags (?P<tags>[^;]+))?;"
)
_TYPE: Final = re.compile(r"type (?P<name>\w+) = \{(?P<fields>.*)\};")
_ACTION: Final = re.compile(
    r"action (?P<names>[\w, ]+?)(?: in \[(?P<parents>[^]]*)\])?(?: appliesTo \{ principal: \[(?P<principals>[^]]*)\], "
    r"resource: \[(?P<resources>[^]]*)\], context: (?P<context>\w+) \})?;"
)
_FIELD: Final = re.compile(r"(\w+)(\?)?: (\w+(?:<\w+>)?)")


@dataclass(frozen=True, slots=True)
class Declaration:
    """One declaration on one line, the comment over it or beside it, and the comments of its fields."""

    text: str
    comment: str
    notes: dict[str, str]


def schema(text: str) -> Iterator[str]:
    """Give the tables of a schema's text; raises ValueError for a declaration that no table shows."""
    found = list(_declarations(text))
    entities = [(m, d) for d in found if (m := _ENTITY.fullmatch(d.text))]
    kinds = [(m, d) for d in found if (m := _TYPE.fullmatch(d.text))]
    actions = [(m, d) for d in found if (m := _ACTION.fullmatch(d.text))]
    if len(entities) + len(kinds) + len(actions) != len(found):
        raise ValueError("a declaration of the schema has a form that docs/pages/schema.py does not know")
    yield from ("# What policies may name", "", "Every traffic policy is validated strictly against this schema,")
    yield from ("`policies/mesh.cedarschema`; a policy that names anything else is refused.", "", "## Entity types", "")
    yield from table(("type", "what it is", "member of", "tags"), (_entity(m, d) for m, d in entities))
    for match, declaration in entities:
        if match["fields"]:
            yield from _attributes(f"Attributes of {match['name']}", match["fields"], declaration)
    yield from ("## Actions", "")
    head = ("action", "in", "principal", "resource", "context")
    yield from table(head, (_action(m) for m, _ in actions))
    yield from (f"- {codes(_names(m))}: {d.comment}" for m, d in actions if d.comment)
    yield from ("", "## The context", "")
    for match, declaration in kinds:
        yield from _attributes(match["name"], match["fields"], declaration)


def _entity(match: re.Match[str], declaration: Declaration) -> tuple[str, str, str, str]:
    values = f"; only {codes(_split(match['values']))}" if match["values"] else ""
    tags = ": ".join(part for part in (code(match["tags"] or ""), declaration.notes.get("tags", "")) if part)
    return code(match["name"]), declaration.comment + values, codes(_split(match["parents"])), tags


def _action(match: re.Match[str]) -> tuple[str, ...]:
    columns = (_split(match[name]) for name in ("parents", "principals", "resources"))
    return codes(_names(match)), *(codes(column) for column in columns), code(match["context"] or "")


def _names(match: re.Match[str]) -> list[str]:
    return _split(match["names"])


def _attributes(heading: str, fields: str, declaration: Declaration) -> Iterator[str]:
    yield from (f"### {heading}", "")
    rows = _FIELD.findall(fields)
    yield from table(
        ("attribute", "type", "always there", "what it is"),
        ((code(n), code(t), "no" if optional else "yes", declaration.notes.get(n, "")) for n, optional, t in rows),
    )


def _split(names: str | None) -> list[str]:
    return [name.strip().strip('"') for name in (names or "").split(",") if name.strip()]


def _declarations(text: str) -> Iterator[Declaration]:
    """Join each declaration's lines and find its comments: over it, beside it, or indented below it."""
    groups: list[list[str]] = []
    open_ended = False
    for line in text.splitlines():
        below = line.startswith("//   ") and bool(groups)
        if below or open_ended:
            groups[-1].append(line)
        else:
            groups.append([line])
        if not below:
            statement = line.partition("//")[0].strip()
            open_ended = bool(statement) and not statement.endswith(";")
    above: list[str] = []
    for lines in groups:
        statement = " ".join(line.partition("//")[0].strip() for line in lines).strip()
        if statement:
            yield _declaration(re.sub(r",? ?\}", " }", re.sub(r"\s+", " ", statement)), lines, " ".join(above))
        comment = lines[0].removeprefix("//").strip()
        above = [] if statement or not comment or comment.startswith("--") else [*above, comment]


def _declaration(statement: str, lines: list[str], above: str) -> Declaration:
    """Share out the comments beside and below a declaration: `name: text` belongs to that field, others to all."""
    notes: dict[str, str] = {}
    own: list[str] = []
    below = " ".join(line.removeprefix("//").strip() for line in lines if line.startswith("//"))
    for line in [*(line for line in lines if not line.startswith("//")), f"// {below}"]:
        code_part, _, comment = (part.strip() for part in line.partition("//"))
        told = re.split(r"(?:^|[.;] )(\w+): ", comment)
        fields = [name for name, _, _ in _FIELD.findall(code_part)] or ["tags"] * (" tags " in f" {code_part}")
        if told[0] and fields:
            notes |= dict.fromkeys(fields, told[0])
        elif told[0]:
            own.append(told[0])
        notes |= dict(zip(told[1::2], told[2::2], strict=True))
    return Declaration(statement, above or " ".join(own), notes)
