"""Questions: answered from the names of the mesh, passed on, refused or ignored; packets are hostile."""

from __future__ import annotations

import ipaddress

import dns.flags
import dns.message
import dns.opcode
import dns.rcode
import pytest
from hypothesis import given
from hypothesis import strategies as st

from policyd.errors import IdentityError
from proxy.dns.answer import Forward, Reply, answer, failed, is_answer
from proxy.dns.resolvers import is_local, resolvers
from proxy.dns.zone import MAX_NAMES, Zone, zone

V4, V6 = "243.1.2.3", "fd6d:6573:6800::1"
PACKED = (ipaddress.ip_address(V4).packed, ipaddress.ip_address(V6).packed)
ZONE = zone("web-1", "default", (".svc", ".svc.cluster.local"), [
    ("api.default", True, PACKED), ("far.away", True, PACKED), ("www.example.com", False, PACKED[:1]),
    ("many.example.com", False, [bytes((10, 0, 0, number)) for number in range(200)]),
])  # fmt: skip


def asked(name: str, kind: str = "A", edns: int = 0, **more: int) -> bytes:
    return dns.message.make_query(name, kind, use_edns=0 if edns else False, payload=edns or 0, **more).to_wire()


def answered(packet: bytes, *, tcp: bool = False) -> dns.message.Message:
    found = answer(ZONE, packet, tcp=tcp)
    assert isinstance(found, Reply), found
    return dns.message.from_wire(found.packet)


@pytest.mark.parametrize(
    ("name", "kind", "addresses"),
    [
        ("api", "A", [V4]),
        ("api.", "AAAA", [V6]),
        ("API.Default", "A", [V4]),
        ("api.default.svc", "A", [V4]),
        ("api.default.svc.cluster.local", "AAAA", [V6]),
        ("far.away.svc", "A", [V4]),
        ("www.example.com", "A", [V4]),
        ("www.example.com", "AAAA", []),  # there is none, which is no error
        ("api", "MX", []),
        ("api", "HTTPS", []),
        ("api", "ANY", [V4, V6]),
    ],
)
def test_names_of_the_mesh_are_answered(name: str, kind: str, addresses: list[str]) -> None:
    reply = answered(asked(name, kind))

    assert [str(one) for rrset in reply.answer for one in rrset] == addresses
    assert (reply.rcode(), bool(reply.flags & dns.flags.AA)) == (dns.rcode.NOERROR, True)


@pytest.mark.parametrize("name", ["far", "api.default.svc.cluster", "nothing.example.com", "xapi", "."])
def test_all_others_are_passed_on(name: str) -> None:
    assert isinstance(answer(ZONE, asked(name)), Forward)


def test_an_answer_that_is_too_long_is_cut_and_whole_by_tcp() -> None:
    cut, longer, whole = (
        answered(asked("many.example.com")),
        answered(asked("many.example.com", edns=4096)),
        answered(asked("many.example.com"), tcp=True),
    )

    assert bool(cut.flags & dns.flags.TC)
    assert not cut.answer
    assert [len(one.answer[0]) for one in (longer, whole)] == [200, 200]


TWO = dns.message.make_query("api", "A")
TWO.question.append(dns.message.make_query("far.away", "A").question[0])
NOTIFY = dns.message.make_query("api", "A")
NOTIFY.set_opcode(dns.opcode.NOTIFY)


@pytest.mark.parametrize(
    ("packet", "code"),
    [
        (asked("api")[:-3], dns.rcode.FORMERR),
        (asked("api") + bytes(1300), dns.rcode.FORMERR),
        (TWO.to_wire(), dns.rcode.FORMERR),
        (NOTIFY.to_wire(), dns.rcode.NOTIMP),
        (asked("api")[:12] + b"\xc0\x0c\0\x01\0\x01", dns.rcode.FORMERR),
    ],
    ids=["cut-off", "something-behind-it", "two-questions", "no-query", "a-name-that-points-to-itself"],
)
def test_what_is_no_question_is_refused(packet: bytes, code: dns.rcode.Rcode) -> None:
    found = answer(ZONE, packet)

    assert isinstance(found, Reply)
    assert (found.packet[:2], found.packet[3] & 15, len(found.packet)) == (packet[:2], code, 12)


@pytest.mark.parametrize(
    "packet", [b"", bytes(11), failed(dns.message.make_query("api", "A"))], ids=["nothing", "no-header", "an-answer"]
)
def test_nobody_is_answered_who_did_not_ask(packet: bytes) -> None:
    assert answer(ZONE, packet) is None


@given(st.binary(max_size=1400))
def test_no_packet_is_an_accident(packet: bytes) -> None:
    found = answer(ZONE, packet)

    assert found is None or isinstance(found, Reply | Forward)
    assert not isinstance(found, Reply) or found.packet[2] & 0x80


@given(st.integers(0, 40), st.integers(0, 255))
def test_nor_is_a_question_with_one_byte_changed(at: int, value: int) -> None:
    packet = bytearray(asked("api.default.svc.cluster.local"))
    packet[at % len(packet)] = value

    assert answer(ZONE, bytes(packet)) is None or isinstance(answer(ZONE, bytes(packet)), Reply | Forward)


def test_only_the_answer_to_the_question_is_one() -> None:
    question = dns.message.make_query("far.test", "A", id=7)
    right = dns.message.make_response(question).to_wire()
    other = dns.message.make_response(dns.message.make_query("other.test", "A", id=7)).to_wire()

    wrong = (right[:11], other, question.to_wire(), b"\0\7" + bytes(9))
    assert is_answer(right, question, 7)
    assert not any(is_answer(one, question, 7) for one in wrong)
    assert not is_answer(right, question, 8)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"names": [("no name", False, PACKED)]}, "`no name` is no name"),
        ({"names": [("a..b", True, PACKED)]}, "`a..b` is no name"),
        ({"names": [("api.default", True, ())]}, "`api.default` has no addresses"),
        ({"names": [("api.default", True, (b"123",))]}, "`api.default` has no addresses"),
        ({"suffixes": ["svc"]}, "names of services end in words that are none"),
        ({"names": [("a.b", False, PACKED)] * (MAX_NAMES + 1)},
         "an agent answers for at most 50000 names, not 50001"),
    ],
)  # fmt: skip
def test_what_policyd_says_is_checked(change: dict[str, object], message: str) -> None:
    good = {"instance": "web-1", "namespace": "default", "suffixes": [".svc"], "names": [("api.default", True, PACKED)]}
    with pytest.raises(IdentityError) as error:
        zone(**{**good, **change})  # type: ignore[arg-type]

    assert str(error.value) == message


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("nameserver 192.0.2.1\n", ("192.0.2.1",)),
        ("# nameserver 192.0.2.1\nnameserver 2001:db8::1 # mine\nsearch example.com\n", ("2001:db8::1",)),
        ("nameserver fe80::1%eth0\nnameserver\nnameserver x\n", ("fe80::1%eth0",)),
        ("".join(f"nameserver 192.0.2.{n}\n" for n in (1, 1, 2, 3, 4)), ("192.0.2.1", "192.0.2.2", "192.0.2.3")),
        ("", ()),
    ],
)
def test_resolvers_are_read(text: str, found: tuple[str, ...]) -> None:
    assert resolvers(text) == found


def test_a_stub_is_known() -> None:
    assert (is_local(("127.0.0.53", "::1")), is_local(("127.0.0.53", "192.0.2.1"))) == (True, False)


def test_a_zone_is_of_its_instance() -> None:
    assert isinstance(ZONE, Zone)
    assert ZONE.instance == "web-1"
