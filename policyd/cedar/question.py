"""A request as the policies that can apply to it see it: these policies, and the part of the request that they read.

Law: what is left out cannot change the decision (`index`, `reads`); what a request names and does not bring is an
error, since of a missing entity Cedar says no, whatever is asked of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

import msgspec

from policyd.cedar.candidates import Candidates, CandidateSets
from policyd.cedar.model import Entity, Request, Uid
from policyd.cedar.reads import CONTEXT_ONLY, HEADERS, USER, context_read, headers_read, lean
from policyd.cedar.schema import Schema
from policyd.errors import DecisionError

MAX_RELATIONS: Final = 16_384  # principals, actions and resources whose candidates are kept

_encode: Final = msgspec.json.Encoder().encode


class Question(msgspec.Struct, frozen=True):
    """What of `asked` its candidates read, `context` and `entities`, and the same in Cedar's JSON forms: `about` is who
    does what to what; `lasting` are entities that come again, `passing` those of this request only.
    """

    asked: Request
    candidates: Candidates
    context: Mapping[str, Any]
    entities: list[Entity]
    about: bytes
    context_json: bytes
    lasting: tuple[bytes, ...]
    passing: tuple[bytes, ...]

    @property
    def request(self) -> Request:
        """The part that the decision depends on, and what is recorded of it."""
        asked = self.asked
        return Request(asked.principal, asked.action, asked.resource, self.context, tuple(self.entities))

    @property
    def key(self) -> tuple[object, ...]:
        """Equal for questions that Cedar is asked alike."""
        return (self.candidates, self.about, self.context_json, self.lasting, self.passing)


class _Relation(NamedTuple):
    """What is known of a principal, an action and a resource, as long as the two are supplied as these entities."""

    entities: tuple[Entity, Entity]
    candidates: Candidates
    about: bytes
    actions: tuple[bytes, ...]


class Questions:
    """Makes questions under one set of policies. Safe for concurrent use."""

    def __init__(self, sets: CandidateSets, schema: Schema) -> None:
        self._sets = sets
        self._actions = {uid: Entity(uid, parents=above) for uid, above in schema.actions.items()}
        self._relations: dict[tuple[Uid, Uid, Uid], _Relation] = {}

    def of(self, request: Request) -> Question:
        """What is asked when `request` is; raises DecisionError where it does not bring what it names."""
        _, candidates, about, actions = self._relation(request)
        reads = candidates.reads
        reached: set[Uid] = set()
        context = context_read(request.context, reads.context, reached)
        if reached:
            _check_supplied(reached, request)
        entities: list[Entity] = []
        lasting = [*actions]
        passing: list[bytes] = []
        for one in request.entities:
            uid = one.uid
            if uid.type in CONTEXT_ONLY and uid not in reached and uid not in reads.entities:
                continue
            if uid.type == HEADERS:
                entities.append(headers_read(one, reads))
                passing.append(candidates.encode_once(entities[-1]))
            elif uid.type == USER:
                entities.append(lean(one, reads))
                passing.append(candidates.encode_once(entities[-1]))
            else:
                entities.append(one)
                lasting.append(candidates.encode(one))
        return Question(request, candidates, context, entities, about, _encode(context), tuple(lasting), tuple(passing))

    def _relation(self, request: Request) -> _Relation:
        """Known by the mesh's own entities where they stand in front, as requests of the rooms above have them."""
        asked = (request.principal, request.action, request.resource)
        known = self._relations.get(asked)
        if known is not None and request.entities[:2] == known.entities:
            return known
        made = self._found(request)
        if len(self._relations) >= MAX_RELATIONS:
            self._relations.clear()
        self._relations[asked] = made
        return made

    def _found(self, request: Request) -> _Relation:
        supplied = {one.uid: one for one in request.entities}
        _check_supplied([request.principal, request.resource], request)
        action = self._actions.get(request.action)
        if action is None:
            raise DecisionError(f"the schema has no action `{request.action}`")
        principal, resource = supplied[request.principal], supplied[request.resource]
        candidates = self._sets.of(
            self._sets.index.find(
                (principal.uid, principal.parents), (action.uid, action.parents), (resource.uid, resource.parents)
            )
        )
        named = [self._actions[uid] for uid in candidates.reads.entities if uid in self._actions and uid != action.uid]
        about = _encode([uid.json() for uid in (principal.uid, action.uid, resource.uid)])
        return _Relation((principal, resource), candidates, about, tuple(map(candidates.encode, [action, *named])))


def _check_supplied(uids: Iterable[Uid], request: Request) -> None:
    supplied = {one.uid for one in request.entities}
    for uid in uids:
        if uid not in supplied:
            raise DecisionError(f"the entity `{uid}` is not supplied")
