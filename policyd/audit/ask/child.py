"""The process that answers: DuckDB with one table, `records`, and everything else shut.

Law: one statement that selects, or nothing. Beyond DuckDB's own settings (no file but the copy's, no network, no
extension, no change of settings) the operating system lets this process write no file and use only so much memory and
time; where it has Landlock, this process opens nothing but the copy and code, and reaches no network. It is told a Task
on standard input, and answers on standard output, a line of JSON each.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import sys
from collections.abc import Iterator, Sequence
from datetime import date, datetime
from typing import Any, BinaryIO, Final

import duckdb
import msgspec

from policyd.audit.ask import landlock
from policyd.audit.ask.columns import empty_sql, quoted

FETCHED: Final = 2_000  # rows at a time
_SPARE_BYTES: Final = 2 << 30  # of address space: the interpreter, DuckDB's code, thread stacks, mapped files


class Question(msgspec.Struct, frozen=True):
    """One statement and what its `?` stand for."""

    sql: str
    values: tuple[Any, ...] = ()


class Task(msgspec.Struct, frozen=True):
    """What is asked of which files, and the bounds: bytes, seconds and threads."""

    files: tuple[str, ...]
    questions: tuple[Question, ...]
    memory: int
    seconds: int
    threads: int


class Answer(msgspec.Struct, frozen=True, omit_defaults=True):
    """A line of the answer: of each question the names of its columns, then its rows, then its end; or why not."""

    columns: tuple[str, ...] = ()
    row: tuple[Any, ...] = ()
    end: bool = False
    error: str = ""


_encode: Final = msgspec.json.Encoder(enc_hook=str).encode


def answer(connection: duckdb.DuckDBPyConnection, question: Question) -> Iterator[Answer]:
    """Answer a question; raises duckdb.Error and ValueError."""
    _check(connection, question.sql)
    connection.execute(question.sql, list(question.values))
    yield Answer(columns=tuple(str(one[0]) for one in connection.description or ()))
    while rows := connection.fetchmany(FETCHED):
        yield from (Answer(row=tuple(map(_plain, row))) for row in rows)
    yield Answer(end=True)


def _connect(task: Task) -> duckdb.DuckDBPyConnection:
    settings: dict[str, str | bool | int | float | list[str]] = {
        "threads": task.threads,
        "memory_limit": f"{task.memory}B",
        "temp_directory": "",
        "autoinstall_known_extensions": "false",
        "autoload_known_extensions": "false",
        "allow_community_extensions": "false",
    }
    connection = duckdb.connect(":memory:", config=settings)
    files = f"[{', '.join(map(quoted, task.files))}]"
    connection.execute("SET python_enable_replacements = false")  # else a name might be a variable of ours
    connection.execute(f"SET allowed_paths = {files}")
    table = f"SELECT * FROM read_parquet({files})" if task.files else empty_sql()  # noqa: S608 - our own names
    connection.execute(f"CREATE VIEW records AS {table}")
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")
    return connection


def _shut(task: Task) -> None:
    """What DuckDB was told, the operating system is told too."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (task.seconds * task.threads + 1,) * 2)
    resource.setrlimit(resource.RLIMIT_AS, (task.memory * 2 + _SPARE_BYTES,) * 2)


def _check(connection: duckdb.DuckDBPyConnection, sql: str) -> None:
    statements = connection.extract_statements(sql)
    if len(statements) != 1:
        raise ValueError(f"{len(statements) or 'no'} statements; ask one question at a time")
    if statements[0].type != duckdb.StatementType.SELECT:
        raise ValueError(f"a statement that is {statements[0].type.name}; only SELECT is answered")


def _plain(value: Any) -> Any:
    """Times are UTC, and say so."""
    if isinstance(value, datetime):
        return value.isoformat() + ("Z" if value.tzinfo is None else "")
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [_plain(one) for one in value]
    if isinstance(value, dict):
        return {str(name): _plain(one) for name, one in value.items()}
    return value.hex() if isinstance(value, bytes) else value


def main() -> None:
    """Answer the task on standard input; what goes wrong is the last line."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends this process without a word
    with contextlib.suppress(BrokenPipeError):  # nobody listens any more
        _answer_all(sys.stdin.buffer, sys.stdout.buffer)
        sys.stdout.buffer.flush()
    os._exit(0)  # nothing is to be kept


def _answer_all(asked: BinaryIO, out: BinaryIO) -> None:
    try:
        task = msgspec.json.decode(asked.read(), type=Task)
        landlock.shut(task.files)  # before there are threads, which are each shut in by themselves
        connection = _connect(task)
        _shut(task)
        for question in task.questions:
            out.writelines(_encode(line) + b"\n" for line in answer(connection, question))
            out.flush()
    except (duckdb.Error, ValueError, MemoryError, msgspec.MsgspecError) as error:
        out.write(_encode(Answer(error=_said(error))) + b"\n")


def _said(error: Exception) -> str:
    """DuckDB's message; without the line that points into the statement."""
    text = str(error) or type(error).__name__
    return text.split("\n\n")[0].removeprefix("Invalid Input Error: ")


if __name__ == "__main__":
    main()
