"""Random policies and requests over small vocabularies, so that they meet: everything that has an exact form."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, Final

from hypothesis import strategies as st

from tests.policy.istio.oracle import User

PRINCIPALS: Final = [
    "cluster.local/ns/default/sa/web", "cluster.local/ns/shop/sa/cart", "old.example/ns/default/sa/web",
    "other.org/ns/default/sa/web", "*", "*/sa/web", "*/ns/default/sa/web", "*l/ns/default/sa/web", "*web",
    "*example/ns/shop/sa/cart", "cluster.local/ns/default/*", "cluster.local/ns/shop/sa/c*", "clus*", "o*",
    "cluster*/ns/default/sa/web", "cluster.local/*", "web", "*eb/ns/a/sa/b",
]  # fmt: skip
NAMESPACES: Final = ["default", "shop", "sh*", "*op", "*", "s*p", "sa", "ns", "*a", "d*"]
ACCOUNTS: Final = ["web", "shop/cart", "default/web", "cart", "ns/sa"]
DOMAINS: Final = ["cluster.local", "old.example", "other.org"]
USERS: Final = [
    "*",
    "https://a/alice",
    "https://a/*",
    "*/alice",
    "https*",
    "*ice",
    "https://b/b*",
    "*//a/alice",
    "*a/bob",
]
ADDRESSES: Final = ["10.0.0.1", "10.0.0.0/8", "10.0.0.7/24", "192.168.0.0/16", "2001:db8::/32", "0.0.0.0/0"]
PORTS: Final = ["8080", "9090", "80", "08080"]
METHODS: Final = ["GET", "POST", "get", "*", "P*", "*T", "PURGE", "DELETE"]
PATHS: Final = [
    "/", "/a", "/a/b", "/a*", "/a/*", "*b", "*", "*/", "/a*b", "/caf%C3%A9", "/x/", "/caf*", "*%A9",
    "/{*}", "/a/{*}", "/{*}/b", "/{*}/", "/{**}", "/a/{**}", "/a/{**}/b", "/{*}/{**}", "/{*}/{*}/c", "/a/{*}/{**}/c",
    "/{**}/c", "/a/{*}/c/",
]  # fmt: skip
HOSTS: Final = [
    ["web", "web:*"],
    ["web*"],
    ["*"],
    ["WEB", "web:*"],
    ["api", "api:*", "web*"],
    ["api.default", "api.default:*"],
]
CLAIMS: Final = ["a", "b", "*", "c"]
TEXTS: Final = ["red", "re*", "*d", "*", "green", "blue,green"]
CONDITIONS: Final = {
    "source.principal": PRINCIPALS,
    "source.namespace": NAMESPACES,
    "source.serviceAccount": ACCOUNTS,
    "source.trustDomain": DOMAINS,
    "source.ip": ADDRESSES,
    "destination.ip": ADDRESSES,
    "destination.port": PORTS,
    "request.auth.principal": USERS,
    "request.auth.audiences": CLAIMS,
    "request.auth.presenter": CLAIMS,
    "request.auth.claims[groups]": CLAIMS,
    "request.headers[X-Team]": TEXTS,
    "request.headers[x-other]": TEXTS,
}

CALLERS: Final = [
    None, "spiffe://cluster.local/ns/default/sa/web", "spiffe://old.example/ns/default/sa/web",
    "spiffe://other.org/ns/default/sa/web", "spiffe://cluster.local/ns/shop/sa/cart",
    "spiffe://cluster.local/ns/ns/sa/sa", "spiffe://cluster.local/ns/default/sa/webby", "spiffe://web/ns/a/sa/b",
]  # fmt: skip
TOKENS: Final = [
    None, User("https://a", "alice", {"aud": ["a"], "azp": ["b"], "groups": ["a", "b"]}), User("https://b", "bob"),
    User("https://b", "alice", {"groups": ["", "c"]}), User("https://x/a", "bob", {"groups": [""], "aud": ["b", "c"]}),
]  # fmt: skip
TARGETS: Final[list[dict[str, Any]]] = [
    {}, {}, {"selector": {"matchLabels": {"app": "web"}}}, {"selector": {"matchLabels": {"version": "v1"}}},
    {"selector": {"matchLabels": {"app": "web", "version": "v2"}}}, {"selector": {"matchLabels": {"tier": "back"}}},
    {"selector": {"matchLabels": {"tier": "none"}}}, {"selector": {}},
]  # fmt: skip
SERVICE: Final = {"targetRefs": [{"kind": "Service", "group": "", "name": "web"}]}
GATEWAY: Final = {"selector": {"matchLabels": {"istio": "ingressgateway"}}}


def values(pool: list[str]) -> st.SearchStrategy[list[str]]:
    """One to three values."""
    return st.lists(st.sampled_from(pool), min_size=1, max_size=3, unique=True)


@st.composite
def fields(draw: st.DrawFn, pools: dict[str, list[str]]) -> dict[str, Any]:
    """One to three fields of a source or an operation, plain or negated."""
    names = draw(st.lists(st.sampled_from(sorted(pools)), min_size=1, max_size=3, unique=True))
    made: dict[str, Any] = {}
    for name in names:
        for key in draw(st.sampled_from([[name], [name], [_not(name)], [name, _not(name)]])):
            made[key] = draw(st.sampled_from(HOSTS) if name == "hosts" else values(pools[name]))
    return made


def _not(name: str) -> str:
    return f"not{name[0].upper()}{name[1:]}"


_USER = {"requestPrincipals": USERS, "ipBlocks": ADDRESSES, "trustDomains": DOMAINS}
SOURCES = st.one_of(
    fields({"principals": PRINCIPALS, "namespaces": NAMESPACES, **_USER}),
    fields({"serviceAccounts": ACCOUNTS, **_USER}),
)
OPERATIONS = fields({"hosts": [], "ports": PORTS, "methods": METHODS, "paths": PATHS})


@st.composite
def conditions(draw: st.DrawFn) -> dict[str, Any]:
    """One entry of `when`."""
    key = draw(st.sampled_from(sorted(CONDITIONS)))
    made: dict[str, Any] = {"key": key}
    for name in draw(st.sampled_from([["values"], ["notValues"], ["values", "notValues"]])):
        made[name] = draw(values(CONDITIONS[key]))
    return made


@st.composite
def rules(draw: st.DrawFn) -> dict[str, Any]:
    """A rule; without anything it matches all."""
    parts = {
        "from": st.lists(SOURCES.map(lambda one: {"source": one}), min_size=1, max_size=2),
        "to": st.lists(OPERATIONS.map(lambda one: {"operation": one}), min_size=1, max_size=2),
        "when": st.lists(conditions(), min_size=1, max_size=2),
    }
    names = draw(st.sets(st.sampled_from(sorted(parts))))
    return {name: draw(parts[name]) for name in sorted(names)}


@st.composite
def policy_sets(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Up to four policies of distinct names."""
    return [draw(_policy(f"p{at}")) for at in range(draw(st.integers(0, 4)))]


@st.composite
def _policy(draw: st.DrawFn, name: str) -> dict[str, Any]:
    namespace = draw(st.sampled_from(["default", "default", "shop", "istio-system", "elsewhere"]))
    targets = [
        *TARGETS,
        *([SERVICE] if namespace == "default" else []),
        *([GATEWAY] if namespace == "istio-system" else []),
    ]
    target = draw(st.sampled_from(targets))
    action = draw(st.sampled_from(["ALLOW", "ALLOW", "DENY", "AUDIT"]))
    made = draw(st.lists(rules(), min_size=0 if action == "ALLOW" else 1, max_size=3))
    if target is GATEWAY and made:
        made[0] = {**made[0], "when": [{"key": "remote.ip", "values": draw(values(ADDRESSES))}]}
    dry = {"annotations": {"istio.io/dry-run": "true"}} if draw(st.integers(0, 9)) == 0 else {}
    return {
        "apiVersion": "security.istio.io/v1",
        "kind": "AuthorizationPolicy",
        "metadata": {"name": name, "namespace": namespace, **dry},
        "spec": {"action": action, "rules": made, **target},
    }


METHODS_SENT: Final = ["GET", "POST", "PUT", "PURGE", "get", "DELETE"]
AUTHORITIES: Final = ["web", "web:8080", "WEB:80", "api", "api.default:9090", "webshop"]
PATHS_SENT: Final = [
    "/", "/a", "/a/", "/a/b", "/a/b/c", "/a/*", "/a*b", "/x/b", "/a/x/c", "/a/x/y/c", "/x/", "/caf%C3%A9", "/a?q=/b",
    "/b/b/b", "/a/c/c/", "/*/b",
]  # fmt: skip
HEADERS: Final[list[dict[str, str]]] = [
    {}, {"x-team": "red"}, {"x-team": ""}, {"x-team": "green", "x-other": "blue,green"}, {"x-other": "red"},
]  # fmt: skip
SOURCE_IPS: Final = ["10.0.0.1", "10.1.0.1", "192.168.3.4", "2001:db8::1", "8.8.8.8"]
DESTINATION_IPS: Final = ["10.0.0.1", "172.16.0.1"]
SENT: Final[dict[str, list[Any]]] = {
    "principal": CALLERS,
    "method": METHODS_SENT,
    "authority": AUTHORITIES,
    "path": PATHS_SENT,
    "source_ip": SOURCE_IPS,
    "destination_ip": DESTINATION_IPS,
    "headers": HEADERS,
    "user": TOKENS,
}


@st.composite
def calls(draw: st.DrawFn) -> dict[str, Any]:
    """What a request is, besides who answers it."""
    return {name: draw(st.sampled_from(pool)) for name, pool in SENT.items()}


# ---- every value by itself: a part of a rule, and what of a request it can depend on


def single_rules() -> dict[str, tuple[list[dict[str, Any]], str]]:
    """Every field and key with each of its values and each two neighbours, plain and negated; with the part of a
    request that it reads.
    """
    found: dict[str, tuple[list[dict[str, Any]], str]] = {}
    source = {"principals": PRINCIPALS, "namespaces": NAMESPACES, "serviceAccounts": ACCOUNTS, "trustDomains": DOMAINS}
    for name, pool in source.items():
        found[name] = ([{"from": [{"source": one}]} for one in _singles(name, pool)], "principal")
    found["requestPrincipals"] = ([{"from": [{"source": one}]} for one in _singles("requestPrincipals", USERS)], "user")
    found["ipBlocks"] = ([{"from": [{"source": one}]} for one in _singles("ipBlocks", ADDRESSES)], "source_ip")
    for name, pool, part in (("methods", METHODS, "method"), ("paths", PATHS, "path"), ("ports", PORTS, "path")):
        found[name] = ([{"to": [{"operation": one}]} for one in _singles(name, pool)], part)
    both = [{key: values} for values in HOSTS for key in ("hosts", "notHosts")]
    found["hosts"] = ([{"to": [{"operation": one}]} for one in both], "authority")
    parts = {"source": "principal", "request.auth": "user", "request.headers": "headers"}
    others = {"source.ip": "source_ip", "destination.ip": "destination_ip", "destination.port": "path"}
    for key, pool in CONDITIONS.items():
        part = others.get(key) or next(part for start, part in parts.items() if key.startswith(start))
        listed = [{"key": key, name: one} for one in _few(pool) for name in ("values", "notValues")]
        found[key] = ([{"when": [one]} for one in listed], part)
    return found


def _singles(name: str, pool: list[str]) -> list[dict[str, Any]]:
    return [{key: values} for values in _few(pool) for key in (name, _not(name))]


def _few(pool: list[str]) -> list[list[str]]:
    return [*([one] for one in pool), *(list(two) for two in pairwise(pool))]
