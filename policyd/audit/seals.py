"""Seals: signed lines, each chained to the one before, that say which segments are finished and what is in them.

Law: pure. A seal names the last sealed record of every writer and its hash, so that the writers' chains are bound
together; what was removed by policy is said by a seal too, before it is removed. `seals.jsonl` begins with a key: its
certificate chain, leaf first, which must lead to the mesh's root and bear the journal's identity; a signature is over
the line up to itself.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from binascii import Error as BinasciiError
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from hashlib import sha256
from typing import Final, Literal, NamedTuple, Protocol

import msgspec

from policyd.audit.record import Time, digest
from policyd.errors import BrokenRecord, PolicydError

SEALS_FILE: Final = "seals.jsonl"
MAX_SEAL_BYTES: Final = 4 << 20
GENESIS: Final = sha256(b"policyd journal seals").hexdigest()
_SIGNATURE: Final = b',"signature":"'
REMEDY: Final = "compare with a copy; from here on the seals prove nothing"


class Head(msgspec.Struct, frozen=True):
    """Up to where a writer is sealed: the last record, and the hash of its line."""

    seq: int
    hash: str


class Part(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One sealed segment: records `first` to `last` of `writer`; `end` is the hash of the last line.

    `sha256` and `bytes` are the sealed file's. `latest` is the newest time of its records. `missing` records before
    `first` were not there when it was sealed.
    """

    file: str
    writer: str
    first: int
    last: int
    end: str
    sha256: str
    bytes: int
    latest: Time
    missing: int = 0


class Seal(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One line of the seals' file: a `key` to sign with, a `seal` of segments, or what was `retired`, and why.

    Seals before number `pruned` may be gone from the file: all that they sealed is retired.
    """

    number: int
    time: Time
    kind: Literal["key", "seal", "retired"]
    prev: str
    key: str
    chain: tuple[str, ...] = ()
    segments: tuple[Part, ...] = ()
    retired: tuple[str, ...] = ()
    why: str = ""
    heads: dict[str, Head] = {}
    pruned: int = 0


class Signer(Protocol):
    """A key for seals, with the certificates that vouch for it (DER, leaf first)."""

    @property
    def chain(self) -> tuple[bytes, ...]:
        """The leaf and its intermediate."""

    def sign(self, data: bytes) -> bytes:
        """The signature of `data`."""


class Trusted(Protocol):
    """A key whose certificates were checked."""

    def verify(self, signature: bytes, data: bytes, time: datetime) -> None:
        """Raise PolicydError unless `data` was signed with it, at a time at which it was valid."""


class Trust(Protocol):
    """Who may seal."""

    def __call__(self, chain: tuple[bytes, ...], time: datetime, /) -> Trusted:
        """The key of a chain of certificates; raises PolicydError where it is not the journal's."""


class End(NamedTuple):
    """Where the seals' file ends: what the next line continues."""

    number: int = 0
    hash: str = GENESIS
    key: str = ""
    heads: Mapping[str, Head] = {}


_encoder: Final = msgspec.json.Encoder()
_decoder: Final = msgspec.json.Decoder(Seal)


def key_id(chain: Sequence[bytes]) -> str:
    """The SHA-256 of the leaf, in hex."""
    return sha256(chain[0]).hexdigest()


def encoded_chain(chain: Iterable[bytes]) -> tuple[str, ...]:
    """Certificates as a line has them."""
    return tuple(b64encode(one).decode() for one in chain)


def sign_line(seal: Seal, signer: Signer) -> bytes:
    """The line of a seal, signed, its newline included."""
    body = _encoder.encode(seal)[:-1]
    return body + _SIGNATURE + b64encode(signer.sign(body)) + b'"}\n'


def end_of(seal: Seal, line: bytes) -> End:
    """Where the file ends after this line."""
    return End(seal.number, digest(line), seal.key, seal.heads)


def read_seal(line: bytes) -> Seal:
    """A line as a seal, its signature not looked at; raises BrokenRecord."""
    if not line.endswith(b"\n") or len(line) > MAX_SEAL_BYTES:
        raise BrokenRecord("this line is no whole seal", remedy=REMEDY)
    try:
        return _decoder.decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BrokenRecord(f"no seal: {error}", remedy=REMEDY) from error


def check_seals(lines: Iterable[bytes], trust: Trust) -> Iterator[tuple[Seal, bytes]]:
    """Every seal of a file, in order; raises BrokenRecord at the first that is forged or does not follow.

    What is first may be any, since old seals are pruned once all that they sealed is retired; it is a key. Whether a
    later one says so is for who has read them all.
    """
    end: End | None = None
    trusted: Trusted | None = None
    for line in lines:
        seal = read_seal(line)
        if end is not None and (seal.number != end.number + 1 or seal.prev != end.hash):
            raise BrokenRecord(f"seal {seal.number} does not continue seal {end.number}", remedy=REMEDY)
        if seal.number == 1 and seal.prev != GENESIS:
            raise BrokenRecord("the first seal continues something", remedy=REMEDY)
        if seal.kind == "key":
            trusted = _trusted(seal, trust)
        if trusted is None or (seal.kind != "key" and end is not None and seal.key != end.key):
            raise BrokenRecord(f"seal {seal.number} is signed with a key that was not introduced", remedy=REMEDY)
        _check_signature(seal, line, trusted)
        if end is not None:
            _check_heads(seal, end.heads)
        yield seal, line
        end = end_of(seal, line)


def _trusted(seal: Seal, trust: Trust) -> Trusted:
    try:
        chain = tuple(b64decode(text, validate=True) for text in seal.chain)
        if not chain or key_id(chain) != seal.key:
            raise BrokenRecord(f"seal {seal.number} introduces another key than it names", remedy=REMEDY)
        return trust(chain, seal.time)
    except BinasciiError as error:
        raise BrokenRecord(f"seal {seal.number} has no certificates", remedy=REMEDY) from error
    except BrokenRecord:
        raise
    except PolicydError as error:
        raise BrokenRecord(
            f"the key of seal {seal.number} is not the journal's: {error.message}", remedy=REMEDY
        ) from error


def _check_signature(seal: Seal, line: bytes, trusted: Trusted) -> None:
    body, _, rest = line.rpartition(_SIGNATURE)
    try:
        signature = b64decode(rest.removesuffix(b'"}\n'), validate=True)
        trusted.verify(signature, body, seal.time)
    except (BinasciiError, PolicydError) as error:
        raise BrokenRecord(f"seal {seal.number} is forged: its signature does not fit", remedy=REMEDY) from error


def _check_heads(seal: Seal, before: Mapping[str, Head]) -> None:
    """Heads move by what is sealed, and by nothing else."""
    heads = dict(before)
    for part in seal.segments:
        known = heads.get(part.writer)
        if known is not None and part.first - part.missing != known.seq + 1:
            message = f"seal {seal.number} has record {part.first} of `{part.writer}` follow record {known.seq}"
            raise BrokenRecord(message, remedy=REMEDY)
        heads[part.writer] = Head(part.last, part.end)
    if heads != seal.heads:
        raise BrokenRecord(f"seal {seal.number} does not add up: its heads are not what it seals", remedy=REMEDY)
