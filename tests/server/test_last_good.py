"""A server whose folder is bad at its start serves what was in force last, all of it, and says so everywhere."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from policyd.ca.revocations import FILE as REVOKED_FILE
from policyd.environment import Environment
from policyd.errors import InvalidInput, PolicydError, Problem, StateError
from policyd.offline.revisions import load_revision
from policyd.server.last_good import LastGood, last_good, started
from policyd.sources.files import Folder, digest, read_folder
from policyd.sources.revision_store import RevisionStore
from policyd.sources.state import prepare_state
from tests.server.served import WORKLOADS, serving
from tests.server.test_run import journal, readiness

POLICY = '@id("reads")\npermit (principal, action == Action::"GET", resource == Service::"api.default");\n'
GOOD = {
    "workloads.yaml": WORKLOADS,
    "policies/api.cedar": POLICY,
    "cases/api.yaml": "- {name: web reads, request: web GET http://api/, expect: allow, by: reads}\n",
    "policyd.yaml": "{log: {level: warning}}\n",
    "groups.yaml": "groups: {readers: {workloads: [web]}}\n",
}
SINCE = datetime(2026, 11, 28, 12, 0, 5, tzinfo=UTC)


def write(folder: Path, texts: Mapping[str, str]) -> None:
    for name, text in texts.items():  # a server may look at any moment
        (folder / name).parent.mkdir(exist_ok=True)
        draft = (folder / name).with_suffix(".draft")
        draft.write_text(text)
        draft.rename(folder / name)


BAD = {
    "a policy that is none": {"policies/api.cedar": "permit (principal, action, resource)\n"},
    "a policy that fails its case": {"policies/api.cedar": POLICY.replace("permit", "forbid")},
    "a mesh with an unknown field": {"workloads.yaml": WORKLOADS.replace("port: 80}", "prot: 80}")},
    "settings that are none": {"policyd.yaml": "{log: {level: loud}}\n"},
    "a file that is no YAML, and settings that need a restart": {
        "groups.yaml": "groups: {a: {}, a: {}}\n",
        "policyd.yaml": "{workers: 2, log: {level: error}}\n",
    },
}


async def test_whatever_is_bad_all_of_what_was_in_force_serves_until_it_is_mended(folder: Path, short: Path) -> None:
    write(folder, GOOD)
    async with serving(folder, short) as served:
        before = await served.status()

    for what, texts in BAD.items():
        write(folder, texts)
        async with serving(folder, short) as served:
            now = await served.status()
            assert (now.ready, now.revision, now.config) == (True, before.revision, before.config), what
            blamed = {*texts, "cases/api.yaml"}
            assert {one.file for one in now.refused} <= blamed, what
            assert now.warnings[0].startswith("the folder is refused, what was in force since 20"), what
            code, text = await readiness(served)
            assert (code, text.startswith("ok\nthe folder is refused, what was in force since 20")) == (200, True), text
            assert any(f" UTC serves on: {file}:" in text for file in blamed), what
            assert served.levels[-1] == "warning", what

            write(folder, {name: GOOD[name] for name in texts})
            await served.becomes(refused=False)
            assert await readiness(served) == (200, "ok\n"), what
            assert (await served.status()).revision == before.revision, what

    starts = [one for one in journal(folder) if one.get("detail", {}).get("operation") == "server.start"]
    assert ["last_good" in one["detail"] for one in starts] == [False] + [True] * len(BAD)
    refused = [one for one in journal(folder) if (one["kind"], one["decision"]) == ("change", "deny")]
    assert len(refused) >= len(BAD)
    assert {one["revision"] for one in refused} == {before.revision}
    kept, live = load_revision(folder, before.revision[:12])
    assert (kept.revision, live.ruling.revision) == (before.revision, before.revision)


async def test_what_mends_the_folder_may_be_another_one(folder: Path, short: Path) -> None:
    write(folder, GOOD)
    async with serving(folder, short):
        pass
    write(folder, {"groups.yaml": "groups: 1\n"})
    async with serving(folder, short) as served:
        before = (await served.status()).revision
        write(folder, {"groups.yaml": "groups: {writers: {workloads: [web]}}\n"})
        await served.becomes(refused=False)
        assert (await served.status()).revision != before

        write(folder, {"groups.yaml": "groups: 1\n"})
        await served.becomes(refused=True)
        assert "a change is refused: groups.yaml:1: " in (await readiness(served))[1]


async def test_who_was_revoked_meanwhile_does_not_come_back_with_an_older_folder(folder: Path, short: Path) -> None:
    write(folder, GOOD)
    paths = prepare_state(folder, os.getuid())
    store = RevisionStore(paths.revisions, lambda: SINCE, retain=1e9, version="1")
    folder_now = read_folder(folder)
    store.keep("a" * 64, 1, {**folder_now.texts, REVOKED_FILE: "forbid", "https://issuer.test/keys": "{}"}, "schema")
    problems = (Problem("yaml", "it is bad"),)

    found = last_good(folder, paths, problems)

    assert found == LastGood(folder_now, SINCE, problems)


def test_what_cannot_be_read_for_certain_is_not_served(folder: Path) -> None:
    paths = prepare_state(folder, os.getuid())
    assert last_good(folder, paths, ()) is None
    moments = iter((SINCE, SINCE, datetime(2026, 11, 29, tzinfo=UTC), datetime(2026, 11, 29, tzinfo=UTC)))
    store = RevisionStore(paths.revisions, lambda: next(moments), retain=1e9, version="1")
    store.keep("a" * 64, 1, {"groups.yaml": "a"}, "schema")
    newest = store.keep("b" * 64, 1, {"groups.yaml": "b"}, "schema")
    assert last_good(folder, paths, ()) is not None
    entry = paths.revisions / newest.name

    whole = json.loads(entry.read_text())
    for broken in ("{", json.dumps(whole | {"tree": "0" * 64})):
        entry.write_text(broken)
        assert last_good(folder, paths, ()) is None


# ---- the start by itself

FIRST, SECOND = (InvalidInput([Problem("yaml", which)]) for which in ("as it is", "as it was"))
FULL = StateError("the disk is full")


@dataclass
class Start:
    """A server that starts, or raises after it has begun."""

    good: LastGood | None
    error: PolicydError | None
    events: list[str] = field(default_factory=list)

    async def start(self, stack: AsyncExitStack, _environment: Environment) -> None:
        self.events.append("begun")
        stack.callback(self.events.append, "ended")
        if self.error is not None:
            raise self.error


@pytest.mark.parametrize(
    ("outcomes", "kept", "raised", "events"),
    [
        ((None,), True, None, ["begun", "serves", "ended"]),
        ((FIRST, None), True, None, ["begun", "ended", "begun", "serves", "ended"]),
        ((FIRST,), False, FIRST, ["begun", "ended"]),
        ((FIRST, SECOND), True, FIRST, ["begun", "ended", "begun", "ended"]),
        ((FIRST, FULL), True, FULL, ["begun", "ended", "begun", "ended"]),
        ((FULL,), True, FULL, ["begun", "ended"]),
    ],
)
async def test_a_start_begins_anew_where_the_folder_is_bad_and_something_was_in_force(
    folder: Path, outcomes: tuple[PolicydError | None, ...], kept: bool, raised: PolicydError | None, events: list[str]
) -> None:
    paths, made = prepare_state(folder, os.getuid()), list[Start]()
    told: list[str] = []
    texts = {"groups.yaml": "a"}
    if kept:
        RevisionStore(paths.revisions, lambda: SINCE, retain=1e9, version="1").keep("a" * 64, 1, texts, "schema")

    def make(good: LastGood | None) -> Start:
        made.append(Start(good, outcomes[len(made)], told))
        return made[-1]

    caught: Any = None
    try:
        async with AsyncExitStack() as stack:
            await started(stack, make, folder, paths, Environment())
            told.append("serves")
    except PolicydError as error:
        caught = error

    assert (caught, told) == (raised, events)
    good = LastGood(Folder(folder, texts, digest(texts), credentials={}), SINCE, tuple(FIRST.problems))
    assert [one.good for one in made] == [None, good][: len(outcomes)]
