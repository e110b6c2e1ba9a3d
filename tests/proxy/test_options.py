"""What the command line refuses before anything is done."""

from __future__ import annotations

import pytest

from proxy.main import USAGE, main


@pytest.mark.parametrize(
    "option",
    [
        ("--concurrency", "2"),
        ("--drain", "0"),
        ("--envoy-log-level", "info"),
        ("--envoy-memory", "512"),
        ("--resolv-conf", "/etc/resolv.conf"),
    ],
)
def test_what_only_an_envoy_needs_is_refused_where_none_is_started(
    option: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", "--proxyless", *option]) == USAGE
    told = f"policyd-proxy: `{option[0]}` is for Envoys, and with --proxyless none is started; leave it out\n"
    assert capsys.readouterr().err == told


@pytest.mark.parametrize(
    ("option", "value", "wanted"),
    [
        ("--concurrency", "two", "whole number of threads from 1 to 256"),
        ("--concurrency", "0", "whole number of threads from 1 to 256"),
        ("--drain", "5s", "number of seconds from 0 to 3600"),
        ("--drain", "nan", "number of seconds from 0 to 3600"),
        ("--envoy-memory", "1Gi", "whole number of MiB from 32 to 1048576"),
        ("--envoy-memory", "31", "whole number of MiB from 32 to 1048576"),
    ],
)
def test_what_is_no_number_that_an_option_takes_is_told_which_it_takes(
    option: str, value: str, wanted: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match=str(USAGE)):
        main(["run", option, value])
    assert capsys.readouterr().err.splitlines()[-1] == f"policyd-proxy run: argument {option}: `{value}` is no {wanted}"
