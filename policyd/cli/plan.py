"""What `up` runs for a folder: the server, the agent, the applications, as programs.

Law: pure. No secret is in a command line; an application gets its proxy's address by its environment, the agent its
join token by its standard input.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from policyd.cli import console
from policyd.cli.child import Feed, Probe, Program
from policyd.cli.own import command
from policyd.environment import PASSPHRASE
from policyd.mesh.files import WorkloadSpec
from proxy.grpc_bootstrap import VARIABLE
from proxy.runtime import BOOTSTRAP, runtime_folder

if TYPE_CHECKING:
    from policyd._pb import admin_pb2 as pb

# dots keep them apart from instances, whose names have none
SERVER: Final = "policyd.server"
AGENT: Final = "policyd.agent"
CONSOLE: Final = "policyd.console"
AGENT_NAME: Final = "up"
WORKLOAD_SOCKET: Final = "workload.sock"  # in the agent's runtime folder; see proxy.workload_server
NO_PROXY: Final = "localhost,127.0.0.1,::1"
SERVER_GRACE: Final = 10.0  # seconds
AGENT_DRAIN: Final = 2.0  # seconds; all that calls one another here ends together
AGENT_GRACE: Final = 15.0  # its Envoys drain, all at once
APPLICATION_GRACE: Final = 5.0
CONSOLE_GRACE: Final = 5.0

Environ = Mapping[str, str]


def server_program(directory: Path, environ: Environ, probe: Probe, shadow: Path | None = None) -> Program:
    """The control plane of `directory`, which tries the policies of the folder `shadow`."""
    tried = ["--shadow", str(shadow)] if shadow else []
    return Program(
        name=SERVER,
        kind="server",
        command=[*command("policyd", "policyd.cli.main"), "serve", "--dir", str(directory), *tried],
        cwd=directory,
        environment=environ,
        probe=probe,
        grace=SERVER_GRACE,
        whole_group=False,
    )


def agent_program(
    directory: Path,
    state: Path,
    runtime: Path,
    environ: Environ,
    probe: Probe,
    feed: Feed,
    listen: Callable[[str], None],
) -> Program:
    """The agent of all sidecars and gateways of `directory`; `feed` gives the join token, a line."""
    # whoever writes commands into the folder has them run here anyway
    options = ["--join", "-", "--exit-with-parent", "--run-probe-commands"]
    options += ["--dir", str(state), "--runtime", str(runtime), "--drain", f"{AGENT_DRAIN:g}"]
    return Program(
        name=AGENT,
        kind="agent",
        command=[*command("policyd-proxy", "proxy.main"), "run", *options],
        cwd=directory,
        environment=_without_passphrase(environ),
        probe=probe,
        feed=feed,
        listen=listen,
        grace=AGENT_GRACE,
        whole_group=False,
    )


def console_program(directory: Path, environ: Environ, probe: Probe, listen: Callable[[str], None]) -> Program:
    """The console of `directory`; it says where it listens."""
    return Program(
        name=CONSOLE,
        kind="console",
        command=console.command(directory),
        cwd=directory,
        environment=_without_passphrase(environ),
        probe=probe,
        listen=listen,
        grace=CONSOLE_GRACE,
        whole_group=False,
    )


def application_program(
    directory: Path, place: pb.InstancePlace, spec: WorkloadSpec, environ: Environ, probe: Probe, runtime: Path
) -> Program:
    """The application of an instance; `spec.command` is given, `runtime` is the agent's folder."""
    return Program(
        name=place.name,
        kind="application",
        command=spec.command or (),
        cwd=directory / spec.workdir if spec.workdir else directory,
        environment=application_environment(environ, place, spec, runtime),
        probe=probe,
        grace=APPLICATION_GRACE,
    )


def _without_passphrase(environ: Environ) -> Environ:
    """Only the server needs it."""
    return {name: value for name, value in environ.items() if name != PASSPHRASE}


def application_environment(
    environ: Environ, place: pb.InstancePlace, spec: WorkloadSpec, runtime: Path
) -> dict[str, str]:
    """What an application finds in its environment; what is declared has the last word.

    `python` is this interpreter, so that a folder's applications run in the environment that policyd is installed in.
    """
    here = str(Path(sys.executable).parent)
    mesh = {
        "PATH": f"{here}:{environ.get('PATH', '/usr/bin:/bin')}",
        "PORT": str(place.app_port),
        **{
            f"PORT_{one.name.upper().replace('-', '_')}": str(one.app_port)
            for one in place.ports
            if len(place.ports) > 1
        },
        "POLICYD_INSTANCE": place.name,
        "SPIFFE_ENDPOINT_SOCKET": f"unix://{runtime / WORKLOAD_SOCKET}",
        "http_proxy": place.proxy_url,
        "HTTP_PROXY": place.proxy_url,
        "no_proxy": NO_PROXY,
        "NO_PROXY": NO_PROXY,
    }
    if spec.proxyless:
        mesh[VARIABLE] = str(runtime_folder(runtime, place.name) / BOOTSTRAP)
    return {**_without_passphrase(environ), **mesh, **spec.environment}


def to_start(places: Sequence[pb.InstancePlace], specs: Mapping[str, WorkloadSpec]) -> list[pb.InstancePlace]:
    """The instances whose applications we start: those with a command, on this machine."""
    return [place for place in places if place.name in specs and specs[place.name].command is not None]
