"""Applications that know nothing of the mesh: each machine is a network of its own, captured, and policies decide.

`web` and `api` are captured by nftables; `old` by iptables, and it is reached by IPv6 alone.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from policyd.mesh.virtual import virtual_addresses
from tests.e2e.machines import API, GROUP, OLD, OUTSIDE, PAIRS, Captured, application, asked, machines
from tests.e2e.terminal import wait_until

# three agents start with as many Envoys, which takes a while where other tests do the same
pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(300),
    pytest.mark.needs("root", "nft", "iptables-restore", "ip", "nsenter"),
]

CLOSED = {"", "\x15\x03\x01\x00\x02\x02F"}  # the second is an alert of TLS, to who does not speak it


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Captured]:
    """All of it, once."""
    with machines(tmp_path_factory.mktemp("capture")) as found:
        yield found


@pytest.mark.parametrize(("caller", "called"), PAIRS)
@pytest.mark.parametrize(
    ("does", "gets"),
    [
        (("get", "{called}", 8080, "/books"), [200, "GET /books"]),
        (("get", "{called}", 8080, "/books", "GET", 4), [200, "GET /books"]),
        (("get", "{called}", 8080, "/books", "GET", 6), [200, "GET /books"]),
        (("get", "{called}.default.svc.cluster.local", 8080, "/books"), [200, "GET /books"]),
        (("get", "{called}", 8080, "/secret"), [403, "access denied\n"]),
        (("get", "{called}", 8080, "/books", "DELETE"), [403, "access denied\n"]),
        (("greet", "{called}", 50051), "hello world"),
        (("chat", "{called}", 8080, "/ws"), "ping"),
        (("chat", "{called}", 8080, "/secret"), "403"),
        (("hear", "{called}", 9000), "first hello you"),
        (("get", "www.example.test", 80, "/out"), [200, "GET /out"]),
        (("get", "www.example.test", 80, "/out", "DELETE"), [403, "access denied\n"]),
        (("say", OUTSIDE, 9000, "it is me\n"), "first hello it is me\n"),
        (("say", OUTSIDE, 9001, "it is me\n"), ""),  # no policy permits it
        (("say", "{address}", 9000, "it is me\n"), ""),  # an instance's own address is no way around its name
        (("get", "{address}", 8080, "/books"), [403, "access denied\n"]),
    ],
)
def test_what_an_application_does_is_decided_though_it_knows_of_nothing(
    mesh: Captured, caller: str, called: str, does: tuple[Any, ...], gets: Any
) -> None:
    address = {"api": API, "old": OLD}[called]
    words = [one.format(called=called, address=address) if isinstance(one, str) else one for one in does]

    assert mesh.does(*words, on=caller) == gets


@pytest.mark.parametrize("caller", ["web", "old"])
@pytest.mark.parametrize(
    ("host", "port"),
    [
        (OUTSIDE, 3306),  # nobody declared it, and it is MySQL's
        ("db.example.test", 7000),  # declared as TCP
    ],
)
def test_who_waits_for_its_server_hears_it_at_once(mesh: Captured, caller: str, host: str, port: int) -> None:
    begin = time.monotonic()

    assert mesh.does("hear", host, port, on=caller) == "first hello you"
    assert time.monotonic() - begin < 2.0


def test_where_nobody_declared_it_a_server_is_heard_once_its_client_spoke(mesh: Captured) -> None:
    assert mesh.does("say", OUTSIDE, 7001, "it is me\n") == "first hello it is me\n"


@pytest.mark.parametrize(("caller", "called"), PAIRS)
def test_tls_passes_unopened_to_the_name_that_was_decided(mesh: Captured, caller: str, called: str) -> None:
    assert mesh.does("secure", called, 8443, called, str(mesh.roots), on=caller) == "hello hello"
    decided = mesh.decided(f'Service::"{called}.default"')
    assert (decided["decision"], decided["principal"]) == (
        "allow",
        f'Workload::"spiffe://cluster.local/ns/default/sa/{caller}"',
    )

    assert mesh.does("secure", called, 8443, "other", str(mesh.roots), on=caller) == "ConnectionResetError"
    assert mesh.decided('Host::"other"')["decision"] == "deny"


def test_names_of_the_mesh_have_addresses_of_their_own(mesh: Captured) -> None:
    found = virtual_addresses(["api.default"])["api.default"]

    assert mesh.does("look", "api") == mesh.does("look", "api.default.svc") == sorted(map(str, (found.v4, found.v6)))


@pytest.mark.parametrize(
    ("settings", "name", "found"),
    [
        ("", "api", ""),
        ("options use-vc\n", "api", ""),  # by TCP
        ("search default.svc.cluster.local svc.cluster.local cluster.local\noptions ndots:5\n", "api", ""),
        ("search default.svc.cluster.local svc.cluster.local cluster.local\noptions ndots:5\n", "api.default", ""),
        (
            "search default.svc.cluster.local svc.cluster.local cluster.local\noptions ndots:5\n",
            "far.test",
            "192.0.2.9",
        ),
        ("search test\n", "far", "192.0.2.9"),
    ],
)
def test_names_are_looked_up_as_the_machine_is_set_up(
    mesh: Captured, tmp_path: Path, settings: str, name: str, found: str
) -> None:
    (tmp_path / "resolv.conf").write_text(f"nameserver {OUTSIDE}\n{settings}")
    virtual = virtual_addresses(["api.default"])["api.default"]
    with ExitStack() as stack:
        client = application(stack, mesh.web, tmp_path, "client")

        assert asked(client, "look", name) == ([found] if found else sorted(map(str, (virtual.v4, virtual.v6))))


def test_a_name_outside_is_asked_of_the_machines_resolvers(mesh: Captured) -> None:
    assert mesh.does("look", "far.test") == ["192.0.2.9"]
    assert mesh.does("look", "nowhere.test").startswith("gaierror")


@pytest.mark.parametrize(("name", "there"), [("api", "10.76.2.2"), ("old", OLD), ("old", "10.76.6.2")])
def test_nobody_comes_past_the_sidecar(mesh: Captured, name: str, there: str) -> None:
    ways = [("say", there, 8080, "GET / HTTP/1.1\r\nhost: api\r\n\r\n"), ("say", there, 9000), ("say", there, 9009)]

    assert {asked(mesh.stranger, *way) for way in ways} <= CLOSED
    mesh.capture(name, "remove")
    if ":" not in there:  # the application listens on IPv4 alone
        assert asked(mesh.stranger, "say", there, 9000) == "first hello hello"
    mesh.capture(name, "install", "--proxy-group", GROUP)
    assert {asked(mesh.stranger, *way) for way in ways} <= CLOSED


def test_who_was_not_redirected_needs_the_secret(mesh: Captured) -> None:
    assert mesh.does(
        "say", "127.0.0.1", 15001, "GET / HTTP/1.1\r\nhost: api:8080\r\nconnection: close\r\n\r\n"
    ).startswith("HTTP/1.1 401 ")


def test_rules_are_shown_and_mended(mesh: Captured) -> None:
    words = ("--proxy-group", GROUP)
    whole = mesh.capture("web", "show", *words)

    mesh.web.run("nft", "flush", "chain", "inet", "policyd_capture", "input")
    assert "this is not what was installed; install it again" in mesh.capture("web", "show", *words, code=1)
    mesh.capture("web", "install", *words)
    mesh.capture("web", "install", *words)
    assert mesh.capture("web", "show", *words) == whole


def test_what_is_under_way_while_an_agent_ends_still_finds_names(mesh: Captured) -> None:
    """The last test here, as its machine is captured by nobody afterwards."""
    assert mesh.does("keep", "api", 9000) == "first "
    known = mesh.does("look", "api")
    mesh.agents["web"].terminate()
    wait_until(lambda: "sidecar.draining" in mesh.said("web"), 20, lambda: mesh.said("web"))

    assert mesh.does("look", "api") == known
    assert "sidecar.stopped" not in mesh.said("web")
