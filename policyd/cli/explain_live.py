"""A request as the running server decides it where it reaches an instance, explained under the revision in force there.

Law: the server decides, its files are not looked at. What explains is the revision as it was kept when it came into
force, and both have to say the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from policyd.errors import StateError
from policyd.instance import server
from policyd.offline.revisions import load_revision
from policyd.policy.authorize import Answer, answer, remarks
from policyd.policy.request_form import parse_form
from policyd.policy.resolving import resolve_at
from policyd.sources.revisions import SHORT

if TYPE_CHECKING:
    from policyd._pb import admin_pb2 as pb
    from policyd.authz.ruling import Ruling

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class LiveAnswer:
    """What the server answered, explained; `tried` is what policies on trial would say, None where there are none."""

    found: Answer
    tried: Answer | None
    revision: str
    proxy: pb.ProxyStatus


def ask(directory: Path, instance: str, text: str, headers: Mapping[str, str]) -> LiveAnswer:
    """Ask the server of `directory`; raises NotRunning, InvalidInput for what means nothing to it, StateError."""
    with server(directory) as client:
        reply, status = client.decide(instance, text, headers), client.status()
    kept, live = load_revision(directory, reply.revision)
    time = EPOCH + timedelta(microseconds=reply.time_us)
    found = _answer(live.ruling, instance, text, time, headers)
    if (found.decision.word, list(found.decision.reasons)) != (reply.decision, list(reply.reasons)):
        message = (
            f"the server says {reply.decision}, its revision `{reply.revision[:SHORT]}` says {found.decision.word}"
        )
        raise StateError(message, remedy="`policyd version` is to be that of the server; report it if it is")
    tried = _answer(live.ruling.shadow, instance, text, time, headers) if live.ruling.shadow else None
    notes = (
        f"revision {reply.revision[:SHORT]} decided, in force since {kept.last:%Y-%m-%d %H:%M:%S}Z",
        *_proxy_notes(reply.proxy),
        *(("the files are not what is in force: a change is refused, see `policyd status`",) if status.refused else ()),
    )
    return LiveAnswer(replace(found, notes=(*notes, *found.notes)), tried, reply.revision, reply.proxy)


def _answer(ruling: Ruling, instance: str, text: str, time: datetime, headers: Mapping[str, str]) -> Answer:
    form = parse_form(text)
    facts = resolve_at(form, instance, ruling.mesh, time, headers)
    return answer(facts, ruling, remarks(form, facts, ruling))


def _proxy_notes(proxy: pb.ProxyStatus) -> Iterator[str]:
    """Whether the proxy does what the server says."""
    if not proxy.connected:
        yield f"the proxy of `{proxy.instance}` is not connected: it goes on with what it was sent last, if it runs"
        return
    behind = [one for one in proxy.types if one.state in ("sent", "rejected")]
    if not behind:
        yield f"the proxy of `{proxy.instance}` is in sync"
    for one in behind:
        if one.rejection:
            yield f"the proxy of `{proxy.instance}` rejected {one.type} and goes on with what it had: {one.rejection}"
        else:
            yield f"the proxy of `{proxy.instance}` has not confirmed its {one.type} yet"


def as_json(answered: LiveAnswer) -> dict[str, Any]:
    """What only a live answer has."""
    states = {one.type: one.state for one in answered.proxy.types}
    proxy = {"instance": answered.proxy.instance, "connected": answered.proxy.connected, "types": states}
    return {"revision": answered.revision, "proxy": proxy}
