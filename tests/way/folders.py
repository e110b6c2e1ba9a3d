"""Bookinfo with more in its mesh folder, loaded as commands load it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path

from policyd.offline.loaded import NOWHERE, load_texts
from policyd.policy.end_user import Shown
from policyd.reload.live import Live, shipped_schemas
from policyd.sources.files import digest, read_folder
from policyd.way.entry import way_of
from policyd.way.follow import Follower
from policyd.way.model import Hop

BOOKINFO = Path(__file__).parents[2] / "examples" / "bookinfo"
NOW = datetime(2026, 11, 28, 12, 0, tzinfo=UTC)


def task(*names: str) -> dict[str, str]:
    """Files of the tasks folder, as they lie in the mesh folder while the task is done."""
    return {f"mesh/{name}.yaml": (BOOKINFO / "tasks" / f"{name}.yaml").read_text() for name in names}


def shared(backends: str) -> str:
    """A route of the Gateway API by which requests for reviews are shared among backends, a YAML list."""
    return f"""\
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: shares, namespace: default}}
spec:
  parentRefs: [{{group: "", kind: Service, name: reviews}}]
  rules: [{{backendRefs: {backends}}}]
"""


def loaded(more: Mapping[str, str] | None = None) -> Live:
    """Bookinfo with these files besides."""
    return _loaded(tuple(sorted((more or {}).items())))


@lru_cache(maxsize=64)
def _loaded(more: tuple[tuple[str, str], ...]) -> Live:
    folder = read_folder(BOOKINFO)
    texts = {path: text for path, text in folder.texts.items() if not path.startswith("cases/")} | dict(more)
    return load_texts(replace(folder, texts=texts, digest=digest(texts)), shipped_schemas())


def way(live: Live, request: str, headers: Mapping[str, str] | None = None, user: Shown | None = None) -> Hop:
    """The way of a request."""
    return way_of(request, Follower(live, NOWHERE, NOW, user), live.mesh, headers or {})
