"""The environment becomes one value; what is set wrong is refused by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from policyd.environment import Environment, from_environ
from policyd.errors import UsageError


def test_the_environment_is_read_once_into_a_value() -> None:
    environ = {
        "POLICYD_DIR": "mesh",
        "POLICYD_ENVOY": "/opt/envoy",
        "POLICYD_LOG": "DEBUG",
        "POLICYD_PORTS": "20000-29999",
        "POLICYD_CA_PASSPHRASE": "correct horse",
        "POLICYD_CONSOLE": "off",
        "XDG_RUNTIME_DIR": "/run/user/1000",
        "XDG_CACHE_HOME": "/var/cache/me",
        "TMPDIR": "/var/tmp",
    }
    assert from_environ(environ) == Environment(
        "mesh",
        "/opt/envoy",
        Path("/run/user/1000"),
        Path("/var/cache/me"),
        Path("/var/tmp"),
        "debug",
        range(20_000, 30_000),
        b"correct horse",
        console=False,
    )
    assert "correct horse" not in repr(from_environ(environ))


def test_an_empty_environment_has_defaults() -> None:
    assert from_environ({}) == Environment(temporary=Path("/tmp"))
    assert from_environ({"HOME": "/home/me"}).cache == Path("/home/me/.cache")


def test_base_directories_that_are_not_absolute_are_passed_over() -> None:
    assert from_environ({"XDG_RUNTIME_DIR": "run", "XDG_CACHE_HOME": "", "TMPDIR": "t"}) == Environment()


def test_an_unknown_log_level_is_refused() -> None:
    with pytest.raises(UsageError) as error:
        from_environ({"POLICYD_LOG": "loud"})
    assert str(error.value) == "POLICYD_LOG is `loud`; set one of debug, info, warning, error"


@pytest.mark.parametrize("text", ["", "no", "0", "OFF"])
def test_a_switch_that_is_neither_on_nor_off_is_refused(text: str) -> None:
    with pytest.raises(UsageError) as error:
        from_environ({"POLICYD_CONSOLE": text})
    assert str(error.value) == f"POLICYD_CONSOLE is `{text}`; set it to on or off"


@pytest.mark.parametrize(
    "text", ["20000", "20000-20098", "29999-20000", "80-1200", "60000-70000", "-1-2000", "a-b", "1e4-2e4"]
)
def test_ports_to_pick_from_that_are_no_range_of_a_hundred_are_refused(text: str) -> None:
    with pytest.raises(UsageError) as error:
        from_environ({"POLICYD_PORTS": text})
    remedy = "write it as FIRST-LAST, of 100 ports at least from 1024 to 65535"
    assert str(error.value) == f"POLICYD_PORTS is `{text}`; {remedy}"
