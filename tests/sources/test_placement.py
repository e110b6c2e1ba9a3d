"""The placement's file, and which ports are free."""

from __future__ import annotations

import os
import socket
import stat
from itertools import islice
from pathlib import Path
from random import Random

import pytest

from policyd.errors import StateError
from policyd.mesh.model import Listen
from policyd.mesh.placement import Placement, PortPlace, SidecarPlace
from policyd.sources.placement import candidates, is_free, load, save

UID = os.geteuid()
PLACEMENT = Placement({"web": SidecarPlace(1, 2, 3, "secret")}, {"edge": (Listen(80, 8080), Listen(443, 443))})


def test_a_placement_is_kept_privately(tmp_path: Path) -> None:
    path = tmp_path / "placement.json"
    save(path, PLACEMENT)
    assert load(path, UID) == PLACEMENT
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_several_ports_are_kept_by_their_numbers(tmp_path: Path) -> None:
    path = tmp_path / "placement.json"
    place = SidecarPlace(1, 2, 3, "secret", (PortPlace(90, 4, 5),), number=80)
    save(path, Placement({"web": place}))

    assert load(path, UID).sidecars["web"].ports == (PortPlace(80, 1, 2), PortPlace(90, 4, 5))


def test_a_file_of_before_there_were_several_ports_is_read(tmp_path: Path) -> None:
    path = tmp_path / "placement.json"
    save(path, PLACEMENT)
    path.write_text(
        '{"sidecars":{"web":{"appPort":1,"inboundPort":2,"outboundPort":3,"proxySecret":"secret"}},'
        '"gateways":{"edge":[[80,8080],[443,443]]}}'
    )

    assert load(path, UID) == PLACEMENT


def test_no_file_is_no_placement(tmp_path: Path) -> None:
    assert load(tmp_path / "placement.json", UID) == Placement()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[]",
        b'{"sidecars": {}}',
        b'{"sidecars": {"a": 1}, "gateways": {}}',
        b"\xff",
        b'{"sidecars": {}, "gateways": {"a": [[80, 65536]]}}',
    ],
)
def test_a_broken_file_is_an_error_and_no_empty_placement(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "placement.json"
    save(path, PLACEMENT)
    path.write_bytes(data)
    with pytest.raises(StateError) as error:
        load(path, UID)
    assert str(error.value) == f"`{path}` is broken; remove it; ports are then picked anew"


def test_a_file_that_others_may_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "placement.json"
    save(path, PLACEMENT)
    path.chmod(0o640)
    with pytest.raises(StateError, match="others own or may read"):
        load(path, UID)


def test_a_link_is_refused(tmp_path: Path) -> None:
    save(tmp_path / "elsewhere", PLACEMENT)
    (tmp_path / "placement.json").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StateError, match="cannot be read"):
        load(tmp_path / "placement.json", UID)


def test_what_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StateError, match="cannot be written: No such file or directory"):
        save(tmp_path / "nowhere" / "placement.json", PLACEMENT)


def test_a_port_is_free_until_someone_listens() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]
        assert not is_free(port)
    assert is_free(port)


def test_candidates_lie_where_they_are_to_be_picked_from() -> None:
    assert set(islice(candidates(Random(1), range(20_000, 20_004)), 1000)) == {20_000, 20_001, 20_002, 20_003}
