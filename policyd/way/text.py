"""A way in words, a line a fact, and as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any, Final

from policyd.mesh.model import Mesh
from policyd.policy.authorize import Answer as Decided
from policyd.way.model import Arrival, Destination, Hop, Place, is_denied, is_lost
from policyd.wording import clean
from policyd.xds.walk.asked import Asked
from policyd.xds.walk.match import percent

INDENT: Final = "  "
MAX_ENDPOINTS: Final = 12  # of one destination that are named


def lines(way: Hop, mesh: Mesh) -> list[str]:
    """What to print: each proxy on the way, and what comes of it in one word at the end."""
    shown = [f"{way.instance} is asked for {_url(way.asked)}", *_hop(way, mesh, 1)]
    word = "deny" if is_denied(way) else "it leads nowhere" if is_lost(way) else "it gets through"
    return [clean(line) for line in (*shown, "", word)]


def as_json(way: Hop) -> dict[str, Any]:
    """The way as JSON has it."""
    outcome = "denied" if is_denied(way) else "lost" if is_lost(way) else "through"
    return {"outcome": outcome, "way": _hop_json(way, (way.instance,))}


# ---- words


def _hop(hop: Hop, mesh: Mesh, depth: int) -> Iterator[str]:
    edge = INDENT * depth
    if hop.refused:
        yield f"{edge}refused   {hop.refused}"
        return
    for share in hop.shares:
        yield f"{edge}{share.percent:g} % of such requests"
        yield from _hop(share.hop, mesh, depth + 1)
    if hop.shares:
        return
    yield from _decision(hop.decided, hop.undecided, edge)
    if _is_inbound(hop):
        if hop.decided is None or hop.decided.decision.allowed:
            yield f"{edge}to        the application"
        return
    if hop.virtual_host or hop.answer is not None:
        yield f"{edge}route     {_place(hop)}"
    if hop.faults:
        yield f"{edge}faults    {'; '.join(_faults(hop.faults))}"
    if hop.answer is not None:
        where = f" to {hop.answer.location}" if hop.answer.location else ""
        body = f": {hop.answer.body.strip()[:120]}" if hop.answer.body.strip() else ""
        yield f"{edge}answer    {hop.answer.status}{where}{body}"
    elif hop.timeout or hop.retries:
        yield f"{edge}patience  {_patience(hop)}"
    for one in hop.destinations:
        yield from _destination(one, hop, mesh, depth)


def _destination(one: Destination, hop: Hop, mesh: Mesh, depth: int) -> Iterator[str]:
    edge = INDENT * depth
    share = f"{one.percent:g} %" + (" copied" if one.copy else "")
    subset = f", subset {one.subset}" if one.subset else ""
    port = f":{one.port}" if one.port else ""
    yield f"{edge}{share:<9} to {one.service}{port}{subset}"
    inner = edge + INDENT
    if (one.asked.authority, one.asked.path) != (hop.asked.authority, hop.asked.path):
        yield f"{inner}as        {_url(one.asked)}"
    yield from _decision(one.decided, one.undecided, inner)
    if one.ends_inside:
        yield f"{inner}at        the sidecar itself, which routes what comes in it as if it were asked plainly"
        return
    if all(not end.port for end in one.endpoints) and one.endpoints:
        yield f"{inner}at        a listener inside"
        yield from (line for arrival in one.arrivals for line in _hop(arrival.hop, mesh, depth + 2))
        return
    yield f"{inner}over      {_security(one)}"
    yield f"{inner}at        {_endpoints(one)}"
    for arrival in one.arrivals:
        yield f"{inner}{', '.join(arrival.instances)}"
        yield from _hop(arrival.hop, mesh, depth + 2)


def _is_inbound(hop: Hop) -> bool:
    return bool(hop.destinations) and all(one.is_application for one in hop.destinations)


def _place(hop: Hop) -> str:
    place = hop.place
    if place is None:
        return "no rule of a VirtualService" if hop.virtual_host else "none: no name that the proxy knows"
    match = f", match {place.match}" if place.match else ""
    name = f" `{place.name}`" if place.name else ""
    return f"VirtualService {place.resource}, rule {place.rule}{name}{match} ({place.file}:{place.line})"


def _patience(hop: Hop) -> str:
    timeout = "no timeout" if hop.timeout in ("", "0s") else f"timeout {hop.timeout}"
    if not hop.retries:
        return f"{timeout}, no retries"
    each = f", each within {hop.retries['per_try_timeout']}" if "per_try_timeout" in hop.retries else ""
    return f"{timeout}, {hop.retries.get('num_retries', 1)} retries on {hop.retries.get('retry_on', 'nothing')}{each}"


def _faults(faults: Mapping[str, Any]) -> Iterator[str]:
    if delay := faults.get("delay"):
        yield f"{percent(delay.get('percentage')):g} % wait {delay.get('fixed_delay')}"
    if abort := faults.get("abort"):
        said = f"gRPC status {abort['grpc_status']}" if "grpc_status" in abort else str(abort.get("http_status"))
        yield f"{percent(abort.get('percentage')):g} % are answered {said}"


def _decision(decided: Decided | None, undecided: str, edge: str) -> Iterator[str]:
    if undecided:
        yield f"{edge}decision  none: {undecided}"
    if decided is not None:
        who = decided.request.principal
        yield f"{edge}decision  {decided.decision.word} for {_short(who.id)}: {decided.explanation.why}"
        if decided.explanation.would:
            yield f"{edge}          would be allowed with {decided.explanation.would}"


def _short(id_: str) -> str:
    return id_ or "anonymous"


def _security(one: Destination) -> str:
    if one.looked_up:
        return "an address that is looked up when it is called"
    if not one.endpoints or not any(end.encrypted for end in one.endpoints):
        if one.server_name and not one.endpoints:
            return f"TLS, as {one.server_name}"
        return "nothing: its bytes are passed on as they are" if one.asked.is_tunnel else "plain text"
    mixed = " (some in plain text)" if not all(end.encrypted for end in one.endpoints) else ""
    if one.expects and all(name.startswith("spiffe://") for name in one.expects):
        return f"mutual TLS with {', '.join(one.expects)}{mixed}"
    return f"TLS, as {', '.join(one.expects) or one.server_name}{mixed}"


def _endpoints(one: Destination) -> str:
    if not one.endpoints:
        return "whatever its name means then" if one.looked_up else "no endpoint"
    shown = []
    for end in one.endpoints[:MAX_ENDPOINTS]:
        takes_over = f" (takes over: {end.priority})" if end.priority else ""
        # offline the ports of instances are assumed
        shown.append((end.instance or f"{end.address}:{end.port}") + takes_over)
    more = len(one.endpoints) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")


def _url(asked: Asked) -> str:
    return f"{asked.method} {asked.authority if asked.is_tunnel else f'{asked.scheme}://{asked.authority}{asked.path}'}"


# ---- JSON


def _hop_json(hop: Hop, instances: tuple[str, ...]) -> dict[str, Any]:
    return {
        "instances": list(instances),
        "listener": hop.listener,
        "request": _asked_json(hop.asked),
        "refused": hop.refused,
        "virtual_host": hop.virtual_host,
        "rule": _place_json(hop.place),
        "answer": asdict(hop.answer) if hop.answer else None,
        "timeout": hop.timeout,
        "retries": dict(hop.retries),
        "faults": {name: value for name, value in hop.faults.items() if name != "@type"},
        "decision": _decision_json(hop.decided, hop.undecided),
        "destinations": [_destination_json(one) for one in hop.destinations],
        "shares": [{"percent": one.percent, **_hop_json(one.hop, instances)} for one in hop.shares],
    }


def _destination_json(one: Destination) -> dict[str, Any]:
    return {
        "cluster": one.cluster,
        "service": one.service,
        "port": one.port,
        "subset": one.subset,
        "percent": one.percent,
        "copy": one.copy,
        "request": _asked_json(one.asked),
        "expects": list(one.expects),
        "server_name": one.server_name,
        "endpoints": [asdict(end) for end in one.endpoints],
        "looked_up": one.looked_up,
        "ends_inside": one.ends_inside,
        "decision": _decision_json(one.decided, one.undecided),
        "arrives": [_arrival_json(arrival) for arrival in one.arrivals],
    }


def _arrival_json(arrival: Arrival) -> dict[str, Any]:
    return _hop_json(arrival.hop, arrival.instances)


def _asked_json(asked: Asked) -> dict[str, Any]:
    return {
        "method": asked.method,
        "scheme": asked.scheme,
        "authority": asked.authority,
        "path": asked.path,
        "headers": dict(asked.headers),
    }


def _place_json(place: Place | None) -> dict[str, Any] | None:
    return None if place is None else {"kind": "VirtualService", **asdict(place)}


def _decision_json(decided: Decided | None, undecided: str) -> dict[str, Any] | None:
    if decided is None:
        return {"decision": "", "why": undecided, "reasons": []} if undecided else None
    return {
        "decision": decided.decision.word,
        "why": decided.explanation.why,
        "reasons": [
            {"id": one.policy.id, "file": one.policy.file, "line": one.policy.line}
            for one in decided.explanation.reasons
        ],
        "would_allow": decided.explanation.would,
        "principal": str(decided.request.principal),
        "resource": str(decided.request.resource),
    }
