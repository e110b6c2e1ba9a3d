"""Which instances answer, as their agents say: a value that what is said, and time, change.

Law: an instance with a probe is reached while its agent says that it answers, and no longer than that was said
lately: an agent that is gone says nothing, and its machine may be gone with it. One that gets a probe while it is
reached stays so until its agent had time to ask it: what is declared anew takes nobody out. One whose sidecar ends in
an orderly way is reached by nobody from before it ends until its agent says that it is back.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass
from typing import Final

from policyd.mesh.eras import Lost
from policyd.mesh.model import Mesh
from policyd.spiffe import SpiffeId

LASTS: Final = 15.0  # seconds; agents repeat what they say three times within that
UNHEARD: Final = "its agent has not said that it answers"
SILENT: Final = "its agent has said nothing for 15 s"
ENDS: Final = "its sidecar ends"


@dataclass(frozen=True, slots=True)
class Word:
    """What an agent said of an instance, and until when that is believed, in seconds of a clock."""

    healthy: bool
    reason: str
    until: float


Book = Mapping[str, Word]
UNPROBED: Final = Word(healthy=True, reason="", until=math.inf)


def heard(book: Book, said: Mapping[str, tuple[bool, str]], now: float) -> dict[str, Word]:
    """The book after an agent said of some instances whether they answer, and why not."""
    return {**book, **{name: Word(healthy, reason, now + LASTS) for name, (healthy, reason) in said.items()}}


def resumed(healthy: Iterable[str], now: float) -> dict[str, Word]:
    """The book of a server that starts: who answered before it ended is given time to be told of."""
    return {name: Word(healthy=True, reason="", until=now + LASTS) for name in healthy}


def of_mesh(book: Book, mesh: Mesh, now: float) -> dict[str, Word]:
    """The book once `mesh` is in force: who has no probe answers as long as that is so, who has one now and had none
    before is given time to be told of; others than its instances are forgotten.
    """
    resumed_now = Word(healthy=True, reason="", until=now + LASTS)
    probed = {name: book[name] for name, one in mesh.instances.items() if one.probe is not None and name in book}
    return {
        **{name: UNPROBED for name, one in mesh.instances.items() if one.probe is None},
        **{name: resumed_now if word == UNPROBED else word for name, word in probed.items()},
    }


def turned(left: Set[str], mesh: Mesh, leaving: Iterable[str], back: Iterable[str]) -> frozenset[str]:
    """The instances whose sidecars end, or have ended, after an agent said of some that they do, or are back."""
    return frozenset((left - frozenset(back)) | frozenset(leaving)) & mesh.instances.keys()


def troubles(book: Book, mesh: Mesh, now: float, left: Set[str] = frozenset()) -> dict[str, str]:
    """The instances that are not to be reached, by name, and why; `left` are those whose sidecars end."""
    found = {name: ENDS for name in left if name in mesh.instances}
    for name, instance in mesh.instances.items():
        word = book.get(name)
        if name in found or instance.probe is None or (word is not None and word.healthy and now < word.until):
            continue
        found[name] = UNHEARD if word is None else SILENT if now >= word.until else word.reason
    return found


def next_change(book: Book, now: float) -> float | None:
    """How many seconds there are until somebody's word is no longer believed; None: nobody's is."""
    return min((word.until - now for word in book.values() if now < word.until < math.inf), default=None)


def with_revoked(mesh: Mesh, revoked: frozenset[SpiffeId], lost: frozenset[Lost] = frozenset()) -> Mesh:
    """The mesh in which just these identities are expected of nobody, and just these certificates are lost."""
    known = revoked & mesh.workloads.keys()
    lost = lost if mesh.looks_at_serials else frozenset()
    return mesh if (known, lost) == (mesh.revoked, mesh.lost) else dataclasses.replace(mesh, revoked=known, lost=lost)


def with_health(mesh: Mesh, out: Iterable[str]) -> Mesh:
    """The mesh in which just these instances are not to be reached."""
    out = frozenset(out)
    changed = {name for name, instance in mesh.instances.items() if instance.healthy is (name in out)}
    if not changed:
        return mesh
    instances = {
        name: dataclasses.replace(instance, healthy=name not in out) if name in changed else instance
        for name, instance in mesh.instances.items()
    }
    return dataclasses.replace(mesh, instances=instances)
