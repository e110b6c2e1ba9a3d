"""Expressions in CEL over a request, as far as proxies evaluate them: read, and their names and functions checked.

Law: pure. What Envoy would refuse is refused here; a misspelt attribute, which Envoy takes and never finds, too.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from policyd.access_log import HIDDEN_HEADERS
from policyd.mesh.matching import did_you_mean

MAX_LENGTH: Final = 1000
MAX_DEPTH: Final = 24

_CERTIFICATES: Final = frozenset({
    "subject_local_certificate", "subject_peer_certificate", "dns_san_local_certificate", "dns_san_peer_certificate",
    "uri_san_local_certificate", "uri_san_peer_certificate", "sha256_peer_certificate_digest", "tls_version",
    "transport_failure_reason",
})  # fmt: skip
# Envoy's attributes (arch_overview/advanced/attributes); None: what is inside depends on others
ATTRIBUTES: Final[dict[str, frozenset[str] | None]] = {
    "request": frozenset({
        "path", "url_path", "host", "scheme", "method", "headers", "referer", "useragent", "time", "id", "protocol",
        "query", "duration", "size", "total_size",
    }),
    "response": frozenset({
        "code", "code_details", "flags", "grpc_status", "headers", "trailers", "size", "total_size", "backend_latency",
    }),
    "source": frozenset({"address", "port"}),
    "destination": frozenset({"address", "port"}),
    "connection": _CERTIFICATES | {"id", "mtls", "requested_server_name", "termination_details"},
    "upstream": _CERTIFICATES | {"address", "port", "local_address", "request_attempt_count", "locality"},
    "xds": frozenset({
        "node", "cluster_name", "cluster_metadata", "listener_direction", "listener_metadata", "route_name",
        "route_metadata", "upstream_host_metadata", "filter_chain_name",
    }),
    "metadata": None,
    "filter_state": None,
    "upstream_filter_state": None,
}  # fmt: skip
FUNCTIONS: Final = frozenset({"has", "size", "int", "uint", "double", "timestamp", "duration"})
METHODS: Final = frozenset({"contains", "startsWith", "endsWith", "matches", "size"})
_RESERVED: Final = frozenset({
    "as", "break", "const", "continue", "else", "for", "function", "if", "import", "in", "let", "loop", "package",
    "namespace", "return", "var", "void", "while",
})  # fmt: skip
_CONSTANTS: Final = frozenset({"true", "false", "null"})
_BINARY: Final = frozenset({"||", "&&", "==", "!=", "<", "<=", ">", ">=", "in", "+", "-", "*", "/"})
_TOKEN: Final = re.compile(
    r"""\s*(?:
    (?P<text>'(?:[^'\\\n]|\\[abfnrtv\\?"'`])*'|"(?:[^"\\\n]|\\[abfnrtv\\?"'`])*"|[rR](?:'[^'\n]*'|"[^"\n]*"))
    |(?P<number>[0-9]{1,18}\.[0-9]{1,18}(?:[eE][+-]?[0-9]{1,2})?|[0-9]{1,18}[uU]?)
    |(?P<name>[A-Za-z_][A-Za-z0-9_]*)
    |(?P<sign>\|\||&&|==|!=|<=|>=|[<>+\-*/!?:.,()\[\]])
    )""",
    re.VERBOSE,
)
_END: Final = ("end", "")


@dataclass(frozen=True, slots=True)
class Expression:
    """What an expression reads: attributes, each by its names; None is one that is only known once it is evaluated."""

    reads: tuple[tuple[str | None, ...], ...]


def check_cel(text: str) -> str:
    """Return an expression that proxies evaluate; raises ValueError."""
    parse_cel(text)
    return text


def check_shown(text: str) -> str:
    """The same of one whose value people are shown: it shows no credential, and no query of a URL."""
    for path in parse_cel(text).reads:
        match path:
            case ("request" | "response" as side, "headers" | "trailers", str() as name) if (
                name.lower() in HIDDEN_HEADERS
            ):
                what = HIDDEN_HEADERS[name.lower()]
                raise ValueError(f"`{side}.headers['{name}']` is {what}, which no label shows")
            case ("request" | "response", "headers" | "trailers") | (_, "headers" | "trailers", None):
                raise ValueError("of headers a label shows one by its name, as in `request.headers['x-team']`")
            case ("request", "path" | "query" | "referer", *_):
                raise ValueError(
                    f"`request.{path[1]}` has a query, which may hold what nobody should see; use `request.url_path`"
                )
    return text


def parse_cel(text: str) -> Expression:
    """Read an expression; raises ValueError."""
    if len(text) > MAX_LENGTH:
        raise ValueError(f"an expression has at most {MAX_LENGTH} characters, this one {len(text)}")
    parser = _Parser(list(_tokens(text)))
    parser.expression(0)
    parser.expect("end")
    return Expression(tuple(parser.reads))


def _tokens(text: str) -> Iterator[tuple[str, str]]:
    at, text = 0, text.rstrip()
    while at < len(text):
        found = _TOKEN.match(text, at)
        if found is None:
            raise ValueError(f"`{text[at : at + 20].lstrip()}` is no part of an expression")
        kind = str(found.lastgroup)
        if kind == "name" and found[kind] == "in":
            kind = "sign"
        yield kind, found[found.lastgroup or 0].strip()
        at = found.end()


class _Parser:
    """Goes through the tokens once; `reads` are the attributes that were met."""

    def __init__(self, tokens: list[tuple[str, str]]) -> None:
        self.reads: list[tuple[str | None, ...]] = []
        self._tokens = tokens
        self._at = 0

    def expression(self, depth: int) -> None:
        """`a`, `a && b`, `a ? b : c`."""
        if depth > MAX_DEPTH:
            raise ValueError(f"an expression is at most {MAX_DEPTH} deep")
        self._operands(depth)
        if self._takes("?"):
            self._operands(depth)
            self.expect(":")
            self.expression(depth + 1)

    def expect(self, sign: str) -> None:
        """Take a sign, or the end; raises ValueError for anything else."""
        if sign == "end" and self._now == _END:
            return
        if not self._takes(sign):
            raise ValueError(f"{self._here()}, and {'nothing more' if sign == 'end' else f'`{sign}`'} is expected")

    @property
    def _now(self) -> tuple[str, str]:
        return self._tokens[self._at] if self._at < len(self._tokens) else _END

    def _here(self) -> str:
        return "the expression ends" if self._now == _END else f"there is `{self._now[1][:20]}`"

    def _takes(self, sign: str) -> bool:
        if self._now == ("sign", sign):
            self._at += 1
            return True
        return False

    def _next(self) -> tuple[str, str]:
        found = self._now
        self._at += 1
        return found

    def _operands(self, depth: int) -> None:
        self._operand(depth)
        while self._now[0] == "sign" and self._now[1] in _BINARY:
            self._at += 1
            self._operand(depth)

    def _operand(self, depth: int) -> None:
        sign = "!" if self._now == ("sign", "!") else "-"
        while self._takes(sign):
            pass
        path = self._primary(depth)
        while True:
            if self._takes("."):
                path = self._member(path, depth)
            elif self._takes("["):
                path = self._index(path, depth)
            else:
                break
        self._note(path)

    def _primary(self, depth: int) -> list[str | None] | None:
        """Gives the beginning of an attribute's path; None for any other value."""
        kind, word = self._now
        if kind in ("text", "number") or (kind == "name" and word in _CONSTANTS):
            self._at += 1
            return None
        if kind == "name" and word not in _RESERVED:
            self._at += 1
            return self._named(word, depth)
        if self._takes("("):
            self.expression(depth + 1)
            self.expect(")")
            return None
        if self._takes("["):
            self._arguments("]", depth)
            return None
        raise ValueError(f"{self._here()}, and a value is expected")

    def _named(self, word: str, depth: int) -> list[str | None] | None:
        if self._takes("("):
            if word not in FUNCTIONS:
                raise ValueError(f"`{word}` is no function that proxies know{_near(word, FUNCTIONS)}")
            self._call(word, depth)
            return None
        if word not in ATTRIBUTES:
            raise ValueError(f"`{word}` is no attribute of a request{_near(word, ATTRIBUTES)}")
        return [word]

    def _call(self, word: str, depth: int) -> None:
        begin = self._at
        count = self._arguments(")", depth)
        ends_in_a_name = self._tokens[self._at - 2][0] == "name" and self._tokens[self._at - 3] == ("sign", ".")
        if count != 1 or (word == "has" and not (self._at - begin >= 4 and ends_in_a_name)):
            example = "a field, as in `has(request.headers.x)`" if word == "has" else "one value"
            raise ValueError(f"`{word}` takes {example}")

    def _member(self, path: list[str | None] | None, depth: int) -> list[str | None] | None:
        kind, word = self._next()
        if kind != "name" or word in _RESERVED | _CONSTANTS:
            self._at -= 1
            raise ValueError(f"{self._here()}, and a name is expected after `.`")
        if self._takes("("):
            if word not in METHODS:
                raise ValueError(f"`{word}` is no function that proxies know{_near(word, METHODS)}")
            self._note(path)
            if self._arguments(")", depth) != (word != "size"):
                raise ValueError(f"`{word}` takes {'nothing' if word == 'size' else 'one value'}")
            return None
        return [*path, word] if path is not None else None

    def _index(self, path: list[str | None] | None, depth: int) -> list[str | None] | None:
        kind, word = self._now
        self.expression(depth + 1)
        is_text = kind == "text" and self._tokens[self._at - 1] == (kind, word)
        self.expect("]")
        return [*path, word.lstrip("rR")[1:-1] if is_text else None] if path is not None else None

    def _arguments(self, end: str, depth: int) -> int:
        """Take values up to `end`, and return how many there were."""
        if self._takes(end):
            return 0
        count = 1
        self.expression(depth + 1)
        while self._takes(","):
            self.expression(depth + 1)
            count += 1
        self.expect(end)
        return count

    def _note(self, path: list[str | None] | None) -> None:
        if path is None:
            return
        root = str(path[0])
        known = ATTRIBUTES[root]
        if known is not None and len(path) > 1 and path[1] not in known:
            raise ValueError(f"`{root}.{path[1]}` is no attribute of a request{_near(str(path[1]), known)}")
        if known is not None and len(path) == 1:
            raise ValueError(f"`{root}` is no value; name a field of it, as in `{root}.{min(known)}`")
        self.reads.append(tuple(path))


def _near(word: str, known: Iterable[str]) -> str:
    found = did_you_mean(word, known, ())
    return f"; {found}" if found else ""
