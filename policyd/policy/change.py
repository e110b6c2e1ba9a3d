"""One thing that could be different about a request, or about a group: a value that can be made true and tried.

Law: a changed request is one that can be asked: paths are canonical, callers are of the mesh, methods of the schema.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final, Literal

from policyd.audit.match import short_name
from policyd.cedar.http import Endpoint, HttpFacts
from policyd.cedar.model import ANONYMOUS, Entity, Request, Uid
from policyd.cedar.schema import Schema
from policyd.errors import PolicydError, SpiffeIdError
from policyd.mesh.model import Group, Mesh
from policyd.policy.ruling import Ruling
from policyd.spiffe import SpiffeId

Kind = Literal["method", "path", "host", "header", "address", "time", "group", "caller"]

OTHER: Final = "other"  # the action of every method that the schema does not name
METHODS: Final = (
    "GET",
    "HEAD",
    "POST",
    "PUT",
    "PATCH",
    "DELETE",
    "OPTIONS",
    OTHER,
)  # as they are offered, reading first

_NOWHERE: Final = Endpoint("127.0.0.1", 0)
_EPOCH: Final = datetime(2000, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Change:
    """`kind` becomes `value`; `name` is a header's name, or the pattern or range that a value stands for.

    A caller is a SPIFFE ID or `anonymous`, a header without a value (None) is taken out, a group is joined by the
    caller.
    """

    kind: Kind
    value: str | None
    name: str = ""

    @property
    def subject(self) -> tuple[Kind, str]:
        """What it changes; two changes of one subject exclude each other, as joining a group and being another do."""
        kind = "caller" if self.kind == "group" else self.kind
        return kind, self.name if kind == "header" else ""

    def words(self, request: Request) -> str:
        """What is to be done, as in "with …"."""
        match self.kind:
            case "method":
                return f"`{self.value}` instead of `{method_of(request)}`"
            case "path" | "host" | "address":
                of = f" (of `{self.name}`)" if self.name else ""
                return f"the {self.kind} `{self.value}`{of}"
            case "header":
                return f"no header `{self.name}`" if self.value is None else f"the header `{self.name}: {self.value}`"
            case "time":
                return f"the time {self.value}"
            case "group":
                return f"`{short_name(str(request.principal))}` in Group `{self.value}`"
            case _:
                return f"the caller `{short_name(self.value or '')}`"


def method_of(request: Request) -> str:
    """The method as the client wrote it, where that is known."""
    return str(request.context.get("request", {}).get("method", request.action.id))


def callers_of(mesh: Mesh) -> dict[Uid, SpiffeId | None]:
    """Everybody that can ask: anonymous, and the workloads that are declared."""
    return {ANONYMOUS: None} | {Uid("Workload", str(id_)): id_ for id_ in sorted(mesh.workloads)}


def methods_of(schema: Schema) -> tuple[Uid, ...]:
    """The actions of the schema that are HTTP methods."""
    return tuple(action for name in METHODS if (action := schema.action(name)) is not None)


def identifies(mesh: Mesh, service: str) -> bool:
    """Whether callers of a service are asked who they are; where not, all are anonymous."""
    listeners = [one for one in mesh.listeners.values() if one.service == service]
    return not listeners or any(one.verifies_peers for one in listeners)


def apply(changes: Iterable[Change], request: Request, ruling: Ruling) -> Request | None:
    """The request after these changes; None where one of them cannot be made."""
    changed: Request | None = request
    for change in changes:
        if changed is not None:
            changed = _apply(change, changed, ruling)
    return changed


def _apply(change: Change, request: Request, ruling: Ruling) -> Request | None:
    value = change.value or ""
    match change.kind:
        case "method":
            return replace(_with(request, ("request", "method"), value), action=Uid("Action", value))
        case "path":
            return _with_path(request, value, ruling)
        case "host":
            return _with(request, ("request", "host"), value)
        case "header":
            return _with_header(request, change.name, change.value)
        case "address":
            address = {"__extn": {"fn": "ip", "arg": value}}
            return _with(_with(request, ("client_ip",), address), ("source", "ip"), address)
        case "time":
            return _with(request, ("time",), {"__extn": {"fn": "datetime", "arg": value}})
        case "group":
            return _in_group(request, value, ruling.mesh.groups)
        case _:
            return _from(request, value, ruling)


def _with(request: Request, path: tuple[str, ...], value: Any) -> Request:
    return replace(request, context=_set(request.context, path, value))


def _set(record: Mapping[str, Any], path: tuple[str, ...], value: Any) -> dict[str, Any]:
    inner = value if len(path) == 1 else _set(record.get(path[0], {}), path[1:], value)
    return {**record, path[0]: inner}


def _with_path(request: Request, path: str, ruling: Ruling) -> Request | None:
    """Path and segments as the service would see them, if it took such a path at all."""
    outside = request.resource.id if request.resource.type == "Host" else ""
    service = "" if outside else request.resource.id
    facts = HttpFacts(None, service, "GET", path, "", _EPOCH, _NOWHERE, _NOWHERE, outside=outside)
    try:
        http = ruling.request(facts).context["request"]
    except PolicydError:
        return None
    if http["path"] != path:
        return None
    return _with(_with(request, ("request", "path"), path), ("request", "segments"), http["segments"])


def _with_header(request: Request, name: str, value: str | None) -> Request:
    def changed(tags: Mapping[str, Any]) -> dict[str, Any]:
        others = {other: kept for other, kept in tags.items() if other != name}
        return others if value is None else {**others, name: value}

    return replace(
        request,
        entities=tuple(
            replace(one, tags=changed(one.tags)) if one.uid.type == "Headers" else one for one in request.entities
        ),
    )


def _in_group(request: Request, name: str, groups: Mapping[str, Group]) -> Request | None:
    if request.principal.type != "Workload" or name not in groups:
        return None
    joined = _groups_above(name, groups)

    def member(entity: Entity) -> Entity:
        return replace(entity, parents=tuple(sorted({*entity.parents, *joined})))

    return replace(
        request, entities=tuple(member(one) if one.uid == request.principal else one for one in request.entities)
    )


def _groups_above(name: str, groups: Mapping[str, Group]) -> set[Uid]:
    """The group and all that it is in, each looked at once however many ways lead to it."""
    direct: dict[str, list[str]] = {}
    for group in groups.values():
        for member in group.groups:
            direct.setdefault(member, []).append(group.name)
    found, waiting = {name}, [name]
    while waiting:
        more = {above for above in direct.get(waiting.pop(), ()) if above not in found}
        found |= more
        waiting += more
    return {Uid("Group", one) for one in found}


def _from(request: Request, caller: str, ruling: Ruling) -> Request | None:
    """The same request of somebody else."""
    try:
        id_ = None if caller == ANONYMOUS.id else SpiffeId.parse(caller)
    except SpiffeIdError:
        return None
    entity = ruling.entities.principal(id_)
    others = tuple(one for one in request.entities if one.uid != entity.uid)  # conditions may name the one before too
    return replace(request, principal=entity.uid, entities=(entity, *others))
