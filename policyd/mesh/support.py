"""Which fields of which kinds are supported, told from the models that read them.

Law: a field is supported if its model has it; whatever else Istio knows is refused by name, and listed here as such.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, get_args, get_origin

from policyd.mesh.istio.kinds import ELSEWHERE, KINDS, LATER
from policyd.strict import Model

ANYWHERE: Final = "…"


@dataclass(frozen=True, slots=True)
class Support:
    """Fields of a kind in one place, as `spec.http[].match[]`; `…` is anywhere, without fields the whole kind.

    `why` says of those that are refused what to do instead.
    """

    kind: str
    place: str
    fields: tuple[str, ...]
    supported: bool
    why: str = ""


def support(kinds: Iterable[str] = ()) -> Iterator[Support]:
    """Give the fields of the kinds (none named: of all), a message once, what is refused after what is supported."""
    for kind in kinds or sorted({*ELSEWHERE, *KINDS}):
        model = KINDS.get(kind)
        if model is None:
            yield Support(kind, ANYWHERE, (), supported=False, why=ELSEWHERE.get(kind, ""))
            continue
        seen: set[type[Model]] = set()
        for place, message in _messages(model.model_fields["spec"].annotation, "spec", seen):
            names = tuple(info.alias or name for name, info in message.model_fields.items())
            yield Support(kind, place, names, supported=True)
        yield from _refused(kind)


def _refused(kind: str) -> Iterator[Support]:
    """What is refused, together what is refused for one reason; without a reason last."""
    by_reason: dict[str, list[str]] = {}
    for name, why in sorted(LATER[kind].why.items(), key=lambda entry: (not entry[1], entry[0])):
        by_reason.setdefault(why, []).append(name)
    for why, names in by_reason.items():
        yield Support(kind, ANYWHERE, tuple(names), supported=False, why=why)


def _messages(hint: Any, place: str, seen: set[type[Model]]) -> Iterator[tuple[str, type[Model]]]:
    """The messages below a type with their places, each where it stands first."""
    if isinstance(hint, type) and issubclass(hint, Model):
        if hint not in seen:
            seen.add(hint)
            yield place, hint
            for name, info in hint.model_fields.items():
                yield from _messages(info.annotation, f"{place}.{info.alias or name}", seen)
        return
    origin = get_origin(hint)
    is_mapping = isinstance(origin, type) and issubclass(origin, Mapping)
    mark = "[]" if origin is tuple else "{}" if is_mapping else ""
    for part in get_args(hint):
        yield from _messages(part, place + mark, seen)
