"""The texts inside declared resources: labels, hosts, paths, header names, regexes; each is checked once.

Law: a check returns what it was given or raises ValueError with `what is wrong; what to do`. What passes here
is accepted by Envoy, so that a typing error shows in the file and not as a proxy's refusal.
"""

from __future__ import annotations

import difflib
import ipaddress
import re
from collections.abc import Iterable, Mapping, Sized
from typing import Any, Final

MAX_REGEX: Final = 1024
MAX_REPEATS: Final = 1000  # RE2's own limit
MAX_PARTS: Final = 4000  # written out, so that its program stays far below what our Envoys take
MAX_HOST: Final = 253
MAX_SUGGESTIONS: Final = 20
AUTHORITY: Final = ":authority"
CLAIMS: Final = "@request.auth.claims"  # in front of a claim's name where a header's is expected
RETRY_CONDITIONS: Final = frozenset(
    {
        "5xx", "gateway-error", "reset", "reset-before-request", "connect-failure", "envoy-ratelimited",
        "retriable-4xx", "refused-stream", "retriable-status-codes", "cancelled", "deadline-exceeded",
        "internal", "resource-exhausted", "unavailable",
    }
)  # fmt: skip

_LABEL_KEY = re.compile(r"(?:[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?/)?[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")
_LABEL_VALUE = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?")
_HOST = re.compile(r"(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.)*[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
_PATH = re.compile(r"/[^\x00-\x20\x7f?#]*")
_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,256}")  # RFC 9110, section 5.6.2
_NAMESPACE = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_PART = re.compile(
    r"\\.|\[(?:\\.|[^]\\])+\]|\{(?P<least>[0-9]{1,9})(?:,(?P<most>[0-9]{0,9}))?\}|[()]|[*+?]|.", re.DOTALL
)
# What RE2 has not: look-around, back references, atomic groups, possessive repeats.
_NOT_RE2 = re.compile(r"\(\?(?:[=!>(]|<[=!]|P=)|\\[1-9]|(?<!\\)[*+?}]\+")
# What Python's `re` reads otherwise than RE2; such a pattern is left to Envoy.
_ONLY_RE2 = re.compile(r"\\[pPzQEC]|\[\[|--|&&|\|\||~~|\(\?[a-zA-Z-]*[sU]")


def did_you_mean(name: str, known: Iterable[str], problems: Sized) -> str:
    """Return the question whether a known name was meant, "" if none is near.

    It takes time to compare with thousands of names: only the first of many `problems` get it.
    """
    near = difflib.get_close_matches(name, list(known), 1) if len(problems) < MAX_SUGGESTIONS else []
    return f"did you mean `{near[0]}`?" if near else ""


def check_labels(labels: Mapping[str, str]) -> Mapping[str, str]:
    """Return labels whose keys and values are Kubernetes' labels."""
    for key, value in labels.items():
        if not _LABEL_KEY.fullmatch(key):
            raise ValueError(f"`{key[:80]}` is no name of a label; use letters, digits, dots, dashes and underscores")
        if not _LABEL_VALUE.fullmatch(value):
            raise ValueError(
                f"`{value[:80]}` is no value of the label `{key}`; use at most 63 letters, digits, dots, "
                "dashes and underscores, a letter or a digit at both ends"
            )
    return labels


def check_host(host: str) -> str:
    """Return a lower-case DNS name or an IP address."""
    if len(host) > MAX_HOST or not (_HOST.fullmatch(host) or is_address(host)):
        raise ValueError(f"`{host[:80]}` is no host name; use lower-case letters, digits, dots and dashes, and no port")
    return host


def check_authority(text: str) -> str:
    """Return a host name or IP address, with or without a port, as Host may be."""
    host, colon, port = text.rpartition(":")
    if colon and port.isascii() and port.isdigit() and 0 < int(port[:6]) < 65536:
        check_host(host)
        return text
    return check_host(text)


def check_host_pattern(host: str) -> str:
    """Return a host name, `*`, or `*.` and a host name."""
    if "/" in host:
        raise ValueError(f"`{host[:80]}`: a namespace before a host is not supported yet; write the host alone")
    if host != "*":
        check_host(host.removeprefix("*."))
    return host


def check_ip(text: str) -> str:
    """Return an IP address in its usual form."""
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        raise ValueError(f"`{text[:80]}` is no IP address; write one, as in `127.0.0.1`") from None


def check_range(text: str) -> str:
    """Return an address or a range of addresses, as a range."""
    try:
        return str(ipaddress.ip_network(text, strict=False))
    except ValueError:
        raise ValueError(f"`{text[:80]}` is no address or range; write one, as in `192.0.2.0/24`") from None


def is_address(text: str) -> bool:
    """Whether a text is an IP address."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def check_path(path: str) -> str:
    """Return a path, or the start of one: a slash and what may follow it, without query and fragment."""
    if not _PATH.fullmatch(path) or len(path) > 2048:
        raise ValueError(f"`{path[:80]}` is no path; start it with a slash, without `?`, `#` and spaces")
    return path


def check_stat_prefix(text: str) -> str:
    """Return a part of a statistic's name."""
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,128}", text):
        raise ValueError(f"`{text[:80]}` is no part of a statistic's name; use letters, digits, dashes, underscores")
    return text


def check_set_header(name: str) -> str:
    """Return the name of an ordinary header or `:authority`, which may be written `host` too."""
    return AUTHORITY if name.lower() in (AUTHORITY, "host") else check_header_name(name)


def check_header_name(name: str) -> str:
    """Return the name of an ordinary header, in lower case as it is matched."""
    if name.startswith("@request.auth."):
        raise ValueError(f"`{name[:80]}` is a claim of a token, of which only `match` knows; remove it")
    if name.startswith(":") or name.lower() == "host":
        raise ValueError(f"`{name[:80]}` is no ordinary header; use `method`, `authority`, `uri` or `rewrite`")
    if not _TOKEN.fullmatch(name):
        raise ValueError(f"`{name[:80]}` is no name of a header")
    if name.lower().startswith("x-policyd-"):
        raise ValueError(f"`{name[:80]}` is policyd's own header; use another name")
    return name.lower()


def check_match_name(name: str) -> str:
    """Return the name of an ordinary header, or of a claim of a token."""
    if name.startswith("@"):
        claim_of(name)
        return name
    return check_header_name(name)


def claim_of(name: str) -> tuple[str, ...]:
    """The claim that `@request.auth.claims.a.b` or `@request.auth.claims[a][b.c]` names, from the outside in."""
    rest = name.removeprefix(CLAIMS)
    if name.startswith(CLAIMS) and re.fullmatch(r"(?:\.[^\s.\[\]]{1,256}){1,8}", rest):
        return tuple(rest[1:].split("."))
    if name.startswith(CLAIMS) and re.fullmatch(r"(?:\[[^\s\[\]]{1,256}\]){1,8}", rest):
        return tuple(rest[1:-1].split("]["))
    raise ValueError(f"`{name[:80]}` is no claim; write `{CLAIMS}.NAME`, or `{CLAIMS}[OUTER][INNER]`")


def check_distinct_headers(headers: Any) -> Any:
    """Return a mapping by header name, in which no name is there twice in different cases."""
    seen: set[str] = set()
    for name in headers if isinstance(headers, dict) else ():
        if name.startswith("@"):  # claims tell cases apart
            continue
        meant = AUTHORITY if name.lower() == "host" else name.lower()
        if meant in seen:
            raise ValueError(f"the header `{name[:80]}` is there twice; the case of its letters does not matter")
        seen.add(meant)
    return headers


def check_token(name: str) -> str:
    """Return the name of a cookie or of one of its attributes."""
    if not _TOKEN.fullmatch(name):
        raise ValueError(f"`{name[:80]}` is no name of a cookie; use letters, digits, dashes and underscores")
    return name


def check_header_value(value: str) -> str:
    """Return a header's value: one line, at most 4,096 characters."""
    if "\n" in value or "\r" in value or len(value) > 4096:
        raise ValueError("a header's value is one line of at most 4096 characters")
    return value


def check_regex(pattern: str) -> str:
    """Return a regex that RE2 accepts, as far as that can be told here."""
    if not pattern or len(pattern) > MAX_REGEX:
        raise ValueError(f"a regex has 1 to {MAX_REGEX} characters, this one {len(pattern)}")
    if found := _NOT_RE2.search(pattern):
        raise ValueError(f"RE2 does not have `{found.group()}`; write the regex without it")
    _check_repeats(pattern)
    if _ONLY_RE2.search(pattern):
        return pattern
    try:
        re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"`{pattern[:80]}` is no regex: {error}") from None
    return pattern


def _check_repeats(pattern: str) -> None:
    """Refuse what repeats more than a proxy would take: RE2 writes repeats out, those within repeats too."""
    groups = [(0, 1)]  # parts written out, and the deepest product of repeats; the last group is the open one
    last = (0, 1)
    for found in _PART.finditer(pattern):
        parts, deepest = groups[-1]
        if found.group() == "(":
            groups.append((0, 1))
        elif found.group() == ")" and len(groups) > 1:
            last = groups.pop()
            groups[-1] = groups[-1][0] + last[0], max(groups[-1][1], last[1])
        elif found["least"]:
            times = int(found["most"] or found["least"])
            groups[-1] = parts + last[0] * (times - 1), max(deepest, last[1] * times)
            last = last[0] * times, last[1] * times
        elif found.group() not in ("*", "+", "?"):
            last = 1, 1
            groups[-1] = parts + 1, deepest
    if max(deepest for _, deepest in groups) > MAX_REPEATS or sum(parts for parts, _ in groups) > MAX_PARTS:
        raise ValueError(f"the regex repeats its parts more than {MAX_REPEATS:,} times; write it with `*` or `+`")


def check_subset_name(name: str) -> str:
    """Return a subset's name: it becomes a part of a cluster's name and of a server name."""
    if not re.fullmatch(r"[A-Za-z0-9](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9])?", name):
        raise ValueError(f"`{name[:80]}` is no name of a subset; use at most 63 letters, digits and dashes")
    return name


def check_export(target: str) -> str:
    """Return what a resource is exported to: a namespace, `.` (its own) or `*` (all)."""
    if target not in (".", "*") and not _NAMESPACE.fullmatch(target):
        raise ValueError(f"`{target[:80]}` is no namespace; write one, `.` for its own or `*` for all")
    return target


def check_label_or_pair(text: str) -> str:
    """Return a label's name, or a name and a value as in `version=v1`."""
    name, equals, value = text.partition("=")
    check_labels({name: value if equals else ""})
    return text


def check_long_enough(seconds: float) -> float:
    """Return a duration of at least a millisecond."""
    if seconds < 0.001:
        raise ValueError("the shortest duration is `1ms`; write a longer one, or leave it out")
    return seconds


def check_whole_seconds(seconds: float) -> float:
    """Return a duration of whole seconds, as the system counts probes."""
    if seconds != int(seconds):
        raise ValueError("the system counts whole seconds here; write as in `75s`")
    return seconds


def check_credential(name: str) -> str:
    """Return the name of a folder below `credentials/`."""
    if not re.fullmatch(r"[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?", name):
        raise ValueError(f"`{name[:80]}` is no name of a credential; use lower-case letters, digits, dots and dashes")
    return name


def check_variables(variables: Mapping[str, str]) -> Mapping[str, str]:
    """Return environment variables whose names are POSIX names."""
    for name in variables:
        if not _VARIABLE.fullmatch(name):
            raise ValueError(f"`{name[:80]}` is no name of an environment variable; use letters, digits, underscores")
    return variables


def check_account_template(template: str) -> str:
    """Return the template of a service account's name, whose only placeholder is `{service}`."""
    sample = template.replace("{service}", "a")
    if not re.fullmatch(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?", sample) or len(template) > 128:
        raise ValueError(
            f"`{template[:80]}` makes no DNS label; use lower-case letters, digits, dashes and `{{service}}`"
        )
    return template
