"""An Envoy that refuses for want of memory says so to nobody: the agent looks, and says it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from proxy.events import SidecarStatus
from proxy.fullness import fullness, refused_in, share_in

# as Envoy 1.40 writes it
PAGE = """\
# TYPE envoy_http_downstream_rq_overload_close counter
envoy_http_downstream_rq_overload_close{envoy_http_conn_manager_prefix="inbound"} 422
envoy_http_downstream_rq_overload_close{envoy_http_conn_manager_prefix="outbound"} 3
# TYPE envoy_listener_downstream_cx_overload_reject counter
envoy_listener_downstream_cx_overload_reject{envoy_listener_address="127.0.0.1_23471"} 1
# TYPE envoy_istio_requests_total counter
envoy_istio_requests_total{p="envoy_listener_downstream_cx_overload_reject{} 7"} 2
# TYPE envoy_overload_envoy_resource_monitors_fixed_heap_pressure gauge
envoy_overload_envoy_resource_monitors_fixed_heap_pressure{} 98
"""


def test_what_a_page_tells_of_requests_and_connections_is_added_up_and_nothing_else() -> None:
    assert refused_in(PAGE) == 426
    assert refused_in("") == 0


def test_how_much_of_its_memory_an_envoy_takes_is_known_once_it_says_so() -> None:
    assert share_in(PAGE) == 0.98
    assert share_in("") is None


async def test_it_is_said_when_there_is_more_than_at_the_last_look() -> None:
    counts, said = iter((0, 5, 5, 9)), list[dict[str, Any]]()
    envoy = SidecarStatus("a", "spiffe://d/a", "c", "ready", 0, 1, None, None, "/a", "log")

    def say(event: str, **facts: Any) -> None:
        said.append({"event": event, **facts})

    async def ask(socket: Path) -> int:
        assert socket == Path("/a")
        return next(counts)

    watched = fullness(lambda: [envoy], say, 64 << 20, ask)
    for _ in range(4):
        await watched.look()

    told = {"event": "sidecar.full", "instance": "a", "memory": 64 << 20}
    assert said == [{**told, "refused": 5}, {**told, "refused": 9}]
