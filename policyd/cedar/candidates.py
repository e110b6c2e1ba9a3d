"""The candidates of a request: the policies whose scope can hold it, with what they read and Cedar's form of them.

Law: a set of candidates is one object as long as anyone holds it, and known by its policies; nothing here looks
at a condition. What is kept is bounded by weight, so that however many callers ask, memory stays.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from threading import Lock
from typing import Any, Final
from weakref import WeakValueDictionary

import cedarpy
import msgspec
from cachetools import LRUCache
from cedarpy import pst

from policyd.cedar.index import Index
from policyd.cedar.model import Entity
from policyd.cedar.policies import Policy
from policyd.cedar.reads import lean, union

MAX_BUILT: Final = 1_000  # policies in a handle of one's own, built in 50 ms at most; beyond, the whole set is asked
MAX_WEIGHT: Final = 20_000  # policies in all the handles that are kept, at 7 KB each
MAX_ENCODED: Final = 1_024  # entities kept in their JSON form, a set of candidates

_encode: Final = msgspec.json.Encoder().encode


class Candidates:
    """Policies by their numbers, and what they read together; `encode` keeps what comes again."""

    __slots__ = ("__weakref__", "_encoded", "numbers", "reads")

    def __init__(self, numbers: tuple[int, ...], policies: Sequence[Policy]) -> None:
        self.numbers = numbers
        self.reads = union([policies[number].reads for number in numbers])
        self._encoded: dict[int, tuple[Entity, bytes]] = {}

    def encode(self, entity: Entity) -> bytes:
        """Cedar's JSON form of what these policies read of an entity: equal bytes are equal content.

        Kept while the very same object comes again, as the mesh's own entities do.
        """
        kept = self._encoded.get(id(entity))
        if kept is not None and kept[0] is entity:
            return kept[1]
        encoded = self.encode_once(entity)
        if len(self._encoded) >= MAX_ENCODED:
            self._encoded.clear()
        self._encoded[id(entity)] = (entity, encoded)
        return encoded

    def encode_once(self, entity: Entity) -> bytes:
        """As `encode`, for an entity that will not come again."""
        part = lean(entity, self.reads)
        parents = [parent.json() for parent in part.parents]
        return _encode({"uid": part.uid.json(), "attrs": part.attrs, "parents": parents, "tags": part.tags})


class CandidateSets:
    """All the sets of candidates that requests find among `policies`. Safe for concurrent use."""

    def __init__(self, policies: Sequence[Policy]) -> None:
        self._policies = policies
        self._alive: WeakValueDictionary[tuple[int, ...], Candidates] = WeakValueDictionary()
        self._handles: LRUCache[Candidates, cedarpy.PolicySet] = LRUCache(MAX_WEIGHT, getsizeof=len)
        self._lock = Lock()
        self.index = Index([policy.tree for policy in policies])
        self._whole = self._built(range(len(policies))) if self.index.widest > MAX_BUILT else None

    def of(self, numbers: tuple[int, ...]) -> Candidates:
        """The candidates with these numbers, ascending."""
        with self._lock:
            found = self._alive.get(numbers)
            if found is None:
                found = self._alive[numbers] = Candidates(numbers, self._policies)
            return found

    def handle(self, candidates: Candidates) -> Any:
        """What Cedar evaluates for these candidates: they, or all policies where they are too many to build from.

        Policy number i is `policy<i>` in both.
        """
        if self._whole is not None and len(candidates.numbers) > MAX_BUILT:
            return self._whole
        try:
            with self._lock:
                return self._handles[candidates]
        except KeyError:
            built = self._built(candidates.numbers)
            with self._lock:
                self._handles[candidates] = built
            return built

    def fading(self) -> Iterator[None]:
        """Give up what is kept, a piece a step: all at once would take long, for thousands of policies."""
        self._whole = None
        yield
        while self._handles:
            self._handles.popitem()
            yield
        yield from self.index.fading()

    @property
    def weight(self) -> int:
        """How many policies are in the handles that are kept."""
        return int(self._handles.currsize)

    def _built(self, numbers: Sequence[int]) -> cedarpy.PolicySet:
        trees = {f"policy{number}": self._policies[number].tree for number in numbers}
        # Cedar would carry the annotations into every answer
        bare = {name: replace(tree, id=name, annotations={}) for name, tree in trees.items()}
        return cedarpy.PolicySet.from_pst(pst.PolicySet({}, bare, ()), release_gil=True)
