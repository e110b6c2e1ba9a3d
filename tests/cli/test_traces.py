"""`policyd traces`: what it asks for, and what it says of a wrong word."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from policyd._pb import admin_pb2 as pb
from tests.cli.conftest import Said
from tests.fakes.admin import FakeAdmin

ID = "4bf92f3577b34da6a3ce929d0e0e4736"


def test_what_is_looked_for_is_asked_of_the_server(policyd: Callable[..., Said], folder: Path, fake: FakeAdmin) -> None:
    wanted = ("--service", "reviews", "--denied", "--failed", "--slower", "1.5ms", "--limit", "7")
    value = policyd("traces", "list", *wanted, "--dir", folder, "--json").value

    asked = pb.TracesRequest(service="reviews", denied=True, failed=True, slower_ns=1_500_000, limit=7)
    assert fake.requests[-1] == ("Traces", asked)
    assert value == {"traces": []}


def test_a_trace_is_asked_for_by_its_id_in_any_case(
    policyd: Callable[..., Said], folder: Path, fake: FakeAdmin
) -> None:
    fake.replies["Trace"] = pb.TraceReply(summary=pb.TraceSummary(id=ID, duration_ns=5))

    assert policyd("traces", "show", ID.upper(), "--dir", folder, "--json").value["summary"]["duration_ns"] == 5
    assert fake.requests[-1] == ("Trace", pb.TraceRequest(id=ID))


def test_a_time_that_is_none_is_wrong_usage(policyd: Callable[..., Said], folder: Path, fake: FakeAdmin) -> None:
    said = policyd("traces", "list", "--slower", "100", "--dir", folder)

    assert (said.code, fake.requests) == (64, [])
    assert "--slower: `100` is no duration; write it as in `10s`" in said.err
