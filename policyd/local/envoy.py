"""A compiled listener as Envoy's RBAC filter (extensions.filters.http.rbac.v3.RBAC), whose first match decides.

Law: what policyd refuses before any policy is refused first, in its order. Names of ours begin with a space, which no
id of a policy does. A header that was sent several times is looked at as policyd is shown it, joined with commas, and
that is what this form of the filter does (`matcher`), not the one with `rules`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

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
    Not,
    OneOf,
    Pattern,
    Present,
    Some,
    Within,
    every,
    negated,
    some,
)
from policyd.names import RBAC_FILTER, RULE_BAD_PATH, RULE_FAILED, RULE_INCOMPLETE, RULE_NOBODY

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
    """What policyd has no decision for: an unusable method, host or caller."""
    method = Atom(METHOD, Pattern(expressions.USABLE_METHOD), "a usable method")
    host = Atom(HOST, Pattern(expressions.USABLE_HOST), "a usable host")
    connect = Atom(METHOD, OneOf(("CONNECT",)), "CONNECT")
    methods = [negated(connect)] if compiled.connects else [negated(method), connect]
    return some(*methods, negated(host), *_strangers(compiled.verified))


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


def _test(field: Field, test: Present | OneOf | Affix | Pattern | Within) -> dict[str, Any]:
    match test:
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
            return _in_ranges(field, ranges)


def _single(field: Field, match: dict[str, Any]) -> dict[str, Any]:
    return {"single_predicate": {"input": _input(field), "value_match": match}}


def _regex(regex: str) -> dict[str, Any]:
    return {"safe_regex": {"google_re2": {}, "regex": regex}}


def _in_ranges(field: Field, ranges: tuple[str, ...]) -> dict[str, Any]:
    parts = (one.split("/") for one in ranges)
    config = {
        "@type": f"{_TYPE}envoy.extensions.matching.input_matchers.ip.v3.Ip",
        "stat_prefix": "policyd",
        "cidr_ranges": [{"address_prefix": address, "prefix_len": int(length)} for address, length in parts],
    }
    custom = {"name": "envoy.matching.matchers.ip", "typed_config": config}
    return {"single_predicate": {"input": _input(field), "custom_match": custom}}


def _input(field: Field) -> dict[str, Any]:
    name, type_ = _OWN_INPUTS.get(field, ("", ""))
    if type_:
        return {"name": name, "typed_config": {"@type": type_}}
    config = {"@type": f"{_TYPE}envoy.type.matcher.v3.HttpRequestHeaderMatchInput", "header_name": field}
    return {"name": "header", "typed_config": config}
