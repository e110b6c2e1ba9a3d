"""What is ended and begun when the assignment changes, and where a sidecar's sockets are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from policyd.errors import StateError
from policyd.spiffe import SpiffeId
from proxy.assignment import Spec
from proxy.bootstrap import Endpoint
from proxy.fleet import Plan, plan
from proxy.runtime import runtime_folder
from proxy.sidecar import Running


def running(name: str, service: str = "web.default") -> Running:
    spec = Spec(name, SpiffeId.workload("cluster.local", "default", "web"), service)
    return Running(spec, Endpoint("127.0.0.1", 15010), SpiffeId.server("cluster.local"))


A, B, C = running("a"), running("b"), running("c")


@pytest.mark.parametrize(
    ("now", "wanted", "done"),
    [
        ([], [], Plan((), ())),
        ([], [B, A], Plan((), (A, B))),
        ([A, B], [A, B], Plan((), ())),
        ([A, B], [B, C], Plan(("a",), (C,))),
        ([A], [running("a", "api.default")], Plan(("a",), (running("a", "api.default"),))),
        ([A], [replace(A, xds=Endpoint("127.0.0.1", 1))], Plan(("a",), (replace(A, xds=Endpoint("127.0.0.1", 1)),))),
    ],
)
def test_only_the_difference_is_touched(now: list[Running], wanted: list[Running], done: Plan) -> None:
    assert plan({each.spec.instance: each for each in now}, wanted) == done


def test_a_long_name_gets_a_short_folder() -> None:
    assert runtime_folder(Path("/run/policyd"), "web-1") == Path("/run/policyd/web-1")
    folder = runtime_folder(Path("/run/policyd"), "w" * 100)
    assert len(folder.name) == 12
    assert folder != runtime_folder(Path("/run/policyd"), "w" * 101)


def test_a_runtime_folder_too_deep_for_sockets_is_refused() -> None:
    with pytest.raises(StateError) as caught:
        runtime_folder(Path("/" + "d" * 90), "web-1")
    assert "choose another --runtime" in str(caught.value)
