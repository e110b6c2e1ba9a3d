"""Cases in the contract's YAML form: a list of requests, and of tables.

    - {name: the page shows reviews, request: productpage GET http://reviews/reviews/0, expect: allow, by: a-policy}
    - table: {who: [productpage, anonymous], may: [GET, POST], url: http://ratings/ratings/0}
      allow: [productpage GET]      # every other combination is expected to be denied

An entry may also have `headers` (a mapping), `time` (RFC 3339), and `user` (`<issuer>/<subject>`) with `claims` (a
mapping, as in a token) for policies that read them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Final

from pydantic import AfterValidator, Field

from policyd.errors import InvalidInput, Problem
from policyd.mesh.model import Mesh
from policyd.policy.case_model import MAX_CASES, Case, Expected
from policyd.policy.checks import items_of
from policyd.policy.end_user import Shown
from policyd.policy.request_form import parse_form
from policyd.policy.resolving import resolve_form
from policyd.strict import Many, Model, parse
from policyd.yaml import Document, load_one

MAX_ENTRIES: Final = 5_000
DEFAULT_TIME: Final = datetime(2000, 1, 1, tzinfo=UTC)  # when a case without `time` happens: always the same

_Text = Annotated[str, Field(min_length=1, max_length=200)]


def _check_time(text: str) -> str:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise ValueError(f"`{text[:80]}` is no time; write it as in `2026-12-24T00:00:00Z`")
    return text


class _Circumstances(Model):
    headers: Mapping[str, str] = {}
    time: Annotated[str, AfterValidator(_check_time)] | None = None
    user: Annotated[str, Field(min_length=1, max_length=2048)] | None = None
    claims: Mapping[str, Any] = {}


class _CaseSpec(_Circumstances):
    name: _Text
    request: str
    expect: Expected
    by: _Text | Many[_Text] = ()


class _Table(Model):
    who: Annotated[Many[_Text], Field(min_length=1, max_length=100)]
    may: Annotated[Many[_Text], Field(min_length=1, max_length=20)]
    url: str


class _TableSpec(_Circumstances):
    name: str = ""
    table: _Table
    allow: Many[_Text] = ()


def parse_yaml_cases(text: str, file: str, mesh: Mesh) -> list[Case]:
    """Parse one file; raises InvalidInput with every problem."""
    problems: list[Problem] = []
    cases: list[Case] = []
    for item in items_of(load_one(text, file), MAX_ENTRIES):
        if len(cases) > MAX_CASES:  # few lines can make millions
            problems.append(item.problem("size", f"the file has over {MAX_CASES:,} cases", remedy="split it"))
            break
        is_table = isinstance(item.value, dict) and "table" in item.value
        cases += _table(item, mesh, problems) if is_table else _single(item, mesh, problems)
    if problems:
        raise InvalidInput(problems)
    return cases


def _single(item: Document, mesh: Mesh, problems: list[Problem]) -> Iterator[Case]:
    spec = parse(_CaseSpec, item, problems)
    if spec is not None:
        by = (spec.by,) if isinstance(spec.by, str) else tuple(spec.by)
        yield from _case(spec.name, spec.request, spec.expect, by, spec, item, mesh, problems)


def _table(item: Document, mesh: Mesh, problems: list[Problem]) -> Iterator[Case]:
    spec = parse(_TableSpec, item, problems)
    if spec is None:
        return
    pairs = [f"{who} {method}" for who in spec.table.who for method in spec.table.may]
    for pair in spec.allow:
        if pair not in pairs:
            remedy = "write one of `who`, a space and one of `may`"
            problems.append(item.problem("case", f"`{pair}` is no combination of the table", ["allow"], remedy))
    for pair in pairs:
        expect: Expected = "allow" if pair in spec.allow else "deny"
        name = f"{spec.name}: {pair}" if spec.name else f"{pair} {spec.table.url}"
        yield from _case(name, f"{pair} {spec.table.url}", expect, (), spec, item, mesh, problems)


def _case(
    name: str,
    request: str,
    expect: Expected,
    by: tuple[str, ...],
    when: _Circumstances,
    item: Document,
    mesh: Mesh,
    problems: list[Problem],
) -> Iterator[Case]:
    """The case, or nothing: then what is wrong with its request is added to the problems."""
    headers = {header.lower(): value for header, value in when.headers.items()}
    time = datetime.fromisoformat(when.time) if when.time else DEFAULT_TIME
    if when.claims and when.user is None:
        problems.append(item.problem("case", "`claims` are of a `user`, who is missing", ["claims"], "add `user`"))
        return
    user = Shown(when.user, when.claims) if when.user is not None else None
    try:
        facts = resolve_form(parse_form(request), mesh, time, headers, user)
    except InvalidInput as error:
        field = "table" if "table" in item.value else "request"
        places = {"user": ["user"]}
        problems += [
            item.problem(one.code, one.message, places.get(one.code, [field]), one.remedy) for one in error.problems
        ]
        return
    yield Case(name, request, facts, expect, by, 0, item.file, item.place.line)
