"""A folder's checks file: the requests that `up --check` sends, and what they should give.

Law: parsed only; what the names mean is the mesh's business, and sending is the command's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import AfterValidator, Field

from policyd.errors import InvalidInput, Problem
from policyd.mesh.matching import check_ip
from policyd.policy.request_form import Form, parse_form
from policyd.strict import Model, parse
from policyd.yaml import Document, load_one

MAX_CHECKS = 1_000


@dataclass(frozen=True, slots=True)
class Check:
    """One request to send: `expect` is the HTTP status, `body` a text that the answer has to contain ("": any).

    `client` is the address of who asks a gateway that believes what stands before it ("": our own).
    """

    name: str
    form: Form
    expect: int
    body: str = ""
    line: int = 0
    client: str = ""


class _CheckSpec(Model):
    name: Annotated[str, Field(min_length=1, max_length=200)]
    request: str
    expect: Annotated[int, Field(ge=100, le=599)]
    body: str = ""
    client: Annotated[str, AfterValidator(check_ip)] | None = None


def parse_checks(text: str, file: str) -> tuple[Check, ...]:
    """Parse a checks file, a list; an empty file has none. Raises InvalidInput with every problem."""
    document = load_one(text, file)
    problems: list[Problem] = []
    checks: list[Check] = []
    for item in items_of(document, MAX_CHECKS):
        spec = parse(_CheckSpec, item, problems)
        form = form_of(spec.request, item, problems) if spec else None
        if spec and form:
            checks.append(Check(spec.name, form, spec.expect, spec.body, item.place.line, spec.client or ""))
    if problems:
        raise InvalidInput(problems)
    return tuple(checks)


def items_of(document: Document, limit: int) -> list[Document]:
    """The entries of a file that is one list, each as a document of its own; raises InvalidInput."""
    if document.value == {}:
        return []
    if not isinstance(document.value, list):
        raise InvalidInput([document.problem("field", "the file must be a list", remedy="start each entry with `- `")])
    if len(document.value) > limit:
        raise InvalidInput([document.problem("size", f"the file has over {limit} entries", remedy="split it")])
    return [Document(document.file, value, document.find([at])) for at, value in enumerate(document.value)]


def form_of(text: str, item: Document, problems: list[Problem]) -> Form | None:
    """The request of an entry; what is wrong with it is added, at its place."""
    try:
        return parse_form(text)
    except InvalidInput as error:
        problems += [item.problem(one.code, one.message, ["request"], one.remedy) for one in error.problems]
    return None
