"""Tables from the strict models of declared files: field, what it takes, default, and where given its meaning."""

from __future__ import annotations

import re
import types
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin

from annotated_types import Ge, Le, MaxLen, MinLen
from pydantic import AfterValidator, BeforeValidator
from pydantic.alias_generators import to_camel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from docs.pages.tables import code, codes, prose, table
from policyd.mesh.istio.kinds import KINDS
from policyd.strict import UNIT_BITS, Model, parse_size

Meanings = Mapping[str, str]

# A check's name -> what it lets through; a new check without words here stops the generator.
WORDS: Final[Mapping[str, str]] = {
    "check_label": "name",
    "check_labels": "labels",
    "check_path": "path",
    "check_host": "host name",
    "check_host_pattern": "host name, `*.` and one, or `*`",
    "check_authority": "host name, `:` and a port after it or not",
    "check_header_name": "header name",
    "check_header_value": "header value",
    "check_regex": "RE2 expression",
    "check_variables": "mapping of variables to texts",
    "check_account_template": "name, or `{service}` in one",
    "parse_duration": "duration, as `10s` or `1h30m`",
    "parse_size": "size, as `64MiB` or `10GiB`",
    "check_header": "header name",
    "check_attribute": "path, as `request.path`",
    "check_claim": "claim name",
    "parse_address": "`host:port`, an IP address; port 0: any free one",
    "check_ip": "IP address",
    "_check_collector": "URL, `https` or on this machine",
    "_check_sent": "header name",
    "_check_credential": "path below `credentials/`",
    "_check_otlp": "URL, `https://…` or `grpcs://…`",
    "_check_trusted": "URL, `https` or on this machine",
    "_check_trust_domain": "trust domain",
    "_check_bundle_endpoint": "`https://` URL",
    "_check_spiffe_id": "SPIFFE ID",
    "_check_token_issuer": "`https://` URL without `/` at its end",
    "_check_time": "time, as `2026-12-24T00:00:00Z`",
    "_check_retry_on": "list of Envoy's retry conditions and statuses, with commas",
    "_check_target": "port, or name of one",
    "_check_protocol": "a protocol, or one and `-<suffix>`",
    "_check_name_outside": "full DNS name, or `*.` and one",
    "_check_vip": "IP address, or a range of up to 256",
    "_check_locality": "`<region>[/<zone>[/<subzone>]]`",
    "_check_export": "`.`, `*`, `~` or a namespace",
    "_check_range": "range of addresses, as `127.0.0.2/32`",
    "_as_command": "text, or list of texts",
    "_as_list": "",  # says only that one may stand for a list of one
    "check_distinct_headers": "",
    "check_export": "`.`, `*` or one namespace",
    "check_label_or_pair": "label, or `label=value`",
    "check_locality": "`region/zone/subzone`",
    "check_locality_pattern": "`region/zone/subzone`, its last part may be `*`",
    "check_long_enough": "duration",
    "check_region": "region",
    "check_set_header": "header name, or `:authority`",
    "check_stat_prefix": "part of a statistic's name",
    "check_subset_name": "name",
    "check_token": "cookie's name",
    "check_whole_seconds": "whole seconds",
    "_as_number": "number",
    "_check_base64": "base64",
    "_check_cipher": "cipher suite of Envoy's",
    "check_credential": "name",
    "_check_file": "path of a file below `credentials/`",
    "_check_proxy_file": "path of a file of the caller's machine, from `/` on",
    "_check_hash": "SHA-256 in hexadecimal",
    "_check_server_host": "host name, `*.` and one, or `*`, after `<namespace>/`, `./`, `*/` or nothing",
    "_check_spki": "SHA-256 in base64",
    "check_range": "IP address or range of such",
    "_check_server_protocol": "",
    "_check_way": "",
    "_check_forwarding": "",
    "_check_method": "",
    "_check_absolute_uri": "URI",
    "_check_body": "text",
    "_check_grpc_status": "gRPC status, as `UNAVAILABLE`",
    "_check_ports": "",
    "_check_substitution": "part of a path, `\\1` for a group",
    "_check_value_match": "",
    "_check_uri_match": "",
    "_check_keys": "key set (JWKS)",
    "_check_asked": "path, with a query or without",
    "check_port_key": "port",
    "check_cel": "CEL over a request, as `response.code >= 400`",
    "check_shown": "CEL over a request, as `request.host`; no credential and no query",
    "check_metric_label": "label of a metric",
    "check_shown_header": "header name, no credential's",
    "check_shown_variable": "name of a variable, none of policyd's",
    "check_format": "text with Envoy's operators, as `%PROTOCOL%`",
    "_check_provider": "name",
    "check_match_name": "header name, or `@request.auth.claims.NAME`",
    "_check_cluster_ip": "`None`",
    "_check_affinity": "`None`",
    "_check_internal": "`Cluster`",
    "check_egress_host": "`<namespace>/<host>`",
    "_check_endpoint": "`127.0.0.1:PORT`, `0.0.0.0:PORT` or `unix:///PATH`",
    "_check_pool": "",
    "_check_tls": "",
    "_check_login_issuer": "`https://` URL",
    "_check_uri": "`https://` URI, or file in `jwks/`",
    "_check_issuer": "text",
    "_check_written": "header name",
    "_check_claim": "name of a claim, `outer.inner` for one inside another",
    "check_subdomain": "name, with dots or without",
    "check_hostname": "host name, or `*.` and one",
    "check_precise": "host name",
    "_check_group": 'group of kinds, `""` for the core\'s',
    "_check_kind": "kind",
    "_check_creation": "time, as `2026-01-31T12:00:00Z`",
    "_check_parents": "",
    "_check_selected": "mapping of `kubernetes.io/metadata.name` to a namespace",
    "_in_capitals": "`HTTP`, `HTTPS`, `TLS` or `TCP`",
    "_check_origin": "origin, as `https://shop.example.com`, or `*`",
    "check_filter_type": "",
    "check_filters": "",
    "_check_once": "",
}

NOUNS: Final = ("text", "name", "header name", "header value", "claim name", "whole number")


def fields(model: type[Model], meanings: Meanings | None = None) -> Iterator[str]:
    """Give a model's table; with `meanings`, every field must have one there. Raises ValueError otherwise."""
    rows = [(info.alias or name, info) for name, info in model.model_fields.items()]
    if meanings is not None and set(meanings) != {name for name, _ in rows}:
        raise ValueError(f"the meanings of {model.__name__} are not those of its fields")
    head = ("field", "takes", "default", *(("what it is",) if meanings is not None else ()))
    yield from table(
        head,
        (
            (code(name), _field(info), _default(info), *((meanings[name],) if meanings is not None else ()))
            for name, info in rows
        ),
    )


def parts(model: type[Model]) -> Iterator[type[Model]]:
    """Give the models that a model's fields are made of, in the order of the fields, each once, itself left out."""
    seen = {model}
    ahead = _below(model)
    while ahead:
        first = ahead.pop(0)
        if first not in seen:
            seen.add(first)
            yield first
            ahead = [*_below(first), *ahead]


def _below(model: type[Model]) -> list[type[Model]]:
    return [found for info in model.model_fields.values() for found in _models(info.annotation)]


def _models(hint: Any) -> Iterator[type[Model]]:
    if isinstance(hint, type) and issubclass(hint, Model):
        yield hint
    for part in get_args(hint):
        yield from _models(part)


def _default(info: FieldInfo) -> str:
    if info.default is PydanticUndefined:
        return "required"
    return _shown(info.default, info)


def _shown(value: Any, info: FieldInfo) -> str:
    if value is None or value in ((), {}) or isinstance(value, Model):
        return ""
    if isinstance(value, bool):
        return code(str(value).lower())
    if isinstance(value, float) or _is_size(info.metadata):
        return code(_number(value, info.metadata))
    if isinstance(value, tuple):
        return codes(value)
    return code(value)


def _number(value: float, metadata: list[Any]) -> str:
    """Write a duration, which most numbers with a point are, or a share, or a size."""
    if _is_size(metadata):
        return _size(int(value))
    share = any(isinstance(each, BeforeValidator) and each.func.__name__ == "_as_number" for each in metadata)
    return f"{value:g}" if share else _duration(value)


def _is_size(metadata: list[Any]) -> bool:
    return any(isinstance(each, BeforeValidator) and each.func is parse_size for each in metadata)


def _size(count: int) -> str:
    unit = next(unit for unit, bits in reversed(UNIT_BITS.items()) if count % (1 << bits) == 0)
    return f"{count >> UNIT_BITS[unit]}{unit}"


def _duration(seconds: float) -> str:
    for unit, length in (("d", 86_400), ("h", 3600), ("m", 60)):
        if seconds >= length and seconds % length == 0:
            return f"{seconds / length:g}{unit}"
    return f"{seconds:g}s"


def _field(info: FieldInfo) -> str:
    return _takes(info.annotation, info.metadata)


def _takes(hint: Any, metadata: list[Any] | tuple[Any, ...] = ()) -> str:
    """Say what a type lets through, its innermost check first."""
    flat = [part for each in metadata for part in (each.metadata if isinstance(each, FieldInfo) else [each])]
    said = next((word for word in map(_word, reversed(flat)) if word), "") or _plain(hint)
    return said + _bounds(flat, hint)


def _word(check: Any) -> str:
    if not isinstance(check, AfterValidator | BeforeValidator):
        return ""
    name = check.func.__name__
    if name not in WORDS:
        raise ValueError(f"docs/pages/models.py has no words for `{name}`")
    return WORDS[name]


def _plain(hint: Any) -> str:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _takes(arguments[0], arguments[1:])
    if origin is Literal:
        return codes(map(str, arguments))
    if origin in (Union, types.UnionType):
        return " or ".join(_takes(each) for each in arguments if each is not types.NoneType)
    if origin is tuple:
        return f"list of {_many(_takes(arguments[0]))}"
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return f"mapping of {_many(_takes(arguments[0]))} to {_many(_takes(arguments[1]))}"
    if isinstance(hint, type) and issubclass(hint, Model):
        return f"[{title(hint)}](#{title(hint).lower().replace(' ', '-')})"
    return {str: "text", int: "whole number", float: "number", bool: "`true` or `false`", Any: "anything"}[hint]


def _many(words: str) -> str:
    noun = next((noun for noun in NOUNS if words.startswith(noun)), "")
    return f"{noun}s{words.removeprefix(noun)}" if noun else words


def _bounds(flat: list[Any], hint: Any) -> str:
    least: Any = next((each.ge for each in flat if isinstance(each, Ge)), None)
    most: Any = next((each.le for each in flat if isinstance(each, Le)), None)
    ends = [
        _number(end, flat) if hint is float or _is_size(flat) else f"{end:,}"
        for end in (least, most)
        if end is not None
    ]
    if ends:
        return f", {ends[0]} to {ends[1]}" if len(ends) > 1 else f", at least {ends[0]}"
    if any(isinstance(each, MinLen) and each.min_length == 1 for each in flat):
        return ", not empty" if hint is str else ", at least one"
    return next((f", at most {each.max_length:,} long" for each in flat if isinstance(each, MaxLen)), "")


def title(model: type[Model]) -> str:
    """Give a model's name as a page shows it; the `spec` of a kind does not share the kind's name."""
    name = model.__name__.strip("_").removesuffix("File")
    if name.endswith("Settings"):
        return name.removesuffix("Settings").lower()
    bare = name.removesuffix("Spec")
    return f"{bare} spec" if bare in KINDS else bare


def summary(model: type[Model]) -> Iterator[str]:
    """Give the first paragraph of a model's docstring, with fields named as in files."""
    text = prose(model.__doc__).partition("\n\n")[0]
    if model.__dict__.get("__doc__") and text:
        yield from (re.sub(r"`([a-z]+(?:_[a-z]+)+)`", lambda found: code(to_camel(found[1])), text), "")
