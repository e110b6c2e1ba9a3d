"""A collector over OTLP/HTTP: one request a batch.

Law: no answer, and an answer that says so (429, 502, 503, 504), is for later; what an operator can mend (who we are,
where it is) waits too, since records do not spoil. Only a batch that is itself refused is not sent again as it is.
Answers are read up to a bound.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import httpx
from google.protobuf.message import DecodeError

from policyd.audit import otlp
from policyd.audit.read import Line
from policyd.audit.stream import Sent
from policyd.errors import UsageError

TIMEOUT_SECONDS: Final = 10.0
MAX_ANSWER: Final = 65_536
MAX_WAIT: Final = 300.0
MAX_HEADERS: Final = 65_536
_REFUSED: Final = frozenset({400, 413, 422})


class Collector:
    """Sends to `url`; `headers` may hold credentials and are never logged."""

    def __init__(self, url: str, headers: Mapping[str, str], version: str, authorities: Path | None = None) -> None:
        verify: ssl.SSLContext | bool = ssl.create_default_context(cafile=str(authorities)) if authorities else True
        # settings are the folder's: no proxy and no authority from the environment
        self._client = httpx.Client(timeout=TIMEOUT_SECONDS, verify=verify, trust_env=False, headers=dict(headers))
        self._url = url
        self._version = version

    def send(self, lines: Sequence[Line]) -> Sent:
        """Send a batch; raises nothing on purpose."""
        content = otlp.request(lines, self._version)
        try:
            with self._client.stream(
                "POST", self._url, content=content, headers={"content-type": "application/x-protobuf"}
            ) as answer:
                body = _read(answer)
        except httpx.HTTPError as error:
            return Sent("later", f"no answer: {type(error).__name__}")
        return _sent(answer, body)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()


def _read(answer: httpx.Response) -> bytes:
    body = b""
    for part in answer.iter_bytes():
        body += part
        if len(body) > MAX_ANSWER:
            return b""
    return body


def _sent(answer: httpx.Response, body: bytes) -> Sent:
    status = answer.status_code
    if status in _REFUSED:
        return Sent("refused", f"status {status}")
    if not answer.is_success:
        return Sent("later", f"status {status}", _asked_for(answer.headers.get("retry-after", "")))
    try:
        count, why = otlp.refused(body) if "protobuf" in answer.headers.get("content-type", "") else (0, "")
    except DecodeError:
        count, why = 0, ""
    return Sent("refused", why or "records were rejected") if count else Sent("taken")


def _asked_for(text: str) -> float:
    return min(float(text), MAX_WAIT) if text.isascii() and text.isdigit() and len(text) < 6 else 0.0


def read_headers(path: Path) -> dict[str, str]:
    """Headers of a private file, `name: value` a line; raises UsageError."""
    try:
        if path.stat().st_mode & 0o077:
            raise UsageError(f"`{path}` can be read by others", remedy=f"chmod 600 {path}")
        with path.open("rb") as file:
            lines = file.read(MAX_HEADERS).decode("ascii").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"`{path}` cannot be read", remedy="it has a header a line, as in `name: value`") from error
    found = {}
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        name, colon, value = line.partition(":")
        if not colon or not name.strip() or not name.strip().replace("-", "").isalnum():
            raise UsageError(f"`{path}`, line {number}, is no header", remedy="write it as in `name: value`")
        found[name.strip().lower()] = value.strip()
    return found
