"""A folder of Bookinfo with a journal and its revisions, as after traffic."""

from __future__ import annotations

import shutil
from datetime import datetime
from pathlib import Path

from policyd.authz.ruling import Ruling
from policyd.offline.loaded import load_folder
from policyd.sources.files import read_folder
from policyd.sources.revision_store import RevisionStore
from policyd.sources.shipped import shipped_schema
from policyd.state_paths import state_paths
from tests.policy import traffic


def bookinfo(root: Path, folder: Path) -> Path:
    """A copy of the sample's folder without state."""
    shutil.copytree(
        root / "examples" / "bookinfo", folder, ignore=shutil.ignore_patterns(".policyd"), dirs_exist_ok=True
    )
    (folder / ".policyd").mkdir(mode=0o700, exist_ok=True)
    return folder


def in_force(folder: Path, at: datetime = traffic.START) -> Ruling:
    """Keep what the folder comes to, as the server does; `at` is when it came into force."""
    live = load_folder(folder, cases=False).live
    store = RevisionStore(state_paths(folder).revisions, lambda: at, retain=1e9, version="1")
    texts = read_folder(folder).texts
    store.keep(live.ruling.revision, len(live.ruling.policy_set.policies), texts, shipped_schema("mesh"))
    return live.ruling


def served(root: Path, folder: Path, count: int, seed: int = 1) -> Ruling:
    """Bookinfo, which was asked so much."""
    ruling = in_force(bookinfo(root, folder))
    traffic.write(folder, traffic.entries(ruling, count, seed))
    return ruling
