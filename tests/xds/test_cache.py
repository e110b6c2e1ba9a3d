"""Snapshots change all at once, and only who is concerned is woken."""

from __future__ import annotations

from policyd.xds.cache import SnapshotCache
from tests.xds.dialogue import cluster, snapshot

ONE, TWO = snapshot(cluster("a", "1")), snapshot(cluster("a", "2"))


def test_it_gives_what_was_set() -> None:
    cache = SnapshotCache()
    assert cache.get("n") is None
    cache.set_all({"n": ONE})
    assert (cache.get("n"), cache.get("m"), dict(cache.all())) == (ONE, None, {"n": ONE})


def test_what_is_given_in_later_does_not_change_what_was_set() -> None:
    cache, given = SnapshotCache(), {"n": ONE}
    cache.set_all(given)
    given["n"] = TWO
    assert cache.get("n") is ONE


def test_only_whose_snapshot_changed_is_woken() -> None:
    cache, woken = SnapshotCache(), []
    cache.set_all({"same": ONE, "changed": ONE, "gone": ONE})
    for node in ("same", "changed", "gone", "new", "never"):
        cache.watch(node, lambda node=node: woken.append(node))  # type: ignore[misc]
    cache.set_all({"same": snapshot(cluster("a", "1")), "changed": TWO, "new": ONE})
    assert sorted(woken) == ["changed", "gone", "new"]


def test_who_ended_watching_is_not_woken() -> None:
    cache, woken = SnapshotCache(), []
    end = cache.watch("n", lambda: woken.append("first"))
    cache.watch("n", lambda: woken.append("second"))
    end()
    end()
    cache.set_all({"n": ONE})
    assert woken == ["second"]
