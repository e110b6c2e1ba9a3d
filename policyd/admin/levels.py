"""The administration API's part about log levels: the server's own, those of agents, and those of the Envoys they run.

Law: who is asked is known and knows the level; what is asked of an agent it is told now, and when it comes back.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import grpc

from policyd._pb import admin_pb2 as pb
from policyd.ca.serving.refusals import Refusal
from policyd.environment import LEVELS, Level
from policyd.names import AGENT_LEVELS, ENVOY_LEVELS


def of_agent(request: pb.SetLogLevelRequest) -> bool:
    """Whether it is not the server who is to speak."""
    return bool(request.agent or request.envoys)


def checked(request: pb.SetLogLevelRequest, agents: Sequence[str]) -> dict[str, Any]:
    """What is put on record of a change that can be made; raises Refusal."""
    known = (ENVOY_LEVELS if request.envoys else AGENT_LEVELS) if of_agent(request) else LEVELS
    if request.level and request.level not in known:
        what = f"`{request.level[:40]}` is no level; known are {', '.join(known)}"
        raise Refusal(grpc.StatusCode.INVALID_ARGUMENT, what)
    detail = {"level": request.level or "settings"}
    if not of_agent(request):
        return detail
    if request.agent not in agents:
        named = f"known are {', '.join(agents)}" if agents else "none has joined"
        raise Refusal(grpc.StatusCode.NOT_FOUND, f"`{request.agent[:80]}` is no agent; {named}")
    return {**detail, "agent": request.agent, "envoys": request.envoys}


def level(request: pb.SetLogLevelRequest) -> Level | None:
    """That of the server; None: of its settings."""
    return next((one for one in LEVELS if one == request.level), None)
