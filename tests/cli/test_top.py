"""`policyd top` on a terminal: a line each, what is wrong first, as many as fit, names of any length."""

from __future__ import annotations

from io import StringIO

import pytest
from rich.console import Console

from policyd.cli.top_screen import Screen, worst_first
from policyd.telemetry.graph import Edge, Traffic


def call(source: str, target: str, rate: float, denied: float = 0.0, failed: float = 0.0) -> Traffic:
    return Traffic(Edge(source, target, "mutual_tls"), rate, denied, failed, 0.0, 3.0, 4.75)


CALLS = (
    call("ingress", "productpage-v1", 9.0),
    call("productpage-v1", "reviews-v3", 5.0, failed=2.0),
    call("reviews-v1", "details-v1", 1.0, denied=1.0),
)


def shown(*calls: Traffic, width: int = 110, height: int = 20, missed: tuple[str, ...] = ()) -> list[str]:
    where = Console(file=StringIO(), width=width, height=height, color_system=None)
    where.print(Screen("bookinfo", 2.0, worst_first(calls), missed))
    text = where.file.getvalue()  # type: ignore[attr-defined]
    return [line.rstrip() for line in text.splitlines()]


def test_what_is_wrong_stands_first_below_what_all_of_it_comes_to() -> None:
    assert shown(*CALLS) == [
        "bookinfo · 15.0 calls/s · 1.0 denied/s · 2.0 failed/s · of the last 2 s · Ctrl-C ends",
        "FROM            TO              REQUESTS/S  DENIED/S  FAILED/S  OPENED/S     P50     P95     TLS",
        "reviews-v1      details-v1             1.0       1.0         -         -  3.0 ms  4.8 ms  mutual",
        "productpage-v1  reviews-v3             5.0         -       2.0         -  3.0 ms  4.8 ms  mutual",
        "ingress         productpage-v1         9.0         -         -         -  3.0 ms  4.8 ms  mutual",
    ]


def test_a_small_terminal_leaves_out_what_is_less_busy_and_says_how_much() -> None:
    said = shown(*CALLS, *(call(f"a-{at}", "b", 0.1) for at in range(40)), width=72, height=8, missed=("x: is gone",))

    assert len(said) == 8
    assert [line.split()[0] for line in said[2:6]] == ["reviews-v1", "productpage-v1", "ingress", "a-0"]
    assert said[6:] == ["and 39 more", "not seen: x: is gone"]
    assert said[1].split() == ["FROM", "TO", "REQUESTS/S", "DENIED/S", "FAILED/S", "P95"]


@pytest.mark.parametrize("width", [40, 72, 110, 200])
def test_names_of_any_length_take_one_line_and_leave_figures_their_place(width: int) -> None:
    said = shown(call("caller-" * 40, "callee\x1b[31m" * 40, 12.0, denied=3.0), width=width)

    assert len(said) == 3
    assert all(len(line) <= width for line in said)
    assert "\x1b" not in "".join(said)
    if width >= 72:
        assert {"12.0", "3.0"} <= set(said[2].split())


def test_nothing_is_said_to_be_nothing() -> None:
    assert shown()[1] == "no request ended meanwhile"
