"""The values that go into and out of the engine.

Law: entity data and contexts are in Cedar's JSON forms (`{"__entity": …}`, `{"__extn": …}`), made by the rooms above.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, NamedTuple


class Uid(NamedTuple):
    """The identity of an entity, `Type::"id"`."""

    type: str
    id: str

    def __str__(self) -> str:
        """As Cedar writes it."""
        escaped = self.id.replace("\\", "\\\\").replace('"', '\\"')
        return f'{self.type}::"{escaped}"'

    def json(self) -> dict[str, str]:
        """As Cedar's JSON forms have it."""
        return {"type": self.type, "id": self.id}


ANONYMOUS: Final = Uid("Unauthenticated", "anonymous")  # who asks where nobody proves who it is


@dataclass(frozen=True, slots=True)
class Entity:
    """One entity of the slice that a decision sees: attributes, tags and all its ancestors' ids as parents."""

    uid: Uid
    attrs: Mapping[str, Any] = field(default_factory=dict)
    parents: Sequence[Uid] = ()
    tags: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Request:
    """What the engine is asked. `entities` holds every entity that the request names, empty ones too."""

    principal: Uid
    action: Uid
    resource: Uid
    context: Mapping[str, Any]
    entities: Sequence[Entity]


@dataclass(frozen=True, slots=True)
class EvaluationError:
    """A policy that failed; Cedar skipped it."""

    policy: str
    message: str


@dataclass(frozen=True, slots=True)
class Decision:
    """The answer: `reasons` are the ids of the determining policies, sorted.

    Where a forbid failed, `allowed` is false and `errors` name it (Cedar alone would have skipped it).
    """

    allowed: bool
    reasons: tuple[str, ...] = ()
    errors: tuple[EvaluationError, ...] = ()
    cached: bool = False

    @property
    def word(self) -> Literal["allow", "deny"]:
        """The decision in one word, as records and metrics have it."""
        return "allow" if self.allowed else "deny"

    @property
    def because(self) -> str:
        """The policies that determined it and those that failed, for people; "" where there are none."""
        return ", ".join(f"`{one}`" for one in (*self.reasons, *(error.policy for error in self.errors)))
