"""Policies as authors write them, over Bookinfo: every form of scope and condition that the author's tools explain."""

from __future__ import annotations

from typing import Final

ACCOUNT: Final = 'Workload::"spiffe://cluster.local/ns/default/sa/bookinfo-'
POLICIES: Final = {
    "readers": """permit (
            principal in Group::"ratings-readers", action in Action::"read", resource == Service::"ratings.default")
        when { context.request.path like "/ratings/*" && context.request.segments == 2 };""",
    "canary": f"""permit (
            principal == {ACCOUNT}productpage", action == Action::"GET", resource == Service::"reviews.default")
        when {{
            context.request.headers.hasTag("end-user") && context.request.headers.getTag("end-user") == "jason"
        }};""",
    "log-in": f"""permit (
            principal == {ACCOUNT}ingress", action in [Action::"GET", Action::"POST"],
            resource == Service::"productpage.default")
        when {{ action == Action::"GET" || ["/login", "/logout"].contains(context.request.path) }};""",
    "office": """permit (principal is Workload, action == Action::"PUT", resource == Service::"details.default")
        when { context.client_ip.isInRange(ip("203.0.113.0/24")) };""",
    "same-namespace": """permit (principal is Workload in Namespace::"default", action == Action::"GET", resource)
        when { context.request.path == "/health" };""",
    "accounts": """permit (principal, action == Action::"PATCH", resource == Service::"details.default")
        when {
            principal is Workload && principal has service_account && principal.service_account like "*-reviews"
        };""",
    "freeze": """forbid (principal, action in Action::"write", resource)
        when { context.time >= datetime("2026-12-24T00:00:00Z") }
        unless { context.time >= datetime("2026-12-27T00:00:00Z") };""",
    "no-debug": """forbid (principal, action in Action::"http", resource)
        when { context.request.headers.hasTag("x-debug") } unless { principal in Group::"ratings-readers" };""",
    "v2-only": """forbid (principal, action == Action::"DELETE", resource == Service::"reviews.default")
        unless {
            context.destination.labels.hasTag("version") && context.destination.labels.getTag("version") == "v2"
        };""",
    "world": """permit (principal is Unauthenticated, action in Action::"http", resource == Service::"ingress.default")
        unless { context.request.path like "/admin*" };""",
    "overflow": """permit (principal, action == Action::"OPTIONS", resource == Service::"ratings.default")
        when { context.request.segments * 9223372036854775807 > 0 };""",
    "not-yet": """forbid (principal, action in Action::"http", resource == Service::"ratings.default")
        when { if context has user then false else context.request.path == "/soon" };""",
}


def text_of(name: str) -> str:
    """A policy with its id."""
    return f'@id("{name}")\n{POLICIES[name]}'


def files_of(*names: str) -> dict[str, str]:
    """These policies as files, one each; all of them without names."""
    return {f"{name}.cedar": text_of(name) for name in names or POLICIES}
