"""A gRPC client without a sidecar as a process of its own: makes the calls that its input asks for."""

from __future__ import annotations

import json
import sys

import grpc


def main() -> None:
    """For each line `{"target", "path", "metadata"}` the answer, or the status; bootstrap as in grpc_server.py."""
    credentials = grpc.xds_channel_credentials(grpc.ssl_channel_credentials())
    channels: dict[str, grpc.Channel] = {}
    for line in sys.stdin:
        asked = json.loads(line)
        target = asked["target"]
        channel = channels.setdefault(target, grpc.secure_channel(f"xds:///{target}", credentials))
        metadata = tuple((name, value) for name, value in asked.get("metadata", {}).items())
        call = channel.unary_unary(asked["path"])
        try:
            print(call(b"", metadata=metadata, timeout=30).decode(), flush=True)
        except grpc.RpcError as error:
            print(f"{error.code().name}: {error.details()}".splitlines()[0], flush=True)


if __name__ == "__main__":
    main()
