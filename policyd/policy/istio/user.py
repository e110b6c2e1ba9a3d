"""The end user of a verified token: `context.user`, whose tags are the claims as sets of texts.

Law: each test here holds only for a request with a user, so that without a token every `not…` matches.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from policyd.policy.istio.expression import TRUE, Test, both, either, equal, like, quoted
from policyd.policy.istio.field import Place
from policyd.policy.istio.pattern import pattern_of

_PRESENT: Final = Test("context has user")
_ISSUER: Final = "context.user.issuer"
_SUBJECT: Final = "context.user.subject"


def request_principals(values: Sequence[str], place: Place) -> Test:
    """Return the test for `<issuer>/<subject>`; the last slash parts them (Istio: requestPrincipalGenerator)."""
    tests = [_request_principal(value, place.at(at)) for at, value in enumerate(values)]
    return both([_PRESENT, either(tests)])


def _request_principal(value: str, place: Place) -> Test:
    pattern = pattern_of(value)
    issuer, slash, subject = pattern.text.rpartition("/")
    match pattern.kind:
        case "present":
            return TRUE
        case "exact" if slash and issuer and subject:
            return both([equal(_ISSUER, [issuer]), equal(_SUBJECT, [subject])])
        case "prefix" if slash:
            return both([equal(_ISSUER, [issuer]), like(_SUBJECT, subject, "") if subject else TRUE])
        case "prefix":
            return like(_ISSUER, subject, "")
        case "suffix" if slash and subject:
            return both([like(_ISSUER, "", issuer) if issuer else TRUE, equal(_SUBJECT, [subject])])
        case "suffix" if not slash:
            return like(_SUBJECT, "", subject)
    place.refuse(f"`{value[:120]}` names no user, so nobody has it", "write `<issuer>/<subject>`")
    return TRUE


def claim(name: str, values: Sequence[str], place: Place) -> Test:
    """Return the test that one of the claim's values is one of these."""
    tag = quoted(name)
    got = f"context.user.getTag({tag})"
    exact: list[str] = []
    tests: list[Test] = []
    for at, value in enumerate(values):
        pattern = pattern_of(value)
        if pattern.kind == "exact":
            exact.append(value)
        elif pattern.kind == "present":
            tests.append(Test(f'!([""].containsAll({got}))', opposite=f'[""].containsAll({got})'))
        else:
            message = f"`{value[:80]}`: a claim is a set here, and no part of a set's texts can be compared"
            place.at(at).refuse(message, "write the values out, or `*` for any")
    if exact:
        listed = ", ".join(map(quoted, dict.fromkeys(exact)))
        one = f"{got}.contains({listed})" if len(set(exact)) == 1 else f"{got}.containsAny([{listed}])"
        tests.insert(0, Test(one))
    return both([_PRESENT, Test(f"context.user.hasTag({tag})"), either(tests)])
