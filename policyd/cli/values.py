"""What people write on the command line, as values: lengths of time, workloads by their short names."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from policyd.errors import NotFound, SpiffeIdError, UsageError
from policyd.spiffe import SCHEME, SpiffeId

if TYPE_CHECKING:
    from policyd._pb import admin_pb2 as pb
    from policyd.policy.end_user import Shown

_SIZE = re.compile(r"([0-9]{1,6})(KiB|MiB|GiB)")


def seconds(text: str) -> int:
    """Return whole seconds of `10m` or `1h`, 0 for no text; raises UsageError."""
    from policyd.strict import parse_duration

    if not text:
        return 0
    try:
        found = parse_duration(text)
    except ValueError as error:
        raise UsageError(str(error)) from None
    if found < 1:
        raise UsageError(f"`{text[:80]}` is less than a second", remedy="write it as in `10m` or `1h`")
    return int(found)


def size(text: str) -> int:
    """Return bytes of `512MiB` or `1GiB`; raises UsageError."""
    match = _SIZE.fullmatch(text)
    if match is None or not int(match[1]):
        raise UsageError(f"`{text[:80]}` is no size", remedy="write it as in `512MiB` or `2GiB`")
    return int(match[1]) << {"KiB": 10, "MiB": 20, "GiB": 30}[match[2]]


def workload_id(text: str, trust_domain: str, places: Sequence[pb.InstancePlace]) -> SpiffeId:
    """Return the SPIFFE ID of a workload.

    `text` is the id itself, the name of one of its instances, or its service account or service, with or without the
    namespace.
    Raises NotFound where it names none of `places`, or several, UsageError for what is no SPIFFE ID and looks like one.
    """
    if text.startswith(SCHEME):
        try:
            return SpiffeId.parse(text)
        except SpiffeIdError as error:
            raise UsageError(error.message, remedy=error.remedy) from None
    names: dict[str, set[SpiffeId]] = {}
    for place in places:
        spiffe_id = SpiffeId.parse(place.spiffe_id)
        account = spiffe_id.service_account or ""
        own = f"{account}.{spiffe_id.namespace}"
        for name in (place.name, account, own, place.service, place.service.partition(".")[0]):
            names.setdefault(name, set()).add(spiffe_id)
    found = names.get(text, set()) if text else set()
    if len(found) == 1:
        return next(iter(found))
    if found:
        raise NotFound(f"`{text[:80]}` may be one of several workloads", remedy="name an instance of it")
    near = difflib.get_close_matches(text, sorted(names), 1) if text else []
    remedy = f"did you mean `{near[0]}`?" if near else f"name an instance, or write `{SCHEME}{trust_domain}/...`"
    raise NotFound(f"`{text[:80]}` is no workload of this mesh", remedy=remedy)


def shown_user(user: str, claims: Sequence[str]) -> Shown | None:
    """Return the user with the claims of `name=value` texts, repeated ones a list; None without one.

    Raises UsageError.
    """
    from policyd.policy.end_user import Shown

    found: dict[str, list[str]] = {}
    for text in claims:
        name, equals, value = text.partition("=")
        if not name or not equals:
            raise UsageError(f"`{text[:80]}` is no claim", remedy="write it as in `roles=editor`")
        found.setdefault(name, []).append(value)
    if not user and found:
        raise UsageError("a claim is of a user", remedy="add `--user ISSUER/SUBJECT`")
    single = {name: values[0] if len(values) == 1 else values for name, values in found.items()}
    return Shown(user, single) if user else None
