"""The operator's masks."""

from __future__ import annotations

import hmac
from typing import Any

import pytest

from policyd.audit.record import Fault, Shadow
from policyd.audit.rules import make_masker
from policyd.config.audit import MaskSettings
from policyd.config.settings import parse_settings
from policyd.errors import InvalidInput
from tests.audit.samples import an_entry

KEY = b"k" * 32
CONTEXT: dict[str, Any] = {
    "request": {"path": "/users/4711/orders", "headers": {"end-user": "jason", "x-team": "red"}},
    "client_ip": {"__extn": {"fn": "ip", "arg": "10.0.0.1"}},
}


USER: dict[str, Any] = {
    "user": {
        "__entity": {"type": "User", "id": "https://login.example/alice"},
        "issuer": "https://login.example",
        "subject": "alice",
        "claims": {
            "email": ["a@example.com"],
            "org.roles": ["editor", "owner", "editing"],
            "sub": ["alice"],
            "none": [],
        },
    }
}


def digest(text: str) -> str:
    return "hmac-sha256:" + hmac.digest(KEY, text.encode(), "sha256").hex()[:32]


def masked(*rules: dict[str, Any], context: dict[str, Any] | None = None) -> tuple[dict[str, Any], tuple[str, ...]]:
    apply = make_masker([MaskSettings(**rule) for rule in rules], KEY)
    assert apply is not None
    entry = apply(an_entry(context=CONTEXT if context is None else context))
    return dict(entry.context), entry.masked


@pytest.mark.parametrize(
    ("rule", "request_part", "path"),
    [
        (
            {"header": "end-user"},
            {"path": "/users/4711/orders", "headers": {"x-team": "red"}},
            "request.headers.end-user",
        ),
        (
            {"header": "End-User", "how": "hash"},
            {"path": "/users/4711/orders", "headers": {"end-user": digest("jason"), "x-team": "red"}},
            "request.headers.end-user",
        ),
        (
            {"attribute": "request.path", "how": "truncate", "length": 7},
            {"path": "/users/…", "headers": {"end-user": "jason", "x-team": "red"}},
            "request.path",
        ),
        ({"attribute": "request.headers"}, {"path": "/users/4711/orders"}, "request.headers"),
    ],
)  # fmt: skip
def test_a_value_is_removed_hashed_or_shortened_and_named(
    rule: dict[str, Any], request_part: dict[str, Any], path: str
) -> None:
    assert masked(rule) == ({**CONTEXT, "request": request_part}, (path,))


@pytest.mark.parametrize(
    ("rule", "changed"),
    [
        ({"claim": "email"}, {"email": None}),
        ({"claim": "none"}, {"none": None}),
        ({"claim": "email", "how": "hash"}, {"email": [digest("a@example.com")]}),
        ({"claim": "org.roles", "how": "hash"},
         {"org.roles": sorted(map(digest, ("editor", "owner", "editing")))}),
        ({"claim": "org.roles", "how": "truncate", "length": 4}, {"org.roles": ["edit…", "owne…"]}),
        ({"claim": "none", "how": "hash"}, {"none": []}),
    ],
)  # fmt: skip
def test_of_a_claim_each_value_is_removed_hashed_or_shortened(rule: dict[str, Any], changed: dict[str, Any]) -> None:
    claims = {name: value for name, value in (USER["user"]["claims"] | changed).items() if value is not None}
    expected = {"user": {**USER["user"], "claims": claims}}
    assert masked(rule, context=USER) == (expected, (f"user.claims.{rule['claim']}",))


def test_an_attribute_that_is_a_set_is_masked_as_a_claim_is() -> None:
    attribute, claim = {"attribute": "user.claims.email", "how": "hash"}, {"claim": "email", "how": "hash"}
    assert masked(attribute, context=USER) == masked(claim, context=USER)


@pytest.mark.parametrize(
    ("claim", "user", "names"),
    [
        ("sub", {"issuer": "https://login.example"}, ("user.claims.sub", "user.subject", "user.__entity.id")),
        ("iss", {"subject": "alice"}, ("user.issuer", "user.__entity.id")),
    ],
)
def test_who_the_user_is_is_masked_wherever_it_stands(claim: str, user: dict[str, str], names: tuple[str, ...]) -> None:
    claims = {name: value for name, value in USER["user"]["claims"].items() if name != claim}
    expected = {"user": {"__entity": {"type": "User"}, **user, "claims": claims}}
    assert masked({"claim": claim}, context=USER) == (expected, names)
    hashed, _ = masked({"claim": claim, "how": "hash"}, context=USER)
    assert hashed["user"]["__entity"]["id"] == digest("https://login.example/alice")


@pytest.mark.parametrize("context", [{}, {"user": {}}, {"user": "text"}, {"user": {"claims": {"mail": ["a"]}}}])
def test_where_there_is_no_such_claim_nothing_is_masked(context: dict[str, Any]) -> None:
    assert masked({"claim": "email"}, {"claim": "sub"}, context=context) == (context, ())


def test_what_is_no_text_is_hashed_as_its_json() -> None:
    context, _ = masked({"attribute": "client_ip", "how": "hash"})
    assert context["client_ip"] == digest('{"__extn":{"fn":"ip","arg":"10.0.0.1"}}')


def test_rules_hold_one_after_the_other() -> None:
    context, names = masked({"header": "x-team", "how": "hash"}, {"header": "end-user"})
    assert context["request"]["headers"] == {"x-team": digest("red")}
    assert names == ("request.headers.x-team", "request.headers.end-user")


@pytest.mark.parametrize("context", [{}, {"request": {}}, {"request": "text"}, {"request": {"headers": None}}])
def test_where_nothing_stands_nothing_is_masked(context: dict[str, Any]) -> None:
    assert masked({"header": "end-user"}, context=context) == (context, ())


@pytest.mark.parametrize(
    ("attribute", "code", "message", "kept"),
    [
        ("request.path", "unacceptable_path", "`/users/4711//x` has two", "`[masked]` has two"),
        ("request", "unacceptable_path", "`/a`b` is escaped twice", "`[masked]` is escaped twice"),
        ("request.host", "incomplete_request", "`'shop'` is no name under `*.a`", "`[masked]`"),
        ("sni", "incomplete_request", "`'shop:1'` is no name to ask for", "`[masked]` is no name to ask for"),
        ("request.host", "unacceptable_path", "`/a//b` has an empty segment", "`/a//b` has an empty segment"),
        ("request.path", "p1", "`/users/4711` is quoted", "`/users/4711` is quoted"),
    ],
)  # fmt: skip
def test_what_is_masked_is_not_told_by_the_error_about_it(attribute: str, code: str, message: str, kept: str) -> None:
    apply = make_masker([MaskSettings(attribute=attribute)], KEY)
    assert apply is not None
    fault = Fault(code, message)
    entry = apply(an_entry(context={}, errors=(fault,), shadow=Shadow(decision="error", errors=(fault,))))
    assert entry.shadow is not None
    assert (entry.errors, entry.shadow.errors) == ((Fault(code, kept),), (Fault(code, kept),))


def test_equal_values_stay_equal_and_other_keys_make_others() -> None:
    rule = MaskSettings(header="end-user", how="hash")
    one, two = make_masker([rule], KEY), make_masker([rule], b"x" * 32)
    assert one is not None
    assert two is not None
    entry = an_entry(context=CONTEXT)
    assert one(entry) == one(an_entry(context=CONTEXT))
    assert one(entry).context != two(entry).context


def test_without_rules_there_is_nothing_to_apply() -> None:
    assert make_masker([], KEY) is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{}", "a mask names one thing: a `header`, a `claim` or an `attribute`"),
        ("{header: a, attribute: b}", "a mask names one thing: a `header`, a `claim` or an `attribute`"),
        ("{header: a, claim: b}", "a mask names one thing: a `header`, a `claim` or an `attribute`"),
        ("{claim: a, attribute: b}", "a mask names one thing: a `header`, a `claim` or an `attribute`"),
        ("{claim: a, how: truncate}", "`length` goes with `how: truncate`, and with nothing else"),
        ("{claim: ''}", "`''` is no name of a claim"),
        ("{claim: ' a'}", "`' a'` is no name of a claim"),
        ('{claim: "a\\nb"}', "is no name of a claim"),
        (f"{{claim: {'a' * 257}}}", "is no name of a claim"),
        ("{claim: 5}", "claim"),
        ("{header: a, how: truncate}", "`length` goes with `how: truncate`, and with nothing else"),
        ("{header: a, length: 3}", "`length` goes with `how: truncate`, and with nothing else"),
        ("{header: 'a b'}", "`a b` is no name of a header"),
        ("{attribute: request..path}", "`request..path` is no attribute"),
        ("{header: a, how: forget}", "forget"),
        ("{claims: email}", "claims"),
    ],
)
def test_a_bad_rule_is_refused(text: str, message: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_settings(f"audit:\n  mask:\n  - {text}\n")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("maxSize: 10", "greater than or equal to 1048576|at least"),
        ("maxSize: 10GB", "`10GB` is no size; write it as in `64MiB` or `10GiB`"),
        ("segmentSize: 1KiB", ""),
        ("segmentAge: 2d", ""),
        ("include: {headers: ['a:b']}", "`a:b` is no name of a header"),
        ("include: {claims: ['']}", "`''` is no name of a claim"),
        ("include: {claims: [a, 5]}", "claims"),
        (f"include: {{claims: [{', '.join(map(str, map('c{}'.format, range(65))))}]}}", "64"),
    ],
)
def test_a_bad_setting_of_the_journal_is_refused(line: str, message: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_settings(f"audit: {{{line}}}\n")
    assert any(part in str(caught.value) for part in message.split("|"))
