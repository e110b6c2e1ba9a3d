"""Orders that are alike are asked about once, and whatever makes them differ asks anew."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from policyd.ca.alike import Alike, Asked
from policyd.ca.issuance import Entities, Evidence, Order, cedar_request
from policyd.cedar.model import Decision
from policyd.errors import DecisionError
from policyd.mesh.model import Mesh
from tests.ca.samples import LAPTOP, NOW, RATINGS, REVIEWS, a_mesh
from tests.fakes.decider import Decider

ORDER = Order(REVIEWS, LAPTOP, Evidence("x509", (f"x509:{LAPTOP}",)), timedelta(hours=1), NOW, (), "127.0.0.1")
MESH = a_mesh()


@pytest.fixture
def first() -> tuple[Alike, Asked]:
    """What is asked about one order."""
    alike = Alike(Entities())
    return alike, alike.of(ORDER, MESH, "r1")


def test_what_is_alike_is_asked_and_answered_once(first: tuple[Alike, Asked]) -> None:
    alike, asked = first
    assert asked.request == cedar_request(ORDER, MESH)
    assert alike.of(replace(ORDER), MESH, "r1") is asked
    decider = Decider()
    assert asked.decided(decider) is asked.decided(decider)
    assert decider.asked == [asked.request]


@pytest.mark.parametrize(
    ("order", "mesh", "revision"),
    [
        (replace(ORDER, time=NOW + timedelta(seconds=1)), MESH, "r1"),
        (replace(ORDER, identity=RATINGS), MESH, "r1"),
        (replace(ORDER, principal=None), MESH, "r1"),
        (replace(ORDER, evidence=Evidence("x509")), MESH, "r1"),
        (replace(ORDER, ttl=timedelta(hours=2)), MESH, "r1"),
        (replace(ORDER, dns_names=("a.example",)), MESH, "r1"),
        (replace(ORDER, source="127.0.0.2"), MESH, "r1"),
        (ORDER, a_mesh(), "r1"),
        (ORDER, MESH, "r2"),
    ],
)
def test_whatever_policies_could_see_asks_anew(
    first: tuple[Alike, Asked], order: Order, mesh: Mesh, revision: str
) -> None:
    alike, asked = first
    other = alike.of(order, mesh, revision)
    assert other is not asked
    assert other.request == cedar_request(order, mesh)


def test_a_second_that_is_over_is_forgotten(first: tuple[Alike, Asked]) -> None:
    alike, asked = first
    alike.of(replace(ORDER, time=NOW + timedelta(seconds=1)), MESH, "r1")
    assert alike.of(ORDER, MESH, "r1") is not asked


def test_where_there_is_no_answer_it_is_asked_again(first: tuple[Alike, Asked]) -> None:
    def fails(_: object) -> Decision:
        raise DecisionError("the engine failed")

    _, asked = first
    with pytest.raises(DecisionError):
        asked.decided(fails)
    assert asked.decided(lambda _: Decision(True)) == Decision(True)
