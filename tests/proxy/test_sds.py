"""The secrets of a sidecar, to an Envoy that rejects one of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc.aio

from policyd.envoy_api import SECRET, shared
from policyd.xds.snapshot import Resource, make_snapshot
from proxy.outside import Outside
from proxy.sds import SERVICE, SdsServer
from tests.xds.envoy_process import eventually


def message(name: str) -> Any:
    return shared().message(f"envoy.service.discovery.v3.Delta{name}")


async def test_a_secret_that_envoy_rejects_is_named_and_not_held_and_the_others_are(tmp_path: Path) -> None:
    said: list[dict[str, object]] = []
    outside = Outside(lambda event, **facts: said.append({"event": event, **facts}))
    server = SdsServer(shared(), tmp_path / "sds.sock", "web-v1", outside)
    await server.start(make_snapshot(Resource(name, "1", SECRET, b"") for name in ("ROOTCA", "default")))
    async with grpc.aio.insecure_channel(f"unix:{tmp_path / 'sds.sock'}") as channel:
        request = message("DiscoveryRequest")
        call: Any = channel.stream_stream(
            f"/{SERVICE}/DeltaSecrets",
            request_serializer=request.SerializeToString,
            response_deserializer=message("DiscoveryResponse").FromString,
        )()
        await call.write(request(type_url=SECRET, resource_names_subscribe=["default", "ROOTCA"]))
        for wanted, error in (("ROOTCA", None), ("default", {"message": "no such key"})):
            heard = await call.read()
            assert [one.name for one in heard.resources] == [wanted]
            await call.write(request(type_url=SECRET, response_nonce=heard.nonce, error_detail=error))

        async def is_said() -> bool:
            return bool(said)

        await eventually(is_said, "it is said")
        assert said == [
            {"event": "sidecar.secret_rejected", "instance": "web-v1", "reason": "`default`: no such key"},
        ]
        assert (server.holds("ROOTCA"), server.holds("default")) == (True, False)
    await server.stop()
