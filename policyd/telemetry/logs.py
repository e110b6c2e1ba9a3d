"""How policyd's own processes log: one event a line, JSON for machines, readable on a terminal.

Law: no credential passes: values of secret names are dropped whatever they are, in what the caller gave and in what
lies inside it. Lines of libraries take the same way.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping, MutableMapping
from typing import Any, Final, Literal, TextIO

import structlog
from structlog.typing import EventDict, Processor

Level = Literal["debug", "info", "warning", "error"]

DROPPED: Final = "[dropped]"
MAX_DEPTH: Final = 4
_SECRET_WORDS: Final = ("token", "secret", "password", "passphrase", "authorization", "cookie", "private")
_SECRET_ENDS: Final = ("key",)  # `key`, `api_key`, `private_key`; not `keys`, a number, nor `key_id`


def is_secret_name(name: str) -> bool:
    """Whether a value of this name is never logged."""
    folded = name.lower()
    return any(word in folded for word in _SECRET_WORDS) or folded.endswith(_SECRET_ENDS)


def without_secrets(value: Any, depth: int = 0) -> Any:
    """`value`, a mapping or a list with mappings in it, without what secret names hold; deeper than that, no more."""
    if isinstance(value, Mapping):
        if depth == MAX_DEPTH:
            return DROPPED
        return {
            name: DROPPED if is_secret_name(str(name)) else without_secrets(inner, depth + 1)
            for name, inner in value.items()
        }
    if isinstance(value, (list, tuple)):
        return DROPPED if depth == MAX_DEPTH else [without_secrets(inner, depth + 1) for inner in value]
    return value


def configure_logs(*, json_lines: bool | None = None, level: Level = "info", stream: TextIO | None = None) -> None:
    """Set up this process's logging, once, at its start; `stream` is standard error unless given.

    `json_lines` None means JSON wherever the stream is no terminal.
    """
    stream = stream or sys.stderr
    if json_lines is None:
        json_lines = not stream.isatty()
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _drop_secrets,
    ]
    handler = logging.StreamHandler(stream)
    handler.setFormatter(_formatter(shared, json_lines, colors=stream.isatty()))
    ours = logging.getLevelNamesMapping()[level.upper()]
    logging.basicConfig(handlers=[handler], level=max(ours, logging.INFO), force=True)  # libraries have their own debug
    logging.getLogger("policyd").setLevel(ours)
    logging.getLogger("uvicorn").setLevel(logging.WARNING)  # it announces each of its own steps
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(level.upper())),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )


def _formatter(shared: list[Processor], json_lines: bool, *, colors: bool) -> logging.Formatter:
    renderer: list[Processor] = (
        [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(default=str)]
        if json_lines
        else [_one_line, structlog.dev.ConsoleRenderer(colors=colors)]
    )
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderer],
    )


def _drop_secrets(_logger: Any, _method: str, event: EventDict) -> MutableMapping[str, Any]:
    # what begins with an underscore is structlog's own
    return {
        name: value if name.startswith("_") else DROPPED if is_secret_name(name) else without_secrets(value)
        for name, value in event.items()
    }


def _one_line(_logger: Any, _method: str, event: EventDict) -> EventDict:
    """Escape what would break the line, or steer the terminal."""
    return {name: _printable(value) if isinstance(value, str) else value for name, value in event.items()}


def _printable(text: str) -> str:
    return text if text.isprintable() else text.encode("unicode_escape").decode("ascii")
