"""The user of a recorded request, as far as a candidate reads one.

Law: a claim that is on record is known whole, whoever wanted it there; one that is not is known to have been absent
only where the policies of then would have recorded it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from policyd.cedar.reads import Reads

USER: Final = ("user",)
_ID, _CLAIMS = "__entity", "claims"
_ATTRIBUTES: Final = frozenset({"issuer", "subject"})  # of a User in the schema

Path = tuple[str, ...]


def paths_of_user(reads: Reads) -> Iterator[Path]:
    """All that is read of a user, as paths into the context of a record."""
    yield (*USER, _ID)
    yield from ((*USER, name) for name in sorted(reads.attributes & _ATTRIBUTES))
    if reads.tags is None:
        yield (*USER, _CLAIMS)
    else:
        yield from ((*USER, _CLAIMS, name) for name in sorted(reads.tags))


def lacking_of_user(kept: Any, reads: Reads, then: Reads | None) -> Iterator[Path]:
    """What is read of the user who is on record as `kept`, and not there; `then` was read then, None: nobody knows."""
    if not isinstance(kept, Mapping) or _ID not in kept:
        yield USER
        return
    claims = kept.get(_CLAIMS, {})
    for path in paths_of_user(reads):
        if path[1] != _CLAIMS:
            if path[1] not in kept:
                yield path
        elif not _is_known(path[2:], claims, then):
            yield path


def part_of_user(kept: Mapping[str, Any], reads: Reads) -> dict[str, Any]:
    """The user without the claims that are not read."""
    claims = kept.get(_CLAIMS, {})
    read = {name: claims[name] for name in claims if reads.tags is None or name in reads.tags}
    own = {name: value for name, value in kept.items() if name != _CLAIMS}
    return {**own, _CLAIMS: read} if read else own


def _is_known(name: Path, claims: Mapping[str, Any], then: Reads | None) -> bool:
    """Whether the claim is on record, or known to have been absent; without a name: all of them."""
    if name and name[0] in claims:
        return True
    return then is not None and (then.tags is None or (bool(name) and name[0] in then.tags))
