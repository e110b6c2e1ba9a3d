"""Header operations of a rule or of one of its destinations, as Envoy's fields."""

from __future__ import annotations

from typing import Any

from policyd.mesh.istio.destination import HeaderOperations, Headers
from policyd.mesh.matching import AUTHORITY


def fields(*parts: Headers) -> dict[str, Any]:
    """What is set, added and removed on both ways; of several parts the later ones are done later."""
    found: dict[str, Any] = {}
    for side in ("request", "response"):
        operations: list[HeaderOperations] = [getattr(part, side) for part in parts]
        added = [action for one in operations for action in _added(one)]
        removed = [name for one in operations for name in one.remove]
        if added:
            found[f"{side}_headers_to_add"] = added
        if removed:
            found[f"{side}_headers_to_remove"] = removed
    return found


def authority(*parts: Headers) -> str | None:
    """The Host that the request is given, if any part sets one."""
    given = [part.request.set[AUTHORITY] for part in parts if AUTHORITY in part.request.set]
    return given[-1] if given else None


def _added(operations: HeaderOperations) -> list[dict[str, Any]]:
    actions = (("OVERWRITE_IF_EXISTS_OR_ADD", operations.set), ("APPEND_IF_EXISTS_OR_ADD", operations.add))
    return [
        # Envoy reads `%` as the beginning of a command
        {"header": {"key": name, "value": value.replace("%", "%%")}, "append_action": action}
        for action, values in actions
        for name, value in values.items()
        if name != AUTHORITY
    ]
