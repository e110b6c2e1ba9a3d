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
from policyd.sources.key_sets import REFRESH_SECONDS, FetchFailed, KeySets, fetch
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
        match self.path:
            case "/keys":
                status, body = 200, KEYS.encode()
            case "/moved":
                status, body = 302, b""
            case "/large":
                status, body = 200, b" " * (2 * MAX_BYTES)
            case "/noise":
                status, body = 200, b"\xff\xfe"
            case _:
                status, body = 404, b""
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


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        ("/gone", "the answer is 404"),
        ("/moved", "the answer is 302"),
        ("/large", "the answer has more than 131,072 bytes"),
        ("/noise", "the answer is no UTF-8"),
        ("/slow", "no answer within 0.2 s"),
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
