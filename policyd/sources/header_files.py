"""The files of headers by which collectors of proxies' spans and lines know who sends them.

Law: only what proxies can send is handed to them: a change that names a file which is not there, which others may read
or which is no header's value is refused, and what was in force stays.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from policyd.config.settings import SETTINGS_FILE, Settings
from policyd.errors import Problem
from policyd.mesh.credentials import CredentialFile, Credentials


def header_files(settings: Settings, credentials: Credentials | None) -> Iterator[CredentialFile]:
    """Those that settings name, as far as they are there."""
    for path in sorted({path for _, headers in _named(settings) for path in headers.values()}):
        if path in (credentials or {}):
            yield (credentials or {})[path]


def header_problems(settings: Settings, credentials: Credentials | None) -> Iterator[Problem]:
    """What is wrong with the files that settings name; nothing where they are not to be seen."""
    if credentials is None:
        return
    for where, headers in _named(settings):
        for header, path in headers.items():
            if fault := _fault(path, credentials):
                message, remedy = fault
                yield Problem("credential", f"`{where}.headers.{header}`: {message}", SETTINGS_FILE, remedy=remedy)


def _named(settings: Settings) -> Iterator[tuple[str, Mapping[str, str]]]:
    yield "tracing", settings.tracing.headers
    for at, one in enumerate(settings.extension_providers):
        for kind, found in (
            ("envoyOtelAls", one.envoy_otel_als),
            ("opentelemetry", one.opentelemetry),
            ("zipkin", one.zipkin),
        ):
            if found is not None:
                yield f"extensionProviders[{at}].{kind}", found.headers


def _fault(path: str, credentials: Credentials) -> tuple[str, str] | None:
    file = credentials.get(path)
    if file is None:
        return f"there is no file `{path}`", "write it, or correct the name"
    if not file.writing:
        return f"`{path}` is no value of a header", "name a file that holds the value alone"
    if file.unfit:
        what, _, remedy = file.unfit.partition("; ")
        return f"`{path}` {what}", remedy
    return None
