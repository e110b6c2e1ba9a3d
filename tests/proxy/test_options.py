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
