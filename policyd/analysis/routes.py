"""Rules of VirtualServices: those that are never reached, and destinations that get nothing.

Law: a rule counts as never reached only if every one of its blocks is within one block of an earlier rule; a regex is
within itself only. At gateways a rule that answers everything is the last one, wherever it was written.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from policyd.analysis.model import Analysed, Findings, at
from policyd.mesh.declaration import Declared
from policyd.mesh.gateway_api.values import AttachedRules
from policyd.mesh.istio.http_route import HttpRoute
from policyd.mesh.istio.matches import HttpMatch, StringMatch
from policyd.mesh.istio.virtual_service import VirtualService

ALWAYS = HttpMatch()


def find(analysed: Analysed) -> Findings:
    """Every such rule."""
    for declared in analysed.declaration.of(VirtualService):
        if isinstance(declared.resource, AttachedRules):
            continue  # what of its routes is for nobody was left out
        yield from _unreached(declared)
        yield from _shareless(declared)


def _unreached(declared: Declared[VirtualService]) -> Findings:
    rules = declared.resource.spec.http
    for number, rule in enumerate(rules):
        covered = {of: first for of, block in enumerate(_blocks(rule)) if (first := _covering(declared, number, block))}
        if len(covered) == len(_blocks(rule)):
            first = min(covered.values())
            message = f"rule {number + 1} is never reached: rule {first} matches all that it does"
            yield at(declared, "IST0130", message, ("spec", "http", number), "put it before that one, or remove it")
            continue
        for of, first in covered.items():
            message = f"match {of + 1} of rule {number + 1} is never reached: rule {first} matches all that it does"
            path = ("spec", "http", number, "match", of)
            yield at(declared, "IST0131", message, path, "remove it, or put the rule before that one")


def _blocks(rule: HttpRoute) -> tuple[HttpMatch, ...]:
    return rule.match or (ALWAYS,)


def _covering(declared: Declared[VirtualService], number: int, block: HttpMatch) -> int:
    """The first earlier rule, from 1, of which one block matches all that this one does; 0 where there is none."""
    owner = declared.resource
    for earlier, rule in enumerate(owner.spec.http[:number]):
        for other in _blocks(rule):
            last_at_gateways = _answers_all(other) and not owner.in_mesh
            if not last_at_gateways and covers(other, block):
                return earlier + 1
    return 0


def _answers_all(block: HttpMatch) -> bool:
    return covers(block, ALWAYS)


def covers(wide: HttpMatch, narrow: HttpMatch) -> bool:
    """Whether every request and every proxy that the narrow block is for is one of the wide block's."""
    pairs = [(getattr(wide, name), getattr(narrow, name)) for name in ("scheme", "method", "authority")]
    maps = [(getattr(wide, name), getattr(narrow, name)) for name in ("headers", "query_params")]
    return (
        _path_within(wide, narrow)
        and all(_within(narrower, wider) for wider, narrower in pairs)
        and all(_all_within(narrower, wider) for wider, narrower in maps)
        and wide.without_headers.items() <= narrow.without_headers.items()
        and wide.port in (None, narrow.port)
        and wide.source_namespace in (None, narrow.source_namespace)
        and wide.source_labels.items() <= narrow.source_labels.items()
        and (not wide.gateways or (bool(narrow.gateways) and set(narrow.gateways) <= set(wide.gateways)))
    )


def _path_within(wide: HttpMatch, narrow: HttpMatch) -> bool:
    if wide.uri is not None and wide.uri.prefix == "/":
        return True
    if wide.ignore_uri_case and narrow.uri is not None and wide.uri is not None:
        return _within(_lower(narrow.uri), _lower(wide.uri))
    return (wide.uri is None or not narrow.ignore_uri_case) and _within(narrow.uri, wide.uri)


def _lower(match: StringMatch) -> StringMatch:
    texts = {name: value.lower() for name in ("exact", "prefix") if (value := getattr(match, name)) is not None}
    return match.model_copy(update=texts)


def _all_within(narrow: Mapping[str, StringMatch], wide: Mapping[str, StringMatch]) -> bool:
    return all(name in narrow and _within(narrow[name], wanted) for name, wanted in wide.items())


def _within(narrow: StringMatch | None, wide: StringMatch | None) -> bool:
    """Whether each value of the narrow match is one of the wide one."""
    if wide is None or wide == narrow:
        return True
    if narrow is None:
        return False
    if wide.presence:
        return True
    if wide.prefix is None:
        return False
    text = narrow.exact if narrow.exact is not None else narrow.prefix
    return text is not None and text.startswith(wide.prefix)


def _shareless(declared: Declared[VirtualService]) -> Findings:
    for path, host in _without_weight(declared.resource):
        message = f"nothing goes to `{host}`: it has the weight 0 beside others"
        yield at(declared, "PM0101", message, path, "give it a weight, or remove it")


def _without_weight(owner: VirtualService) -> Iterator[tuple[tuple[str | int, ...], str]]:
    for number, rule in enumerate(owner.spec.http):
        for of, one in enumerate(rule.route if len(rule.route) > 1 else ()):
            if not one.weight:
                yield ("spec", "http", number, "route", of), one.destination.host
