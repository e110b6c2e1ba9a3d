"""What works of a folder, and is probably not what was meant."""

from __future__ import annotations

from policyd.errors import Problem
from policyd.local.enforcing import passed_over
from policyd.mesh.proxyless_rules import told
from policyd.reload.parsed import Parsed


def warnings(parsed: Parsed) -> list[Problem]:
    """All of it, each with what to do."""
    found = []
    if not parsed.traffic.active.policies:
        remedy = "write `policies/<service>.cedar`; examples/bookinfo/policies shows how"
        found.append(
            Problem("no_policies", "there are no policies: every request is denied", "policies", remedy=remedy)
        )
    if not parsed.mesh.instances:
        remedy = "declare what runs in workloads.yaml"
        found.append(Problem("no_workloads", "there are no workloads", "workloads.yaml", remedy=remedy))
    for file in parsed.mesh.credentials:
        if file.ended is not None:
            what = "list of revoked certificates" if file.is_list else "certificate"
            then = "no certificate is believed by it" if file.is_list else "nobody believes it"
            message = f"this {what} expired at {file.ended:%Y-%m-%d %H:%M} UTC: {then}"
            found.append(Problem("credential", message, file.path, remedy="renew it"))
    found += told(parsed.declaration, parsed.mesh)
    found += passed_over(parsed.declaration, parsed.mesh)
    for name, listens in sorted(parsed.placement.gateways.items()):
        for listen in listens:
            if listen.actual != listen.declared:
                message = f"port {listen.declared} was in use: the gateway `{name}` listens on {listen.actual} instead"
                remedy = "free the port and start again, or list another one"
                found.append(Problem("port", message, "workloads.yaml", remedy=remedy))
    return found
