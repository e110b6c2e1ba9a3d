"""Declared documents become frozen, strict models, or Problems that name file, line and field.

Law: a field that a model does not have is refused by name, never ignored; nothing is converted silently.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Final, TypeVar, get_args

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, Strict, ValidationError
from pydantic.alias_generators import to_camel

from policyd.errors import Problem
from policyd.yaml import MAX_PROBLEMS, Document

T = TypeVar("T")
M = TypeVar("M", bound="Model")

MAX_SECONDS: Final = 10 * 365 * 86_400.0
UNIT_SECONDS: Final[Mapping[str, float]] = {
    "d": 86_400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9
}  # fmt: skip
UNIT_BITS: Final[Mapping[str, int]] = {"KiB": 10, "MiB": 20, "GiB": 30, "TiB": 40}
_SIZE = re.compile(r"([0-9]{1,6})([KMGT]iB)")
_DURATION = re.compile(r"(?:[0-9]{1,10}(?:\.[0-9]{1,9})?(?:ms|us|ns|[dhms]))+")
_DURATION_PART = re.compile(r"([0-9.]+)([a-z]+)")
_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")


NOTHING: Final[Mapping[str, Any]] = {}  # the default of mappings
REMOVE_IT: Final = "remove it, so that nothing is thought to hold that does not"


class Model(BaseModel):
    """A declared thing: frozen, every unknown field refused, camelCase in files, no silent conversion."""

    model_config = ConfigDict(
        strict=True,
        frozen=True,
        extra="forbid",
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
        allow_inf_nan=False,
        hide_input_in_errors=True,
        defer_build=True,  # most kinds are in few folders, and making ready to read one takes milliseconds
    )


def parse_duration(value: Any) -> float:
    """Turn `1m30s`, `0.5s`, `7d` or a number of seconds made by code into seconds; raises ValueError."""
    if isinstance(value, float):
        return value
    if not isinstance(value, str) or not _DURATION.fullmatch(value):
        raise ValueError(f"`{str(value)[:80]}` is no duration; write it as in `10s`, `0.5s` or `1m30s`")
    seconds = sum(float(number) * UNIT_SECONDS[unit] for number, unit in _DURATION_PART.findall(value))
    if seconds > MAX_SECONDS:
        raise ValueError(f"`{value[:80]}` is longer than ten years")
    return round(seconds, 9)


def parse_size(value: Any) -> int:
    """Turn `512MiB`, `10GiB` or a number of bytes made by code into bytes; raises ValueError."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    found = _SIZE.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise ValueError(f"`{str(value)[:80]}` is no size; write it as in `64MiB` or `10GiB`")
    return int(found[1]) << UNIT_BITS[found[2]]


def check_label(name: str) -> str:
    """Return `name` if it is a DNS label (RFC 1123, lower case, at most 63 bytes), else raise ValueError."""
    if not _LABEL.fullmatch(name):
        raise ValueError(f"`{name[:80]}` is no DNS label; use at most 63 lower-case letters, digits and dashes")
    return name


Many = Annotated[tuple[T, ...], Strict(False)]  # a list in the file
Duration = Annotated[float, BeforeValidator(parse_duration)]  # seconds
Size = Annotated[int, BeforeValidator(parse_size)]  # bytes
Name = Annotated[str, AfterValidator(check_label)]
PortNumber = Annotated[int, Field(ge=1, le=65535)]


@dataclass(frozen=True, slots=True)
class Refused:
    """Fields that exist elsewhere and not here: `why` says of each what to do instead, "" where there is nothing to."""

    kind: str = ""
    why: Mapping[str, str] = field(default_factory=dict)


def parse(
    model: type[M],
    document: Document,
    problems: list[Problem],
    refused: Refused = Refused(),
) -> M | None:
    """Validate a document; on failure add every Problem and return None."""
    try:
        return model.model_validate(document.value, by_alias=True, by_name=False)
    except ValidationError as error:
        details = error.errors(include_url=False)[:MAX_PROBLEMS]
        found = [_problem(model, document, detail, refused) for detail in details]
        problems += [problem for problem in found if problem is not None]
    return None


def _problem(model: type[Model], document: Document, detail: Any, refused: Refused) -> Problem | None:
    path = tuple(step for step in detail["loc"] if step != "[key]")
    kind, given, context = detail["type"], detail["input"], detail.get("ctx", {})
    name = dotted(path)
    subject = f"`{name}`" if name else "the document"
    match kind:
        case "extra_forbidden":
            return _unknown_field(model, document, path, refused)
        case "missing":
            return document.problem("field", f"{subject} is missing", path, "add it")
        case "value_error":
            message, _, remedy = str(context["error"]).partition("; ")
            return document.problem("field", f"{f'{subject}: ' if name else ''}{message}", path, remedy)
        case "too_short" if len(given) >= context["min_length"]:
            return None  # pydantic does not count entries that have problems of their own
    expected = _EXPECTED.get(kind)
    if expected is None:
        return document.problem("field", f"{subject}: {_lower(detail['msg'])}", path)
    remedy = "write it in quotes" if kind == "string_type" and isinstance(given, bool | int | float) else ""
    wanted = expected.format(**context)
    return document.problem("field", f"{subject} must {wanted}, not {describe(given)}", path, remedy)


_EXPECTED: Final[Mapping[str, str]] = {
    "string_type": "be text",
    "int_type": "be a whole number",
    "float_type": "be a number",
    "bool_type": "be `true` or `false`",
    "dict_type": "be a mapping",
    "mapping_type": "be a mapping",
    "model_type": "be a mapping",
    "model_attributes_type": "be a mapping",
    "tuple_type": "be a list",
    "literal_error": "be {expected}",
    "greater_than_equal": "be at least {ge}",
    "less_than_equal": "be at most {le}",
    "string_too_long": "have at most {max_length} characters",
    "string_too_short": "have at least {min_length} characters",
    "too_short": "have at least {min_length} entries",
    "too_long": "have at most {max_length} entries",
}


def describe(value: Any) -> str:
    """Name a value in a message, bounded: `the text `no``, `the number 3`, `a list`."""
    match value:
        case None:
            return "empty"
        case bool():
            return f"the boolean `{str(value).lower()}`"
        case int() | float():
            return f"the number {value}"
        case str():
            return f"the text `{value[:80]}`"
        case dict():
            return "a mapping" if value else "an empty mapping"
        case _:
            return f"a list of {len(value)}" if value else "an empty list"


def dotted(path: Sequence[str | int]) -> str:
    """Write a path as people do: `spec.http[0].route`."""
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{step}"
    return text.removeprefix(".")


def _lower(message: str) -> str:
    return message[:1].lower() + message[1:]


def _unknown_field(model: type[Model], document: Document, path: tuple[str | int, ...], refused: Refused) -> Problem:
    name, parent = str(path[-1]), dotted(path[:-1])
    where = f" in `{parent}`" if parent else ""
    if name in refused.why:
        why = refused.why[name]
        said = f"field `{name}` of {refused.kind} is not supported{'' if why else ' yet'}{where}"
        return document.problem("field", said, path, why or REMOVE_IT)
    known = sorted(_fields(model, path[:-1]))
    near = difflib.get_close_matches(name, known, 1)
    remedy = f"did you mean `{near[0]}`?" if near else f"known are {', '.join(f'`{one}`' for one in known)}"
    return document.problem("field", f"unknown field `{name[:80]}`{where}", path, remedy if known else "remove it")


def _fields(model: type[Model], path: Sequence[str | int]) -> set[str]:
    """Return the fields that the model at `path` has, as files name them."""
    here: list[type[Model]] = [model]
    for step in path:
        below = [f.annotation for m in here for f in m.model_fields.values() if step in (f.alias, None)]
        if below:
            here = [found for annotation in below for found in _models(annotation)]
    return {info.alias or name for m in here for name, info in m.model_fields.items()}


def _models(annotation: Any) -> list[type[Model]]:
    """Find the models in an annotation such as `Mapping[str, Model] | None`."""
    if isinstance(annotation, type) and issubclass(annotation, Model):
        return [annotation]
    return [found for part in get_args(annotation) for found in _models(part)]
