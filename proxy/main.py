"""`policyd-proxy`: read the command line, and nothing else of the world but POLICYD_ENVOY; then run the agent.

Law: argparse and late imports only; the agent is one of many on a small machine, and its memory counts.
"""

from __future__ import annotations

import argparse
import asyncio
import fcntl
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from policyd.envoy_api import EnvoyApi, envoy_binary
from policyd.errors import PolicydError, StateError, TokenError, UsageError
from policyd.join_token import JoinToken, parse_token
from policyd.names import ENVOY_LEVELS
from proxy.agent import SPOOLS, Agent
from proxy.bootstrap import Endpoint
from proxy.capture import command as capture
from proxy.dns.resolvers import RESOLV_CONF
from proxy.entry import Entry
from proxy.lifecycle import Limits
from proxy.outside import Outside, utc_now
from proxy.scrape import DEFAULT, Where
from proxy.sidecar import LEAST_MEMORY, MEMORY, MOST_MEMORY, Settings
from proxy.speech import Speech
from proxy.state import StateFolder
from proxy.workload_server import SOCKET, Place

OK, FAILED, INVALID, USAGE = 0, 1, 3, 64
_MAX_TOKEN_FILE = 4096
OF_ENVOYS: Final[dict[str, Any]] = {
    "drain": Limits().drain,
    "concurrency": 1,
    "envoy_memory": MEMORY >> 20,
    "envoy_log_level": "warning",
    "resolv_conf": RESOLV_CONF,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code: 0 ok, 1 error, 3 invalid input, 64 wrong usage."""
    options = _parser().parse_args(arguments)
    try:
        if options.command == "capture":
            return capture.run(options)
        envoy = os.environ.get("POLICYD_ENVOY")
        return asyncio.run(_run(options, Path(envoy).absolute() if envoy else None))
    except PolicydError as error:
        print(f"policyd-proxy: {error}", file=sys.stderr)
        if isinstance(error, UsageError):
            return USAGE
        return INVALID if isinstance(error, TokenError) else FAILED
    except KeyboardInterrupt:
        return FAILED


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> None:  # type: ignore[override]
        self.print_usage(sys.stderr)
        self.exit(USAGE, f"{self.prog}: {message}\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="policyd-proxy", description="Runs Envoys and keeps the identities of the workloads beside them."
    )
    commands = parser.add_subparsers(dest="command", required=True, parser_class=_Parser)
    run = commands.add_parser(
        "run",
        help="join a mesh and run the sidecars assigned to this agent",
        description="Joins a mesh, then runs one Envoy for each sidecar that policyd assigns to this agent, until "
        "it is stopped. What happens is printed as one JSON object a line.",
    )
    add = run.add_argument
    joining = run.add_mutually_exclusive_group()
    joining.add_argument(
        "--join", metavar="TOKEN", help="the join token, from `policyd ca token create`; - reads a line"
    )
    joining.add_argument("--join-file", metavar="FILE", type=Path, help="a file that holds the join token")
    add("--dir", metavar="STATE", type=Path, help="keep the agent's identity and Envoy's logs here between runs")
    add("--name", help="the agent's name, where the token or the kept identity must be this agent's")
    add(
        "--server", metavar="HOST:PORT", help="policyd's address for agents, where the one it tells does not lead there"
    )
    add("--runtime", metavar="FOLDER", type=Path, help="sockets and status.json go here (default: a temporary folder)")
    add(
        "--workload-api",
        metavar="SOCKET",
        type=Path,
        help="serve SPIFFE's Workload API here, to all users (default: in the runtime folder, to this user)",
    )
    add(
        "--drain",
        metavar="SECONDS",
        type=_seconds,
        help="how long a stop waits for requests and tunnels that are under way, at most (default: 5)",
    )
    add("--concurrency", metavar="N", type=_workers, help="worker threads of each Envoy (default: 1)")
    text = f"memory that each Envoy may take, its code not counted; beyond it answers 503 (default: {MEMORY >> 20})"
    add("--envoy-memory", metavar="MIB", type=_memory, help=text)
    text = "trace, debug, info, warning, error, critical or off (default: warning)"
    add("--envoy-log-level", metavar="LEVEL", choices=ENVOY_LEVELS, help=text)
    text = "run the commands by which WorkloadGroups of the mesh ask applications (exec probes)"
    add("--run-probe-commands", action="store_true", help=text)
    add(
        "--metrics",
        metavar="HOST:PORT",
        type=_endpoint,
        help=f"serve metrics for Prometheus here, port 0: any (default: {DEFAULT}, another where that is in use)",
    )
    text = f"whom captured applications ask for names that are none of the mesh (default: {RESOLV_CONF})"
    add("--resolv-conf", metavar="FILE", type=Path, help=text)
    text = "start no Envoy: serve the instances that are declared proxyless, whose applications speak xDS by themselves"
    add("--proxyless", action="store_true", help=text)
    add("--exit-with-parent", action="store_true", help="stop when standard input ends")
    capture.add_to(commands, _Parser)
    return parser


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1
    if not 0 <= value <= 3600:
        raise argparse.ArgumentTypeError(f"`{text}` is no number of seconds from 0 to 3600")
    return value


def _endpoint(text: str) -> Endpoint:
    try:
        return Endpoint.parse(text, any_port=True)
    except PolicydError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _workers(text: str) -> int:
    return _whole(text, 1, 256, "threads")


def _memory(text: str) -> int:
    return _whole(text, LEAST_MEMORY >> 20, MOST_MEMORY >> 20, "MiB")


def _whole(text: str, least: int, most: int, unit: str) -> int:
    try:
        value = int(text)
    except ValueError:
        value = -1
    if not least <= value <= most:
        raise argparse.ArgumentTypeError(f"`{text}` is no whole number of {unit} from {least} to {most}")
    return value


def _settle(options: argparse.Namespace) -> None:
    """Give what was not said its value; raises UsageError for what only an Envoy needs where none is started."""
    for name, value in OF_ENVOYS.items():
        if getattr(options, name) is None:
            setattr(options, name, value)
        elif options.proxyless:
            flag = f"--{name.replace('_', '-')}"
            problem = f"`{flag}` is for Envoys, and with --proxyless none is started"
            raise UsageError(problem, remedy="leave it out")


async def _run(options: argparse.Namespace, envoy: Path | None) -> int:
    _settle(options)
    token = _token(options)
    binary = envoy_binary(envoy)
    speech = Speech(sys.stdout, utc_now)
    outside = Outside(speech.say)
    state = StateFolder(options.dir.absolute()) if options.dir else None
    runtime, ours = _runtime(options.runtime)
    try:
        logs = (state.folder if state else runtime) / "logs"
        logs.mkdir(mode=0o700, exist_ok=True)
        limits = Limits(drain=options.drain)
        settings = Settings(
            binary,
            runtime,
            logs,
            limits,
            options.concurrency,
            options.envoy_log_level,
            options.run_probe_commands,
            options.resolv_conf,
            options.proxyless,
            options.envoy_memory << 20,
        )
        metrics = Where(options.metrics, strict=True) if options.metrics else Where()
        entry = Entry(token, state, options.server, options.name)
        place = _place(options.workload_api, runtime)
        agent = Agent(entry, settings, EnvoyApi(binary), outside, metrics, place, speech)
        outside.say("agent.started", pid=os.getpid(), runtime=str(runtime))
        _stop_on_signals(agent, watch_input=options.exit_with_parent)
        await agent.run()
    finally:
        _clean(runtime, ours, logs_too=state is None)
        if state is not None:
            state.close()
    return OK


def _token(options: argparse.Namespace) -> JoinToken | None:
    if options.join == "-":
        line = _first_line()
        return parse_token(line) if line else None
    if options.join:
        return parse_token(options.join)
    if not options.join_file:
        return None
    try:
        with options.join_file.open(encoding="utf-8") as file:
            return parse_token(file.read(_MAX_TOKEN_FILE))
    except (OSError, UnicodeDecodeError) as error:
        raise TokenError(f"`{options.join_file}` cannot be read: {error}") from None


def _first_line() -> str:
    """The first line of standard input, byte by byte: what follows, and its end, belongs to --exit-with-parent."""
    line = bytearray()
    while (byte := os.read(0, 1)) not in (b"", b"\n"):
        line += byte
        if len(line) > _MAX_TOKEN_FILE:
            raise TokenError("standard input begins with no join token")
    return line.decode("ascii", "replace").strip()


def _runtime(given: Path | None) -> tuple[Path, bool]:
    """The runtime folder (0700), and whether it is ours to remove."""
    if given is None:
        return Path(tempfile.mkdtemp(prefix="policyd-proxy-")), True
    folder = given.absolute()
    try:
        made = not folder.exists()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if folder.stat().st_mode & 0o077:
            raise StateError(f"`{folder}` is open to others", remedy=f"chmod 700 {folder}")
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)  # until this process ends
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise StateError(f"another agent uses `{folder}`", remedy="end it, or choose another --runtime") from None
    except OSError as error:
        raise StateError(f"`{folder}` cannot be used: {error.strerror}") from None
    return folder, made


def _place(given: Path | None, runtime: Path) -> Place:
    """In a place that was named every user may connect: who comes is known, and most are nobody."""
    return Place(given.absolute(), runtime, shared=True) if given else Place(runtime / SOCKET, runtime)


def _clean(runtime: Path, ours: bool, *, logs_too: bool) -> None:
    if ours:
        shutil.rmtree(runtime, ignore_errors=True)
    elif logs_too:
        for folder in ("logs", SPOOLS):
            shutil.rmtree(runtime / folder, ignore_errors=True)


def _stop_on_signals(agent: Agent, *, watch_input: bool) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(number, agent.stop)
    if not watch_input:
        return

    def heard() -> None:
        if not os.read(0, 4096):
            loop.remove_reader(0)
            agent.stop()

    try:
        loop.add_reader(0, heard)
    except PermissionError:  # epoll cannot watch a file
        raise UsageError("standard input is no pipe", remedy="leave --exit-with-parent out") from None


if __name__ == "__main__":
    sys.exit(main())
