"""Files of headers that settings name: what is wrong with one is told with the setting."""

from __future__ import annotations

import pytest

from policyd.config.settings import Settings, parse_settings
from policyd.mesh.credentials import CredentialFile, Credentials
from policyd.sources.header_files import header_files, header_problems

KEY = "credentials/key"
GOOD = CredentialFile(KEY, "/m/credentials/key", writing="1")
SETTINGS = """\
tracing: {endpoint: "https://c/v1/traces", headers: {X-Key: credentials/key}}
extensionProviders:
  - {name: a, envoyOtelAls: {endpoint: "grpcs://c", headers: {x-key: credentials/key, x-team: credentials/a/team}}}
  - {name: b, opentelemetry: {endpoint: "https://c/v1/traces", headers: {x-b: credentials/b}}}
  - {name: c, zipkin: {endpoint: "https://c/api/v2/spans", headers: {x-c: credentials/c}}}
  - {name: d, zipkin: {endpoint: "https://c/api/v2/spans"}}
"""


def one(text: str) -> Settings:
    return parse_settings(f"tracing: {{endpoint: 'https://c/', headers: {text}}}")


@pytest.mark.parametrize(
    ("file", "problem"),
    [
        (GOOD, ""),
        (
            None,
            "policyd.yaml: `tracing.headers.x-key`: there is no file `credentials/key`; write it, or correct the name",
        ),
        (
            CredentialFile(KEY, "/m", text="-----BEGIN CERTIFICATE-----"),
            "policyd.yaml: `tracing.headers.x-key`: `credentials/key` is no value of a header; name a file that "
            "holds the value alone",
        ),
        (
            CredentialFile(KEY, "/m", writing="1", unfit="can be read by others; `chmod 600` it"),
            "policyd.yaml: `tracing.headers.x-key`: `credentials/key` can be read by others; `chmod 600` it",
        ),
    ],
)
def test_a_file_that_proxies_could_not_send_is_refused(file: CredentialFile | None, problem: str) -> None:
    there: Credentials = {} if file is None else {KEY: file}

    assert [str(one_) for one_ in header_problems(one("{x-key: credentials/key}"), there)] == (
        [problem] if problem else []
    )


def test_where_credentials_are_not_to_be_seen_nothing_is_wrong_with_them() -> None:
    assert list(header_problems(one("{x-key: credentials/key}"), None)) == []


def test_every_setting_that_names_files_is_looked_at() -> None:
    settings = parse_settings(SETTINGS)

    assert [problem.message.partition("`: ")[0].lstrip("`") for problem in header_problems(settings, {})] == [
        "tracing.headers.x-key",
        "extensionProviders[0].envoyOtelAls.headers.x-key",
        "extensionProviders[0].envoyOtelAls.headers.x-team",
        "extensionProviders[1].opentelemetry.headers.x-b",
        "extensionProviders[2].zipkin.headers.x-c",
    ]
    assert list(header_files(settings, {KEY: GOOD, "credentials/other": GOOD})) == [GOOD]
