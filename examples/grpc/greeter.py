"""A gRPC server without a sidecar: `greeter.py ADDRESS VERSION`, with GRPC_XDS_BOOTSTRAP set as the agent says.

policyd tells it by which certificates to be known and who may call what; the code says only that it is to be told.
"""

from __future__ import annotations

import signal
import sys
from concurrent.futures import ThreadPoolExecutor

import grpc


def main() -> None:
    """Serve until told to end."""
    address, version = sys.argv[1:]

    def hello(request: bytes, context: grpc.ServicerContext) -> bytes:
        return f"hello {request.decode()}, says {version}".encode()

    def secret(request: bytes, context: grpc.ServicerContext) -> bytes:
        return b"the answer is 42"

    methods = {
        "Hello": grpc.unary_unary_rpc_method_handler(hello),
        "Secret": grpc.unary_unary_rpc_method_handler(secret),
    }
    server = grpc.server(ThreadPoolExecutor(4), xds=True)  # which listens only once policyd has told it how
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("example.Greeter", methods),))
    # what is given to it here would be used where policyd names no certificates, which it always does
    credentials = grpc.xds_server_credentials(grpc.insecure_server_credentials())
    server.add_secure_port(address, credentials)
    server.start()
    signal.sigwait({signal.SIGINT, signal.SIGTERM})
    server.stop(grace=5).wait()


if __name__ == "__main__":
    main()
