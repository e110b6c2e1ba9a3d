"""What a server holds while it runs: one server a folder, private sockets, ports and places that stay."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from policyd.config.addresses import Address, ListenSettings
from policyd.environment import Environment
from policyd.errors import InvalidInput, StateError
from policyd.mesh.declaration import Declaration
from policyd.mesh.declare import declare
from policyd.mesh.model import Listen
from policyd.server.state import Placer, choose_ports, decision_addresses, exclusively, runtime_folder
from policyd.sources.state import prepare_state
from policyd.state_paths import StatePaths

ONE = "workloads: {web: {service: web, port: 80}}\n"
TWO = "workloads: {web: {service: web, port: 80}, api: {service: api, port: 80}}\n"


@pytest.fixture
def paths(tmp_path: Path) -> StatePaths:
    return prepare_state(tmp_path, os.getuid())


def declared(text: str) -> Declaration:
    return declare({"workloads.yaml": text})


@contextmanager
def listening(port: int = 0) -> Iterator[int]:
    """Another program has a port."""
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", port))
        other.listen()
        yield other.getsockname()[1]


# ---- one server a folder


def test_a_second_server_is_refused_and_told_how_to_end_the_first(paths: StatePaths) -> None:
    with exclusively(paths), pytest.raises(StateError) as refused, exclusively(paths):
        pass

    folder = paths.root.parent
    assert str(refused.value) == f"`{folder}` is served already; end it with `policyd down --dir {folder}`"


def test_the_folder_is_free_after_the_end_of_the_first(paths: StatePaths) -> None:
    with exclusively(paths):
        pass
    with exclusively(paths):
        assert stat.S_IMODE(paths.lock.stat().st_mode) == 0o600


def test_two_folders_are_served_side_by_side(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    with (
        exclusively(prepare_state(tmp_path / "a", os.getuid())),
        exclusively(prepare_state(tmp_path / "b", os.getuid())),
    ):
        pass


@pytest.mark.parametrize("instead", ["folder", "link"])
def test_what_stands_in_the_place_of_the_lock_is_refused(paths: StatePaths, tmp_path: Path, instead: str) -> None:
    if instead == "folder":
        paths.lock.mkdir()
    else:
        paths.lock.symlink_to(tmp_path / "elsewhere")

    with (
        pytest.raises(StateError, match=r"lock` cannot be used: .*; check the disk, and what is there"),
        exclusively(paths),
    ):
        pass
    assert not (tmp_path / "elsewhere").exists()


# ---- the folder of sockets


def test_the_folder_of_sockets_is_private_and_removed(tmp_path: Path, short: Path) -> None:
    with runtime_folder(tmp_path, Environment(runtime=short)) as runtime:
        (runtime / "admin.sock").touch()
        assert stat.S_IMODE(runtime.stat().st_mode) == 0o700
    assert list(short.iterdir()) == []


def test_the_folder_of_sockets_stays_while_others_have_theirs_in_it(tmp_path: Path, short: Path) -> None:
    with runtime_folder(tmp_path, Environment(runtime=short)) as runtime:
        (runtime / "agent.sock").touch()
    assert [path.name for path in runtime.iterdir()] == ["agent.sock"]


# ---- ports


def test_the_next_start_listens_where_the_last_one_did(paths: StatePaths) -> None:
    first = choose_ports(paths, ListenSettings(), 1)

    assert sorted(first) == ["attestation", "authz", "http", "signing", "xds"]
    assert len({address.port for address in first.values()}) == 5
    assert choose_ports(paths, ListenSettings(), 1) == first


def test_a_port_that_another_program_took_meanwhile_is_replaced_and_the_others_stay(paths: StatePaths) -> None:
    first = choose_ports(paths, ListenSettings(), 1)

    with listening(first["xds"].port):
        second = choose_ports(paths, ListenSettings(), 1)

    assert second["xds"] != first["xds"]
    assert {name for name in first if second[name] == first[name]} == {"authz", "attestation", "signing", "http"}


def test_a_given_port_in_use_is_an_error_and_nothing_is_kept(paths: StatePaths) -> None:
    first = choose_ports(paths, ListenSettings(), 1)

    with listening() as port, pytest.raises(StateError, match=r"give another one as `listen\.authz` in policyd\.yaml$"):
        choose_ports(paths, ListenSettings(authz=Address("127.0.0.1", port)), 1)

    assert choose_ports(paths, ListenSettings(), 1) == first


def test_a_broken_file_of_ports_costs_no_more_than_the_ports(paths: StatePaths) -> None:
    choose_ports(paths, ListenSettings(), 1)
    (paths.root / "ports.json").write_bytes(b'{"xds": 70000')

    assert len(choose_ports(paths, ListenSettings(), 1)) == 5


def test_each_decision_process_has_a_port_of_its_own(paths: StatePaths) -> None:
    chosen = choose_ports(paths, ListenSettings(), 3)

    assert sorted(chosen) == ["attestation", "authz", "authz-2", "authz-3", "http", "signing", "xds"]
    assert decision_addresses(chosen) == (chosen["authz"], chosen["authz-2"], chosen["authz-3"])
    assert len({address.port for address in chosen.values()}) == 7


def test_the_ports_after_a_given_one_are_those_of_further_decision_processes(paths: StatePaths) -> None:
    with listening() as port:
        pass
    chosen = choose_ports(paths, ListenSettings(authz=Address("127.0.0.1", port)), 1)
    assert decision_addresses(chosen) == (Address("127.0.0.1", port),)
    with listening(port + 1), pytest.raises(StateError, match=rf"127\.0\.0\.1:{port + 1}.*`listen\.authz`"):
        choose_ports(paths, ListenSettings(authz=Address("127.0.0.1", port)), 2)


# ---- places


def placed(paths: StatePaths, text: str, *, resumed: bool = False) -> Placer:
    """A Placer of a new start that has put `text` in force."""
    placer = Placer(paths, (), resumed=resumed)
    placer.keep(placer(declared(text)))
    return placer


def test_ports_and_secrets_stay_from_one_start_to_the_next(paths: StatePaths) -> None:
    first = placed(paths, ONE)(declared(ONE))

    again = Placer(paths, (), resumed=False)(declared(ONE))

    assert again == first
    assert again.sidecars["web"].proxy_secret == first.sidecars["web"].proxy_secret
    assert len(first.sidecars["web"].proxy_secret) >= 32


def test_on_a_fresh_start_a_port_that_another_program_has_is_not_ours(paths: StatePaths) -> None:
    before = placed(paths, ONE)(declared(ONE)).sidecars["web"]

    with listening(before.inbound_port):
        after = Placer(paths, (), resumed=False)(declared(ONE)).sidecars["web"]

    assert after.inbound_port != before.inbound_port
    assert (after.app_port, after.outbound_port, after.proxy_secret) == (
        before.app_port,
        before.outbound_port,
        before.proxy_secret,
    )


def test_after_a_crash_the_ports_that_our_own_proxies_have_open_stay_ours(paths: StatePaths) -> None:
    before = placed(paths, ONE)(declared(ONE))

    with listening(before.sidecars["web"].inbound_port):
        assert Placer(paths, (), resumed=True)(declared(ONE)) == before


def test_while_it_serves_its_own_ports_stay_and_a_newcomer_gets_others(paths: StatePaths) -> None:
    placer = placed(paths, ONE)
    before = placer(declared(ONE))

    with listening(before.sidecars["web"].inbound_port):
        after = placer(declared(TWO))

    assert after.sidecars["web"] == before.sidecars["web"]
    assert not before.ports() & (after.ports() - before.ports())


def test_a_change_that_is_refused_moves_nobody(paths: StatePaths) -> None:
    """A workload that was left out by mistake runs on, so it is found where it was once it is back."""
    placer = placed(paths, TWO)
    before = placer(declared(TWO))

    placer(declared(ONE))  # looked at, and never kept

    assert placer(declared(TWO)) == before
    assert Placer(paths, (), resumed=False)(declared(TWO)) == before


def test_a_given_port_in_use_is_a_problem_of_the_declaration(paths: StatePaths) -> None:
    with listening() as port, pytest.raises(InvalidInput) as refused:
        Placer(paths, (), resumed=False)(declared(f"workloads:\n  web: {{service: web, port: 80, appPort: {port}}}\n"))

    assert str(refused.value) == (
        f"workloads.yaml:2: port {port} is in use by another program; free it or leave the port out"
    )


def test_a_gateway_s_port_in_use_is_replaced(paths: StatePaths) -> None:
    with listening() as port:
        found = Placer(paths, (), resumed=False)(declared(f"gateways: {{edge: {{listen: {port}}}}}\n"))

    [listen] = found.gateways["edge"]
    assert listen.declared == port
    assert listen != Listen(port, port)


def test_the_server_s_own_ports_are_nobody_else_s_though_nothing_listens_there_yet(paths: StatePaths) -> None:
    before = placed(paths, ONE)(declared(ONE)).sidecars["web"]

    after = Placer(paths, (before.app_port, before.inbound_port), resumed=False)(declared(ONE)).sidecars["web"]

    assert {before.app_port, before.inbound_port}.isdisjoint({after.app_port, after.inbound_port})
    assert after.outbound_port == before.outbound_port


def test_a_given_port_that_the_server_itself_has_is_a_problem_of_the_declaration(paths: StatePaths) -> None:
    with pytest.raises(InvalidInput, match=r"^workloads.yaml:2: port 25001 is in use by another program"):
        Placer(paths, (25_001,), resumed=False)(
            declared("workloads:\n  web: {service: web, port: 80, appPort: 25001}\n")
        )


def test_a_broken_placement_stops_the_start(paths: StatePaths) -> None:
    paths.placement.touch(mode=0o600)

    with pytest.raises(StateError, match=r"is broken; remove it; ports are then picked anew$"):
        Placer(paths, (), resumed=False)
