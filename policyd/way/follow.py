"""Follows one request from proxy to proxy until something answers it.

Law: who asks at a listener is whom its chain proves, as at the service itself; a way has an end, however routes turn.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from policyd import envoy_api
from policyd.authz.request import read_check
from policyd.cedar.http import EndUser
from policyd.cedar.reads import WITHHELD_HEADERS
from policyd.errors import DecisionError, IncompleteRequest, UnacceptablePath
from policyd.mesh.model import Instance, Listener
from policyd.names import EXTENSION_LISTENER
from policyd.policy.authorize import Answer as Decided
from policyd.policy.authorize import answer
from policyd.policy.end_user import Shown, end_user
from policyd.reload.live import Live
from policyd.spiffe import SpiffeId
from policyd.way.ends import MAX_ENDPOINTS, Behind, endpoints, expected, is_looked_up, server_name
from policyd.way.marks import Marks
from policyd.way.model import Arrival, Destination, Endpoint, Hop, Share
from policyd.xds.resources.model import Control
from policyd.xds.walk.asked import Asked
from policyd.xds.walk.sent import Sent
from policyd.xds.walk.step import Leg, Question, Step, chain_for, steps

MAX_HOPS = 8
LOCAL = "127.0.0.1"  # where a request asked offline comes from
MTLS_ONLY = "it takes mutual TLS only, with a certificate of the mesh"
PLAIN_ONLY = "it takes plain text only"
NOBODY = "no chain of its listener takes such a connection"


@dataclass(frozen=True, slots=True)
class Connection:
    """How a request comes in: the peer that TLS proves, None for nobody; `name` is the server that was asked for."""

    encrypted: bool = False
    name: str = ""
    peer: SpiffeId | None = None


IN_CLEAR = Connection()


class Follower:
    """Follows requests through what a Live has its proxies do, at one moment, with a token that proves `user`."""

    def __init__(self, live: Live, control: Control, now: datetime, user: Shown | None = None) -> None:
        self._live = live
        self._mesh = live.mesh
        self._now = now
        self._user = user
        self._behind = Behind(live.mesh, live.snapshots)
        self._marks = Marks(live.mesh, live.declaration, control)
        self._sent: dict[str, Sent] = {}

    def follow(self, instance: Instance, listener: str, asked: Asked, connection: Connection = IN_CLEAR) -> Hop:
        """What becomes of a request at a listener of an instance, and after it."""
        return self._hop(instance, listener, asked, connection, self._user, MAX_HOPS)

    def sent(self, instance: str) -> Sent:
        """What a proxy is sent."""
        if instance not in self._sent:
            self._sent[instance] = Sent(self._live.snapshots[instance])
        return self._sent[instance]

    def _hop(
        self, instance: Instance, listener: str, asked: Asked, connection: Connection, user: Shown | None, left: int
    ) -> Hop:
        config = self.sent(instance.name).listener(listener) or {}
        chain = chain_for(config, encrypted=connection.encrypted, name=connection.name)
        found = steps(self.sent(instance.name), chain, asked, _tokens(user)) if chain is not None else ()
        if not found:
            other = chain_for(config, encrypted=not connection.encrypted, name=connection.name)
            why = NOBODY if other is None else PLAIN_ONLY if connection.encrypted else MTLS_ONLY
            return Hop(instance.name, listener, asked, refused=why)
        done = tuple(Share(part, self._done(instance, listener, one, connection, user, left)) for part, one in found)
        return done[0].hop if len(done) == 1 else Hop(instance.name, listener, found[0][1].asked, shares=done)

    def _done(
        self, instance: Instance, listener: str, found: Step, connection: Connection, user: Shown | None, left: int
    ) -> Hop:
        """What becomes of those requests with which one thing is done."""
        question, legs = _asked_once(found)
        decided, undecided = self._decide(question, found, instance, connection, user)
        # a token that is not forwarded ends where it was verified
        goes_on = None if user and any(_is_of(user, one) and not on for one, on in found.issuers.items()) else user
        hop = Hop(
            instance.name,
            listener,
            found.asked,
            virtual_host=found.chosen.virtual_host["name"] if found.chosen else "",
            place=self._marks.of(instance, found.table, found.chosen),
            route=(found.chosen.route or {}).get("name", "") if found.chosen else "",
            answer=found.answer,
            decided=decided,
            undecided=undecided,
            timeout=found.patience.get("timeout", ""),
            retries=found.patience.get("retry_policy", {}),
            faults=found.faults,
        )
        ways = (self._destination(instance, leg, found, connection, user, goes_on, left) for leg in legs)
        return replace(hop, destinations=tuple(ways))

    # ---- where it goes

    def _destination(
        self, instance: Instance, leg: Leg, at: Step, connection: Connection, user: Shown | None, goes_on: Shown | None,
        left: int,
    ) -> Destination:  # fmt: skip
        sent = self.sent(instance.name)
        cluster = sent.cluster(leg.cluster) or {"name": leg.cluster}
        _, port, subset, service = (*leg.cluster.split("|"), "", "", "", "")[:4]
        reached = tuple(endpoints(sent, cluster, self._behind))
        decided, undecided = self._decide(leg.question, at, instance, connection, user)
        destination = Destination(
            cluster=leg.cluster,
            service=service or leg.cluster,
            port=int(port) if port.isdigit() else 0,
            subset=subset,
            percent=leg.percent,
            asked=leg.asked,
            copy=leg.copy,
            expects=expected(cluster),
            server_name=server_name(cluster),
            endpoints=reached,
            looked_up=is_looked_up(cluster),
            decided=decided,
            undecided=undecided,
            ends_inside=leg.ends and any(not one.port for one in reached),
        )
        ours = () if destination.is_application or destination.ends_inside else reached[:MAX_ENDPOINTS]
        arrived = self._arrivals(ours, destination, instance, goes_on, left) if left else ()
        return replace(destination, arrivals=tuple(_alike(arrived)))

    def _arrivals(
        self, ours: Iterable[Endpoint], to: Destination, sender: Instance, user: Shown | None, left: int
    ) -> Iterator[Hop]:
        for one in ours:
            if not one.port:
                inside = self._hop(sender, one.address, to.asked, IN_CLEAR, user, left - 1)
                yield inside
                continue
            if not one.instance:
                continue
            _, listener = self._behind.of(one.address, one.port)
            connection = Connection(one.encrypted, to.server_name, sender.workload if one.encrypted else None)
            yield self._hop(self._mesh.instances[one.instance], listener, to.asked, connection, user, left - 1)

    # ---- what policies say

    def _decide(
        self, question: Question | None, at: Step, instance: Instance, connection: Connection, user: Shown | None
    ) -> tuple[Decided | None, str]:
        """The decision, and why there is none where one was asked for."""
        if question is None:
            return None, ""
        try:
            query = read_check(
                _check(question, at.asked, instance, connection), instance.workload, self._mesh, self._now
            )
            facts = query.facts._replace(user=_known(user, query.listener))
            return answer(facts, self._live.ruling), ""
        except (UnacceptablePath, IncompleteRequest, DecisionError) as error:
            return None, str(error)


def _check(question: Question, asked: Asked, instance: Instance, connection: Connection) -> Any:
    """What the proxy would ask (CheckRequest), so that it is read as it would be."""
    extensions = dict(question.extensions)
    extensions.setdefault(EXTENSION_LISTENER, question.listener)
    headers = {name: value for name, value in asked.headers.items() if name not in WITHHELD_HEADERS}
    peer = {"principal": str(connection.peer)} if connection.peer is not None else {}
    attributes = {
        "source": {"address": _socket(LOCAL), **peer},
        "destination": {"address": _socket(instance.address)},
        "context_extensions": {name: value for name, value in extensions.items() if value},
        "request": {"http": {"method": asked.method, "path": asked.path, "host": asked.authority, "headers": headers}},
    }
    return envoy_api.build("envoy.service.auth.v3.CheckRequest", {"attributes": attributes})


def _socket(address: str) -> dict[str, Any]:
    return {"socket_address": {"address": address, "port_value": 0}}


def _asked_once(found: Step) -> tuple[Question | None, tuple[Leg, ...]]:
    """What is asked whichever way the request goes, and the legs with what is asked besides."""
    questions = [leg.question for leg in found.legs if not leg.copy]
    if not questions or any(one != questions[0] for one in questions):
        return found.question, found.legs
    return questions[0], tuple(replace(leg, question=None) for leg in found.legs)


def _tokens(user: Shown | None) -> dict[str, dict[str, Any]]:
    """The claims of the token that is shown, by every issuer that its user's name may begin with."""
    if user is None:
        return {}
    parts = user.user.split("/")
    names = ("/".join(parts[:at]) for at in range(1, len(parts)))
    return {name: {**user.claims, "iss": name, "sub": user.user.removeprefix(f"{name}/")} for name in names}


def _known(user: Shown | None, listener: Listener) -> EndUser | None:
    """Whom the listener takes the token for; nobody where it does not believe the issuer."""
    if user is None or not any(_is_of(user, issuer) for issuer in listener.issuers):
        return None
    return end_user(user, listener.service, listener.issuers)


def _is_of(user: Shown, issuer: str) -> bool:
    return user.user.startswith(f"{issuer}/")


def _alike(found: Iterable[Hop]) -> Iterator[Arrival]:
    """Hops that differ in their instance only, as one."""
    groups: list[tuple[Hop, list[str]]] = []
    for hop in found:
        for first, names in groups:
            if _nameless(hop) == _nameless(first):
                names.append(hop.instance)
                break
        else:
            groups.append((hop, [hop.instance]))
    return (Arrival(tuple(names), hop) for hop, names in groups)


def _nameless(hop: Hop) -> tuple[object, ...]:
    """What of a hop is to be told: places and decisions, without the instance's own name and addresses."""
    decided = hop.decided
    told = None if decided is None else (decided.decision.word, decided.decision.reasons, decided.explanation.why)
    inner = tuple(
        (one.cluster, one.percent, one.copy, tuple((two.instances, _nameless(two.hop)) for two in one.arrivals))
        for one in hop.destinations
    )
    parts = tuple((one.percent, _nameless(one.hop)) for one in hop.shares)
    return hop.asked, hop.refused, hop.place, hop.answer, told, hop.undecided, inner, parts
