"""JSON Schemas of the folder's files, from the models that read them, so that editors complete and check while typing.

Law: what the models let through, the schemas do. What only a check in code can tell (whether a name is known, whether
one field suits another) is not theirs: a schema says less than `policyd check`, never something else.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from pydantic import BaseModel
from pydantic.alias_generators import to_camel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue, models_json_schema
from pydantic_core import core_schema

from policyd.config.settings import Settings
from policyd.errors import NotFound
from policyd.mesh.files import GroupsFile, WorkloadsFile
from policyd.mesh.istio.common import Resource
from policyd.mesh.istio.kinds import KINDS
from policyd.policy import case_json, case_yaml, checks
from policyd.policy.meanings import MEANINGS

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"

_MODELS: Final = frozenset({"model", "model-fields"})
_SIZES: Final[Mapping[str, Mapping[str, str]]] = {  # of what a check wraps they are called as those of texts
    "object": {"minLength": "minProperties", "maxLength": "maxProperties"},
    "array": {"minLength": "minItems", "maxLength": "maxItems"},
}
_NOISE: Final = frozenset({"title", "ge", "gt", "le", "lt"})

_LINK: Final = re.compile(r"\[([^]]*)\]\([^)]*\)")

JsonSchema = dict[str, Any]
Inner = Callable[[], JsonSchema]


@dataclass(frozen=True, slots=True)
class FileKind:
    """A kind of file that has a schema: its name, the files of a folder that are of it, and what it holds."""

    name: str
    files: tuple[str, ...]
    title: str
    make: Callable[[], JsonSchema]


def file_kinds() -> tuple[FileKind, ...]:
    """Every kind: the files of a folder first, then the resources of `mesh/`, one by one."""
    return (
        FileKind("policyd.yaml", ("policyd.yaml",), "settings", lambda: _one(Settings)),
        FileKind("workloads.yaml", ("workloads.yaml",), "what runs, and where", lambda: _one(WorkloadsFile)),
        FileKind("groups.yaml", ("groups.yaml",), "sets of callers and services", lambda: _one(GroupsFile)),
        FileKind("checks.yaml", ("checks.yaml",), "requests that `up` sends", _checks),
        FileKind("cases", ("cases/*.yaml", "cases/*.yml"), "policy tests", _cases),
        FileKind("cases.json", ("cases/*.json",), "policy tests in the form of Cedar's run-tests", _json_cases),
        FileKind("mesh", ("mesh/*.yaml", "mesh/*.yml"), "resources of any kind", _mesh),
        *(FileKind(kind, (), f"{_a(kind)} of mesh/", _maker(model)) for kind, model in sorted(KINDS.items())),
    )


def schema_of(name: str) -> JsonSchema:
    """Make the schema of a kind of file; its `.yaml` may be left out. Raises NotFound for one that has none."""
    for kind in file_kinds():
        if name in (kind.name, kind.name.removesuffix(".yaml")):
            return _named(kind)
    known = [kind.name for kind in file_kinds()]
    near = difflib.get_close_matches(name, known, 1)
    remedy = f"did you mean `{near[0]}`?" if near else f"there are those of {', '.join(f'`{one}`' for one in known)}"
    raise NotFound(f"`{name[:80]}` has no schema", remedy=remedy)


def schemas() -> dict[str, JsonSchema]:
    """Make them all, by the names of their files; what a file of `mesh/` holds is one schema there."""
    return {f"{kind.name.removesuffix('.yaml')}.schema.json": _named(kind) for kind in file_kinds() if kind.files}


def _named(kind: FileKind) -> JsonSchema:
    return {"$schema": DIALECT, "title": f"policyd: {kind.title}"} | kind.make()


def _maker(model: type[BaseModel]) -> Callable[[], JsonSchema]:
    return lambda: _one(model)


def _one(model: type[BaseModel]) -> JsonSchema:
    refs, definitions = _defined(model)
    return {"$ref": refs[model], "$defs": definitions}


def _mesh() -> JsonSchema:
    """A resource of any kind: `kind` says which schema holds, so that what is wrong is said of that one alone."""
    refs, definitions = _defined(*KINDS.values())
    return {
        "type": "object",
        "required": ["apiVersion", "kind"],
        "properties": {"kind": {"enum": sorted({_bare(kind) for kind in KINDS}), "description": "What it is."}},
        "allOf": [{"if": _is(kind), "then": {"$ref": refs[model]}} for kind, model in sorted(KINDS.items())],
        "$defs": definitions,
    }


def _bare(kind: str) -> str:
    """A kind as files name it."""
    return kind.partition(".")[0]


def _is(kind: str) -> JsonSchema:
    """Whether a resource is of a kind; of two of one name its group tells."""
    found: JsonSchema = {"properties": {"kind": {"const": _bare(kind)}}, "required": ["kind"]}
    group = kind.partition(".")[2]
    rivals = [one.partition(".")[2] for one in KINDS if one != kind and _bare(one) == _bare(kind)]
    if group:
        found["properties"]["apiVersion"] = {"pattern": f"^{re.escape(group)}/"}
        found["required"] = ["apiVersion", "kind"]
    elif rivals:
        found["properties"]["apiVersion"] = {"not": {"pattern": f"^{re.escape(rivals[0])}/"}}
    return found


def _checks() -> JsonSchema:
    refs, definitions = _defined(checks._CheckSpec)
    return _list({"$ref": refs[checks._CheckSpec]}, checks.MAX_CHECKS, definitions)


def _cases() -> JsonSchema:
    refs, definitions = _defined(case_yaml._CaseSpec, case_yaml._TableSpec)
    single, table = refs[case_yaml._CaseSpec], refs[case_yaml._TableSpec]
    entry = {"if": {"type": "object", "required": ["table"]}, "then": {"$ref": table}, "else": {"$ref": single}}
    return _list(entry, case_yaml.MAX_ENTRIES, definitions)


def _json_cases() -> JsonSchema:
    refs, definitions = _defined(case_json._CaseSpec)
    return _list({"$ref": refs[case_json._CaseSpec]}, case_json.MAX_CASES, definitions)


def _list(entry: JsonSchema, limit: int, definitions: JsonSchema) -> JsonSchema:
    return {"type": "array", "maxItems": limit, "items": entry, "$defs": definitions}


def _defined(*models: type[BaseModel]) -> tuple[dict[type[BaseModel], str], JsonSchema]:
    """The place of each model, and all definitions that they need."""
    made, rest = models_json_schema([(model, "validation") for model in models], schema_generator=_Generator)
    return {model: made[model, "validation"]["$ref"] for model in models}, _tidy(rest["$defs"])


def _tidy(value: Any) -> Any:
    """Leave out titles, which only repeat names; call bounds what JSON Schema calls them."""
    if isinstance(value, list):
        return [_tidy(one) for one in value]
    if not isinstance(value, dict):
        return value
    sizes = _SIZES.get(str(value.get("type")), {})
    # under `properties` the same words are names, whose values are schemas
    kept = {name: one for name, one in value.items() if name not in _NOISE or isinstance(one, dict)}
    return {sizes.get(name, name): _tidy(one) for name, one in kept.items()}


def _text(pattern: str, **more: Any) -> JsonSchema:
    return {"type": "string", "pattern": f"^(?:{pattern})$", **more}


_LABEL: Final = "[a-z0-9](?:[a-z0-9-]*[a-z0-9])?"
_TOKEN: Final = "[A-Za-z0-9!#$%&'*+.^_`|~-]+"  # noqa: S105 - a token of RFC 9110
_LABEL_KEY: Final = "(?:[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?/)?[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?"
_LABEL_VALUE: Final = "(?:[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)?"
_HOST: Final = "[a-z0-9_.:-]+"  # an IPv6 address among them
_DURATION: Final = r"(?:[0-9]{1,10}(?:\.[0-9]{1,9})?(?:ms|us|ns|[dhms]))+"

# What a check of a model asks of a text, as far as a schema can say it; a check that is not here asks for its type.
AFTER: Final[Mapping[str, JsonSchema]] = {
    "check_label": {"pattern": f"^{_LABEL}$", "maxLength": 63},
    "check_labels": {
        "propertyNames": {"pattern": f"^{_LABEL_KEY}$", "maxLength": 317},
        "additionalProperties": _text(_LABEL_VALUE, maxLength=63),
    },
    "check_path": {"pattern": r"^/[^\u0000-\u0020\u007f?#]*$", "maxLength": 2048},
    "check_host": {"pattern": f"^{_HOST}$", "maxLength": 253},
    "check_host_pattern": {"pattern": rf"^(?:\*|(?:\*\.)?{_HOST})$", "maxLength": 255},
    "check_header_name": {"pattern": f"^{_TOKEN}$", "maxLength": 256},
    "check_header": {"pattern": f"^{_TOKEN}$", "maxLength": 128},
    "check_attribute": {"pattern": r"^[a-z_]{1,64}(?:\.[a-z_]{1,64}){0,7}$"},
    "check_claim": {
        "pattern": r"^[^\u0000-\u0020\u007f](?:[^\u0000-\u001f\u007f]*[^\u0000-\u0020\u007f])?$",
        "maxLength": 256,
    },
    "check_header_value": {"pattern": r"^[^\n\r]*$", "maxLength": 4096},
    "check_regex": {"minLength": 1, "maxLength": 1024},
    "check_variables": {"propertyNames": {"pattern": "^[A-Za-z_][A-Za-z0-9_]*$"}},
    "check_account_template": {"maxLength": 128},
    "_check_time": {"pattern": r"^[0-9]{4}-?[0-9W]"},
}


def _duration_text(_: Inner) -> JsonSchema:
    """A whole number would leave the unit open; a decimal one is taken as seconds."""
    form = _text(_DURATION, examples=["10s", "1h30m", "0.5s"])
    return form | {"type": ["string", "number"], "not": {"type": "integer"}}


def _size_text(_: Inner) -> JsonSchema:
    return _text("[0-9]{1,6}[KMGT]iB", examples=["64MiB", "10GiB"]) | {"type": ["string", "integer"]}


def _address_text(_: Inner) -> JsonSchema:
    return _text(r"[0-9.]+:[0-9]{1,5}|\[[0-9A-Fa-f:.]+\]:[0-9]{1,5}", examples=["127.0.0.1:0"])


def _a_guard(inner: Inner) -> JsonSchema:
    """What looks at a whole mapping first only refuses."""
    return inner()


def _anything(_: Inner) -> JsonSchema:
    return {}


# What a check that comes before the type lets through; of one that is not here nothing is known.
BEFORE: Final[Mapping[str, Callable[[Inner], JsonSchema]]] = {
    "parse_duration": _duration_text,
    "parse_size": _size_text,
    "parse_address": _address_text,
    "check_distinct_headers": lambda inner: inner(),
    "_check_target": lambda inner: inner(),
    "_check_server_protocol": lambda inner: inner(),
    "_check_server_mode": lambda inner: inner(),
    "_in_capitals": lambda inner: inner(),
    "_check_mode": lambda inner: inner(),
    "check_filter_type": lambda inner: inner(),
    "_as_command": lambda inner: {"anyOf": [{"type": "string"}, inner()]},
    "_as_list": lambda inner: {"anyOf": [inner()["items"], inner()]},
}


class _Generator(GenerateJsonSchema):
    """Reads pydantic's own schema of a model, and knows what our checks ask for."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False

    def normalize_name(self, name: str) -> str:
        return super().normalize_name(name).lstrip("_")

    def function_after_schema(self, schema: core_schema.AfterValidatorFunctionSchema) -> JsonSchemaValue:
        inner = super().function_after_schema(schema)
        return inner | AFTER.get(_check(schema), {}) if "type" in inner else inner

    def function_before_schema(self, schema: core_schema.BeforeValidatorFunctionSchema) -> JsonSchemaValue:
        known = BEFORE.get(_check(schema), _a_guard if schema["schema"]["type"] in _MODELS else _anything)
        return known(lambda: self.generate_inner(schema["schema"]))

    def dict_schema(self, schema: core_schema.DictSchema) -> JsonSchemaValue:
        made = super().dict_schema(schema)
        keys = self.generate_inner(schema["keys_schema"]) if "keys_schema" in schema else {}
        values = self.generate_inner(schema["values_schema"]) if "values_schema" in schema else {}
        made.pop("patternProperties", None)  # would let every other name pass
        named = {name: value for name, value in keys.items() if name != "type"}
        return made | {"additionalProperties": values or True} | ({"propertyNames": named} if named else {})

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        inner = self.generate_inner(schema["schema"])
        default = schema.get("default")
        if isinstance(default, float) and "pattern" in inner:
            default = _duration(default)
        return inner | {"default": default} if isinstance(default, str | int | float) else inner

    def model_schema(self, schema: core_schema.ModelSchema) -> JsonSchemaValue:
        made, model = super().model_schema(schema), schema["cls"]
        made.pop("description", None)
        if model.__doc__:
            made = {"description": _prose(model.__doc__)} | made
        if issubclass(model, Resource):
            made["required"] = ["apiVersion", "kind", *made.get("required", ())]
        meanings = MEANINGS.get(model.__name__, {})
        for name, one in made.get("properties", {}).items():
            if name in meanings and set(meanings) == set(made["properties"]):
                made["properties"][name] = {"description": _LINK.sub(r"\1", meanings[name])} | one
        return made


def _check(schema: Any) -> str:
    return getattr(schema["function"]["function"], "__name__", "")


def _duration(seconds: float) -> str:
    for unit, length in (("d", 86_400), ("h", 3600), ("m", 60)):
        if seconds >= length and seconds % length == 0:
            return f"{seconds / length:g}{unit}"
    return f"{seconds:g}s"


def _prose(docstring: str) -> str:
    """The first paragraph in one line, fields named as files name them."""
    text = " ".join(docstring.strip().partition("\n\n")[0].split())
    return re.sub(r"`([a-z]+(?:_[a-z]+)+)`", lambda found: f"`{to_camel(found[1])}`", text)


def _a(kind: str) -> str:
    return f"{'an' if kind[0] in 'AEIO' else 'a'} {kind}"
