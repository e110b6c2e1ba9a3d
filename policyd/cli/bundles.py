"""What commands of bundles and of federation have in common: a bundle read from a file, its keys, and what is known."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from policyd._pb import authority_pb2 as pb
    from policyd.svid.bundle import Bundle


def read_document(file: Path) -> bytes:
    """A bundle from a file, as far as one is read; raises UsageError."""
    from policyd.errors import UsageError
    from policyd.svid.bundle import MAX_BYTES

    try:
        with file.open("rb") as opened:
            return opened.read(MAX_BYTES + 1)
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        raise UsageError(f"`{file}` cannot be read: {why}", remedy="name a file that is there") from None


def table_of(bundle: Bundle) -> object:
    """Each key of a bundle."""
    from policyd.cli import output

    rows = [
        ("x509-svid", root.subject.rfc4514_string(), f"until {root.not_valid_after_utc:%F %T} UTC")
        for root in bundle.authorities
    ]
    rows += [("jwt-svid", key.kid, "-") for key in bundle.jwt_keys]
    return output.table(("use", "key", "end"), rows)


def said(one: pb.Federated) -> str:
    """What is at hand, in one line."""
    numbers = f"sequence {one.sequence}, roots {one.roots}, keys of tokens {one.jwt_keys}"
    return f"the workloads of `{one.trust_domain}` are known: {numbers}"
