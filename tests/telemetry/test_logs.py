"""One event a line, and no credential in it."""

from __future__ import annotations

import io
import json
import logging
from typing import Any

import pytest
import structlog

from policyd.telemetry.logs import DROPPED, Level, configure_logs, is_secret_name, without_secrets

pytestmark = pytest.mark.usefixtures("logging_restored")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_an_event_is_one_line_of_json_where_there_is_no_terminal() -> None:
    stream = io.StringIO()
    configure_logs(stream=stream)
    structlog.get_logger("policyd.test").info("change.taken", revision="5f2e", text="two\nlines")
    (event,) = lines(stream)
    assert event.pop("timestamp").endswith("Z")
    assert event == {
        "event": "change.taken", "level": "info", "logger": "policyd.test",
        "revision": "5f2e", "text": "two\nlines",
    }  # fmt: skip


def test_a_terminal_gets_a_readable_line_that_does_not_steer_it() -> None:
    stream = Terminal()
    configure_logs(stream=stream)
    structlog.get_logger().warning("refused", reason="\x1b[2Jgone\nnext")
    text = stream.getvalue()
    assert text.count("\n") == 1
    assert "\x1b[2J" not in text
    assert "refused" in text


def test_lines_of_libraries_take_the_same_way() -> None:
    stream = io.StringIO()
    configure_logs(stream=stream)
    logging.getLogger("some.library").warning("it %s", "broke")
    (event,) = lines(stream)
    assert (event["event"], event["level"], event["logger"]) == ("it broke", "warning", "some.library")


@pytest.mark.parametrize(("level", "heard"), [("debug", 3), ("info", 2), ("warning", 1), ("error", 0)])
def test_what_is_below_the_level_is_not_written(level: Level, heard: int) -> None:
    stream = io.StringIO()
    configure_logs(stream=stream, level=level)
    log = structlog.get_logger("policyd.test")
    log.debug("a")
    log.info("b")
    logging.getLogger("library").warning("c")
    assert len(lines(stream)) == heard


@pytest.mark.parametrize("json_lines", [True, False])
def test_secrets_are_dropped_by_their_names(json_lines: bool) -> None:
    stream = io.StringIO()
    configure_logs(stream=stream, json_lines=json_lines)
    structlog.get_logger().info(
        "asked",
        join_token="hunter2",
        headers={"Authorization": "hunter2", "x": [{"cookie": "hunter2"}]},
        private_key=b"hunter2",
        agent="node-1",
    )
    assert "hunter2" not in stream.getvalue()
    assert "node-1" in stream.getvalue()


@pytest.mark.parametrize(
    ("name", "secret"),
    [
        ("token", True), ("join_token", True), ("client_secret", True), ("key", True), ("api-key", True),
        ("Password", True), ("passphrase_file", True), ("set-cookie", True), ("Proxy-Authorization", True),
        ("keys", False), ("key_id", False), ("agent", False), ("event", False),
    ],
)  # fmt: skip
def test_a_secret_is_known_by_its_name(name: str, secret: bool) -> None:
    assert is_secret_name(name) is secret


def test_what_is_too_deep_to_look_through_is_dropped() -> None:
    assert without_secrets({"a": {"b": {"c": {"d": {"e": 1}}}}}) == {"a": {"b": {"c": {"d": DROPPED}}}}


def test_an_exception_is_in_the_line() -> None:
    stream = io.StringIO()
    configure_logs(stream=stream)
    try:
        raise ValueError("broken")
    except ValueError:
        structlog.get_logger().exception("failed")
    (event,) = lines(stream)
    assert event["exception"].endswith("ValueError: broken")


def test_debug_is_ours_and_not_that_of_libraries() -> None:
    stream = io.StringIO()
    configure_logs(stream=stream, level="debug")
    structlog.get_logger("policyd.xds").debug("proxy.sent")
    logging.getLogger("grpc").debug("a loop was loaded")
    logging.getLogger("grpc").info("a port was bound")

    assert [one["event"] for one in lines(stream)] == ["proxy.sent", "a port was bound"]


@pytest.mark.parametrize("level", ["info", "warning", "error"])
def test_from_other_levels_on_all_are_heard_alike(level: Level) -> None:
    stream = io.StringIO()
    configure_logs(stream=stream, level=level)
    for name in ("policyd.xds", "grpc"):
        logging.getLogger(name).log(logging.getLevelName(level.upper()), "heard")
        logging.getLogger(name).log(logging.getLevelName(level.upper()) - 10, "not heard")

    assert [one["event"] for one in lines(stream)] == ["heard", "heard"]
