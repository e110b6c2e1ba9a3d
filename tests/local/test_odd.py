"""Where compilers lie: requests by name, each with the answer that policyd and the compiled filter both give."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from uuid import UUID

import pytest

from policyd import envoy_api
from policyd.authz import reply
from policyd.authz.ruling import make_ruling
from policyd.cedar.policies import load_policies
from policyd.cedar.schema import Schema
from policyd.local.compile import Compiler
from policyd.names import DECISION_ID_HEADER
from tests.local import world
from tests.local.rig import CENTRAL, DETAILS, Answer, Place, answers, is_let_in, over_http_2, running
from tests.local.world import Asked, Case

pytestmark = pytest.mark.e2e

WEB, STRANGER = world.CALLERS[0], ""
PERMIT = '@id("p") permit (principal, action in Action::"http", resource) when {{ {} }};'
X_A = 'context.request.headers.hasTag("x-a") && context.request.headers.getTag("x-a")'
OVERFLOW = "9223372036854775807 + 1 > 0"
OPEN = '\n@id("open") permit (principal, action in Action::"http", resource);'
FAILING = f'@id("e") forbid (principal, action, resource) when {{ {OVERFLOW} }};'
ALLOWED, DENIED, BAD, BROKEN = (200, "p"), (403, ""), (400, ""), (503, "")


@dataclass(frozen=True)
class Odd:
    """A request with what policies there are, and the answer."""

    name: str
    policies: str
    answer: tuple[int, str]
    target: bytes = b"/"
    headers: tuple[tuple[str, bytes], ...] = ()
    method: str = "GET"
    host: str = "shop"
    caller: str = WEB


def path(name: str, condition: str, target: bytes, answer: tuple[int, str]) -> Odd:
    return Odd(name, PERMIT.format(f"context.request.path {condition}"), answer, target)


def header(name: str, condition: str, values: Sequence[bytes], answer: tuple[int, str]) -> Odd:
    policies = PERMIT.format(f"{X_A} {condition}")
    return Odd(name, policies, answer, headers=tuple(("X-A", value) for value in values))


def host(name: str, condition: str, sent: str, answer: tuple[int, str]) -> Odd:
    return Odd(name, PERMIT.format(f"context.request.host {condition}"), answer, host=sent)


ODD = (
    path("an escape that Envoy leaves and policyd decodes", '== "/me@home"', b"/me%40home", ALLOWED),
    path("digits of an escape that is decoded are no text", 'like "*40*"', b"/me%40home", DENIED),
    path("an escape in lower case", '== "/caf%C3%A9"', b"/caf%c3%a9", ALLOWED),
    path("a wildcard may end inside an escape that stays", 'like "*A9"', b"/caf%c3%a9", ALLOWED),
    path("wildcards in a row", 'like "/a**%25*"', b"/a%C3%25", ALLOWED),
    path("escaped twice", 'like "*"', b"/%2541", BAD),
    path("escaped twice, in pieces", 'like "*"', b"/%25%34%31", BAD),
    path("path parameters", 'like "*"', b"/admin;x=1", BAD),
    path("a semicolon as a character", '== "/a%3Bb"', b"/a%3bb", ALLOWED),
    path("no escape at all", 'like "*"', b"/a%zz", BAD),
    path("a query is no part of the path", 'like "*b"', b"/a?/b", DENIED),
    path("a query behind the path", 'like "*b"', b"/b?x", ALLOWED),
    path("dots are resolved before anybody looks", '== "/admin"', b"/a/%2e%2e/admin", ALLOWED),
    path("slashes are merged before anybody looks", '== "/a/b"', b"//a//b", ALLOWED),
    path("another case is another path", '== "/a"', b"/A", DENIED),
    path("a path as long as policyd takes it", 'like "*"', b"/" + b"a" * 8191, ALLOWED),
    path("a path that is longer", 'like "*"', b"/" + b"a" * 8192, BAD),
    path("an expression as long as is compiled", f'== "/{"@" * 239}"', b"/" + b"%40" * 239, ALLOWED),
    header("one value", '== "a"', [b"a"], ALLOWED),
    header("two values are no one value", '== "a"', [b"a", b"b"], DENIED),
    header("the same value twice", '== "a"', [b"a", b"a"], DENIED),
    header("two values are joined", '== "a,b"', [b"a", b"b"], ALLOWED),
    header("the other one of two values", '!= "a"', [b"a", b"b"], ALLOWED),
    header("an empty value is a value", '== ""', [b""], ALLOWED),
    header("two empty values", '== ","', [b"", b""], ALLOWED),
    header("no value", 'like "*"', [], DENIED),
    header("another case is another value", '== "a"', [b"A"], DENIED),
    header("bytes that are no text, in between", 'like "a*b"', [b"a\xff\xfeb"], ALLOWED),
    header("letters beyond ASCII", '== "é"', ["é".encode()], ALLOWED),
    header("the same letter in another encoding", '== "é"', [b"\xe9"], DENIED),
    header("a letter in two values is none", 'like "*é*"', [b"\xc3", b"\xa9"], DENIED),
    Odd("a header that is not there is not unequal", PERMIT.format(f'!({X_A} == "a")'), ALLOWED),
    host("a host in upper case, with a port", '== "shop"', "SHOP:9080", ALLOWED),
    host("a port without a number", '== "shop"', "shop:", ALLOWED),
    host("only the last port goes", '== "shop:1"', "shop:1:2", ALLOWED),
    host("nothing but a port", '== ""', ":80", ALLOWED),
    host("a pattern does not see the port", 'like "*80"', "shop:80", DENIED),
    Odd(
        "a method of nobody's",
        '@id("p") permit (principal, action == Action::"other", resource);',
        ALLOWED,
        method="PURGE",
    ),
    Odd(
        "a permit that fails does not apply", PERMIT.format(f"context has request && {OVERFLOW}") + OPEN, (200, "open")
    ),
    Odd("a forbid that fails denies", FAILING + OPEN, DENIED),
    Odd(
        "an id that begins as the proxy's own reasons end up",
        '@id("_odd") forbid (principal, action, resource);',
        (403, "_odd"),
    ),
    Odd(
        "a forbid that applies is on record, not one that fails",
        f'{FAILING}\n@id("f") forbid (principal, action, resource);{OPEN}',
        (403, "f"),
    ),
    Odd("an agent is no workload", OPEN, BROKEN, caller=f"{world.TRUST}/agent/node"),
    Odd("policyd is no workload", OPEN, BROKEN, caller=f"{world.TRUST}/policyd/server"),
    Odd("a trust domain that nobody verifies", OPEN, BROKEN, caller="spiffe://partner.org/ns/default/sa/web"),
    Odd("a workload that nobody declared", OPEN, (200, "open"), caller=f"{world.TRUST}/odd"),
    Odd(
        "an address that a header claims is nobody's",
        PERMIT.format('context.client_ip == ip("127.0.0.1")'),
        ALLOWED,
        headers=(("x-forwarded-for", b"10.0.0.1"), ("x-real-ip", b"10.0.0.2")),
    ),
    Odd(
        "conditions nested as deep as is compiled",
        '@id("e") forbid (principal, action in Action::"http", resource) '
        f"when {{ {world.nested(31)} && {OVERFLOW} }};{PERMIT.format(world.nested(32))}",
        DENIED,
        headers=(("h31", b""),),
    ),
    Odd("no policy", "", DENIED),
    Odd("who has no certificate", PERMIT.format("principal is Unauthenticated"), ALLOWED, caller=STRANGER),
    Odd("the first policy by id", OPEN + '\n@id("a") forbid (principal, action, resource);', (403, "a")),
)


# over HTTP/2, where more methods and characters come through
ODD_2 = (
    Odd("any method", '@id("p") permit (principal, action == Action::"other", resource);', ALLOWED, method="FOO"),
    Odd("a method in lower case", PERMIT.format('context.request.method == "get"'), ALLOWED, method="get"),
    Odd(
        "a method that is no GET",
        '@id("p") permit (principal, action == Action::"GET", resource);',
        DENIED,
        method="get",
    ),
    Odd("a method as long as policyd takes it", PERMIT.format("context has request"), ALLOWED, method="a" * 64),
    Odd("a method that is longer", OPEN, BROKEN, method="a" * 65),
    Odd("a host as long as policyd takes it", PERMIT.format("context has request"), ALLOWED, host="h" * 260),
    Odd("a host that is longer", OPEN, BROKEN, host="h" * 261),
    Odd("letters in a path", PERMIT.format('context.request.path == "/%C3%A9"'), ALLOWED, target="/é".encode()),
    Odd("a byte in a path", PERMIT.format('context.request.path == "/%FF"'), ALLOWED, target=b"/\xff"),
    Odd("two values", PERMIT.format(f'{X_A} == "a,b"'), ALLOWED, headers=(("x-a", b"a"), ("x-a", b"b"))),
    Odd("a tab", PERMIT.format(f'{X_A} like "a*b"'), ALLOWED, headers=(("x-a", b"a\tb"),)),
)


CONNECT = 'permit (principal, action == Action::"connect", resource)'


def connection(name: str, policies: str, answer: tuple[int, str], *, caller: str = WEB) -> Odd:
    return Odd(name, policies, answer, b"shop:9080", method="CONNECT", host="shop:9080", caller=caller)


# at a service that speaks TCP
ODD_T = (
    connection("a connection", f'@id("p") {CONNECT};', ALLOWED),
    connection("no policy of connections", '@id("p") permit (principal, action in Action::"http", resource);', DENIED),
    connection("any action", '@id("p") permit (principal, action, resource);', ALLOWED),
    connection("a port", f'@id("p") {CONNECT} when {{ context.destination.port == 9080 }};', ALLOWED),
    connection("an address", f'@id("p") {CONNECT} when {{ context.source.ip.isInRange(ip("10.0.0.0/8")) }};', DENIED),
    connection("no name was asked for", f'@id("p") {CONNECT} when {{ context has sni }};', DENIED),
    connection(
        "who connects", f'@id("p") {CONNECT} when {{ principal is Workload && principal in Group::"fronts" }};', ALLOWED
    ),
    connection(
        "a forbid", f'@id("p") {CONNECT};\n@id("f") forbid (principal is Workload, action, resource);', (403, "f")
    ),
    connection("no workload", f'@id("p") {CONNECT};', BROKEN, caller=f"{world.TRUST}/agent/node"),
)


SNI = f'@id("p") {CONNECT} when {{{{ context has sni && context.sni {{}} }}}};'


def named(name: str, condition: str, answer: tuple[int, str], host: str = "shop", *said: bytes) -> Odd:
    headers = tuple(("x-policyd-sni", one) for one in said)
    return Odd(name, SNI.format(condition), answer, host.encode(), headers, method="CONNECT", host=host)


# at one that speaks TLS, by the name that the tunnel is for
ODD_S = (
    named("a tunnel's own name", '== "shop"', ALLOWED, "shop:9080"),
    named("a tunnel's own name in upper case", '== "shop"', ALLOWED, "SHOP:9080"),
    named("another name", '== "other"', DENIED, "shop:9080"),
    named("a name by a pattern", 'like "*.shop"', ALLOWED, "a.shop:443"),
    named("what a gateway says", '== "far.test"', ALLOWED, "shop:9080", b"far.test"),
    named("what a gateway says, not the tunnel's own", '== "shop"', DENIED, "shop:9080", b"far.test"),
    named("a gateway that says nothing", '== "shop"', ALLOWED, "shop:9080", b""),
    named("an address", '== "1.2.3.4"', ALLOWED, "shop:9080", b"1.2.3.4"),
    named("what is no name", 'like "*"', BROKEN, "shop:9080", b"a..b"),
    named("a name in upper case", 'like "*"', BROKEN, "shop:9080", b"Far.test"),
    named("two names", 'like "*"', BROKEN, "shop:9080", b"a", b"b"),
    named("two empty names", 'like "*"', BROKEN, "shop:9080", b"", b""),
    named("an address of IPv6", '== "[::1]"', ALLOWED, "[::1]:9080"),
    named("a name that ends in a dot", 'like "*"', BROKEN, "shop.:9080"),
    named("a name that is no text", 'like "*"', BROKEN, "shop:9080", b"a\xff"),
)


ANY_NAME = replace(named("any name", 'like "*"', ALLOWED), caller=STRANGER)


@pytest.fixture(scope="module")
def place(schema: Schema) -> Iterator[Place]:
    """An Envoy for all of them."""
    requests = world.mesh_of()
    connections, names = (
        world.mesh_of(world.WORKLOADS.replace("port: 9080,", f"port: 9080, protocol: {one},"), tokens="")
        for one in ("tcp", "tls")
    )
    cases = []
    for number, odd in enumerate((*ODD, *(replace(one, caller=STRANGER) for one in ODD_2), *ODD_T, *ODD_S, ANY_NAME)):
        mesh = connections if odd in ODD_T else names if odd in (*ODD_S, ANY_NAME) else requests
        ruling = make_ruling(mesh, load_policies({"p.cedar": odd.policies}, schema), schema)
        listener = mesh.listeners["shop-v1/inbound" if odd.caller else "shop-v1/inbound/plaintext"]
        compiled = Compiler(ruling).compile(listener)
        assert compiled.is_exact, (odd.name, compiled.left)
        cases.append(Case(number, ruling, listener, compiled))
    with running(cases) as place:
        yield place


@pytest.mark.parametrize("number", range(len(ODD)), ids=[odd.name for odd in ODD])
def test_both_give_the_answer(place: Place, number: int) -> None:
    odd = ODD[number]
    request = Asked(number, odd.method, odd.target, odd.host, odd.headers)
    ((_, answer),) = answers(place, odd.caller, "127.0.0.1", [request])
    assert (answer.central, answer.local) == (odd.answer, odd.answer)
    assert (DECISION_ID_HEADER in answer.headers) == (odd.answer[0] != 200)


@pytest.mark.needs("curl")
@pytest.mark.parametrize("number", range(len(ODD_2)), ids=[odd.name for odd in ODD_2])
def test_both_give_the_answer_over_http_2(place: Place, number: int) -> None:
    odd = ODD_2[number]
    request = Asked(len(ODD) + number, odd.method, odd.target, odd.host, odd.headers)
    answer = over_http_2(place, request)
    assert (answer.central, answer.local) == (odd.answer, odd.answer)


@pytest.mark.parametrize("number", range(len(ODD_T) + len(ODD_S)), ids=[odd.name for odd in (*ODD_T, *ODD_S)])
def test_both_give_the_answer_about_a_connection(place: Place, number: int) -> None:
    odd = (*ODD_T, *ODD_S)[number]
    request = Asked(len(ODD) + len(ODD_2) + number, odd.method, odd.target, odd.host, odd.headers)
    ((_, answer),) = answers(place, odd.caller, "127.0.0.1", [request])
    assert (answer.central, answer.local) == (odd.answer, odd.answer)


@pytest.mark.parametrize(
    ("authority", "said", "answer"),
    [
        ("shop:9080", (), True),
        ("[::1]:9080", (), True),
        ("shop:1:2", (), False),  # the client in it would be held to `shop`
        ("shop:1:2", (b"far.test",), True),  # and in this one to what the gateway says
        ("shop:9080", (b"a..b",), False),
    ],
)
def test_a_name_with_a_colon_in_it_is_none(place: Place, authority: str, said: Sequence[bytes], answer: bool) -> None:
    number = len((*ODD, *ODD_2, *ODD_T, *ODD_S))
    assert is_let_in(place, number, authority, said) is answer


def denial_of(answer: Answer) -> tuple[int, str, str, list[str]]:
    """What a caller sees of a denial."""
    assert answer.local is not None
    ours = sorted(name for name in answer.headers if name not in (CENTRAL, DETAILS, "date", "server"))
    return answer.local[0], answer.body, answer.headers["content-type"], ours


@pytest.mark.parametrize("reply_of", [reply.refuse_path, lambda id_: reply.deny(id_, "f"), reply.fail])
def test_denials_are_policyds_own_to_callers(place: Place, reply_of: Callable[[str], bytes]) -> None:
    said = envoy_api.message("envoy.service.auth.v3.CheckResponse").FromString(reply_of("0" * reply.ID_LENGTH))
    meant = said.denied_response if said.HasField("denied_response") else said.error_response
    number = next(at for at, odd in enumerate(ODD) if odd.answer[0] == meant.status.code)
    odd = ODD[number]
    sent = (*odd.headers, (DECISION_ID_HEADER, b"the-callers-own"))
    asked = [Asked(number, odd.method, odd.target, odd.host, sent) for _ in range(2)]
    both = [answer for _, answer in answers(place, odd.caller, "127.0.0.1", asked)]

    names = sorted(("content-length", "content-type", *(one.header.key for one in meant.headers)))
    assert [denial_of(one) for one in both] == [(meant.status.code, meant.body, "text/plain", names)] * 2
    ids = {one.headers[DECISION_ID_HEADER] for one in both}
    assert len({UUID(one).hex for one in ids}) == 2  # each its own, and not what was sent
