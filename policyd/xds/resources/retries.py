"""Retries of a route: Istio's, and its defaults where none are declared (config.route.v3.RetryPolicy)."""

from __future__ import annotations

from typing import Any, Final

from policyd.mesh.istio.http_route import Retries
from policyd.xds.resources.model import seconds

DEFAULT: Final = Retries(attempts=2)
DEFAULT_RETRY_ON: Final = "connect-failure,refused-stream,unavailable,cancelled"
_TYPES: Final = "type.googleapis.com/envoy.extensions.retry"
PREVIOUS_HOSTS: Final[dict[str, Any]] = {
    "name": "envoy.retry_host_predicates.previous_hosts",
    "typed_config": {"@type": f"{_TYPES}.host.previous_hosts.v3.PreviousHostsPredicate"},
}
REMOTE_LOCALITIES: Final[dict[str, Any]] = {
    "name": "envoy.retry_priorities.previous_priorities",
    "typed_config": {
        "@type": f"{_TYPES}.priority.previous_priorities.v3.PreviousPrioritiesConfig",
        "update_frequency": 2,  # as Istio: every second try, so that all localities are reached
    },
}


def retry_policy(retries: Retries | None, *, hashed: bool = False) -> dict[str, Any]:
    """When and where a request is tried again; a `hashed` one belongs to one instance, the previous one too."""
    given = retries or DEFAULT
    policy: dict[str, Any] = {"num_retries": given.attempts, **_conditions(given.retry_on or DEFAULT_RETRY_ON)}
    if given.retry_ignore_previous_hosts and not hashed:
        policy["retry_host_predicate"] = [PREVIOUS_HOSTS]
    policy["host_selection_retry_max_attempts"] = 5
    if given.retry_remote_localities:
        policy["retry_priority"] = REMOTE_LOCALITIES
    if given.per_try_timeout:
        policy["per_try_timeout"] = seconds(given.per_try_timeout)
    if given.backoff:
        policy["retry_back_off"] = {"base_interval": seconds(given.backoff)}
    return policy


def _conditions(text: str) -> dict[str, Any]:
    words = [word.strip() for word in text.split(",")]
    codes = [int(word) for word in words if word.isdigit()]
    if not codes:
        return {"retry_on": text}
    named = [word for word in words if not word.isdigit() and word != "retriable-status-codes"]
    return {"retry_on": ",".join([*named, "retriable-status-codes"]), "retriable_status_codes": codes}
