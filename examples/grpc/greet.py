"""A gRPC client without a sidecar: `greet.py [-H NAME=VALUE] TARGET METHOD [WORD]...`, with GRPC_XDS_BOOTSTRAP set.

Each word is a call, on one channel; `-` stands for the lines of standard input. The target is `xds:///<host>:<port>`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator

import grpc


def main() -> int:
    """Make the calls, print what is answered, and return how many were not."""
    parser = argparse.ArgumentParser()
    parser.add_argument("-H", "--header", action="append", default=[], type=lambda text: tuple(text.split("=", 1)))
    parser.add_argument("target")
    parser.add_argument("method")
    parser.add_argument("words", nargs="*", default=["world"])
    options = parser.parse_args()
    failed = 0
    # a certificate of its own and whom to expect come from policyd; without them the channel trusts no mesh at all
    credentials = grpc.xds_channel_credentials(grpc.ssl_channel_credentials())
    with grpc.secure_channel(options.target, credentials) as channel:
        call = channel.unary_unary(f"/example.Greeter/{options.method}")
        for word in _each(options.words):
            try:
                print(call(word.encode(), metadata=options.header, timeout=20).decode(), flush=True)
            except grpc.RpcError as error:
                failed += 1
                print(f"{error.code().name}: {error.details()}", flush=True)
    return min(failed, 1)


def _each(words: list[str]) -> Iterator[str]:
    for word in words:
        yield from (line.strip() for line in sys.stdin) if word == "-" else (word,)


if __name__ == "__main__":
    sys.exit(main())
