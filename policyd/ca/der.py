"""DER (X.690), as far as certificates need it that are put together here: values cut apart, and made.

Law: what is cut apart was read by the X.509 library before, which refuses what is no DER.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Final, NamedTuple

SEQUENCE: Final = 0x30
INTEGER: Final = 0x02
BIT_STRING: Final = 0x03
UTC_TIME: Final = 0x17


class Part(NamedTuple):
    """Where a value starts, where its content does, and where it ends."""

    start: int
    content: int
    end: int


def parts(der: bytes, at: int, end: int) -> Iterator[Part]:
    """The values between `at` and `end`."""
    while at < end:
        length, content = der[at + 1], at + 2
        if length & 0x80:
            content += length & 0x7F
            length = int.from_bytes(der[at + 2 : content])
        yield Part(at, content, content + length)
        at = content + length


def bounds(der: bytes, at: int, end: int) -> list[int]:
    """Where the values between `at` and `end` start, and where the last one ends: as `parts`, for who needs no more."""
    found = [at]
    while at < end:
        length = der[at + 1]
        if length < 0x80:
            at += 2 + length
        else:
            content = at + 2 + (length & 0x7F)
            at = content + int.from_bytes(der[at + 2 : content])
        found.append(at)
    return found


def content(der: bytes, at: int) -> int:
    """Where the content of the value at `at` starts."""
    length = der[at + 1]
    return at + 2 if length < 0x80 else at + 2 + (length & 0x7F)


def inside(der: bytes, whole: Part) -> list[Part]:
    """The values that one is made of."""
    return list(parts(der, whole.content, whole.end))


def tlv(tag: int, *contents: bytes) -> bytes:
    """One value."""
    content = b"".join(contents)
    size = len(content)
    if size < 0x80:
        return bytes((tag, size)) + content
    length = size.to_bytes((size.bit_length() + 7) // 8)
    return bytes((tag, 0x80 | len(length))) + length + content


def key_id(spki: bytes) -> bytes:
    """RFC 5280, section 4.2.1.2, method 1: the SHA-1 of the key's bits; it names the key and protects nothing."""
    _, bits, end = bounds(spki, content(spki, 0), len(spki))
    return hashlib.sha1(spki[content(spki, bits) + 1 : end], usedforsecurity=False).digest()
