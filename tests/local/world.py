"""Generated policy sets and requests, from a seed: everything that the compiler takes, and what compilers get wrong.

Policies and requests are made of the same few words, so that they meet.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from policyd.authz.ruling import Ruling, make_ruling
from policyd.cedar.policies import Policy, load_policies, set_of
from policyd.cedar.schema import Schema
from policyd.errors import InvalidInput
from policyd.local.compile import Compiled, Compiler
from policyd.mesh.build import build
from policyd.mesh.declare import declare
from policyd.mesh.model import Instance, Listener, Mesh
from policyd.mesh.placement import assumed
from policyd.names import SNI_HEADER
from tests.fakes.issuer import Issuer

WORKLOADS = """
workloads:
  shop-v1: {service: shop, port: 9080, labels: {version: v1}}
  shop-v2: {service: shop, port: 9080, labels: {version: v2, tier: ""}}
  web-v1: {service: web, port: 80, serviceAccount: web}
  api-v1: {service: api, port: 80, serviceAccount: api, namespace: back}
gateways:
  edge: {listen: 8080}
serviceAccounts:
  shop: {labels: {team: red}}
  web: {labels: {team: blue, tier: "", app: shop}}
  api.back: {labels: {team: red, a.b: x}}
defaults: {namespace: default, serviceAccount: "{service}"}
"""
GROUPS = """
groups:
  fronts: {workloads: ["spiffe://cluster.local/ns/default/sa/web", "spiffe://cluster.local/ns/back/sa/api"]}
  all: {groups: [fronts], workloads: ["spiffe://cluster.local/ns/default/sa/shop"]}
  shops: {services: [shop.default]}
  people: {users: ["https://a/alice", "https://b/bob/x"]}
  nobody: {}
"""
ISSUERS = {name: Issuer(f"https://{name}") for name in ("a", "b")}
TOKENS = f"""
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {{name: people, namespace: default}}
spec:
  selector: {{matchLabels: {{version: v2}}}}
  jwtRules:
    - {{issuer: https://a, audiences: [shop], jwks: '{ISSUERS["a"].jwks}', spaceDelimitedClaims: [words, a.b]}}
    - {{issuer: https://b, jwks: '{ISSUERS["b"].jwks}', fromHeaders: [{{name: x-token}}]}}
"""
PLAINTEXT = """
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: istio-system}
spec: {mtls: {mode: PERMISSIVE}}
"""
TRUST = "spiffe://cluster.local"
CALLERS = (
    f"{TRUST}/ns/default/sa/web",
    f"{TRUST}/ns/back/sa/api",
    f"{TRUST}/ns/default/sa/shop",
    f"{TRUST}/ns/other/sa/ghost",
    f"{TRUST}/odd",
    f"{TRUST}/ns/default/sa/web.x",
    f"{TRUST}/agent/node",  # no workload
    f"{TRUST}/policyd/server",
    "spiffe://partner.org/ns/default/sa/web",  # of nobody's whom the listener verifies
)
SOURCES = ("127.0.0.1", "127.0.0.7", "127.1.2.3")

PATHS = (
    "/", "/a", "/A", "/a/", "/a/b", "/a/b/c", "/admin", "/me@home", "/caf%C3%A9", "/caf%c3%a9", "/x%20y", "/a!b",
    "/users/1/orders", "/users/1/2/orders", "/a%3Bb", "/a;b", "/%E2%82%AC", "", "a", "/a b", "/é", "/a.css", "/a'b()",
    "/~me", "/%7Eme", "/a%40b", "/9", "/A9", "/a?b", "/a%25", "/%", "/*",
)  # fmt: skip
PATTERNS = (
    "/a*", "*b", "/users/*/orders", "*", "/*", "*%*", "/me*home", "*@*", "*A9", "*9*", "*%C3*", "/caf%*", "*C3%A9",
    "/%E*", "*.css", "*40*", "**", "/a*b*c", "*/b", "/*/", "*%25", "*5*", "/A*9", "*a'*", "*%C*", "*E2*AC", "/\\*",
    "*5", "*B*", "/a*%*",
)  # fmt: skip
TARGETS = (
    *PATHS[:-1], "/a%zz", "/a%", "/%2541", "/%25%34%31", "/%2540", "/a%09", "/a%00", "/a%7F", "//a", "/a//b", "/a/../b",
    "/a/%2e%2e/admin", "/./a", "/a/.", "/a%2Fb", "/a%5Cb", "/a\\b", "/a;x=1/b", "/a?x=%2F/b", "/?a", "/a?/b/c", "/a??",
    "/...", "/.a", "/a%2e", "/a<b>", "/a|b", "/a%C3%28", "/me%40home", "/me%40home%40", "/a%21b", "/a%27b%28%29",
    "/users/%31/orders", "/A%39", "/a%2520", "/a%25zz", "/%41", "/5", "/x%35",
)  # fmt: skip
TEXTS = ("", "a", "A", "a,b", "é", "1", "x y", "b", ",", "a*", "red", "ab")
TEXT_PATTERNS = ("a*", "*b", "*,*", "a*b", "*é*", "*", "*a*b*", "*A*", "é*", "a**")
VALUES: Sequence[Sequence[bytes]] = (
    [b""], [b"a"], [b"A"], [b"a,b"], [b"a", b"b"], [b"b", b"a"], ["é".encode()], [b"\xe9"], [b"a\xffb"], [b"a!b"],
    [b"a", b"a"], [b"", b""], [b"a", b""], [b" a "], [b"1"], [b"x y"], [b"a\tb"], [b"red"], [b"a", "é".encode(), b"b"],
    [b"\xc3", b"\xa9"], [b"a" * 3000 + b"b"],
)  # fmt: skip
HOSTS = ("shop", "SHOP", "shop:9080", "Shop:", "shop:1:2", "127.0.0.1", "[::1]:80", "a.shop", "shop.default", ":80")
METHODS = ("GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE", "PURGE", "PROPFIND", "TRACE")
HEADERS = ("x-a", "x-a", "x-b", "user-agent", "x-forwarded-for", "x-request-id")  # Envoy itself writes some
TOKEN_HEADERS = ("authorization", "x-token")
PEOPLE = ("https://a/alice", "https://a/bob", "https://b/bob/x", "https://c/alice")
SUBJECTS = ("alice", "bob", "bob/x", "é!", "A", "al ice")
CLAIMS = ("roles", "words", "a.b", "a", "n", "https://x/y", "sub", "exp", "")
# what policies compare elements with, and what they are made of
ELEMENTS = ("editor", "42", "1.5", "true", "false", "1e-05", "-3", "0", "-0", "42.0", "", "é", "a b", "a", "alice")
SCALARS = ("editor", "42", 42, 42.0, 1.5, True, False, 1e-05, -3, 0, -0.0, "", "é", "a b", "a  b", "a", 1e15, 2**53 - 1)
OVERFLOW = "9223372036854775807 + 1 > 0"


def texts(chosen: random.Random, value: str, among: Sequence[str], patterns: Sequence[str]) -> str:
    """A comparison of a text."""
    one = chosen.choice(among).replace('"', '\\"')
    match chosen.randrange(5):
        case 0:
            return f'{value} != "{one}"'
        case 1 | 2:
            return f'{value} like "{chosen.choice(patterns)}"'
        case 3:
            listed = ", ".join(f'"{entry}"' for entry in chosen.sample(among, 3))
            return f"[{listed}].contains({value})"
        case _:
            return f'{value} == "{one}"'


def _of_header(chosen: random.Random) -> str:
    name = chosen.choice(HEADERS)
    has = f'context.request.headers.hasTag("{name}")'
    got = texts(chosen, f'context.request.headers.getTag("{name}")', TEXTS, TEXT_PATTERNS)
    return chosen.choice((has, f"{has} && {got}", f"{has} && {got}", f"(if {has} then {got} else true)"))


def _of_caller(chosen: random.Random) -> str:
    tag = chosen.choice(("team", "tier", "none", "a.b"))
    has = f'principal.hasTag("{tag}")'
    forms = (
        'principal in Group::"fronts"',
        'principal in Namespace::"default"',
        'principal == Workload::"spiffe://cluster.local/ns/default/sa/web"',
        'principal in [Group::"nobody", Group::"fronts"]',
        f"{has}",
        f'{has} && principal.getTag("{tag}") == "{chosen.choice(("red", "blue", "", "x"))}"',
        f'{has} && principal.getTag("{tag}") like "{chosen.choice(("r*", "*e*", "*"))}"',
        'principal.hasTag("app") && resource is Service && resource.hasTag("app")'
        ' && principal.getTag("app") == resource.getTag("app")',
        "principal has namespace",
        'principal has namespace && principal.namespace == "default"',
        'principal has service_account && principal.service_account like "w*"',
        'principal.path like "/ns/*/sa/web*"',
        'principal.path == "/odd"',
        'principal.trust_domain == "cluster.local"',
    )
    return f"principal is Workload && ({chosen.choice(forms)})"


def _of_user(chosen: random.Random) -> str:
    name, one = chosen.choice(CLAIMS), chosen.choice(ELEMENTS)
    several = ", ".join(f'"{element}"' for element in chosen.sample(ELEMENTS, 3))
    has, got = (f'context.user.{word}Tag("{name}")' for word in ("has", "get"))
    forms = (
        "true",
        texts(chosen, "context.user.subject", SUBJECTS, ("al*", "*!", "*", "a*e", "*o*")),
        texts(chosen, "context.user.issuer", ("https://a", "https://b", "x"), ("https*", "*b")),
        'context.user in Group::"people"',
        f'context.user == User::"{chosen.choice(PEOPLE)}"',
        'context.user in User::"https://a/alice" || context.user in [Group::"nobody", Group::"people"]',
        has,
        f'{has} && {got}.contains("{one}")',
        f"{has} && {got}.containsAny([{several}])",
        f"{has} && [{several}].containsAny({got})",
        f"{has} && {got}.containsAll([{several}])",
        f'{has} && {got}.containsAll(["{one}"])',
        f"{has} && ({got}.isEmpty() || {got}.containsAll([]))",
        f'if {has} then {got}.contains("{one}") else true',
        "context.user has subject",
    )
    return f"context has user && ({chosen.choice(forms)})"


def _of_place(chosen: random.Random) -> str:
    number = chosen.choice((1, 2, 3, 0, -1))
    order = chosen.choice(("==", "<", "<=", ">", ">=", "!="))
    forms = (
        f"context.request.segments {order} {number}",
        f"{number} {order} context.request.segments",
        'context.source.ip.isInRange(ip("127.0.0.0/29"))',
        'context.client_ip == ip("127.1.2.3")',
        'context.client_ip.isInRange(ip("::/0"))',
        "context.source.ip.isLoopback() && context.source.ip.isIpv4()",
        "context.source.ip.isMulticast() || context.source.ip.isIpv6()",
        f"context.destination.port {order} 9080",
        "context.source.port == 9080",
        'context.destination.ip == ip("127.0.0.1")',
        'context.destination.labels.hasTag("version") && context.destination.labels.getTag("version") == "v2"',
        "context has user",
        'context has user && context.user.issuer == "x"',
        "context has time && context.request has path",
        'resource is Service && resource.name == "shop"',
        'resource in Group::"shops"',
        'action in Action::"read"',
        'action == Action::"other"',
        'action in [Action::"write", Action::"GET"]',
        "1 + 2 < 4",
    )
    return chosen.choice(forms)


def _of_text(chosen: random.Random) -> str:
    match chosen.randrange(6):
        case 0:
            hosts = (*HOSTS, "shop:", "")
            return texts(chosen, "context.request.host", hosts, ("shop*", "*shop", "*:*", "*", "S*", "*.default"))
        case 1:
            return texts(chosen, "context.request.method", (*METHODS, "get"), ("P*", "*E*", "*"))
        case _:
            return texts(chosen, "context.request.path", PATHS, PATTERNS)


def _of_values(chosen: random.Random) -> str:
    """Sets, choices between values, truths compared with truths, and numbers that are calculated."""
    one, other = (chosen.choice((_of_text, _of_header, _of_caller))(chosen) for _ in range(2))
    path, text = chosen.choice(PATHS[:12]), chosen.choice(("a", "x"))
    forms = (
        f'["{path}", "GET"].containsAny([context.request.path, context.request.method])',
        f'["{path}", "/a", "GET"].containsAll([context.request.path, context.request.method])',
        f'[context.request.path, "{path}"].contains("/a")',
        f'["{text}"].isEmpty() || {one}',
        f"({one}) == ({other})",
        f"({one}) != true",
        f'(if {one} then "{path}" else context.request.path) == "/a"',
        f'(if {one} then context.request.method else context.request.path) like "*E*"',
        f'[if {one} then "x" else "y", "z"].contains("x")',
        f'[if {one} then "x" else "y"].containsAll([if {other} then "x" else "y"])',
        f"context.request.segments <= (if {one} then 1 else 3)",
        f"-2 * 3 + {chosen.choice((5, 6, 7))} < context.request.segments",
        f"(if {one} then 9223372036854775807 + 1 else 1) == 1",
        f"[if {one} then -9223372036854775807 - 2 else 1, 2].contains(2)",
        f'principal is Workload in Group::"fronts" && ({one})',
        f'resource is Service in Namespace::"default" && ({one})',
    )
    return chosen.choice(forms)


def condition(chosen: random.Random, depth: int = 3) -> str:
    """A boolean expression."""
    if depth and chosen.random() < 0.5:
        left, right = condition(chosen, depth - 1), condition(chosen, depth - 1)
        match chosen.randrange(6):
            case 0 | 1:
                return f"({left}) && ({right})"
            case 2 | 3:
                return f"({left}) || ({right})"
            case 4:
                return f"!({left})"
            case _:
                return f"if {condition(chosen, depth - 1)} then {left} else {right}"
    if chosen.random() < 0.12:
        return _failing(chosen)
    among = (_of_text, _of_text, _of_header, _of_caller, _of_place, _of_values, _of_user, _of_user)
    return chosen.choice(among)(chosen)


def nested(depth: int) -> str:
    """A condition whose `&&` and `||` are so deep in one another."""
    made = 'context.request.headers.hasTag("h0")'
    for number in range(depth):
        made = f'(context.request.headers.hasTag("h{number + 1}") {("||", "&&")[number % 2]} {made})'
    return made


def _failing(chosen: random.Random) -> str:
    """What fails, or fails for some requests."""
    one = chosen.choice((_of_text, _of_header, _of_caller))(chosen)
    forms = (OVERFLOW, f"({one}) && {OVERFLOW}", f"({one}) || {OVERFLOW}", f"if {one} then {OVERFLOW} else 1 < 2")
    return f"({chosen.choice(forms)})"


PRINCIPALS = (
    "principal", "principal", "principal is Workload", "principal is Unauthenticated", 'principal in Group::"fronts"',
    'principal in Namespace::"default"', 'principal is Workload in Group::"all"',
    'principal == Workload::"spiffe://cluster.local/ns/back/sa/api"', 'principal in TrustDomain::"cluster.local"',
    'principal == Unauthenticated::"anonymous"', 'principal in Namespace::"partner.org/default"',
)  # fmt: skip
ACTIONS = (
    "action", 'action in Action::"http"', 'action in Action::"http"', 'action in Action::"http"',
    'action in Action::"read"', 'action == Action::"GET"', 'action in [Action::"write", Action::"GET"]',
    'action == Action::"other"', 'action in [Action::"other", Action::"read"]', 'action == Action::"connect"',
)  # fmt: skip
CONNECTS = ('action == Action::"connect"', 'action == Action::"connect"', "action")
RESOURCES = (
    "resource", "resource", 'resource == Service::"shop.default"', 'resource in Namespace::"default"',
    'resource is Service', 'resource in Group::"shops"', 'resource == Service::"web.default"', "resource is Host",
)  # fmt: skip


def policy(chosen: random.Random, number: int) -> str:
    """A policy on one line."""
    effect = chosen.choice(("permit", "permit", "forbid"))
    scope = ", ".join(chosen.choice(one) for one in (PRINCIPALS, ACTIONS, RESOURCES))
    clauses = [
        f"{chosen.choice(('when', 'unless'))} {{ {condition(chosen, chosen.randrange(4))} }}"
        for _ in range(chosen.choice((0, 1, 1, 1, 2)))
    ]
    return f'@id("p{number:05}") {effect} ({scope}) {" ".join(clauses)};'


def policies(chosen: random.Random, count: int, schema: Schema) -> Sequence[Policy]:
    """So many policies that hold against the schema, or a few less."""
    return valid([policy(chosen, number) for number in range(count)], schema)


def valid(lines: list[str], schema: Schema) -> Sequence[Policy]:
    """Those of the policies that hold against the schema."""
    while True:
        try:
            return load_policies({"generated.cedar": "\n".join(lines)}, schema).policies
        except InvalidInput as error:
            bad = {one.line - 1 for one in error.problems}
            lines = [line for at, line in enumerate(lines) if at not in bad]


def mesh_of(workloads: str = WORKLOADS, groups: str = GROUPS, tokens: str = TOKENS) -> Mesh:
    """Services, identities, labels and groups, whose sidecars take mutual TLS and plain text, some of them tokens."""
    texts = {"workloads.yaml": workloads, "groups.yaml": groups, "mesh/peers.yaml": PLAINTEXT}
    declaration = declare({**texts, "mesh/tokens.yaml": tokens})
    return build(declaration, "cluster.local", assumed(declaration))


def meshes(chosen: random.Random) -> Iterator[Mesh]:
    """The same services and identities, each time with other labels, and in other groups."""
    accounts = {"shop": CALLERS[2], "web": CALLERS[0], "api.back": CALLERS[1]}
    while True:
        labels = {name: _labels(chosen) for name in accounts}
        version = chosen.choice(("v1", "v2"))
        workloads = WORKLOADS[: WORKLOADS.index("serviceAccounts")].replace("version: v1", f"version: {version}")
        declared = "".join(f"  {name}: {{labels: {json.dumps(found)}}}\n" for name, found in labels.items())
        rest = f'serviceAccounts:\n{declared}defaults: {{namespace: default, serviceAccount: "{{service}}"}}\n'
        fronts, members = (chosen.sample(sorted(accounts.values()), chosen.randrange(3)) for _ in range(2))
        services = chosen.choice(([], ["shop.default"], ["shop.default", "web.default"]))
        inner = chosen.choice(([], ["fronts"]))
        groups = {
            "fronts": {"workloads": fronts},
            "all": {"groups": inner, "workloads": members},
            "shops": {"services": services},
            "people": {"users": chosen.sample(PEOPLE, chosen.randrange(3))},
            "nobody": {},
        }
        yield mesh_of(workloads + rest, json.dumps({"groups": groups}))


def _labels(chosen: random.Random) -> dict[str, str]:
    values = {"team": ("red", "blue"), "tier": ("", "x"), "app": ("shop", "web"), "a.b": ("x",)}
    return {name: chosen.choice(among) for name, among in values.items() if chosen.random() < 0.5}


@dataclass(frozen=True)
class Case:
    """A set of policies at a listener, and what became of them."""

    number: int
    ruling: Ruling
    listener: Listener
    compiled: Compiled

    @property
    def instance(self) -> Instance:
        """Whose listener it is."""
        return self.ruling.mesh.instances[self.listener.instance]

    @property
    def text(self) -> str:
        """The policies."""
        return "\n".join(one.text for one in self.ruling.policy_set.policies)


def case_of(number: int, found: Sequence[Policy], listener: Listener, mesh: Mesh, schema: Schema) -> Case:
    """These policies at a listener, without those that are not compiled there."""
    ruling = make_ruling(mesh, set_of(found), schema)
    compiled = Compiler(ruling).compile(listener)
    if not compiled.left:
        return Case(number, ruling, listener, compiled)
    left = {one.policy for one in compiled.left}
    return case_of(number, [one for one in found if one.id not in left], listener, mesh, schema)


def cases(chosen: random.Random, count: int, schema: Schema) -> Iterator[Case]:
    """So many sets."""
    pool = policies(chosen, 3 * count, schema)
    names = (
        "shop-v1/inbound",
        "shop-v1/inbound/plaintext",
        "shop-v2/inbound",
        "shop-v2/inbound/plaintext",
        "edge/gateway/8080",
    )
    for number, mesh in zip(range(count), meshes(chosen), strict=False):
        some = chosen.sample(pool, min(len(pool), chosen.choice((1, 3, 6, 10))))
        yield case_of(number, some, mesh.listeners[names[number % len(names)]], mesh, schema)


NAMES = ("shop", "shop.default", "far.test", "a.shop", "1.2.3.4", "")
SAID: Sequence[Sequence[bytes]] = (
    [], [], [], [b"far.test"], [b"a.shop"], [b""], [b"1.2.3.4"], [b"a..b"], [b"A"], [b"a", b"b"], [b"", b""],
    [b"a_b-c.d"],
)  # fmt: skip


def _of_connection(chosen: random.Random) -> str:
    has = "context has sni"
    forms = (
        _of_caller(chosen),
        f"{has} && {texts(chosen, 'context.sni', NAMES, ('*.shop', 'shop*', '*', 'far*t', '*.*'))}",
        f"if {has} then {texts(chosen, 'context.sni', NAMES, ('a*', '*t'))} else {_of_caller(chosen)}",
        f"context has sni || {OVERFLOW}",
        'context.source.ip.isInRange(ip("127.0.0.0/29"))',
        f"context.destination.port {chosen.choice(('==', '<', '!='))} 9080",
        'context.destination.labels.hasTag("version") && context.destination.labels.getTag("version") == "v1"',
        "context has time && context has source",
    )
    return f"({chosen.choice(forms)})"


def connection_cases(chosen: random.Random, count: int, schema: Schema) -> Iterator[Case]:
    """So many sets about connections, each at a listener that takes these alone; some know what TLS is for."""
    made = [
        mesh_of(WORKLOADS.replace("port: 9080,", f"port: 9080, protocol: {one},"), tokens="") for one in ("tcp", "tls")
    ]
    lines = []
    for number in range(3 * count):
        scope = f"{chosen.choice(PRINCIPALS)}, {chosen.choice(CONNECTS)}, {chosen.choice(RESOURCES)}"
        word, effect = chosen.choice(("when", "unless")), chosen.choice(("permit", "permit", "forbid"))
        joined = chosen.choice((" && ", " || ")).join(_of_connection(chosen) for _ in range(chosen.choice((1, 2, 3))))
        lines.append(f'@id("c{number:05}") {effect} ({scope}) {word} {{ {joined} }};')
    pool = valid(lines, schema)
    for number in range(count):
        mesh = made[number % 2]
        listener = mesh.listeners["shop-v1/inbound" if number % 4 < 2 else "shop-v1/inbound/plaintext"]
        some = chosen.sample(pool, min(len(pool), chosen.choice((1, 3, 6))))
        yield case_of(number, some, listener, mesh, schema)


def connected(chosen: random.Random, case: int) -> Asked:
    """A tunnel that is asked for."""
    host = chosen.choice(("shop:9080", "SHOP:9080", "shop.default:9080", "a.shop:443", "shop:"))
    headers = tuple((SNI_HEADER, value) for value in chosen.choice(SAID))
    return Asked(case, "CONNECT", host.encode(), host, headers)


@dataclass(frozen=True)
class Asked:
    """One request to one set."""

    case: int
    method: str
    target: bytes
    host: str
    headers: tuple[tuple[str, bytes], ...]

    @property
    def raw(self) -> bytes:
        """As it goes over the wire."""
        lines = [f"{self.method} ".encode() + self.target + b" HTTP/1.1", f"Host: {self.host}".encode()]
        lines += [name.encode() + b": " + value for name, value in self.headers]
        return b"\r\n".join([*lines, b"x-set: %d" % self.case, b"", b""])


def _nested(depth: int) -> Any:
    return {"x": _nested(depth - 1)} if depth else 1


ODD_VALUES: tuple[Any, ...] = (
    [], {}, None, [None], [[]], [{"b": 1}], {"b": None}, {"b": []}, 2**53, -(2**53), 1e300,
    "a\x00b", "x" * 8192, "x" * 8193,
    _nested(7), _nested(8), _nested(9), list(range(1024)), list(range(1025)), {str(at): at for at in range(240)},
    {str(at): at for at in range(260)}, "a\u2003b", "a\x1cb", " ", ["a b"], {"b": "a b"}, "é" * 5000,
    {"1": "x", "2": "y"},
)  # fmt: skip


def _target(chosen: random.Random) -> bytes:
    text = chosen.choice(TARGETS) if chosen.random() < 0.6 else chosen.choice(PATHS)
    if chosen.random() < 0.2:
        text = "".join(_escaped(chosen, one) if chosen.random() < 0.3 else one for one in text)
    if chosen.random() < 0.02:
        text = "/" + "a" * chosen.choice((8190, 8191, 8192, 9000))
    if chosen.random() < 0.15:
        text += chosen.choice(("?", "?a=b", "?/a/b", "?%41;"))
    text = "".join(one if "!" <= one <= "~" else f"%{ord(one):02x}" for one in text)
    return (text or "/").replace("#", "").encode()


def _escaped(chosen: random.Random, one: str) -> str:
    return one if one in "/%?" else chosen.choice((f"%{ord(one) & 0xFF:02x}", f"%{ord(one) & 0xFF:02X}"))


def _value(chosen: random.Random) -> Any:
    """A claim's value."""
    some = [chosen.choice(SCALARS) for _ in range(chosen.choice((1, 2, 5)))]
    match chosen.randrange(12):
        case 0:
            return some
        case 1:
            return [*some, None, {"x": 1}, ["editor"]]
        case 2:
            return {"b": chosen.choice(SCALARS), "c": some}
        case 3:
            return chosen.choice(ODD_VALUES)
        case _:
            return some[0]


def token(chosen: random.Random) -> tuple[str, bytes]:
    """A header with a token, of which some do not hold, or policyd takes none."""
    name = chosen.choice("aab")
    claims = {one: _value(chosen) for one in CLAIMS if one not in ("sub", "exp") and chosen.random() < 0.3}
    claims["aud"] = "shop" if chosen.random() < 0.95 else "others"
    subject = chosen.choice((*SUBJECTS, *SUBJECTS, *SUBJECTS, None, ""))
    made = ISSUERS[name].token(subject, lasts=3600 if chosen.random() < 0.97 else -3600, **claims)
    return ("authorization", f"Bearer {made}".encode()) if name == "a" else ("x-token", made.encode())


def tokens(chosen: random.Random) -> list[tuple[str, bytes]]:
    """Mostly one, sometimes of two users."""
    return [token(chosen) for _ in range(chosen.choice((0, 0, 1, 1, 1, 1, 1, 1, 1, 2)))]


def asked(chosen: random.Random, case: int, *, with_tokens: bool = False) -> Asked:
    """A request, as odd as they come."""
    headers: list[tuple[str, bytes]] = []
    for name in sorted(set(HEADERS)):
        if chosen.random() < 0.5:
            spelled = chosen.choice((name, name.upper(), name.title()))
            headers += [(spelled, value) for value in chosen.choice(VALUES)]
    headers += tokens(chosen) if with_tokens else []
    chosen.shuffle(headers)
    method = chosen.choice(METHODS) if chosen.random() < 0.5 else "GET"
    return Asked(case, method, _target(chosen), chosen.choice(HOSTS[:9]), tuple(headers))
