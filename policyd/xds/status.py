"""What the control plane knows of each proxy, as `policyd proxy status` shows it.

Law: what is shown follows from the stream and the Snapshot alone; a proxy's own words are bounded and hold no
control characters.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

from policyd.xds.snapshot import Snapshot, kind
from policyd.xds.state import ORDER, Rejection, StreamState, TypeState, in_step

State = Literal["synced", "sent", "rejected", "none"]
MAX_REJECTION = 1000  # characters
# instances come and go all the time, and a proxy that has just come has not asked for its listeners yet
_LATE: Final[Mapping[str, tuple[State, ...]]] = {"endpoints": (), "listeners": ("sent", "none")}
_WORST: Final[tuple[State, ...]] = ("rejected", "sent", "synced", "none")
_TAKEN: Final = re.compile(r"cannot bind '([^' ]+)': Address already in use")  # in Envoy's words


@dataclass(frozen=True, slots=True)
class TypeStatus:
    """One type at one proxy: `changed_at` is in seconds since the epoch, 0 where nothing was sent.

    `synced`: it has confirmed what the Snapshot says. `sent`: it is being told. `rejected`: it refused some.
    `none`: it does not ask, or there is nothing to tell. `resources` is how many it holds.
    """

    type: str
    state: State
    rejection: str = ""
    changed_at: float = 0.0
    resources: int = 0


@dataclass(frozen=True, slots=True)
class ProxyStatus:
    """One Envoy, or application without: `connected_at` is in seconds since the epoch, 0 when it is not connected."""

    instance: str
    spiffe_id: str = ""
    connected: bool = False
    envoy_version: str = ""
    connected_at: float = 0.0
    types: tuple[TypeStatus, ...] = ()


def type_statuses(state: StreamState, snapshot: Snapshot | None, epoch: float = 0.0) -> tuple[TypeStatus, ...]:
    """Each type, in the order of sending; `epoch` is when, since the epoch, the stream's clock was 0."""
    known = dict.fromkeys((*ORDER, *sorted(state.types)))
    return tuple(_type_status(type_url, state.types, snapshot, epoch) for type_url in known)


def together(streams: Sequence[Sequence[TypeStatus]]) -> tuple[TypeStatus, ...]:
    """What is known of one proxy by all of its streams: of each type the worst, and all that they hold."""
    by_type: dict[str, list[TypeStatus]] = {}
    for one in (one for stream in streams for one in stream):
        by_type.setdefault(one.type, []).append(one)
    return tuple(
        replace(
            min(said, key=lambda one: _WORST.index(one.state)),
            changed_at=max(one.changed_at for one in said),
            resources=sum(one.resources for one in said),
        )
        for said in by_type.values()
    )


def taken(rejection: str) -> tuple[str, ...]:
    """The addresses that a proxy could not open because another program has them open."""
    return tuple(_TAKEN.findall(rejection))


def troubles(proxies: Iterable[ProxyStatus]) -> Iterator[str]:
    """What keeps proxies from taking what they were sent."""
    for proxy in proxies:
        for one in proxy.types:
            if addresses := taken(one.rejection):
                yield (
                    f"`{proxy.instance}` cannot open {' and '.join(addresses)}, which another program has open; "
                    "end that one, and it is opened within a minute"
                )
            elif one.rejection:
                rejected = f"the proxy of `{proxy.instance}` rejected {one.type} and goes on with what it had"
                yield f"{rejected}: {one.rejection}"


def waiting(proxies: Mapping[str, ProxyStatus], listener: str) -> str:
    """Why a proxy has not confirmed what it was sent, as far as it concerns a listener (`<instance>/…`); "" if it has.

    A rejection that names listeners is of these alone.
    """
    instance = listener.partition("/")[0]
    proxy = proxies.get(instance)
    if proxy is None or not proxy.connected:
        return f"the proxy of `{instance}` is not connected"
    for one in proxy.types:
        others = f" {instance}/" in one.rejection and not _names(listener, one.rejection)
        if one.rejection and not others:
            return f"the proxy of `{instance}` rejected {one.type} and goes on with what it had: {one.rejection}"
    if late := next((one for one in proxy.types if one.state in _LATE.get(one.type, ("sent",))), None):
        return f"the proxy of `{instance}` has not confirmed {late.type} yet"
    return ""


def _names(listener: str, rejection: str) -> bool:
    return re.search(rf"(?<!\S){re.escape(listener)}(?![\w/])", rejection) is not None


def _type_status(type_url: str, types: Mapping[str, TypeState], snapshot: Snapshot | None, epoch: float) -> TypeStatus:
    known = types.get(type_url)
    if known is None:
        return TypeStatus(kind(type_url), "none")
    times = [time for time in (known.sent_at, known.answered_at) if time is not None]
    changed_at = epoch + max(times) if times else 0.0
    rejection = _shown(_said(known.rejection)) if known.rejection else ""
    return TypeStatus(kind(type_url), _state(known, type_url, snapshot), rejection, changed_at, len(known.has))


def _said(rejection: Rejection) -> str:
    """What a proxy said, and of which resource where it did not say that itself."""
    return "; ".join(f"`{name}`: {text}" for name, text in sorted(rejection.texts.items())) or rejection.text


def _state(known: TypeState, type_url: str, snapshot: Snapshot | None) -> State:
    if known.rejection:
        return "rejected"
    if snapshot is None:
        return "none"
    return "synced" if in_step(known, snapshot.of(type_url)) else "sent"


def _shown(text: str) -> str:
    """Envoy's text on one line: a proxy is not to move the cursor of whoever reads it."""
    plain = "".join(letter if letter.isprintable() else " " for letter in text[: MAX_REJECTION + 1])
    return plain if len(plain) <= MAX_REJECTION else plain[: MAX_REJECTION - 1] + "…"
