"""What never reaches the journal: credentials, wherever they stand in an entry.

Law: pure, and applied before anything is buffered: the fence is in the journal itself, so that no caller can forget it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
from msgspec.structs import replace

from policyd.audit.record import Entry, Fault

MASK: Final = "[masked]"

# Names, in lower case, whose values are credentials wherever they stand.
SECRET_NAMES: Final = frozenset(
    {
        "authorization",
        "proxy-authorization",
        "cookie",
        "set-cookie",
        "x-api-key",
        "x-auth-token",
        "x-amz-security-token",
        "token",
        "access_token",
        "id_token",
        "refresh_token",
        "client_secret",
        "secret",
        "password",
        "private_key",
    }
)

# A JSON Web Token, the value of an Authorization header (RFC 9110, section 11.4), a join token, a private key in PEM.
_TOKEN: Final = re.compile(
    r"eyJ[A-Za-z0-9_-]{5,}(?:\.[A-Za-z0-9_-]*){1,4}"
    r"|\b(?i:bearer|basic)(?:\s|%20|\+)+(?=[a-z._~+/-]*[A-Z0-9=])[A-Za-z0-9._~+/=-]{8,}"
    r"|policyd1\.[A-Za-z0-9_=-]+"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----(?s:.*?)(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)",
    re.ASCII,
)


_encoder: Final = msgspec.json.Encoder()
PLAIN_IDS: Final = re.compile(r"[0-9a-f-]*").fullmatch
_PLAIN: Final = b"0123456789abcdef-"
_MAX_CLEAN: Final = 4096
_MAX_CLEAN_BYTES: Final = 4096
_clean_texts: Final[set[bytes]] = set()  # looked at before, without a secret: requests are much alike


def may_hold_secret(entry: Entry) -> bool:
    """Whether an entry that has a line deserves a closer look: cheap, never no where `mask` would change it."""
    ids = (entry.request_id + entry.trace_id + entry.span_id).encode("utf-8", "surrogatepass")
    if ids.translate(None, _PLAIN) and _is_suspicious(ids):
        return True
    texts = (entry.context, entry.detail, entry.errors, entry.resource)
    body = _encoder.encode((*texts, entry.shadow.errors) if entry.shadow else texts)
    if body in _clean_texts:
        return False
    if _is_suspicious(body):
        return True
    if len(body) <= _MAX_CLEAN_BYTES:
        if len(_clean_texts) >= _MAX_CLEAN:
            _clean_texts.clear()
        _clean_texts.add(body)
    return False


def _is_suspicious(text: bytes) -> bool:
    folded = text.lower()
    return (  # written out: any() over a table takes five times as long
        b"eyj" in folded
        or b"bearer" in folded
        or b"basic" in folded
        or b"policyd1." in folded
        or b"private key" in folded
        or b'token":' in folded
        or b'secret":' in folded
        or b'thorization":' in folded
        or b'cookie":' in folded
        or b'password":' in folded
        or b'_key":' in folded
        or b'api-key":' in folded
    )


def mask(entry: Entry) -> Entry:
    """`entry` without credentials in what callers have a hand in; `masked` grows by the paths into its context.

    Its other texts are policyd's own, or names that were checked: ids, policies, identities.
    """
    masked = list(entry.masked)
    context = _clean_all(entry.context, "", masked)
    return replace(
        entry,
        resource=mask_text(entry.resource),
        errors=_clean_faults(entry.errors),
        shadow=replace(entry.shadow, errors=_clean_faults(entry.shadow.errors)) if entry.shadow else None,
        request_id=mask_text(entry.request_id),
        trace_id=mask_text(entry.trace_id),
        span_id=mask_text(entry.span_id),
        context=context,
        detail=_clean_all(entry.detail, "", []),
        masked=tuple(dict.fromkeys(masked)),
    )


def _clean_faults(faults: Sequence[Fault]) -> tuple[Fault, ...]:
    return tuple(Fault(mask_text(fault.source), mask_text(fault.message)) for fault in faults)


def mask_text(text: str) -> str:
    """`text` with every token in it replaced."""
    return _TOKEN.sub(MASK, text)


def _clean_all(values: Mapping[str, Any], prefix: str, masked: list[str]) -> dict[str, Any]:
    cleaned: dict[str, Any] = {}
    for name, value in values.items():
        clean = mask_text(name)
        path = prefix + clean
        if clean != name:
            masked.append(path)
        cleaned[clean] = _clean(value, name, path, masked)
    return cleaned


def _clean(value: Any, name: str, path: str, masked: list[str]) -> Any:
    if name.isascii() and name.lower() in SECRET_NAMES and value not in (None, "", MASK):
        masked.append(path)
        return MASK
    if isinstance(value, str):
        clean = mask_text(value)
        if clean != value:
            masked.append(path)
        return clean
    if isinstance(value, Mapping):
        return _clean_all(value, f"{path}.", masked)
    if isinstance(value, (list, tuple)):
        return [_clean(item, "", f"{path}.{place}", masked) for place, item in enumerate(value)]
    return value
