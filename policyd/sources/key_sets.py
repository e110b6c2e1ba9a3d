"""The key sets that issuers publish: fetched by policyd for all proxies, and the last good ones kept.

Law: what was fetched once stays until something better is, over restarts too; a failure is told for as long as it
lasts. When to ask next is decided here from a clock that is an argument; asking is `fetch`'s.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import ssl
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Final

import httpx

from policyd.errors import PolicydError
from policyd.mesh.istio.request_authentication import DISCOVERY, is_fetchable
from policyd.mesh.jwks import MAX_BYTES, parse_jwks
from policyd.sources.state import write_private

REFRESH_SECONDS: Final = 300.0
FIRST_RETRY_SECONDS: Final = 1.0  # doubled at each failure, up to the refresh
MAX_FILES: Final = 1_000
_OK: Final = 200


class FetchFailed(PolicydError):
    """An issuer's keys could not be fetched; those fetched before, if any, are used on."""

    code = "key_set"


@dataclass(frozen=True, slots=True)
class Kept:
    """What is known of one URI: its keys ("" before the first time), and when to ask again."""

    keys: str = ""
    due: float = 0.0
    failures: int = 0
    problem: str = ""


def taken(kept: Kept, keys: str, now: float) -> Kept:
    """After a fetch that brought keys."""
    return replace(kept, keys=keys, due=now + REFRESH_SECONDS, failures=0, problem="")


def failed(kept: Kept, problem: str, now: float) -> Kept:
    """After one that did not."""
    pause = min(FIRST_RETRY_SECONDS * 2 ** min(kept.failures, 16), REFRESH_SECONDS)
    return replace(kept, due=now + pause, failures=kept.failures + 1, problem=problem)


class KeySets:
    """The key sets of the URIs that are wanted; `folder` keeps them. Readers in any thread see one whole mapping."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._kept: Mapping[str, Kept] = MappingProxyType({uri: Kept(keys) for uri, keys in _load(folder)})

    def texts(self) -> dict[str, str]:
        """The keys by URI, where there are any."""
        return {uri: kept.keys for uri, kept in self._kept.items() if kept.keys}

    def want(self, uris: Collection[str]) -> None:
        """Only these URIs are wanted from now on."""
        before = self._kept
        self._kept = MappingProxyType({uri: before.get(uri, Kept()) for uri in uris})
        for uri in before.keys() - self._kept.keys():
            _file(self._folder, uri).unlink(missing_ok=True)

    def due(self, now: float) -> list[str]:
        """The URIs to ask now."""
        return [uri for uri, kept in self._kept.items() if kept.due <= now]

    def pause(self, now: float) -> float:
        """How many seconds there are until one is due."""
        return max(0.0, min((kept.due for kept in self._kept.values()), default=now + REFRESH_SECONDS) - now)

    def took(self, uri: str, text: str, now: float) -> bool:
        """Keep what was fetched; tell whether it is something new. Raises FetchFailed for what is no key set."""
        try:
            keys = parse_jwks(text)
        except ValueError as error:
            raise FetchFailed(str(error).partition("; ")[0]) from None
        before = self._kept[uri]
        self._put(uri, taken(before, keys, now))
        if keys != before.keys:
            _store(self._folder, uri, keys)
        return keys != before.keys

    def missed(self, uri: str, problem: str, now: float) -> None:
        """It could not be fetched."""
        self._put(uri, failed(self._kept[uri], problem, now))

    def problems(self) -> Iterator[str]:
        """A line for each URI that could not be fetched the last time."""
        for uri, kept in self._kept.items():
            if kept.problem:
                then = "the keys from before are used" if kept.keys else "its issuer's tokens are refused"
                yield f"the keys at `{uri}` cannot be fetched: {kept.problem}; {then}"

    def _put(self, uri: str, kept: Kept) -> None:
        self._kept = MappingProxyType({**self._kept, uri: kept})


async def fetch(uri: str, seconds: float) -> str:
    """The keys that an issuer publishes, at `uri` or where that says; raises FetchFailed.

    No redirect is followed, no proxy of the environment is used.
    """
    try:
        async with asyncio.timeout(seconds):
            text = await _get(uri, seconds)
            return await _get(place_of_keys(uri, text), seconds) if uri.endswith(DISCOVERY) else text
    except (TimeoutError, httpx.TimeoutException):
        raise FetchFailed(f"no answer within {seconds:g} s") from None


def place_of_keys(uri: str, text: str) -> str:
    """Where the configuration of an issuer, fetched from `uri`, says that its keys are; raises FetchFailed."""
    try:
        found = json.loads(text)
        issuer, place = found["issuer"], found["jwks_uri"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise FetchFailed("it names no `issuer` and `jwks_uri`") from None
    if not isinstance(issuer, str) or issuer.removesuffix("/") != uri.removesuffix(DISCOVERY):
        raise FetchFailed("it is the configuration of another issuer")
    scheme = f"{uri.partition(':')[0]}:"  # who is asked by https leads to nothing on this machine
    if not isinstance(place, str) or not is_fetchable(place) or not place.startswith(("https:", scheme)):
        raise FetchFailed("its `jwks_uri` is no `https://` URI")
    return place


async def _get(uri: str, seconds: float) -> str:
    try:
        async with (
            httpx.AsyncClient(trust_env=False, follow_redirects=False, verify=_trust(uri), timeout=seconds) as client,
            client.stream("GET", uri, headers={"accept": "application/json"}) as response,
        ):
            if response.status_code != _OK:
                raise FetchFailed(f"the answer is {response.status_code}")
            parts, size = [], 0
            async for part in response.aiter_bytes():
                parts.append(part)
                size += len(part)
                if size > MAX_BYTES:
                    raise FetchFailed(f"the answer has more than {MAX_BYTES:,} bytes")
    except httpx.TimeoutException:
        raise
    except (httpx.HTTPError, httpx.InvalidURL, ssl.SSLError, OSError) as error:
        raise FetchFailed((str(error) or type(error).__name__)[:200]) from None
    try:
        return b"".join(parts).decode()
    except UnicodeDecodeError:
        raise FetchFailed("the answer is no UTF-8") from None


def _trust(uri: str) -> ssl.SSLContext | bool:
    """The machine's own authorities, for https."""
    return ssl.create_default_context() if uri.startswith("https:") else False


def _file(folder: Path, uri: str) -> Path:
    return folder / f"{hashlib.sha256(uri.encode()).hexdigest()}.json"


def _store(folder: Path, uri: str, keys: str) -> None:
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        write_private(_file(folder, uri), json.dumps({"uri": uri, "keys": keys}).encode())
    except OSError as error:
        raise FetchFailed(f"they cannot be kept: {(error.strerror or str(error)).lower()}") from None


def _load(folder: Path) -> Iterator[tuple[str, str]]:
    """What was kept; what is broken is as if it were not there."""
    for file in sorted(folder.glob("*.json"))[:MAX_FILES]:
        try:
            found = json.loads(file.read_bytes()[: 2 * MAX_BYTES])
            uri, keys = found["uri"], parse_jwks(found["keys"])
        except (OSError, ValueError, KeyError, TypeError):
            continue
        if isinstance(uri, str) and file == _file(folder, uri):
            yield uri, keys
