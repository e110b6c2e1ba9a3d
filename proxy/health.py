"""Whether an application answers, as a value: the outcome of one question goes in, what is believed comes out.

Law: pure. Nothing is believed before it was seen often enough; what is believed changes only after as many equal
outcomes in a row as the probe wants.
"""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class HttpGet:
    """A GET that has to be answered by 200 to 399."""

    host: str
    port: int
    path: str
    tls: bool = False
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class TcpSocket:
    """A connection that has to be accepted."""

    host: str
    port: int


@dataclass(frozen=True, slots=True)
class Exec:
    """A command that has to end with 0."""

    command: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Grpc:
    """A health service (grpc.health.v1) on loopback that has to say SERVING."""

    port: int
    service: str = ""


Way = HttpGet | TcpSocket | Exec | Grpc


@dataclass(frozen=True, slots=True)
class Probe:
    """How the application of an instance is asked; times in seconds."""

    instance: str
    way: Way
    initial_delay: float = 0.0
    timeout: float = 1.0
    period: float = 10.0
    success_threshold: int = 1
    failure_threshold: int = 3


@dataclass(frozen=True, slots=True)
class Health:
    """What is believed (None: nothing yet) and why not, and the outcomes in a row that speak against it."""

    healthy: bool | None = None
    reason: str = ""
    successes: int = 0
    failures: int = 0


def after(health: Health, why: str, probe: Probe) -> Health:
    """What is believed after one more outcome: `why` it did not answer, "" if it did."""
    if why:
        seen = replace(health, successes=0, failures=health.failures + 1)
        if health.healthy is False or seen.failures >= probe.failure_threshold:
            return Health(healthy=False, reason=why, failures=seen.failures)
        return seen
    seen = replace(health, successes=health.successes + 1, failures=0)
    if health.healthy is True or seen.successes >= probe.success_threshold:
        return Health(healthy=True, successes=seen.successes)
    return seen
