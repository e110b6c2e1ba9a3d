"""The bootstrap, against a golden file and against the real Envoy."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from policyd.envoy_api import envoy_binary
from policyd.errors import EnvoyError
from policyd.spiffe import SpiffeId
from policyd.xds.resources.tls import upstream
from proxy.bootstrap import Endpoint, Start, bootstrap

GOLDEN = Path(__file__).parent / "golden" / "bootstrap.json"
START = Start(
    instance="n",  # as YAML, Envoy would read false
    cluster="reviews.default",
    xds=Endpoint("127.0.0.1", 15010),
    server=SpiffeId.server("cluster.local"),
    sds_socket="/run/policyd/n/sds.sock",
    admin_socket="/run/policyd/n/admin.sock",
    memory=1 << 30,
)


def test_the_bootstrap_is_as_it_was(request: pytest.FixtureRequest) -> None:
    made = json.dumps(bootstrap(START), indent=2) + "\n"
    if request.config.getoption("--update-golden"):
        GOLDEN.parent.mkdir(exist_ok=True)
        GOLDEN.write_text(made, encoding="utf-8")
    assert json.loads(made) == json.loads(GOLDEN.read_text(encoding="utf-8"))


def test_secrets_are_named_in_the_words_of_xds() -> None:
    """Envoy opens one stream for a secret however often it is named, if it is named in the same words."""
    [*_, xds] = bootstrap(START)["static_resources"]["clusters"]
    other = upstream("policyd", (START.server,))

    def named(socket: dict[str, Any]) -> list[Any]:
        common = socket["typed_config"]["common_tls_context"]
        roots = common["combined_validation_context"]["validation_context_sds_secret_config"]
        return [*common["tls_certificate_sds_secret_configs"], roots]

    assert named(xds["transport_socket"]) == named(other)


@pytest.mark.e2e
async def test_envoy_accepts_it_without_a_warning(tmp_path: Path) -> None:
    path = tmp_path / "bootstrap.json"
    path.write_text(json.dumps(bootstrap(START)), encoding="utf-8")
    process = await asyncio.create_subprocess_exec(
        str(envoy_binary()), "--mode", "validate", "-c", str(path), "--log-level", "warning",
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    said, _ = await process.communicate()
    assert (process.returncode, said.decode()) == (0, f"configuration '{path}' OK\n")


@pytest.mark.parametrize(
    ("text", "endpoint"),
    [("127.0.0.1:1", Endpoint("127.0.0.1", 1)), ("[::1]:65535", Endpoint("::1", 65535)), ("h:80", Endpoint("h", 80))],
)  # fmt: skip
def test_addresses(text: str, endpoint: Endpoint) -> None:
    assert Endpoint.parse(text) == endpoint


@pytest.mark.parametrize(
    "text", ["", "host", ":80", "host:", "host:0", "host:65536", "::1:80", "[h]:80", "h:8²", "h:-1"]
)
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(EnvoyError):
        Endpoint.parse(text)
