"""Expressions: what proxies take is taken, and nothing else."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policyd import envoy_api
from policyd.mesh.cel import MAX_DEPTH, MAX_LENGTH, check_cel, check_shown, parse_cel


def refusal(check: Callable[[str], str], text: str) -> str:
    """Why a text is refused; "" where it is taken."""
    try:
        assert check(text) == text
    except ValueError as error:
        return str(error)
    return ""


GOOD = [
    "response.code >= 400",
    "response.code >= 400 || xds.cluster_name == 'BlackHoleCluster'",
    '!(response.code in [401, 403]) && request.method != "GET"',
    "has(request.headers.x) ? request.headers['x-team'] : 'none'",
    "request.url_path.startsWith('/a') && !request.url_path.endsWith(\"/b\") && request.host.contains('c')",
    "request.url_path.matches(r'^/\\d+$')",
    "request.duration > duration('1.5s') && request.time < timestamp('2030-01-01T00:00:00Z')",
    "size(request.url_path) > 3 && request.host.size() < 9",
    "-1 < 2 - 1 && 1.5e3 > double(2) && 1u == uint(1) && int('3') * 2 / 3 == 2",
    "connection.mtls && connection.uri_san_peer_certificate == 'spiffe://a/b'",
    "metadata.filter_metadata['envoy.filters.http.ext_authz'].decision == 'deny'",
    "source.port == 1 ? destination.address == 'a' : upstream.address == 'b' ? true : null == null",
    "((response.flags) + 1) == 1",
]


@pytest.mark.parametrize("text", GOOD)
def test_what_proxies_take_is_taken(text: str) -> None:
    assert check_cel(text) == text


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "the expression ends, and a value is expected"),
        ("response.code >=", "the expression ends, and a value is expected"),
        ("response.code 400", "there is `400`, and nothing more is expected"),
        ("(response.code == 1", "the expression ends, and `)` is expected"),
        ("response.code == 1)", "there is `)`, and nothing more is expected"),
        ("response.code ? 1", "the expression ends, and `:` is expected"),
        ("response.coed == 1", "`response.coed` is no attribute of a request; did you mean `code`?"),
        ("respones.code == 1", "`respones` is no attribute of a request; did you mean `response`?"),
        ("response == 1", "`response` is no value; name a field of it, as in `response.backend_latency`"),
        ("string(response.code) == '1'", "`string` is no function that proxies know"),
        ("request.host.lowerAscii()", "`lowerAscii` is no function that proxies know"),
        ("request.host.startswith('a')", "`startswith` is no function that proxies know; did you mean `startsWith`?"),
        ("[1].exists(x, x == 1)", "`exists` is no function that proxies know"),
        ("has(request.headers['x'])", "`has` takes a field, as in `has(request.headers.x)`"),
        ("has(1)", "`has` takes a field, as in `has(request.headers.x)`"),
        ("size()", "`size` takes one value"),
        ("request.host.contains()", "`contains` takes one value"),
        ("request.host.size(1)", "`size` takes nothing"),
        ("request.in == 1", "there is `in`, and a name is expected after `.`"),
        ("!-response.code", "there is `-`, and a value is expected"),
        ("response.code % 2 == 0", "`% 2 == 0` is no part of an expression"),
        ("request.host == 'a", "`'a` is no part of an expression"),
        ("request.host == '\\q'", "`'\\q'` is no part of an expression"),
        ("{'a': 1}.a", "`{'a': 1}.a` is no part of an expression"),
        ("while", "there is `while`, and a value is expected"),
        ("1" * 19, "there is `1`, and nothing more is expected"),
        ("(" * 30 + "1" + ")" * 30, f"an expression is at most {MAX_DEPTH} deep"),
        ("1 +" * 400 + "1", f"an expression has at most {MAX_LENGTH} characters, this one 1201"),
    ],
)  # fmt: skip
def test_what_they_would_refuse_or_never_find_is_refused(text: str, problem: str) -> None:
    assert refusal(check_cel, text) == problem


HEADERS = "of headers a label shows one by its name, as in `request.headers['x-team']`"
QUERY = "which may hold what nobody should see; use `request.url_path`"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("request.headers['x-team']", ""),
        ("response.code >= 500 ? 'broken' : request.method", ""),
        ("request.headers.cookie", "`request.headers['cookie']` is a credential, which no label shows"),
        (
            "request.headers['Authorization']",
            "`request.headers['Authorization']` is a credential, which no label shows",
        ),
        (
            "has(request.headers.cookie) ? 'a' : 'b'",
            "`request.headers['cookie']` is a credential, which no label shows",
        ),
        ("response.headers['set-cookie']", "`response.headers['set-cookie']` is a credential, which no label shows"),
        (
            "request.headers['x-policyd-peer']",
            "`request.headers['x-policyd-peer']` is what proxies tell each other, which no label shows",
        ),
        ("request.headers[request.host]", HEADERS),
        ("request['headers']['cookie']", "`request.headers['cookie']` is a credential, which no label shows"),
        ("request.headers", HEADERS),
        ("request.path", f"`request.path` has a query, {QUERY}"),
        ("request.query", f"`request.query` has a query, {QUERY}"),
    ],
)
def test_a_label_shows_no_credential_and_no_query(text: str, problem: str) -> None:
    assert refusal(check_shown, text) == problem


def test_an_attribute_that_is_only_known_later_is_said_to_be() -> None:
    assert parse_cel("request.headers[request.host] == metadata.a['b']").reads == (
        ("request", "host"),
        ("request", "headers", None),
        ("metadata", "a", "b"),
    )


words = st.sampled_from([
    "request", ".", "host", "response.code", "(", ")", "[", "]", ",", "'a'", "1", "==", "&&", "!", "-", "?", ":", "has",
    "size", "in", "%", "\\", "\x00", "é", "{", "true",
])  # fmt: skip


@given(st.lists(words, max_size=30))
def test_whatever_is_written_is_taken_or_refused_in_words(parts: list[str]) -> None:
    text = " ".join(parts)
    try:
        taken = check_cel(text) == text
    except ValueError as error:
        taken = bool(str(error))
    assert taken


@pytest.mark.e2e
def test_the_real_envoy_takes_what_is_taken(tmp_path: Path) -> None:
    types = "type.googleapis.com/envoy.extensions"

    def log(text: str) -> dict[str, Any]:
        only = {"@type": f"{types}.access_loggers.filters.cel.v3.ExpressionFilter", "expression": text}
        file = {"@type": f"{types}.access_loggers.file.v3.FileAccessLog", "path": "/dev/null"}
        form = {"log_format": {"text_format_source": {"inline_string": f"%CEL({text}):100%"}}}
        which = {"extension_filter": {"name": "cel", "typed_config": only}}
        return {"name": "file", "filter": which, "typed_config": {**file, **form}}

    admin = {"address": {"pipe": {"path": str(tmp_path / "a")}}, "access_log": [log(text) for text in GOOD]}
    (tmp_path / "envoy.json").write_text(json.dumps({"admin": admin}))
    command = [str(envoy_api.envoy_binary(None)), "--mode", "validate", "-c", str(tmp_path / "envoy.json")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)

    assert done.returncode == 0, done.stderr[-2000:]
