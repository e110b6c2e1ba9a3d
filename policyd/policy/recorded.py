"""A record of the journal as the question that was asked.

Law: what was recorded is put back as it was. A record has what its own decision read and no more; whatever else is
needed to explain it under other policies is assumed, and said to be.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from msgspec import structs

from policyd.audit.match import entity_id
from policyd.audit.record import Fault, Record, Shadow
from policyd.cedar.http import Endpoint, EndUser, HttpFacts
from policyd.cedar.model import Entity, Request
from policyd.cedar.reads import Paths
from policyd.errors import BrokenRecord, NotFound, SpiffeIdError
from policyd.policy.ruling import Ruling
from policyd.spiffe import SpiffeId

CONNECT: Final = 'Action::"connect"'
NOW: Final = "which the folder has now"
_LOCAL: Final = "127.0.0.1"
_KNOWN_OTHERWISE: Final = frozenset({"request.method", "time", "destination.labels", "destination.port"})
_SHORT: Final = 12  # characters of a revision that people are shown


@dataclass(frozen=True, slots=True)
class Recorded:
    """The question of a record, and what is to be known about how far it is the same."""

    request: Request
    notes: tuple[str, ...]


def recorded(record: Record, ruling: Ruling, which: str = NOW) -> Recorded:
    """Ask again what was asked; raises NotFound for a record without a question, and as `request_of`.

    `which` says in a note what another revision than the record's is.
    """
    if record.kind != "decision" or not (record.principal and record.action and record.resource):
        what = f"an {record.kind}" if record.kind in ("issuance", "operation") else f"a {record.kind}"
        message = f"the record `{record.decision_id}` is {what} without a question to policies"
        raise NotFound(message, remedy="`policyd log tail --json` shows all of it")
    return Recorded(request_of(record, ruling), tuple(_notes(record, ruling, which)))


def request_of(record: Record, ruling: Ruling) -> Request:
    """The question of a record that has one; raises BrokenRecord, and as `Ruling.request`."""
    request = ruling.request(_facts(record, ruling))
    kept = {name: value for name, value in record.context.items() if name != "user"}  # is in the facts, if at all
    context = _merged(request.context, kept)
    entities = tuple(_with_labels(one, record) for one in request.entities)
    return replace(request, context=context, entities=entities)


def of_shadow(record: Record) -> Record:
    """The record of a decision as the shadow policies made it; where they were not asked, of its question alone."""
    shadow = record.shadow or Shadow(decision="error", errors=(Fault("shadow", "the shadow policies were not asked"),))
    return structs.replace(
        record, decision=shadow.decision, reasons=shadow.reasons, errors=shadow.errors, revision=shadow.revision
    )


def _facts(record: Record, ruling: Ruling) -> HttpFacts:
    http = _part(record.context, "request")
    destination, source = _part(record.context, "destination"), _part(record.context, "source")
    resource = entity_id(record.resource)
    outside = resource if record.resource.startswith("Host::") else ""
    instance = ruling.mesh.instances.get(record.proxy)
    headers = _part(http, "headers")
    return HttpFacts(
        principal=_principal(record),
        service="" if outside else resource,
        method="CONNECT" if record.action == CONNECT else str(http.get("method") or entity_id(record.action)),
        target=str(http.get("path") or "/"),
        host=str(http.get("host") or outside or resource.partition(".")[0]),
        time=record.time,
        source=Endpoint(_LOCAL, int(source.get("port") or 0)),
        destination=Endpoint(_LOCAL, int(destination.get("port") or (instance.service_port if instance else 0))),
        instance=record.proxy,
        headers={name: value for name, value in headers.items() if isinstance(value, str)},
        outside=outside,
        sni=str(record.context.get("sni") or ""),
        user=_user(record),
    )


def _principal(record: Record) -> SpiffeId | None:
    if not record.principal.startswith("Workload::"):
        return None
    try:
        return SpiffeId.parse(entity_id(record.principal))
    except SpiffeIdError as error:
        message = f"the record `{record.decision_id}` has no caller that can be: {error.message}"
        raise BrokenRecord(message, remedy="`policyd log verify` tells whether the journal is whole") from error


def _part(record: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = record.get(name)
    return found if isinstance(found, Mapping) else {}


def _merged(assumed: Mapping[str, Any], kept: Mapping[str, Any]) -> dict[str, Any]:
    """What was kept in the place of what is assumed; headers and labels stand there as entities' tags."""
    merged = dict(assumed)
    for name, value in kept.items():
        before = assumed.get(name)
        if isinstance(before, Mapping) and "__entity" in before:
            continue
        nested = isinstance(before, Mapping) and isinstance(value, Mapping) and "__extn" not in value
        merged[name] = _merged(before, value) if nested and isinstance(before, Mapping) else value
    return merged


def _with_labels(entity: Entity, record: Record) -> Entity:
    labels = _part(_part(record.context, "destination"), "labels")
    return replace(entity, tags={**entity.tags, **labels}) if labels and entity.uid.type == "Labels" else entity


def _user(record: Record) -> EndUser | None:
    """The user that a record names, with the claims that were read; where the issuer was not, its last slash parts
    the id.
    """
    kept = _part(record.context, "user")
    id_ = str(_part(kept, "__entity").get("id", ""))
    if not id_:
        return None
    subject = str(kept.get("subject") or "")
    if not (subject and id_.endswith(f"/{subject}")):
        issuer = str(kept.get("issuer") or id_.rpartition("/")[0])
        subject = id_.removeprefix(f"{issuer}/")
    claims = {
        name: tuple(map(str, values)) for name, values in _part(kept, "claims").items() if isinstance(values, list)
    }
    return EndUser(id_.removesuffix(f"/{subject}"), subject, claims)


def _notes(record: Record, ruling: Ruling, which: str) -> Iterator[str]:
    if record.revision != ruling.revision:
        then, now = record.revision[:_SHORT], ruling.revision[:_SHORT]
        yield f"decided under revision {then or 'unknown'}; explained under {now}, {which}"
    missing = sorted(set(_missing(ruling.policy_set.reads.context, record.context, "")) - _KNOWN_OTHERWISE)
    if missing:
        yield f"not recorded, so assumed: {', '.join(f'`context.{name}`' for name in missing)}"
    if _part(_part(record.context, "user"), "__entity").get("id"):
        yield "of the user no claims are assumed but those on record: what was read, and what `audit.include` lists"
    if record.masked:
        yield f"masked in the record: {', '.join(f'`{name}`' for name in record.masked)}"
    if record.decision == "error":
        yield f"nothing was decided then: {'; '.join(fault.message for fault in record.errors)}"


def _missing(paths: Paths | None, kept: Mapping[str, Any], above: str) -> Iterator[str]:
    """What the policies in force read and the record does not have."""
    for name, below in (paths or {}).items():
        found = kept.get(name)
        if found is None:
            yield from _missing(below, {}, f"{above}{name}.") if below else (f"{above}{name}",)
        elif isinstance(found, Mapping) and below and "__extn" not in found and "__entity" not in found:
            yield from _missing(below, found, f"{above}{name}.")


def differs(record: Record, word: str) -> str:
    """A line where the answer now is not the one recorded, else ""."""
    if record.decision in (None, "error", word):
        return ""
    by = f" by {', '.join(f'`{one}`' for one in record.reasons)}" if record.reasons else ""
    return f"recorded was {record.decision}{by}; it would be {word} now"
