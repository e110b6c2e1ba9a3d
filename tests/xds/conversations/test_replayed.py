"""What clients of gRPC in other languages said, said again: policyd answers each as it did, and they called on."""

from __future__ import annotations

import json
from collections import defaultdict, deque
from pathlib import Path
from typing import Any

import pytest

from policyd.envoy_api import CLUSTER, ENDPOINT, LISTENER, ROUTE, Reference
from policyd.xds import sotw, stream
from policyd.xds.snapshot import Resource, Snapshot, kind, make_snapshot
from policyd.xds.sotw import Whole, Wish

TYPES = {kind(one): one for one in (CLUSTER, ENDPOINT, LISTENER, ROUTE)}
RECORDED = sorted(Path(__file__).parent.glob("*.json"))


class Stream:
    """One stream, as the service has it."""

    def __init__(self) -> None:
        self._state, self._so_far = stream.start(), sotw.START
        self.unheard: deque[Whole] = deque()

    def hear(self, wish: Wish, there: Snapshot, now: float) -> None:
        """Take in what the client says."""
        self._so_far, request = sotw.heard(self._so_far, wish)
        if request is not None:
            self._state, pushes = stream.receive(self._state, request, there, now)
            self._say(pushes)

    def look(self, there: Snapshot, now: float) -> None:
        """Something changed, or time has passed."""
        self._state, pushes = stream.update(self._state, there, now)
        self._say(pushes)

    def _say(self, pushes: tuple[stream.Push, ...]) -> None:
        for push in pushes:
            self._so_far, whole = sotw.completed(self._so_far, push)
            self.unheard.append(whole)


def published(step: dict[str, Any]) -> Snapshot:
    return make_snapshot(
        Resource(
            one["name"],
            one["version"],
            TYPES[one["type"]],
            b"",
            frozenset(Reference(TYPES[type_], name) for type_, name in one["needs"]),
        )
        for one in step["publishes"]
    )


@pytest.mark.parametrize("recorded", RECORDED, ids=lambda one: one.stem)
def test_what_was_said_is_answered_as_it_was(recorded: Path) -> None:
    steps = json.loads(recorded.read_text())["steps"]
    streams: defaultdict[int, Stream] = defaultdict(Stream)
    there = make_snapshot(())
    for step in steps:
        if "publishes" in step:
            there = published(step)
            continue
        one = streams[step["stream"]]
        if "says" in step:
            error = "no" if "error" in step else None
            wish = Wish(TYPES[step["says"]], tuple(step["names"]), step["nonce"], error)
            one.hear(wish, there, step["at"])
            continue
        if not one.unheard:
            one.look(there, step["at"])
        whole = one.unheard.popleft()
        assert (kind(whole.type_url), [each.name for each in whole.resources], whole.nonce) == (
            step["hears"],
            step["names"],
            step["nonce"],
        )
    assert all(not one.unheard for one in streams.values())


def test_there_are_clients_in_two_languages() -> None:
    assert [json.loads(one.read_text())["client"].split()[1] for one in RECORDED] == ["Go", "Python"]
