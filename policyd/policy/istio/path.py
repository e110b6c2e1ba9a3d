"""Paths: Istio's string matches, and its templates with `{*}` (one segment) and `{**}` (any number of them).

Law: ours are canonical, so a value that no canonical path is like would never match; it is refused with what to write.
A template becomes `like` and a number of segments only where that binds the same segments.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Final

from policyd.errors import UnacceptablePath
from policyd.policy.istio.expression import TRUE, Test, both, either, like
from policyd.policy.istio.field import Place
from policyd.policy.istio.pattern import Pattern, matches, pattern_of

Canonical = Callable[[str], str]  # authz.path.canonical_path; raises UnacceptablePath

ONE: Final = "{*}"
ANY: Final = "{**}"

_PATH: Final = "context.request.path"
_LITERAL = re.compile(r"[A-Za-z0-9._~%!$&'()+,;:@=-]*")  # Envoy's uri_template: no star in any segment
_NO_STAR: Final = Test(f'!({_PATH} like "*\\**")')


def paths(values: Sequence[str], canonical: Canonical, place: Place) -> Test:
    """Return the test for `paths`."""
    patterns: list[Pattern] = []
    templates: list[Test] = []
    for at, value in enumerate(values):
        if ONE in value or ANY in value:
            templates.append(_template(value, canonical, place.at(at)))
        else:
            patterns.append(_pattern(value, canonical, place.at(at)))
    return either([matches(_PATH, patterns), *([both([either(templates), _NO_STAR])] if templates else [])])


def _pattern(value: str, canonical: Canonical, place: Place) -> Pattern:
    pattern = pattern_of(value)
    text = {"present": "/", "exact": value, "prefix": f"{pattern.text}x", "suffix": pattern.text}[pattern.kind]
    if pattern.kind == "suffix":
        text = f"/x{text}"
    _check_canonical(text, value, canonical, place)
    if pattern.odd:
        place.note(f"the star inside `{value[:120]}` is a mere character, as in Istio", "a template has `{*}`")
    return pattern


def _check_canonical(text: str, value: str, canonical: Canonical, place: Place) -> None:
    try:
        form = canonical(text)
    except UnacceptablePath as error:
        place.refuse(
            f"no path that is decided about is like `{value[:120]}`: {error.message}", "write it as it is sent"
        )
        return
    if form != text:
        place.refuse(
            f"`{value[:120]}` is not canonical, so no path is like it", f"paths are decided about as `{form[:120]}`"
        )


def _template(value: str, canonical: Canonical, place: Place) -> Test:
    parts = value.split("/")[1:]
    globs = [part for part in parts if part in (ONE, ANY)]
    bad = next((part for part in parts if part not in (ONE, ANY) and not _LITERAL.fullmatch(part)), None)
    if not value.startswith("/") or bad is not None or ANY in globs[:-1]:
        message = f"`{value[:120]}` is no path template"
        place.refuse(message, "each `{*}` and `{**}` is a whole segment, `{**}` the last of them, and no other stars")
        return TRUE
    _check_canonical("/" + "/".join("x" if part in (ONE, ANY) else part for part in parts), value, canonical, place)
    pieces = "/".join(["", *("*" if part in (ONE, ANY) else part for part in parts)]).split("*")
    shape = like(_PATH, *pieces)
    if ANY not in globs:
        ends = [Test(f'!({_PATH} like "*/")')] if parts[-1] == ONE else []  # one segment is never an empty one
        return both([shape, Test(f"context.request.segments == {len(parts)}"), *ends])
    if ONE in globs and any(part != ONE for part in parts[parts.index(ONE) : parts.index(ANY)]):
        message = f"`{value[:120]}`: with `{ANY}` behind it, `{ONE}` cannot be held to one segment"
        place.refuse(message, f"write out what stands for `{ONE}`, or give `{ANY}` up for a number of `{ONE}`")
    return shape
