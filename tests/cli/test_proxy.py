"""`policyd proxy config` and `diff`: what is printed of what an Envoy holds, and the exit codes."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest

from policyd._pb import admin_pb2 as pb
from policyd.cli.exits import Exit
from policyd.cli.proxy_diff import LOOKS, settled
from policyd.envoy_api import CLUSTER
from policyd.xds.inspection.diff import Difference
from policyd.xds.snapshot import resource
from tests.cli.conftest import Said
from tests.fakes.admin import FakeAdmin

MADE = resource(CLUSTER, "outbound|80||api.default", {"name": "outbound|80||api.default", "type": "STATIC"})
HELD = {
    "configs": [{"version_info": MADE.version, "cluster": {"name": "outbound|80||api.default", "type": "STATIC"}}],
}
TABLE = """\
SERVICE      PORT  SUBSET  DIRECTION  TYPE    TLS
api.default  80    -       outbound   STATIC  -
"""
DIFFERS = """\
KIND      NAME                      DIFFERENCE  DETAIL
clusters  outbound|80||api.default  missing     -
"""


def holds(**shown: Any) -> Callable[[pb.InspectRequest], pb.InspectReply]:
    """An agent that shows these; what was sent is MADE."""

    def answer(request: pb.InspectRequest) -> pb.InspectReply:
        held = zlib.compress(json.dumps(shown.get(request.kind, {})).encode())
        sent = [pb.SentResource(name=MADE.name, version=MADE.version, body=MADE.body)]
        return pb.InspectReply(held=held, sent=sent if request.kind == "clusters" and request.sent else [])

    return answer


def test_what_an_envoy_holds_is_a_table(policyd: Callable[..., Said], folder: Path, fake: FakeAdmin) -> None:
    fake.replies["Inspect"] = holds(clusters=HELD)

    assert policyd("proxy", "config", "clusters", "web-1", "--dir", folder) == Said(Exit.OK, TABLE, "")
    assert policyd("proxy", "config", "clusters", "web-1", "--dir", folder, "--json").value == HELD
    empty = Said(Exit.OK, "`web-1` holds no routes\n", "")
    assert policyd("proxy", "config", "routes", "web-1", "--dir", folder) == empty
    assert fake.requests[0] == ("Inspect", pb.InspectRequest(instance="web-1", kind="clusters"))


def test_a_kind_that_is_none_is_wrong_usage(policyd: Callable[..., Said], folder: Path, fake: FakeAdmin) -> None:
    assert policyd("proxy", "config", "keys", "web-1", "--dir", folder).code == Exit.USAGE
    assert fake.requests == []


def test_what_an_agent_shows_is_not_believed(policyd: Callable[..., Said], folder: Path, fake: FakeAdmin) -> None:
    fake.replies["Inspect"] = pb.InspectReply(held=b"nonsense")

    said = policyd("proxy", "config", "clusters", "web-1", "--dir", folder)

    assert said == Said(Exit.ERROR, "", "error: what the agent showed cannot be read\n")


def test_why_nothing_is_shown_is_told(policyd: Callable[..., Said], folder: Path, fake: FakeAdmin) -> None:
    fake.failure = (grpc.StatusCode.FAILED_PRECONDITION, "the agent `a` is not connected; start it again")

    said = policyd("proxy", "diff", "web-1", "--dir", folder)

    assert said == Said(Exit.ERROR, "", "error: the agent `a` is not connected\n  start it again\n")


@pytest.mark.parametrize("code", [grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND])
def test_a_name_that_the_server_does_not_know_is_invalid_input_as_in_files(
    policyd: Callable[..., Said], folder: Path, fake: FakeAdmin, code: grpc.StatusCode
) -> None:
    fake.failure = (code, "no instance is called `web-9`")

    said = policyd("proxy", "diff", "web-9", "--dir", folder)

    assert said == Said(Exit.INVALID, "", "error: no instance is called `web-9`\n")


def test_no_difference_is_success(policyd: Callable[..., Said], folder: Path, fake: FakeAdmin) -> None:
    fake.replies["Inspect"] = holds(clusters=HELD)
    told = "`web-1` holds what it was sent: listeners, routes, clusters, endpoints, secrets\n"

    assert policyd("proxy", "diff", "web-1", "--dir", folder) == Said(Exit.OK, told, "")
    assert policyd("proxy", "diff", "web-1", "--dir", folder, "--json").value == {
        "instance": "web-1", "differences": [],
    }  # fmt: skip


def test_a_difference_is_code_two(policyd: Callable[..., Said], folder: Path, fake: FakeAdmin) -> None:
    fake.replies["Inspect"] = holds()

    assert policyd("proxy", "diff", "web-1", "--dir", folder) == Said(Exit.DENIED, DIFFERS, "")


@pytest.mark.parametrize(("until", "looks", "found"), [(0, 1, False), (2, 3, False), (9, LOOKS, True)])
def test_what_is_on_its_way_is_waited_for(until: int, looks: int, found: bool) -> None:
    seen: list[int] = []

    def look() -> list[Difference]:
        seen.append(len(seen))
        return [Difference("routes", "outbound", "other")] if len(seen) <= until else []

    assert (bool(settled(look, lambda _: None)), len(seen)) == (found, looks)
