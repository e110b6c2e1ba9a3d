"""Istio's own semantics of AuthorizationPolicy, from its reference and its generator of Envoy filters, not from ours.

Law: it works on the YAML's plain values and knows nothing of Cedar, of our models and of the Mesh. A matcher is what
Istio gives Envoy: exact, prefix, suffix, or a regular expression that has to match all of the text.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Policy = Mapping[str, Any]
Rule = Mapping[str, Any]

GLOB = r"[a-zA-Z0-9\-._~%!$&'()+,;:@=]"  # Envoy's uri_template: the characters of a segment
TEXT = r"[a-zA-Z0-9\-._~%!$&'()+,;:@=/]"


@dataclass(frozen=True)
class User:
    """A verified token: issuer, subject, and each claim as the texts that it has."""

    issuer: str
    subject: str
    claims: Mapping[str, Sequence[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Call:
    """One request at the workload that answers it, as its Envoy sees it."""

    namespace: str
    labels: Mapping[str, str]
    gateway: bool = False
    service: str = ""
    principal: str | None = None  # a SPIFFE ID
    method: str = "GET"
    authority: str = "reviews:9080"
    path: str = "/"
    port: int = 9080
    source_ip: str = "10.0.0.1"
    destination_ip: str = "10.0.0.2"
    headers: Mapping[str, str] = field(default_factory=dict)
    user: User | None = None


@dataclass(frozen=True)
class Mesh:
    """meshConfig: the root namespace, the trust domain and its aliases."""

    trust_domain: str
    aliases: Sequence[str] = ()
    root: str = "istio-system"


def allows(policies: Iterable[Policy], call: Call, mesh: Mesh) -> bool:
    """Decide: any DENY that matches denies; without an ALLOW policy all pass; else one of them has to match."""
    enforced = [one for one in policies if _enforced(one) and _selects(one, call, mesh)]
    for one in enforced:
        if _action(one) == "DENY" and _matches(one, call, mesh):
            return False
    allowing = [one for one in enforced if _action(one) == "ALLOW"]
    return not allowing or any(_matches(one, call, mesh) for one in allowing)


def _action(policy: Policy) -> str:
    action: str = policy.get("spec", {}).get("action", "ALLOW")
    return action


def _enforced(policy: Policy) -> bool:
    word = policy["metadata"].get("annotations", {}).get("istio.io/dry-run", "false")
    return _action(policy) in ("ALLOW", "DENY") and word not in ("1", "t", "T", "true", "TRUE", "True")


def _selects(policy: Policy, call: Call, mesh: Mesh) -> bool:
    namespace, spec = policy["metadata"]["namespace"], policy.get("spec", {})
    if "targetRefs" in spec:
        kinds = {"Service": True, "Gateway": call.gateway}
        return namespace == call.namespace and any(
            kinds[one["kind"]] and one["name"] == call.service for one in spec["targetRefs"]
        )
    wanted = spec.get("selector", {}).get("matchLabels", {})
    return namespace in (call.namespace, mesh.root) and all(call.labels.get(k) == v for k, v in wanted.items())


def _matches(policy: Policy, call: Call, mesh: Mesh) -> bool:
    namespace = policy["metadata"]["namespace"]
    return any(_rule(rule, call, mesh, namespace) for rule in policy.get("spec", {}).get("rules", ()))


def _rule(rule: Rule, call: Call, mesh: Mesh, namespace: str) -> bool:
    sources = [one["source"] for one in rule.get("from", ())] or [{}]
    operations = [one["operation"] for one in rule.get("to", ())] or [{}]
    conditions = rule.get("when", ())
    return (
        any(all(_field(name, source, call, mesh, namespace) for name in SOURCE) for source in sources)
        and any(all(_field(name, operation, call, mesh, namespace) for name in OPERATION) for operation in operations)
        and all(_condition(one, call, mesh, namespace) for one in conditions)
    )


SOURCE = {
    "principals": "source.principal",
    "requestPrincipals": "request.auth.principal",
    "namespaces": "source.namespace",
    "serviceAccounts": "source.serviceAccount",
    "ipBlocks": "source.ip",
    "remoteIpBlocks": "remote.ip",
    "trustDomains": "source.trustDomain",
}
OPERATION = {"hosts": "host", "ports": "destination.port", "methods": "method", "paths": "path"}


def _field(name: str, part: Mapping[str, Any], call: Call, mesh: Mesh, namespace: str) -> bool:
    key = {**SOURCE, **OPERATION}[name]
    values, others = part.get(name, ()), part.get(f"not{name[0].upper()}{name[1:]}", ())
    return _either(key, values, others, call, mesh, namespace)


def _condition(condition: Mapping[str, Any], call: Call, mesh: Mesh, namespace: str) -> bool:
    values, others = condition.get("values", ()), condition.get("notValues", ())
    return _either(condition["key"], values, others, call, mesh, namespace)


def _either(key: str, values: Sequence[str], others: Sequence[str], call: Call, mesh: Mesh, namespace: str) -> bool:
    """One of the values, and NOT one of the others; what is absent matches no value, so its NOT does."""
    test = _test(key, call, mesh, namespace)
    return (not values or any(map(test, values))) and not any(map(test, others))


def _test(key: str, call: Call, mesh: Mesh, namespace: str) -> Callable[[str], bool]:
    bracketed = re.fullmatch(r"(request\.headers|request\.auth\.claims)\[(.+)\]", key)
    if bracketed and bracketed[1] == "request.headers":
        value = call.headers.get(bracketed[2].lower())
        return lambda pattern: value is not None and (pattern == "*" or text(pattern, value))
    claims = call.user.claims if call.user else {}
    if bracketed:
        return lambda pattern: any(text(pattern, one) for one in claims.get(bracketed[2], ()))
    tests: Mapping[str, Callable[[str], bool]] = {
        "source.principal": lambda value: any(_principal(one, call) for one in _expanded(value, mesh)),
        "source.namespace": lambda value: _identity(f".*/ns/{value.replace('*', '.*')}/.*", call),
        "source.serviceAccount": lambda value: _account(value, namespace, call),
        "source.trustDomain": lambda value: any(
            _identity(f"spiffe://{re.escape(one)}/.*", call) for one in _domains(value, mesh)
        ),
        "source.ip": lambda value: _within(call.source_ip, value),
        "remote.ip": lambda value: _within(call.source_ip, value),  # at a gateway without trusted proxies
        "destination.ip": lambda value: _within(call.destination_ip, value),
        "destination.port": lambda value: call.port == int(value),
        "request.auth.principal": lambda value: call.user is not None and _user(value, call.user),
        "request.auth.audiences": lambda value: any(text(value, one) for one in claims.get("aud", ())),
        "request.auth.presenter": lambda value: any(text(value, one) for one in claims.get("azp", ())),
        "host": lambda value: value == "*" or text(value.lower(), call.authority.lower()),
        "method": lambda value: value == "*" or text(value, call.method),
        "path": lambda value: _path(value, call.path),
    }
    return tests[key]


def text(pattern: str, value: str) -> bool:
    """Istio's StringMatcher."""
    if pattern == "*":
        return value != ""
    if pattern.startswith("*"):
        return value.endswith(pattern[1:])
    if pattern.endswith("*"):
        return value.startswith(pattern[:-1])
    return value == pattern


def _identity(regex: str, call: Call) -> bool:
    return call.principal is not None and re.fullmatch(regex, call.principal) is not None


def _principal(pattern: str, call: Call) -> bool:
    if call.principal is None:
        return False
    if pattern == "*":
        return True
    if pattern.startswith("*"):
        return _identity(f"spiffe://.*{pattern[1:]}", call)
    return text(f"spiffe://{pattern}", call.principal)


def _account(value: str, namespace: str, call: Call) -> bool:
    within, slash, name = value.partition("/")
    if not slash:
        within, name = namespace, value
    return _identity(f"spiffe://.+/ns/{within}/(.+/|)sa/{name}(/.+)?", call)


def _expanded(principal: str, mesh: Mesh) -> set[str]:
    """Trust domain aliases: a principal of the mesh's own domain, or of `cluster.local`, is one under every name."""
    domain, *rest = principal.split("/")
    names = (mesh.trust_domain, *mesh.aliases)
    known = domain == "cluster.local" or any(
        domain == name
        or (domain.endswith("*") and name.startswith(domain[:-1]))
        or (domain.startswith("*") and name.endswith(domain[1:]))
        for name in names
    )
    if len(rest) != 4 or domain == "*" or not known:
        return {principal}
    return {
        principal if domain.startswith("*") and name.endswith(domain[1:]) else "/".join([name, *rest]) for name in names
    }


def _domains(value: str, mesh: Mesh) -> Sequence[str]:
    names = (mesh.trust_domain, *mesh.aliases)
    return names if value in names else (value,)


def _within(address: str, block: str) -> bool:
    return ipaddress.ip_address(address) in ipaddress.ip_network(block, strict=False)


def _user(value: str, user: User) -> bool:
    """The last slash parts issuer and subject, each with its own matcher."""
    issuer, slash, subject = value.rpartition("/")
    if value == "*":
        return bool(user.issuer and user.subject)
    if value.startswith("*") and slash:
        return (issuer == "*" or user.issuer.endswith(issuer[1:])) and user.subject == subject
    if value.startswith("*"):
        return user.subject.endswith(value[1:])
    if value.endswith("*") and slash:
        return user.issuer == issuer and (
            user.subject != "" if subject == "*" else user.subject.startswith(subject[:-1])
        )
    if value.endswith("*"):
        return user.issuer.startswith(value[:-1])
    return user.issuer == issuer and user.subject == subject


def _path(value: str, path: str) -> bool:
    """The path without query; a template is a regular expression over whole segments."""
    path = path.partition("?")[0]
    if "{*}" not in value and "{**}" not in value:
        return text(value, path)
    pieces = {"{*}": f"{GLOB}+", "{**}": f"{TEXT}*"}
    regex = "/".join(pieces.get(part) or re.escape(part) for part in value.split("/"))
    return re.fullmatch(regex, path) is not None
