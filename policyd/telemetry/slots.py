"""Counters that several processes share: a table of names and label values, laid over memory that all of them map.

Law: a region of the memory has one writing process at a time, which only ever adds to it; whoever reads sums the
regions up. So nothing is lost when a process ends, and who follows it counts on.
"""

from __future__ import annotations

import mmap
import os
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import product
from typing import Final

from policyd.errors import StateError
from policyd.names import OTHER

Labels = tuple[str, ...]
Table = Mapping[str, Sequence[Sequence[str]]]  # of each name, for each label, the values that it may have

_WORD: Final = 8  # bytes of an unsigned number, which a processor writes as a whole


class Slots:
    """The memory of `regions` processes, each with a number for every combination of the label values of `table`.

    A value that is not in the table counts as `other`. Without a `descriptor` the memory is new; with one it is that
    of the process which made it, and handed its own `descriptor` on.
    """

    def __init__(self, table: Table, regions: int = 1, descriptor: int | None = None) -> None:
        self._place: dict[str, dict[Labels, int]] = {}
        self._known = {name: tuple(map(frozenset, values)) for name, values in table.items()}
        size = 0
        for name, values in table.items():
            combinations = list(product(*((*options, OTHER) for options in values)))
            self._place[name] = {labels: size + at for at, labels in enumerate(combinations)}
            size += len(combinations)
        self.regions = regions
        self.descriptor = _memory(size * regions * _WORD) if descriptor is None else descriptor
        self._size = size
        self._words = memoryview(mmap.mmap(self.descriptor, size * regions * _WORD)).cast("Q")

    def region(self, number: int) -> Region:
        """The part of the memory that the process of this number counts in."""
        return Region(self._words[number * self._size : (number + 1) * self._size], self)

    def place(self, name: str, labels: Labels) -> int:
        """Where in a region this is counted."""
        places = self._place[name]
        found = places.get(labels)
        if found is not None:
            return found
        known = zip(labels, self._known[name], strict=True)
        return places[tuple(label if label in options else OTHER for label, options in known)]

    def sums(self, name: str) -> Iterator[tuple[Labels, int]]:
        """Every combination of label values of `name`, and what all processes together have counted of it.

        What is of no known value is left out until there is some of it.
        """
        for labels, place in self._place[name].items():
            total = sum(self._words[place + region * self._size] for region in range(self.regions))
            if total or OTHER not in labels:
                yield labels, total

    def by_region(self, *wanted: str) -> Iterator[tuple[Mapping[Labels, int], ...]]:
        """What each process has counted by itself of each name."""
        for start in range(0, self.regions * self._size, self._size):
            yield tuple(
                {labels: self._words[start + place] for labels, place in self._place[name].items()} for name in wanted
            )


def _memory(size: int) -> int:
    try:
        descriptor = os.memfd_create("policyd-counters")
        os.ftruncate(descriptor, size)
    except OSError as error:
        raise StateError(f"there is no memory for counters: {error.strerror}", remedy="raise the limits") from None
    return descriptor


class Region:
    """What one process has counted; safe for its threads."""

    def __init__(self, words: memoryview, slots: Slots) -> None:
        self._words = words
        self._slots = slots
        self._lock = threading.Lock()

    def add(self, name: str, *labels: str, amount: int = 1) -> None:
        """Count."""
        self.add_all(((self._slots.place(name, labels), amount),))

    def add_one(self, place: int) -> None:
        """Count once at a place (see Slots.place)."""
        with self._lock:
            self._words[place] += 1

    def add_all(self, amounts: Iterable[tuple[int, int]]) -> None:
        """Count at several places (see Slots.place) in one go."""
        with self._lock:
            for place, amount in amounts:
                self._words[place] += amount

    def put(self, name: str, *labels: str, value: int) -> None:
        """Say how much there is now of what grows and shrinks."""
        with self._lock:
            self._words[self._slots.place(name, labels)] = value

    def read(self, name: str, *labels: str) -> int:
        """What was counted or put there."""
        return self._words[self._slots.place(name, labels)]
