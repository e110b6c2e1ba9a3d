"""What is published over HTTP: readiness and metrics, and the bundle where others may fetch it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AsyncExitStack

from policyd.config.settings import Settings
from policyd.server.bundle_endpoint import BundleEndpoint, endpoint_identity
from policyd.server.facts import Facts
from policyd.server.ground import Ground
from policyd.server.issuing import Issuing
from policyd.svid import bundle, oidc
from policyd.telemetry.http import serve_http


async def publish(
    stack: AsyncExitStack, ground: Ground, facts: Facts, issuing: Issuing, settings: Callable[[], Settings]
) -> None:
    """Serve it until `stack` ends; `settings` are those in force."""
    registry, at = ground.metrics.registry, ground.addresses
    http = serve_http(at["http"], registry=registry, not_ready=facts.not_ready, remark=facts.remark)
    await stack.enter_async_context(http)
    if (wanted := ground.settings.ca.bundle_endpoint) is None:
        return

    def published(path: str) -> bytes:
        """What the bundle endpoint says: the bundle, and at the places of its issuer what verifies tokens."""
        held, issuer = issuing.issuer.bundle, settings().ca.token_issuer
        found = oidc.page(issuer, held, path) if issuer else None
        return bundle.write(held) if found is None else found

    shown = endpoint_identity(wanted, ground.directory, issuing.own)
    await stack.enter_async_context(BundleEndpoint(at["bundles"], published, shown))
