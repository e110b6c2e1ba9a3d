"""The agent's kept identity: read back whole, or not at all."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from policyd.errors import IdentityError, KeyFileError, PolicydError, StateError
from policyd.spiffe import SpiffeId
from proxy.identity import Bundle, check_svid, make_key
from proxy.join import Joined
from proxy.state import StateFolder
from tests.fakes.toy_ca import ToyCa

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
AGENT = SpiffeId.agent("cluster.local", "a1")


def joined() -> Joined:
    ca, key = ToyCa(now=NOW), make_key()
    bundle = Bundle("cluster.local", (ca.root.der,), 3)
    chain = ca.sign(key.public_key(), [str(AGENT)], start=NOW)
    return Joined(check_svid(key, AGENT, chain, bundle, NOW), bundle, "127.0.0.1:15010")


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[StateFolder]:
    opened = StateFolder(tmp_path / "state")
    yield opened
    opened.close()


def test_nothing_is_kept_at_first(folder: StateFolder) -> None:
    assert folder.load(NOW) is None


def test_what_is_kept_is_read_back(folder: StateFolder) -> None:
    kept = joined()
    folder.save(kept)
    assert folder.load(NOW) == kept
    assert (folder.folder / "agent.json").stat().st_mode & 0o777 == 0o600


def test_an_identity_that_is_over_is_read_back_to_be_shown_to_policyd(folder: StateFolder) -> None:
    kept = joined()
    folder.save(kept)
    assert folder.load(NOW + timedelta(hours=2)) == kept
    assert kept.svid.not_after < NOW + timedelta(hours=2)


def test_an_identity_that_is_over_and_never_held_is_not(folder: StateFolder) -> None:
    kept = joined()
    folder.save(replace(kept, bundle=Bundle("cluster.local", (ToyCa(now=NOW).root.der,), 3)))
    with pytest.raises(IdentityError):
        folder.load(NOW + timedelta(hours=2))


def test_a_file_that_others_can_read_is_not_used(folder: StateFolder) -> None:
    folder.save(joined())
    (folder.folder / "agent.json").chmod(0o640)
    with pytest.raises(KeyFileError):
        folder.load(NOW)


Change = Callable[[dict[str, Any]], object]
CHANGES: list[tuple[str, Change]] = [
    ("a newer format", lambda kept: kept.update(format=2)),
    ("no key", lambda kept: kept.pop("key")),
    ("another key", lambda kept: kept.update(key=joined().svid.key_pem.decode())),
    ("another name", lambda kept: kept.update(spiffe_id="spiffe://cluster.local/agent/a2")),
    ("another root", lambda kept: kept.update(roots=[])),
    ("no address", lambda kept: kept.update(server="nowhere")),
    ("a chain that is no list", lambda kept: kept.update(chain=7)),
    ("base64 that is none", lambda kept: kept.update(chain=["!"])),
]


@pytest.mark.parametrize("change", [row[1] for row in CHANGES], ids=[row[0] for row in CHANGES])
def test_a_changed_file_is_refused(folder: StateFolder, change: Change) -> None:
    folder.save(joined())
    path = folder.folder / "agent.json"
    kept = json.loads(path.read_text())
    change(kept)
    path.write_text(json.dumps(kept))
    with pytest.raises(PolicydError):
        folder.load(NOW)


@pytest.mark.parametrize("text", ["", "{", "[]", "7", "[" * 100_000])
def test_a_broken_file_is_refused(folder: StateFolder, text: str) -> None:
    folder.save(joined())
    (folder.folder / "agent.json").write_text(text)
    with pytest.raises(StateError) as caught:
        folder.load(NOW)
    assert "is broken; remove it and join again with a new token" in str(caught.value)


def test_two_agents_do_not_share_a_folder(folder: StateFolder) -> None:
    with pytest.raises(StateError) as caught:
        StateFolder(folder.folder)
    assert "another agent uses" in str(caught.value)


def test_a_folder_open_to_others_is_refused(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir(mode=0o755)
    with pytest.raises(StateError) as caught:
        StateFolder(tmp_path / "open")
    assert "is open to others; chmod 700" in str(caught.value)
