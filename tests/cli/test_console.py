"""`policyd console`: a link to the console that runs, made with the key that only its owner can read."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from policyd import tickets
from policyd.cli.console import address_in
from policyd.errors import StateError
from policyd.sources.console_key import key_of
from policyd.state_paths import state_paths

LINE = '{"event": "console.listening", "pid": 1, "address": "127.0.0.1:15080", "scheme": "http"}'


def announce(folder: Path, pid: int) -> None:
    facts = {"pid": pid, "address": "127.0.0.1:15080", "scheme": "http"}
    state_paths(folder).console.write_text(json.dumps(facts))


def test_a_link_is_printed_that_opens_what_runs(policyd: Callable, folder: Path) -> None:
    announce(folder, os.getpid())

    said = policyd("console", "--dir", folder, "--json")

    address, _, ticket = said.value["link"].partition("/enter?link=")
    assert address == "http://127.0.0.1:15080"
    found = tickets.read(key_of(state_paths(folder)), "link", ticket, int(time.time()))
    assert found is not None
    assert found.who == f"unix:{os.getuid()}"
    assert state_paths(folder).console_key.stat().st_mode & 0o777 == 0o600
    assert policyd("console", "--dir", folder).out.startswith("http://127.0.0.1:15080/enter?link=")


@pytest.mark.parametrize("pid", [None, 0, 1, 2**22 + 1, "4711"])
def test_without_one_that_runs_there_is_no_link(policyd: Callable, folder: Path, pid: int | None) -> None:
    if pid is not None:
        announce(folder, pid)

    said = policyd("console", "--dir", folder)

    assert said.code == 1
    assert "no console runs for" in said.err
    assert "policyd serve --console" in said.err


def test_a_key_is_made_once_and_one_that_others_may_read_is_refused(folder: Path) -> None:
    paths = state_paths(folder)
    key = key_of(paths)
    assert key_of(paths) == key
    paths.console_key.write_bytes(b"short")
    assert len(key_of(paths)) == tickets.KEY_BYTES
    paths.console_key.chmod(0o644)
    with pytest.raises(StateError, match="others may read"):
        key_of(paths)


@pytest.mark.parametrize(
    ("line", "address"),
    [
        (LINE, "http://127.0.0.1:15080"),
        (LINE.replace("listening", "ended"), ""),
        ("console.listening", ""),
        ('["console.listening"]', ""),
        ("", ""),
    ],
)
def test_the_console_says_where_it_listens(line: str, address: str) -> None:
    assert address_in(line) == address
