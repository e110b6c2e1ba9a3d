"""A gRPC server without a sidecar as a process of its own: answers every call with its name, until its input ends."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc


class Everything(grpc.GenericRpcHandler):
    """Serves whatever is called."""

    def __init__(self, name: str) -> None:
        self._handler: Any = grpc.unary_unary_rpc_method_handler(lambda request, context: name.encode())

    def service(self, handler_call_details: Any) -> Any:
        """The handler of any method."""
        return self._handler


def main() -> None:
    """`grpc_server.py ADDRESS NAME`; the bootstrap is in GRPC_XDS_BOOTSTRAP_CONFIG."""
    address, name = sys.argv[1:]
    server = grpc.server(ThreadPoolExecutor(2), xds=True)
    server.add_generic_rpc_handlers((Everything(name),))
    server.add_secure_port(address, grpc.xds_server_credentials(grpc.insecure_server_credentials()))
    server.start()
    sys.stdin.read()
    server.stop(None).wait()


if __name__ == "__main__":
    main()
