"""A gRPC server without a sidecar as a process of its own: answers with its name, until its input ends."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor

import grpc


def main() -> None:
    """`grpc_server.py ADDRESS NAME`; the bootstrap is in GRPC_XDS_BOOTSTRAP_CONFIG."""
    address, name = sys.argv[1:]

    def hello(request: bytes, context: grpc.ServicerContext) -> bytes:
        return name.encode()

    methods = {method: grpc.unary_unary_rpc_method_handler(hello) for method in ("Hello", "Secret")}
    server = grpc.server(ThreadPoolExecutor(2), xds=True)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Greeter", methods),))
    server.add_secure_port(address, grpc.xds_server_credentials(grpc.insecure_server_credentials()))
    server.start()
    sys.stdin.read()
    server.stop(None).wait()


if __name__ == "__main__":
    main()
