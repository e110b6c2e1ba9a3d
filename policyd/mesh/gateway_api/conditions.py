"""What is told of a resource of the Gateway API: its conditions, by the specification's types, states and reasons.

Law: a condition that is not True says what to do; each name here is the specification's own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

from policyd.mesh.gateway_api.common import GROUP, ParentReference
from policyd.mesh.gateway_api.gateway_class import CONTROLLER

State = Literal["True", "False", "Unknown"]
ACCEPTED: Final = "Accepted"
RESOLVED: Final = "ResolvedRefs"
PROGRAMMED: Final = "Programmed"
CONFLICTED: Final = "Conflicted"
INSECURE: Final = "InsecureFrontendValidationMode"


@dataclass(frozen=True, slots=True)
class Condition:
    """One thing that holds, or does not, and why."""

    type: str
    status: State
    reason: str
    message: str = ""

    @property
    def is_good(self) -> bool:
        """Whether it is as it should be; what tells of a fault should not hold."""
        return self.status == ("False" if self.type in (CONFLICTED, INSECURE) else "True")

    def shown(self) -> dict[str, str]:
        """As Kubernetes writes it; what has no time of its own has none here."""
        return {"type": self.type, "status": self.status, "reason": self.reason, "message": self.message}


@dataclass(frozen=True, slots=True)
class Fault:
    """Why something is not as it should be: the specification's reason, and in words what is wrong and what to do."""

    reason: str
    message: str


def good(kind: str, message: str = "") -> Condition:
    """A condition that holds; its reason is its own name."""
    return Condition(kind, "True", kind, message)


def judged(kind: str, fault: Fault | None) -> Condition:
    """A condition that holds unless there is a fault."""
    return good(kind) if fault is None else Condition(kind, "False", fault.reason, fault.message)


@dataclass(frozen=True, slots=True)
class ListenerStatus:
    """What is told of a listener: its conditions, the kinds of routes that it takes, and how many it has.

    `places` are the listeners of Envoys that it is.
    """

    name: str
    kinds: tuple[str, ...]
    attached: int
    conditions: tuple[Condition, ...]
    places: tuple[str, ...] = ()

    def shown(self) -> dict[str, Any]:
        """As Kubernetes writes it."""
        return {
            "name": self.name,
            "supportedKinds": [{"group": GROUP, "kind": kind} for kind in self.kinds],
            "attachedRoutes": self.attached,
            "conditions": [one.shown() for one in self.conditions],
        }


@dataclass(frozen=True, slots=True)
class ParentStatus:
    """What is told of a route, or of a policy, at one of those that it is attached to."""

    parent: ParentReference
    conditions: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class Status:
    """What is told of a resource; of a route by its parents, of a policy by its ancestors."""

    conditions: tuple[Condition, ...] = ()
    listeners: tuple[ListenerStatus, ...] = ()
    parents: tuple[ParentStatus, ...] = ()
    ancestors: tuple[ParentStatus, ...] = ()
    addresses: tuple[str, ...] = ()

    def every(self) -> Iterable[Condition]:
        """All conditions, its own first."""
        yield from self.conditions
        for listener in self.listeners:
            yield from listener.conditions
        for parent in (*self.parents, *self.ancestors):
            yield from parent.conditions

    def pending(self) -> Status:
        """The same as long as nobody has it in force."""
        why = Condition(PROGRAMMED, "Unknown", "Pending", "no server runs for this folder; `policyd up` starts one")
        listeners = tuple(replace(one, conditions=_waiting(one.conditions, why)) for one in self.listeners)
        return replace(self, conditions=_waiting(self.conditions, why), listeners=listeners)

    def confirmed(self, waits: Callable[[str], str]) -> Status:
        """The same as far as Envoys have it: `waits` says why a listener of theirs does not, "" where it does."""
        found = []
        for one in self.listeners:
            why = next((said for place in one.places if (said := waits(place))), "")
            waiting = Condition(PROGRAMMED, "False", "Pending", why)
            found.append(replace(one, conditions=_waiting(one.conditions, waiting)) if why else one)
        changed = [one.conditions[-1] for one, was in zip(found, self.listeners, strict=True) if one != was]
        own = _waiting(self.conditions, changed[0]) if changed else self.conditions
        return replace(self, conditions=own, listeners=tuple(found))

    def shown(self) -> dict[str, Any]:
        """As Kubernetes writes it."""
        found: dict[str, Any] = {}
        if self.conditions:
            found["conditions"] = [one.shown() for one in self.conditions]
        if self.addresses:
            found["addresses"] = [{"type": "IPAddress", "value": one} for one in self.addresses]
        if self.listeners:
            found["listeners"] = [one.shown() for one in self.listeners]
        for name, key, parts in (("parents", "parentRef", self.parents), ("ancestors", "ancestorRef", self.ancestors)):
            if parts:
                found[name] = [
                    {
                        key: part.parent.model_dump(by_alias=True, exclude_none=True),
                        "controllerName": CONTROLLER,
                        "conditions": [one.shown() for one in part.conditions],
                    }
                    for part in parts
                ]
        return found


def _waiting(conditions: tuple[Condition, ...], why: Condition) -> tuple[Condition, ...]:
    return tuple(why if one == good(PROGRAMMED) else one for one in conditions)


Statuses = Mapping[tuple[str, str], Status]  # by kind (as in KINDS) and id
