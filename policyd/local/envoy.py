"""A compiled listener as Envoy's RBAC filter (extensions.filters.http.rbac.v3.RBAC), whose first match decides.

Law: what policyd refuses before any policy is refused first, in its order. Names of ours begin with a space, which no
id of a policy does. A header that was sent several times is looked at as policyd is shown it, joined with commas, and
that is what this form of the filter does (`matcher`), not the one with `rules`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from policyd.cedar.claims import number_of
from policyd.local import expressions
from policyd.local.compile import Compiled
from policyd.local.logic import (
    CALLER,
    HOST,
    METHOD,
    NO,
    PATH,
    SOURCE,
    SOURCE_PORT,
    YES,
    Affix,
    Atom,
    Constant,
    Every,
    Field,
    Formula,
    Has,
    Not,
    OfUser,
    OneOf,
    Pattern,
    Present,
    Some,
    Test,
    Within,
    every,
    negated,
    some,
)
from policyd.local.texts import NAME_SAID
from policyd.names import (
    METADATA_USER,
    RBAC_FILTER,
    RULE_BAD_PATH,
    RULE_FAILED,
    RULE_INCOMPLETE,
    RULE_NOBODY,
    SNI_HEADER,
    USER,
)

FILTER: Final = RBAC_FILTER
INCOMPLETE: Final = RULE_INCOMPLETE
BAD_PATH: Final = RULE_BAD_PATH
FAILED: Final = RULE_FAILED
NOBODY: Final = RULE_NOBODY

_TYPE: Final = "type.googleapis.com/"
_INPUTS: Final = f"{_TYPE}envoy.extensions.matching.common_inputs"
_OWN_INPUTS: Final = {
    CALLER: ("caller", f"{_INPUTS}.ssl.v3.UriSanInput"),
    SOURCE: ("source", f"{_INPUTS}.network.v3.DirectSourceIPInput"),
    SOURCE_PORT: ("source_port", f"{_INPUTS}.network.v3.SourcePortInput"),
}


def rbac(compiled: Compiled) -> dict[str, Any]:
    """The filter's configuration; of a listener that is compiled whole only."""
    if not compiled.is_exact:
        raise ValueError(f"`{compiled.listener}` is not decided in its proxy")
    return {"@type": f"{_TYPE}envoy.extensions.filters.http.rbac.v3.RBAC", "matcher": _matcher(compiled)}


def _matcher(compiled: Compiled) -> dict[str, Any]:
    """The rules in the order in which they are looked at; what always applies ends it."""
    matchers: list[dict[str, Any]] = []
    last = (NOBODY, "DENY")
    for name, when, action in rules(compiled):
        if when == YES:
            last = (name, action)
            break
        if when != NO:
            matchers.append({"predicate": _predicate(when), "on_match": _action(name, action)})
    return {"matcher_list": {"matchers": matchers}, "on_no_match": _action(*last)}


def rules(compiled: Compiled) -> Iterator[tuple[str, Formula, str]]:
    """Names, when they match, and what is done then; the first one that matches decides."""
    yield INCOMPLETE, incomplete(compiled), "DENY"
    if not compiled.connects:
        yield BAD_PATH, _bad_path(), "DENY"
    for rule in compiled.forbids:
        yield rule.policy, rule.when, "DENY"
    yield FAILED, some(*(rule.when for rule in compiled.failing)), "DENY"
    for rule in compiled.permits:
        yield rule.policy, rule.when, "ALLOW"


def incomplete(compiled: Compiled) -> Formula:
    """What policyd has no decision for: an unusable method, host, name or caller."""
    method = Atom(METHOD, Pattern(expressions.USABLE_METHOD), "a usable method")
    host = Atom(HOST, Pattern(expressions.USABLE_HOST), "a usable host")
    connect = Atom(METHOD, OneOf(("CONNECT",)), "CONNECT")
    methods = [negated(connect)] if compiled.connects else [negated(method), connect]
    name = Atom(SNI_HEADER, Pattern(expressions.HOST_NAME), "a usable name")
    own = Atom(HOST, Pattern(expressions.NAME_OF_TUNNEL), "a usable name of a tunnel")
    names = [every(NAME_SAID, negated(name)), every(negated(NAME_SAID), negated(own))] if compiled.named else []
    return some(*methods, negated(host), *names, *_strangers(compiled.verified))


def _strangers(domain: str) -> Iterator[Formula]:
    """Peers whose certificate names no workload of the trust domain."""
    if not domain:
        return
    prefix = expressions.quoted(f"spiffe://{domain}")
    yield negated(Atom(CALLER, Pattern(f"{prefix}(?:/[a-zA-Z0-9._-]+)+"), "a workload"))
    for not_one in (f"{prefix}/agent/[^/]+", f"{prefix}/policyd/.*", r".*/\.\.?(?:/.*)?"):
        yield Atom(CALLER, Pattern(not_one), "no workload")


def _bad_path() -> Formula:
    plain = Atom(PATH, Pattern(expressions.PLAIN_PATH), "a plain path")  # as most are, which is seen at one look
    good = Atom(PATH, Pattern(expressions.ACCEPTABLE_PATH), "an acceptable path")
    bad = (every(_has(text), Atom(PATH, Pattern(one), "no path")) for text, one in expressions.UNACCEPTABLE_PATH)
    long = Atom(PATH, Pattern(expressions.TOO_LONG_PATH), "a path that is too long")
    return some(every(negated(plain), some(negated(good), *bad)), long)


def _has(text: str) -> Formula:
    """Whether the path may be one that an expression is for: most have no such text, and it costs less to see."""
    return Atom(PATH, Affix("contains", text), f"path with {text}")


# ---- Envoy's words (xds.type.matcher.v3.Matcher)


def _action(name: str, action: str) -> dict[str, Any]:
    return {
        "action": {
            "name": "decision",
            "typed_config": {"@type": f"{_TYPE}envoy.config.rbac.v3.Action", "name": name, "action": action},
        }
    }


def _predicate(formula: Formula) -> dict[str, Any]:
    match formula:
        case Atom(field, test, _):
            return _test(field, test)
        case Not(part, _):
            return {"not_matcher": _predicate(part)}
        case Every(parts, _):
            return {"and_matcher": {"predicate": [_predicate(one) for one in parts]}}
        case Some(parts, _):
            return {"or_matcher": {"predicate": [_predicate(one) for one in parts]}}
        case Constant():
            raise ValueError("a constant has no test")


def _test(field: Field, test: Test) -> dict[str, Any]:
    match test:
        case Present() if isinstance(field, OfUser):
            return _of_user(field, {"present_match": True})
        case Has(text):
            return _of_user(_path(field), _element(text))
        case OneOf(texts) if len(texts) > 1:
            return {"or_matcher": {"predicate": [_single(field, {"exact": one}) for one in texts]}}
        case OneOf(texts):
            return _single(field, {"exact": texts[0]})
        case Affix(where, text):
            return _single(field, {where: text})
        case Pattern(regex):
            return _single(field, _regex(regex))
        case Present():
            return _single(field, _regex(expressions.ANY_BYTES))
        case Within(ranges):
            return _in_ranges(str(field), ranges)


def _single(field: Field, match: dict[str, Any]) -> dict[str, Any]:
    if isinstance(field, OfUser):
        return _of_user(field, {"string_match": match})
    return {"single_predicate": {"input": _input(field), "value_match": match}}


def _path(field: Field) -> OfUser:
    if not isinstance(field, OfUser):
        raise TypeError("only of users there are sets")
    return field


def _element(text: str) -> dict[str, Any]:
    """One of a list is this as policies see it: a text, a number or a boolean (cedar.claims)."""
    forms: list[dict[str, Any]] = [{"string_match": {"exact": text}}]
    if text in ("true", "false"):
        forms.append({"bool_match": text == "true"})
    number = number_of(text)
    if number is not None:
        forms.append({"double_match": {"exact": number}})
    one = forms[0] if len(forms) == 1 else {"or_match": {"value_matchers": forms}}
    return {"list_match": {"one_of": one}}


def _of_user(field: OfUser, value: dict[str, Any]) -> dict[str, Any]:
    """What the filter in front says of the user (type.matcher.v3.ValueMatcher)."""
    path = [{"key": key} for key in (USER, *field.path)]
    input_ = {"@type": f"{_INPUTS}.network.v3.DynamicMetadataInput", "filter": METADATA_USER, "path": path}
    config = {"@type": f"{_TYPE}envoy.extensions.matching.input_matchers.metadata.v3.Metadata", "value": value}
    custom = {"name": "envoy.matching.matchers.metadata_matcher", "typed_config": config}
    return {"single_predicate": {"input": {"name": "user", "typed_config": input_}, "custom_match": custom}}


def _regex(regex: str) -> dict[str, Any]:
    return {"safe_regex": {"google_re2": {}, "regex": regex}}  # deprecated, and still required


def _in_ranges(field: str, ranges: tuple[str, ...]) -> dict[str, Any]:
    parts = (one.split("/") for one in ranges)
    config = {
        "@type": f"{_TYPE}envoy.extensions.matching.input_matchers.ip.v3.Ip",
        "stat_prefix": "policyd",
        "cidr_ranges": [{"address_prefix": address, "prefix_len": int(length)} for address, length in parts],
    }
    custom = {"name": "envoy.matching.matchers.ip", "typed_config": config}
    return {"single_predicate": {"input": _input(field), "custom_match": custom}}


def _input(field: str) -> dict[str, Any]:
    name, type_ = _OWN_INPUTS.get(field, ("", ""))
    if type_:
        return {"name": name, "typed_config": {"@type": type_}}
    config = {"@type": f"{_TYPE}envoy.type.matcher.v3.HttpRequestHeaderMatchInput", "header_name": field}
    return {"name": "header", "typed_config": config}
