"""The journal of a process of the server, as the settings want it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from policyd.audit.exported import Taken, write_taken
from policyd.audit.segments import list_segments
from policyd.ca.issuer import Issuer
from policyd.config.audit import AuditSettings
from policyd.config.settings import parse_settings
from policyd.errors import KeyFileError, StateError
from policyd.server.journal import make_sealer, mask_key, open_journal
from policyd.state_paths import StatePaths
from policyd.telemetry.metrics import Metrics
from tests.audit.samples import an_entry
from tests.audit.sealing import AUTHORITY, issuer
from tests.fakes.clock import FakeClock


def settings(text: str) -> AuditSettings:
    return parse_settings(f"audit: {text}\n").audit


@pytest.fixture
def paths(tmp_path: Path) -> StatePaths:
    return StatePaths(tmp_path)


def test_nothing_goes_that_the_configured_collector_has_not_taken(paths: StatePaths) -> None:
    clock = FakeClock(datetime.now(UTC))
    audit = settings("{segmentAge: 1s, retain: 1h, export: {otlp: 'http://127.0.0.1:4318/v1/logs'}}")
    with open_journal(paths, "serve", audit, clock, Metrics()) as journal:
        for _ in range(3):
            journal.append(an_entry(time=clock()))
            clock.advance(2)
    authority = cast("Issuer", SimpleNamespace(issue_journal=issuer(AUTHORITY, clock)))
    clock.advance(timedelta(hours=2).total_seconds())
    sealer = make_sealer(paths, audit, authority, clock)
    sealer.turn()
    assert sealer.trouble == ""
    assert [segment.first_seq for segment in list_segments(paths.journal)[journal.writer]] == [1, 2, 3, 4]
    write_taken(paths.journal, "otlp", {journal.writer: Taken(first_seq=2, offset=1, seq=2)})
    sealer.turn()
    assert [segment.first_seq for segment in list_segments(paths.journal)[journal.writer]] == [3, 4]


def test_the_key_of_masks_is_made_once_and_private(paths: StatePaths) -> None:
    key = mask_key(paths.mask_key)
    assert (len(key), mask_key(paths.mask_key)) == (32, key)
    assert paths.mask_key.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(("content", "mode"), [(b"short", 0o600), (b"\xff" * 64, 0o600), (b"", 0o600), (None, 0o644)])
def test_a_key_of_masks_that_is_none_or_open_to_others_is_refused(
    paths: StatePaths, content: bytes | None, mode: int
) -> None:
    mask_key(paths.mask_key)
    if content is not None:
        paths.mask_key.write_bytes(content)
    paths.mask_key.chmod(mode)
    with pytest.raises((StateError, KeyFileError)):
        mask_key(paths.mask_key)


def test_a_mask_that_hashes_needs_the_key_and_others_do_not(paths: StatePaths) -> None:
    rules: Any = "{mask: [{header: end-user}]}"
    with open_journal(paths, "serve", settings(rules), FakeClock(), Metrics()):
        assert not paths.mask_key.exists()
    rules = "{mask: [{header: end-user, how: hash}]}"
    with open_journal(paths, "serve", settings(rules), FakeClock(), Metrics()):
        assert paths.mask_key.exists()
