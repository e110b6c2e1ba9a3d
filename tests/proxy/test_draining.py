"""When an Envoy that is to end has nothing left to do, and what it does until then, as its own statistics have it."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.draining import GAUGES, QUIET, Load, Watch, load, look

ADMIN = {
    "listener.admin.downstream_cx_active": 1,
    "listener.admin.main_thread.downstream_cx_active": 1,
    "http.admin.downstream_cx_active": 1,
    "http.admin.downstream_rq_active": 1,
    "http.admin.downstream_cx_upgrades_active": 0,
    "http.admin.downstream_rq_total": 9,
}
SEEN = {
    "nobody": ((0, 0, 0), (0, 0, 0), (0, 0, 0), Load()),
    "a connection that waits for a request": ((1, 0, 0), (1, 0, 0), (0, 0, 0), Load(sockets=1)),
    "a request": ((1, 0, 0), (1, 1, 0), (0, 0, 0), Load(1, requests=1)),
    "a WebSocket": ((1, 0, 0), (1, 1, 1), (0, 0, 0), Load(1, tunnels=1)),
    "a tunnel that goes on": ((1, 0, 0), (1, 1, 1), (0, 0, 0), Load(1, tunnels=1)),
    "a tunnel that ends here, in which nothing is asked": ((1, 0, 1), (1, 1, 1), (1, 0, 0), Load(1)),
    "a request in a tunnel that ends here": ((1, 0, 1), (1, 1, 1), (1, 1, 0), Load(1, requests=1)),
    "a WebSocket in a tunnel that ends here": ((1, 0, 1), (1, 1, 1), (1, 1, 1), Load(1, tunnels=1)),
    "bytes in a tunnel that ends here": ((1, 0, 1), (1, 1, 1), (0, 0, 0), Load(1, connections=1)),
    "a handshake, or bytes": ((1, 0, 0), (0, 0, 0), (0, 0, 0), Load(1, connections=1)),
    "bytes at the edge, which leave by a tunnel": ((0, 1, 1), (0, 0, 0), (1, 1, 1), Load(1, connections=1)),
    "the same before it is decided": ((0, 1, 1), (0, 0, 0), (1, 1, 0), Load(1, requests=1, connections=1)),
    "several": ((3, 1, 1), (3, 2, 1), (1, 0, 0), Load(4, requests=1, connections=1)),
}


@pytest.mark.parametrize("what", SEEN)
def test_what_is_open_is_read_from_what_envoy_counts(what: str) -> None:
    (plain, edge, inside), outer, inner, expected = SEEN[what]
    stats = {
        **ADMIN,
        "listener.127.0.0.1_15006.downstream_cx_active": plain,
        "listener.127.0.0.1_15006.worker_0.downstream_cx_active": plain,
        "listener.127.0.0.1_18443.downstream_cx_active": edge,
        "listener.envoy_internal_inner.downstream_cx_active": inside,
        "listener.envoy_internal_inner.worker_0.downstream_cx_active": inside,
        **_of("inbound", *outer),
        **_of("inner", *inner),
    }
    assert all(re.fullmatch(GAUGES, name) for name in stats)
    assert load("".join(f"{name}: {value}\n" for name, value in stats.items())) == expected


def _of(prefix: str, connections: int, requests: int, upgrades: int) -> dict[str, int]:
    return {
        f"http.{prefix}.downstream_cx_active": connections,
        f"http.{prefix}.downstream_rq_active": requests,
        f"http.{prefix}.downstream_cx_upgrades_active": upgrades,
        f"http.{prefix}.downstream_rq_total": 0,
    }


@pytest.mark.parametrize(
    "other", ["http.a.downstream_cx_total", "http.a.downstream_rq_2xx", "cluster.a.upstream_rq_active"]
)
def test_nothing_else_is_asked_for(other: str) -> None:
    assert not re.fullmatch(GAUGES, other)


def test_a_gateway_that_is_called_admin_is_none_of_envoy_s_own() -> None:
    assert (
        load("http.admin.8080.downstream_rq_active: 1\nlistener.0.0.0.0_8080.downstream_cx_active: 1\n").requests == 1
    )


IDLE = Load(sockets=2, begun=7)
BUSY = Load(sockets=2, requests=1, begun=8)


@pytest.mark.parametrize(
    ("looks", "done"),
    [
        ([(0.0, Load())], True),
        ([(0.0, IDLE)], False),
        ([(0.0, IDLE), (QUIET, IDLE)], True),
        ([(0.0, IDLE), (QUIET / 2, IDLE)], False),
        ([(0.0, IDLE), (0.1, BUSY), (QUIET, IDLE)], False),
        ([(0.0, BUSY), (9.0, BUSY)], False),
        # one came and went between two looks
        ([(0.0, IDLE), (QUIET, Load(sockets=2, begun=8))], False),
        ([(0.0, IDLE), (QUIET, Load(sockets=2, begun=8)), (2 * QUIET, Load(sockets=2, begun=8))], True),
    ],
)
def test_it_may_end_without_clients_or_once_it_was_quiet_for_a_while(
    looks: list[tuple[float, Load]], done: bool
) -> None:
    watch, ended = Watch(), False
    for now, seen in looks:
        watch, ended = look(watch, seen, now)
    assert ended is done


@given(st.lists(st.tuples(st.floats(0, 1), st.integers(0, 2), st.integers(0, 2), st.integers(0, 1)), min_size=1))
def test_what_works_never_ends_and_a_new_request_starts_the_quiet_anew(
    steps: list[tuple[float, int, int, int]],
) -> None:
    watch, now, begun, last = Watch(), 0.0, 0, 0.0
    for pause, sockets, requests, new in steps:
        now, begun = now + pause, begun + new
        seen = Load(sockets + 1, requests=requests, begun=begun)
        if new or requests:
            last = now
        watch, done = look(watch, seen, now)
        assert not (done and (requests or now - last < QUIET))
