"""The console as one application: its pages by their addresses, behind its Door."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Final

from starlette.applications import Starlette
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from policyd.console.desk import HERE, Desk, failing, static_version
from policyd.console.door import Door
from policyd.console.entrance import BACK, GUESSES, Entrance, nothing_here
from policyd.console.live import Streams
from policyd.console.provider import Provider
from policyd.console.sessions import Sessions
from policyd.console.views import certificates, decisions, graph, mesh, policies, traces, trial
from policyd.rate import RateLimit

PAGES: Final = {
    "/": graph.graph,
    "/graph/part": graph.graph_part,
    "/decisions": decisions.decisions,
    "/decisions/{id}": decisions.decision,
    "/policies": policies.policies,
    "/policies/tests": policies.tests,
    "/policies/revisions": policies.revisions,
    "/policies/trial": trial.trial,
    "/policies/playground": policies.playground,
    "/certificates": certificates.certificates,
    "/traces": traces.traces,
    "/traces/{id}": traces.trace,
    "/mesh": mesh.mesh,
    "/mesh/proxies/{id}": mesh.proxy,
    "/mesh/resources": mesh.resources,
    "/mesh/analysis": mesh.analysis,
    "/mesh/routes": mesh.routes,
}
STREAMS: Final = {
    "/live/graph": graph.graph_live,
    "/live/decisions": decisions.decisions_live,
    "/live/mesh": mesh.mesh_live,
}
ACTIONS: Final = {
    "/policies/playground/check": policies.playground_check,
    "/policies/playground/decide": policies.playground_decide,
    "/policies/playground/replay": policies.playground_replay,
    "/policies/playground/apply": policies.playground_apply,
}


def application(
    desk: Desk,
    seconds: Callable[[], int],
    clock: Callable[[], float],
    token: str = "",
    provider: Provider | None = None,
    sessions: Sessions | None = None,
) -> Door:
    """Make it; `seconds` are those since the epoch, `clock` never goes back. Who logs in does it with `provider`."""
    known, limit = sessions or Sessions(), RateLimit(GUESSES, clock)
    entrance = Entrance(desk.rules, known, seconds, limit, token, since=seconds(), provider=provider)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        looking = asyncio.create_task(desk.watch.run())
        try:
            yield
        finally:
            looking.cancel()
            with suppress(asyncio.CancelledError):
                await looking

    routes = [
        Mount(f"/static/{static_version()}", StaticFiles(directory=HERE / "static")),
        Route("/enter", entrance.get, methods=["GET"]),
        Route("/enter", entrance.post, methods=["POST"]),
        Route("/enter/oidc", entrance.begin, methods=["GET"]),
        Route(BACK, entrance.back, methods=["GET"]),
        Route("/leave", entrance.leave, methods=["POST"]),
        Route("/leave/others", entrance.leave_others, methods=["POST"]),
        *(Route(path, failing(view), methods=["GET"]) for path, view in PAGES.items()),
        *(Route(path, failing(view), methods=["GET"]) for path, view in STREAMS.items()),
        *(Route(path, failing(view), methods=["POST"]) for path, view in ACTIONS.items()),
    ]
    made = Starlette(routes=routes, lifespan=lifespan, exception_handlers={404: nothing_here})
    made.state.desk = desk
    made.state.streams = Streams(desk.stopping)
    return Door(made, desk.rules, known, seconds)
