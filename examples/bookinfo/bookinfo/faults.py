"""Ratings that misbehave on purpose, by SERVICE_VERSION: something for retries and time-outs to cope with."""

from __future__ import annotations

from dataclasses import dataclass

UNAVAILABLE_SECONDS = 60
UNHEALTHY_SECONDS = 15 * 60


@dataclass(frozen=True, slots=True)
class Fault:
    """Answer after `delay` seconds, with 503 if `unavailable`; `unhealthy` concerns /health."""

    delay: float = 0.0
    unavailable: bool = False
    unhealthy: bool = False


def fault(version: str, uptime: float, chance: float) -> Fault:
    """Decide what is wrong with one request, `uptime` seconds after the start; `chance` is drawn from [0, 1).

    `v-faulty` refuses half of the requests, `v-delayed` delays half by 7 s, `v-unavailable` refuses all in every
    second minute, `v-unhealthy` says so for every second quarter of an hour, its health included.
    """
    match version:
        case "v-faulty":
            return Fault(unavailable=chance < 0.5)
        case "v-delayed":
            return Fault(delay=7.0 if chance < 0.5 else 0.0)
        case "v-unavailable":
            return Fault(unavailable=_every_second(uptime, UNAVAILABLE_SECONDS))
        case "v-unhealthy":
            bad = _every_second(uptime, UNHEALTHY_SECONDS)
            return Fault(unavailable=bad, unhealthy=bad)
        case _:
            return Fault()


def _every_second(uptime: float, period: float) -> bool:
    return int(uptime // period) % 2 == 1
