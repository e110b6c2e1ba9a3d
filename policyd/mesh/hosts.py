"""What a host name means: a Service by its id, or a pattern that covers others.

Law: every spelling of a service's name means the same Service; a name of another form means none.
"""

from __future__ import annotations

from typing import Final

CLUSTER_DOMAIN: Final = "cluster.local"


def resolve(host: str, namespace: str) -> str | None:
    """Return the id of the Service that `host` (no port) means in `namespace`; None for other forms."""
    name = host.removesuffix(f".svc.{CLUSTER_DOMAIN}").removesuffix(".svc")
    if not name or "*" in name:
        return None
    if "." not in name:
        return f"{name}.{namespace}" if name == host else None
    return name if name.count(".") == 1 else None


def covers(pattern: str, host: str) -> bool:
    """Tell whether every host of the pattern `host` is one of `pattern` (`*`, `*.example.com` or a name)."""
    if pattern in ("*", host):
        return True
    return pattern.startswith("*.") and host.removeprefix("*").endswith(pattern[1:]) and host != pattern[2:]


def overlap(one: str, other: str) -> bool:
    """Tell whether some host is of both patterns."""
    return covers(one, other) or covers(other, one)
