"""One question: answered from the zone, passed on, refused or ignored.

Law: pure. What is no question of one name is never passed on; nobody is answered who did not ask.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import dns.exception
import dns.flags
import dns.message
import dns.opcode
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.rrset
from dns.rdtypes.IN import AAAA, A

from proxy.dns.zone import Addresses, Zone

MAX_QUESTION: Final = 1232  # bytes: what fits everywhere in one packet (RFC 9715)
MAX_ANSWER: Final = 65_535
PLAIN_UDP: Final = 512  # bytes, without EDNS
TTL: Final = 30  # seconds, Istio's
_HEADER: Final = 12  # bytes
_IS_ANSWER: Final = 0x80  # in the third byte


@dataclass(frozen=True, slots=True)
class Reply:
    """What is sent back."""

    packet: bytes


@dataclass(frozen=True, slots=True)
class Forward:
    """A question for the machine's resolvers."""

    question: dns.message.QueryMessage


def answer(zone: Zone, packet: bytes, *, tcp: bool = False) -> Reply | Forward | None:
    """What becomes of a packet; None: nothing, as it is no question."""
    if len(packet) < _HEADER or packet[2] & _IS_ANSWER:
        return None
    if len(packet) > MAX_QUESTION:
        return Reply(_refusal(packet, dns.rcode.FORMERR))
    try:
        question = dns.message.from_wire(packet)
    except dns.exception.DNSException:
        return Reply(_refusal(packet, dns.rcode.FORMERR))
    if question.opcode() != dns.opcode.QUERY or not isinstance(question, dns.message.QueryMessage):
        return Reply(_refusal(packet, dns.rcode.NOTIMP))
    if len(question.question) != 1 or question.answer or question.authority:
        return Reply(_refusal(packet, dns.rcode.FORMERR))
    [asked] = question.question
    if asked.rdclass == dns.rdataclass.IN:
        addresses = zone.names.get(asked.name.to_text(omit_final_dot=True).lower())
        if addresses is not None:
            return Reply(_found(question, asked, addresses, tcp=tcp))
    return Forward(question)


def failed(question: dns.message.QueryMessage) -> bytes:
    """What is sent back when no resolver answered."""
    reply = dns.message.make_response(question, recursion_available=True)
    reply.set_rcode(dns.rcode.SERVFAIL)
    return reply.to_wire()


def is_answer(packet: bytes, question: dns.message.QueryMessage, number: int) -> bool:
    """Whether a resolver's packet answers a question that was asked under a number."""
    if not _HEADER <= len(packet) <= MAX_ANSWER or not packet[2] & _IS_ANSWER:
        return False
    try:
        found = dns.message.from_wire(packet, question_only=True, ignore_trailing=True)
    except dns.exception.DNSException:
        return False
    return found.id == number and found.question == question.question


def is_refusal(packet: bytes) -> bool:
    """Whether a resolver answers that it cannot, or will not, so that another may be asked."""
    return packet[3] & 0x0F in (dns.rcode.SERVFAIL, dns.rcode.NOTIMP, dns.rcode.REFUSED)


def _found(question: dns.message.QueryMessage, asked: dns.rrset.RRset, addresses: Addresses, *, tcp: bool) -> bytes:
    reply = dns.message.make_response(question, recursion_available=True)
    reply.flags |= dns.flags.AA
    for kind, version in ((dns.rdatatype.A, 4), (dns.rdatatype.AAAA, 6)):
        texts = [str(one) for one in addresses if one.version == version]
        if asked.rdtype in (kind, dns.rdatatype.ANY) and texts:
            reply.answer.append(_rrset(asked, kind, texts))
    most = MAX_ANSWER if tcp else max(PLAIN_UDP, question.payload if question.edns >= 0 else 0)
    try:
        return reply.to_wire(max_size=min(most, MAX_ANSWER))
    except dns.exception.TooBig:
        reply.answer.clear()
        reply.flags |= dns.flags.TC
        return reply.to_wire()


def _rrset(asked: dns.rrset.RRset, kind: dns.rdatatype.RdataType, texts: list[str]) -> dns.rrset.RRset:
    """The addresses of a name as records, without a detour by the text of each."""
    make = A.A if kind == dns.rdatatype.A else AAAA.AAAA
    records: list[dns.rdata.Rdata] = [make(dns.rdataclass.IN, kind, text) for text in texts]
    return dns.rrset.from_rdata_list(asked.name, TTL, records)


def _refusal(packet: bytes, code: dns.rcode.Rcode) -> bytes:
    """The header of a question that is not answered, with the reason, and nothing else of it."""
    flags = bytes(((packet[2] & 0x79) | _IS_ANSWER, 0x80 | code))
    return packet[:2] + flags + bytes(8)
