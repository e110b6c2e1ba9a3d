"""Who is reached: those of whom it was said, lately, that they answer."""

from __future__ import annotations

from collections.abc import Mapping

from policyd.mesh.health import (
    ENDS,
    LASTS,
    SILENT,
    UNHEARD,
    UNPROBED,
    Book,
    Word,
    heard,
    next_change,
    of_mesh,
    resumed,
    troubles,
    turned,
    with_health,
)
from tests.mesh.sample import GOOD, meshed

GROUP = """\
apiVersion: networking.istio.io/v1
kind: WorkloadGroup
metadata: {name: api}
spec: {metadata: {labels: {app: api}}, probe: {tcpSocket: {port: 8080}}}
"""
MESH = meshed({**GOOD, "mesh/group.yaml": GROUP})


def out(book: Book, now: float) -> Mapping[str, str]:
    return troubles(book, MESH, now)


def test_nobody_is_reached_of_whom_nothing_was_said() -> None:
    assert out({}, 0.0) == {"api-v1": UNHEARD, "api-v2": UNHEARD}


def test_what_is_said_is_believed_until_nothing_is_said_any_more() -> None:
    book = heard({}, {"api-v1": (True, ""), "api-v2": (False, "the answer is 500")}, 100.0)

    assert out(book, 100.0) == {"api-v2": "the answer is 500"}
    assert next_change(book, 100.0) == LASTS
    assert out(book, 100.0 + LASTS) == {"api-v1": SILENT, "api-v2": SILENT}
    assert next_change(book, 100.0 + LASTS) is None
    again = heard(book, {"api-v1": (True, "")}, 110.0)
    assert out(again, 100.0 + LASTS) == {"api-v2": SILENT}


def test_who_answered_before_the_server_ended_is_given_time_to_be_told_of() -> None:
    book = resumed(["api-v2"], 5.0)
    assert out(book, 5.0 + LASTS - 0.1) == {"api-v1": UNHEARD}
    assert out(book, 5.0 + LASTS) == {"api-v1": UNHEARD, "api-v2": SILENT}


def test_whose_sidecar_ends_is_not_reached_until_it_is_back() -> None:
    book = heard({}, {"api-v1": (True, ""), "api-v2": (True, "")}, 0.0)
    left = turned(frozenset(), MESH, ["api-v1", "web-v1", "gone"], [])

    assert left == {"api-v1", "web-v1"}
    assert troubles(book, MESH, 0.0, left) == {"api-v1": ENDS, "web-v1": ENDS}
    assert turned(left, MESH, ["api-v2"], ["api-v1", "web-v1"]) == {"api-v2"}
    assert turned(left, MESH, ["api-v1"], ["api-v1"]) == left  # who ends is not back


def test_words_about_others_are_forgotten() -> None:
    word = Word(healthy=False, reason="", until=9.0)
    book = of_mesh({"web-v1": word, "gone": word, "api-v1": word}, MESH, 2.0)
    assert book == {"web-v1": UNPROBED, "edge": UNPROBED, "api-v1": word}


def test_who_gets_a_probe_while_it_is_reached_is_given_time_to_be_told_of() -> None:
    unprobed = of_mesh({}, meshed(GOOD), 0.0)
    assert out(unprobed, 100.0) == {}  # while the mesh with the probe is being put in force
    assert next_change(unprobed, 100.0) is None

    book = of_mesh(unprobed, MESH, 100.0)
    assert out(book, 100.0 + LASTS - 0.1) == {}
    assert next_change(book, 100.0) == LASTS
    assert out(book, 100.0 + LASTS) == {"api-v1": SILENT, "api-v2": SILENT}
    assert out(heard(book, {"api-v1": (False, "no")}, 101.0), 101.0) == {"api-v1": "no"}


def test_only_what_changes_is_another_instance() -> None:
    down = with_health(MESH, ["api-v1"])

    assert {name for name, one in down.instances.items() if not one.healthy} == {"api-v1"}
    assert [one.healthy for one in down.instances_of("api.default")] == [False, True]
    assert down.instances["api-v2"] is MESH.instances["api-v2"]
    assert with_health(down, ["api-v1"]) is down
    assert with_health(down, []) == MESH
