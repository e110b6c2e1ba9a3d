"""The administration API's part about the mesh: which resources are in force, and changes to them by name.

Law: a change is decided by the operators' policies, checked as a whole, and on record before it is written; what is
refused writes nothing.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from policyd._pb import admin_pb2 as pb
from policyd.admin.facts import refusal
from policyd.audit.operations import operation, owner
from policyd.audit.record import Entry
from policyd.authz.operators import may
from policyd.cedar.model import Decision
from policyd.errors import InvalidInput, PolicydError, Problem
from policyd.keeper import bounded
from policyd.mesh.edit import Edit, ResourceId, kind_of
from policyd.mesh.gateway_api.conditions import Status
from policyd.reload.live import Live
from policyd.xds.status import ProxyStatus, waiting

OPERATION = "mesh.apply"
MAX_REMOVED = 10_000
MAX_ON_RECORD = 100  # changed resources that a record names; how many there are, it always says


class Forbidden(PolicydError):
    """What the operators' policies do not allow."""

    code = "forbidden"


class Amends(Protocol):
    """Makes and writes changes of the folder; policyd.amend.Amender is one."""

    def amended(self, apply: str, remove: Any = ()) -> Edit:
        """What a change comes to; raises InvalidInput."""

    def replaced(self, file: str, text: str, before: str) -> Edit:
        """What another text of a file comes to; raises InvalidInput, and StateError where `before` is not its hash."""

    def write(self, made: Edit) -> None:
        """Write it; raises StateError."""


@dataclass(frozen=True, slots=True)
class MeshParts:
    """What this part works on; `change` has files written while nobody looks, and then looked at."""

    live: Callable[[], Live]
    refused: Callable[[], tuple[Problem, ...]]
    amender: Amends
    change: Callable[[Callable[[], None]], None]
    record: Callable[[Entry], object]
    now: Callable[[], datetime]
    proxies: Callable[[], Iterable[ProxyStatus]]
    one: asyncio.Lock = field(default_factory=asyncio.Lock)  # one change of the folder at a time


class MeshDesk:
    """One change at a time."""

    def __init__(self, parts: MeshParts) -> None:
        self._parts = parts

    def resources(self, kind: str, name: str) -> Iterator[pb.MeshResource]:
        """The resources in force of a kind ("": all) and name; raises InvalidInput for a kind that is none."""
        wanted = kind_of(kind) if kind else ""
        declaration = self._parts.live().declaration
        proxies = {proxy.instance: proxy for proxy in self._parts.proxies()}

        def confirmed(status: Status) -> Status:
            return status.confirmed(lambda listener: waiting(proxies, listener))

        for declared in declaration.resources:
            one = declared.resource
            if declared.stands and wanted in ("", one.kind_key) and name in ("", one.name, one.id):
                yield pb.MeshResource(
                    kind=one.kind_key,
                    namespace=one.namespace,
                    name=one.name,
                    file=declared.document.file,
                    line=declared.document.find(("kind",)).line,
                    json=json.dumps(declaration.with_status(declared, confirmed)),
                )

    async def change(self, request: pb.ChangeMeshRequest) -> pb.ChangeMeshReply:
        """Apply and remove resources; raises Forbidden, JournalError or StateError, with nothing written."""
        async with self._parts.one:
            decision = self._decided()
            remove = [(one.kind, one.name) for one in request.remove[:MAX_REMOVED]]
            try:
                made = await asyncio.to_thread(self._parts.amender.amended, request.apply, remove)
            except InvalidInput as error:
                return pb.ChangeMeshReply(refused=[refusal(one) for one in bounded(tuple(error.problems))])
            reply = pb.ChangeMeshReply(changes=[_change(one.resource, one.what, one.file) for one in made.changes])
            if request.dry_run or not made.texts:
                return reply
            self._record(decision, made)
            await asyncio.to_thread(self._parts.change, lambda: self._parts.amender.write(made))
            reply.refused.extend(refusal(one) for one in self._parts.refused())
            return reply

    def _decided(self) -> Decision:
        live, uid = self._parts.live(), os.getuid()
        decision = may(live.operators, live.ruling.entities, live.mesh.trust_domain, uid, "apply", self._parts.now())
        if not decision.allowed:
            self._record(decision, None)
            message = f"the operators' policies forbid it: {decision.because}"
            raise Forbidden(message, remedy="see operators.cedar")
        return decision

    def _record(self, decision: Decision, made: Edit | None) -> None:
        detail: dict[str, Any] = {}
        if made is not None:
            changed = [one for one in made.changes if one.what != "unchanged"]
            detail["files"] = sorted(made.texts)[:MAX_ON_RECORD]
            detail["changes"] = [f"{one.what} {one.resource}" for one in changed[:MAX_ON_RECORD]]
            detail["count"] = len(changed)
        by, word, reasons = owner(os.getuid()), decision.word, decision.reasons
        self._parts.record(operation(self._parts.now(), OPERATION, detail, by=by, decision=word, reasons=reasons))


def _change(resource: ResourceId, what: str, file: str) -> pb.MeshChange:
    return pb.MeshChange(kind=resource.kind, namespace=resource.namespace, name=resource.name, what=what, file=file)
