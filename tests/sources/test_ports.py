"""The server's own ports: given ones or an error, kept ones while they are free, others otherwise."""

from __future__ import annotations

import stat
from collections.abc import Container
from itertools import count
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policyd.config.addresses import Address
from policyd.errors import StateError
from policyd.sources.ports import choose, load, save

ANY = Address("127.0.0.1", 0)
WANTED = {"xds": ANY, "http": ANY}


def chosen(
    wanted: dict[str, Address] = WANTED, before: dict[str, int] | None = None, busy: Container[int] = ()
) -> dict[str, Address]:
    return choose(wanted, before or {}, lambda port, host: port not in busy, count(20000))


def ports(found: dict[str, Address]) -> dict[str, int]:
    return {name: address.port for name, address in found.items()}


def test_every_name_gets_a_free_port_of_its_own() -> None:
    assert ports(chosen(busy={20000})) == {"xds": 20001, "http": 20002}


def test_a_port_of_the_last_start_is_taken_again_while_it_is_free() -> None:
    before = {"xds": 21000, "http": 21001}

    assert ports(chosen(before=before)) == before
    assert ports(chosen(before=before, busy={21000})) == {"xds": 20000, "http": 21001}


def test_a_given_port_goes_before_the_kept_one() -> None:
    given_port = {"xds": Address("127.0.0.1", 9000), "http": ANY}

    assert ports(chosen(given_port, {"xds": 21000, "http": 9000})) == {"xds": 9000, "http": 20000}


def test_a_given_port_in_use_is_an_error_that_names_the_setting() -> None:
    with pytest.raises(StateError) as refused:
        chosen({"xds": ANY, "http": Address("127.0.0.1", 9000)}, busy={9000})

    assert str(refused.value) == (
        "`127.0.0.1:9000` is in use by another program; free it, or give another one as `listen.http` in policyd.yaml"
    )


def test_no_free_port_is_an_error_and_no_endless_search() -> None:
    with pytest.raises(StateError, match=r"^no free port was found for `listen\.xds`; give one in policyd\.yaml$"):
        chosen(busy=range(100_000))


def test_a_port_is_looked_for_at_the_address_where_it_is_wanted() -> None:
    asked: list[tuple[int, str]] = []

    def is_free(port: int, host: str) -> bool:
        asked.append((port, host))
        return True

    choose({"xds": Address("::1", 0)}, {}, is_free, count(20000))

    assert asked == [(20000, "::1")]


@given(
    st.frozensets(st.integers(20000, 20010)),
    st.dictionaries(st.sampled_from(["xds", "http"]), st.integers(20000, 20010)),
)
def test_no_port_is_given_twice_or_while_in_use(busy: frozenset[int], before: dict[str, int]) -> None:
    found = set(ports(chosen(before=before, busy=busy)).values())

    assert len(found) == 2
    assert not found & busy


def test_what_is_kept_is_read_back_by_its_owner_alone(tmp_path: Path) -> None:
    file = tmp_path / "ports.json"

    save(file, chosen())

    assert load(file) == {"xds": 20000, "http": 20001}
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    "data",
    [
        b"", b"{", b"[]", b"\xff\x00", b'{"xds": "20000"}', b'{"xds": 1.5}', b'{"xds": true}',
        b'{"xds": 0}', b'{"xds": -1}', b'{"xds": 65536}', b'{"xds": 99999999999999999999}',
    ],
)  # fmt: skip
def test_a_broken_file_keeps_nothing(tmp_path: Path, data: bytes) -> None:
    file = tmp_path / "ports.json"
    file.write_bytes(data)

    assert load(file) == {}


def test_no_file_keeps_nothing(tmp_path: Path) -> None:
    assert load(tmp_path / "ports.json") == {}


def test_what_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "nowhere" / "ports.json"

    with pytest.raises(StateError) as refused:
        save(file, chosen())

    assert str(refused.value) == f"`{file}` cannot be written: No such file or directory; check the disk"
