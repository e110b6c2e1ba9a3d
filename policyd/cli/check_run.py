"""Sends a folder's checks through the running mesh, and finds out from the journal who decided each.

Law: checks are sent one after the other, so that what the journal gained is each one's own; what is not found stays
blank.
"""

from __future__ import annotations

import asyncio
import ipaddress
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from policyd.cli.check_table import Outcome
from policyd.cli.explain import explain
from policyd.cli.places import front, proxy_of
from policyd.cli.request import Answer, Sending, send
from policyd.offline.loaded import Question
from policyd.policy.request_form import ANONYMOUS
from policyd.state_paths import state_paths

if TYPE_CHECKING:
    from policyd._pb import admin_pb2 as pb
    from policyd.audit.read import Follower
    from policyd.audit.record import Record
    from policyd.cedar.http import HttpFacts
    from policyd.mesh.model import Instance, Mesh
    from policyd.offline.loaded import Loaded

FIND_SECONDS: Final = 2.0  # a record is written before its reply; this bounds a slow disk
LOOK_SECONDS: Final = 0.02
_HERE: Final = "127.0.0.1"  # from where checks are sent
_PROXY: Final = "192.0.2.1"  # of proxies in a row, whose own addresses nobody reads


async def run_checks(loaded: Loaded, places: Sequence[pb.InstancePlace]) -> list[Outcome]:
    """Send each check in turn and judge what came back; never raises for what a check gives."""
    from policyd.audit.read import Follower, ends

    if not loaded.questions:
        return []
    journal = state_paths(loaded.directory).journal
    follower = Follower(journal, ends(journal), broken=lambda _: None)
    return [await _run(question, loaded, places, follower) for question in loaded.questions]


async def _run(question: Question, loaded: Loaded, places: Sequence[pb.InstancePlace], follower: Follower) -> Outcome:
    sending = sending_of(question, places, str(uuid.uuid4()), loaded.live.mesh)
    if isinstance(sending, str):
        return judge(question, Answer(problem=sending), None, "")
    follower.poll()  # what came before is not ours
    answer = await send(sending)
    record = await _find(follower, wanted_of(sending, answer)) if answer.status else None
    denied = record is not None and record.decision == "deny"
    return judge(question, answer, record, explain(question.facts, loaded.live.ruling) if denied else "")


def sending_of(question: Question, places: Sequence[pb.InstancePlace], request_id: str, mesh: Mesh) -> Sending | str:
    """Return what to send for a check, or why it cannot be sent from here."""
    form, facts = question.check.form, question.facts
    if form.caller == ANONYMOUS:
        at = front(places, facts.service, form.port or None)
        if at is None:
            return f"nothing serves `{facts.service}` here"
        sending = Sending(form.method, form.url, request_id, at=at)
        gateway = mesh.instances.get(facts.instance)
        return _as_client(sending, facts, gateway) if gateway is not None else sending
    proxy = proxy_of(places, form.caller, question.caller)
    if proxy is None:
        return f"no sidecar of `{form.caller}` runs here"
    return Sending(form.method, form.url, request_id, proxy=proxy)


def _as_client(sending: Sending, facts: HttpFacts, gateway: Instance) -> Sending | str:
    """The same as what stands before a gateway sends it: who its client is, it is told as it believes it."""
    if gateway.trusted_proxies and facts.client:
        row = [facts.client, *[_PROXY] * (gateway.trusted_proxies - 1)]  # the last of them are we
        sending = replace(sending, forwarded=", ".join(row))
    if not gateway.proxied_by:
        return sending
    if not any(ipaddress.ip_address(_HERE) in ipaddress.ip_network(one) for one in gateway.proxied_by):
        taken = ", ".join(gateway.proxied_by)
        return f"`{gateway.name}` takes connections of {taken} alone (`gatewayTopology.proxyProtocol`), not of {_HERE}"
    return replace(sending, client=facts.source.ip)


def judge(question: Question, answer: Answer, record: Record | None, why: str) -> Outcome:
    """Compare what came back with what was expected."""
    check = question.check
    problem = answer.problem
    if not problem and answer.status != check.expect:
        problem = f"expected {check.expect}, got {answer.status}"
    elif not problem and check.body and check.body not in answer.body:
        problem = f"the answer does not contain `{check.body}`"
    return Outcome(
        name=check.name,
        request=str(check.form),
        expected=check.expect,
        got=answer.status,
        milliseconds=round(answer.milliseconds, 3),
        problem=problem,
        decision=(record.decision or "") if record else "",
        policy=", ".join(record.reasons) if record else "",
        why=why,
    )


async def _find(follower: Follower, wanted: Wanted) -> Record | None:
    """Wait a moment for the record of our request among those that come."""
    deadline = asyncio.get_running_loop().time() + FIND_SECONDS
    seen: list[Record] = []
    while True:
        seen += [line.record for line in await asyncio.to_thread(follower.poll) if line.record.kind == "decision"]
        found = choose(seen, wanted)
        if found is not None or asyncio.get_running_loop().time() > deadline:
            return found
        await asyncio.sleep(LOOK_SECONDS)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What tells the record of a request: the decision's id ("": not told), or the request's."""

    decision_id: str
    request_ids: frozenset[str]


def wanted_of(sending: Sending, answer: Answer) -> Wanted:
    """Return what the record of a request that was sent and answered has in it; a gateway gives its own request id."""
    return Wanted(answer.decision_id, frozenset({sending.request_id, answer.request_id} - {""}))


def choose(records: Sequence[Record], wanted: Wanted) -> Record | None:
    """Return the record of a request among those made since it was sent.

    The id of a decision that was told, else the first record with the request's id, which is the outermost hop's.
    """
    if wanted.decision_id:
        return next((record for record in records if record.decision_id == wanted.decision_id), None)
    return next((record for record in records if record.request_id in wanted.request_ids), None)


def pages(loaded: Loaded, places: Sequence[pb.InstancePlace]) -> list[str]:
    """Return what to open in a browser: the checks' own requests that strangers send to a gateway and that succeed."""
    gateways = {place.service for place in places if place.role == "gateway"}
    found = []
    for question in loaded.questions:
        form, facts = question.check.form, question.facts
        shown = form.caller == ANONYMOUS and form.method == "GET" and question.check.expect == 200
        at = front(places, facts.service, form.port or None) if shown and facts.service in gateways else None
        gateway = loaded.live.mesh.instances.get(facts.instance)
        if at is not None and not (gateway and gateway.proxied_by):  # a browser sends no PROXY header
            found.append(f"http://{at}{form.target}")
    return list(dict.fromkeys(found))
