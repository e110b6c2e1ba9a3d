"""How gRPC reads its sockets, which it is told in the environment before it is imported."""

from __future__ import annotations

from typing import Final

# the thread that waits for events reads the sockets itself: with gRPC's own threads between them a check costs a fifth
# more of the processor; where gRPC no longer knows the name it says so and goes on
GRPC: Final = {"GRPC_EXPERIMENTS": "-event_engine_listener"}
