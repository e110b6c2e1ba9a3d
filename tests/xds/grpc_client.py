"""A gRPC client as a process of its own: calls the target until each wanted answer has come, and tells so."""

from __future__ import annotations

import sys
import time

import grpc


def main() -> None:
    """`grpc_client.py TARGET METHOD ANSWER...`; the bootstrap is in GRPC_XDS_BOOTSTRAP_CONFIG."""
    target, method, *answers = sys.argv[1:]
    with grpc.insecure_channel(target) as channel:
        call = channel.unary_unary(method)
        for wanted in answers:
            while call(b"", wait_for_ready=True, timeout=60).decode() != wanted:
                time.sleep(0.02)
            print(wanted, flush=True)


if __name__ == "__main__":
    main()
