"""Issuers' keys: fetched within bounds, the last good ones kept, failures told and tried again."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from policyd.mesh.jwks import MAX_BYTES, parse_jwks
from policyd.sources.key_sets import REFRESH_SECONDS, FetchFailed, KeySets, fetch, place_of_keys
from tests.fakes.issuer import Issuer

URI = "https://login.example.com/keys"
KEYS, OTHER = (Issuer("https://login.example.com").jwks for _ in range(2))


@pytest.fixture
def sets(tmp_path: Path) -> KeySets:
    made = KeySets(tmp_path / "jwks")
    made.want([URI])
    return made


def test_what_is_wanted_is_due_at_once_and_then_from_time_to_time(sets: KeySets) -> None:
    assert (sets.due(10.0), sets.texts()) == ([URI], {})

    assert sets.took(URI, KEYS, 10.0) is True
    assert (sets.due(10.0), sets.pause(10.0)) == ([], REFRESH_SECONDS)
    assert (sets.due(10.0 + REFRESH_SECONDS), sets.texts()) == ([URI], {URI: parse_jwks(KEYS)})


def test_only_other_keys_are_news(sets: KeySets) -> None:
    sets.took(URI, KEYS, 0.0)

    assert sets.took(URI, json.dumps(json.loads(KEYS), indent=2), 1.0) is False
    assert sets.took(URI, OTHER, 2.0) is True


def test_a_failure_keeps_the_last_good_keys_and_is_told_until_it_is_over(sets: KeySets) -> None:
    sets.missed(URI, "no answer", 0.0)
    assert list(sets.problems()) == [
        f"the keys at `{URI}` cannot be fetched: no answer; its issuer's tokens are refused"
    ]

    sets.took(URI, KEYS, 1.0)
    assert list(sets.problems()) == []
    sets.missed(URI, "the answer is 500", 2.0)
    assert sets.texts() == {URI: parse_jwks(KEYS)}
    assert list(sets.problems()) == [
        f"the keys at `{URI}` cannot be fetched: the answer is 500; the keys from before are used"
    ]


def test_it_is_tried_again_soon_and_then_less_and_less_often(sets: KeySets) -> None:
    pauses = []
    for _ in range(12):
        sets.missed(URI, "x", 0.0)
        pauses.append(sets.pause(0.0))

    assert pauses == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, *[REFRESH_SECONDS] * 3]


def test_what_is_no_key_set_is_a_failure(sets: KeySets) -> None:
    with pytest.raises(FetchFailed) as error:
        sets.took(URI, "<html>", 0.0)
    assert str(error.value) == "the key set is no JSON"


def test_a_restart_has_the_last_good_keys(sets: KeySets, tmp_path: Path) -> None:
    sets.took(URI, KEYS, 0.0)
    (tmp_path / "jwks" / "broken.json").write_text("{")
    (tmp_path / "jwks" / "other.json").write_text(json.dumps({"uri": URI, "keys": OTHER}))

    again = KeySets(tmp_path / "jwks")
    again.want([URI])
    assert (again.texts(), again.due(0.0)) == ({URI: parse_jwks(KEYS)}, [URI])


def test_what_is_no_longer_wanted_goes(sets: KeySets, tmp_path: Path) -> None:
    sets.took(URI, KEYS, 0.0)
    sets.want([])

    assert (sets.texts(), list((tmp_path / "jwks").iterdir())) == ({}, [])


# ---- over the wire


class Publisher(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        here = "/.well-known/openid-configuration"
        found = {
            "/keys": (200, KEYS.encode()),
            here: (200, self.configuration("", "/keys")),
            f"/other{here}": (200, self.configuration("", "/keys")),
            f"/elsewhere{here}": (200, self.configuration("/elsewhere", "http://login.example.com/keys")),
            f"/nowhere{here}": (200, self.configuration("/nowhere", "/gone")),
            f"/loop{here}": (200, self.configuration("/loop", f"/loop{here}")),
            f"/empty{here}": (200, b"[]"),
            "/moved": (302, b""),
            "/large": (200, b" " * (2 * MAX_BYTES)),
            "/noise": (200, b"\xff\xfe"),
        }
        status, body = found.get(self.path, (404, b""))
        if self.path == "/slow":
            time.sleep(1.0)
        self.send_response(status)
        if status == 302:
            self.send_header("location", "/keys")
        self.end_headers()
        for at in range(0, len(body), 65536):
            try:
                self.wfile.write(body[at : at + 65536])
            except OSError:
                return

    def configuration(self, issuer: str, keys: str) -> bytes:
        """What an issuer says of itself, and where its keys are."""
        here = f"http://127.0.0.1:{self.server.server_address[1]}"  # type: ignore[str-bytes-safe]
        place = keys if "://" in keys else here + keys
        return json.dumps({"issuer": here + issuer, "jwks_uri": place}).encode()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def publisher() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Publisher) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


async def test_keys_are_fetched(publisher: str) -> None:
    assert await fetch(f"{publisher}/keys", 5.0) == KEYS


async def test_keys_are_fetched_from_where_the_issuer_says_that_they_are(publisher: str) -> None:
    assert await fetch(f"{publisher}/.well-known/openid-configuration", 5.0) == KEYS
    # what is no key set is none, however often it leads on
    assert "jwks_uri" in await fetch(f"{publisher}/loop/.well-known/openid-configuration", 5.0)


CONFIGURATION = "https://login.example.com/realm/.well-known/openid-configuration"


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        ({"issuer": "https://login.example.com/realm", "jwks_uri": "http://127.0.0.1/keys"}, "is no `https://` URI"),
        ({"issuer": "https://login.example.com/realm", "jwks_uri": "file:///etc/passwd"}, "is no `https://` URI"),
        ({"issuer": "https://login.example.com/realm", "jwks_uri": 3}, "is no `https://` URI"),
        ({"issuer": "https://login.example.com", "jwks_uri": "https://x/"}, "of another issuer"),
        ({"issuer": None, "jwks_uri": "https://x/"}, "of another issuer"),
        ({"jwks_uri": "https://x/"}, "names no `issuer`"),
    ],
)
def test_an_issuer_leads_to_no_place_that_keys_may_not_have(said: dict[str, object], problem: str) -> None:
    with pytest.raises(FetchFailed) as error:
        place_of_keys(CONFIGURATION, json.dumps(said))
    assert problem in str(error.value)


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, "3"])
def test_what_is_no_configuration_is_a_failure(text: str) -> None:
    with pytest.raises(FetchFailed):
        place_of_keys(CONFIGURATION, text)


def test_the_place_of_keys_may_be_another_server(publisher: str) -> None:
    said = {"issuer": "https://login.example.com/realm/", "jwks_uri": "https://keys.example.com/realm"}
    assert place_of_keys(CONFIGURATION, json.dumps(said)) == "https://keys.example.com/realm"


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        ("/gone", "the answer is 404"),
        ("/moved", "the answer is 302"),
        ("/large", "the answer has more than 131,072 bytes"),
        ("/noise", "the answer is no UTF-8"),
        ("/slow", "no answer within 0.2 s"),
        ("/other/.well-known/openid-configuration", "it is the configuration of another issuer"),
        ("/elsewhere/.well-known/openid-configuration", "its `jwks_uri` is no `https://` URI"),
        ("/nowhere/.well-known/openid-configuration", "the answer is 404"),
        ("/empty/.well-known/openid-configuration", "it names no `issuer` and `jwks_uri`"),
    ],
)
async def test_what_an_issuer_may_not_do_is_a_failure(publisher: str, path: str, problem: str) -> None:
    with pytest.raises(FetchFailed) as error:
        await fetch(publisher + path, 0.2 if path == "/slow" else 5.0)
    assert str(error.value) == problem


async def test_a_server_that_nobody_vouches_for_is_not_believed(publisher: str) -> None:
    with pytest.raises(FetchFailed):
        await fetch(publisher.replace("http://", "https://"), 5.0)


async def test_nobody_there_is_a_failure() -> None:
    with pytest.raises(FetchFailed):
        await fetch("http://127.0.0.1:1/keys", 5.0)
