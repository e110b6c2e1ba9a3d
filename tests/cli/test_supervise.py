"""Real small programs, supervised: started, awaited, restarted, ended with all that they started."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from policyd.cli.child import Program
from policyd.cli.life import Life, Limits, Phase
from policyd.cli.supervise import Supervisor
from policyd.errors import ChildError

LIMITS = Limits(tries=2, first_wait=0.05, most_wait=0.2, healthy=30.0)
ENDLESS = "import time\nwhile True: time.sleep(9)\n"


class Watched:
    """A supervisor and the phases that each program went through."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.phases: dict[str, list[Phase]] = {}
        self.processes: list[tuple[str, int]] = []
        self.supervisor = Supervisor(folder, self.note, self.runs, LIMITS, spread=lambda: 0.0)

    def runs(self, name: str, pid: int) -> None:
        self.processes.append((name, pid))

    def note(self, name: str, life: Life) -> None:
        seen = self.phases.setdefault(name, [])
        if seen[-1:] != [life.phase]:
            seen.append(life.phase)

    def program(self, name: str, code: str, *, probe: Callable[[], str] = lambda: "", **more: object) -> Program:
        async def look() -> str:
            return probe()

        return Program(
            name=name, kind="application", command=[sys.executable, "-c", code], cwd=self.folder,
            environment=dict(os.environ), probe=look, **more,
        )  # fmt: skip

    async def healthy(self, *names: str, seconds: float = 10) -> None:
        await self.supervisor.healthy(names, time.monotonic() + seconds)

    async def until(self, condition: Callable[[], bool], seconds: float = 10) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, self.phases
            await asyncio.sleep(0.02)


@pytest.fixture
async def watched(tmp_path: Path) -> AsyncIterator[Watched]:
    made = Watched(tmp_path)
    yield made
    await made.supervisor.close()


def runs(pid: int) -> bool:
    """Whether a process runs; one that is dead and not yet reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def number_in(file: Path) -> int:
    """The number that a program wrote, 0 until it has."""
    text = file.read_text() if file.exists() else ""
    return int(text) if text.endswith("\n") else 0


async def test_a_program_that_answers_is_up_and_its_output_is_kept(watched: Watched) -> None:
    said = watched.folder / "web.log"
    program = watched.program(
        "web", "print('hello', flush=True)\n" + ENDLESS, probe=lambda: "" if "hello" in said.read_text() else "no"
    )

    watched.supervisor.run(program)
    await watched.healthy("web")

    assert watched.phases == {"web": [Phase.STARTING, Phase.HEALTHY]}
    assert said.read_text() == "hello\n"


async def test_its_input_begins_with_what_it_is_fed_and_stays_open(watched: Watched) -> None:
    code = "import sys\nprint(sys.stdin.readline().strip(), flush=True)\nsys.stdin.read()\nprint('closed', flush=True)"

    async def feed() -> bytes:
        return b"secret words\n"

    heard: list[str] = []
    watched.supervisor.run(watched.program("agent", code, feed=feed, listen=heard.append))

    await watched.until(lambda: heard == ["secret words"])


async def test_a_dead_program_is_restarted_and_said_so(watched: Watched) -> None:
    pid = watched.folder / "pid"
    code = f"import os\nopen({str(pid)!r}, 'w').write(f'{{os.getpid()}}\\n')\n" + ENDLESS
    watched.supervisor.run(watched.program("web", code, probe=lambda: "" if number_in(pid) else "no"))
    await watched.healthy("web")
    first = number_in(pid)

    os.kill(first, signal.SIGKILL)
    await watched.until(lambda: number_in(pid) not in (0, first))
    await watched.healthy("web")

    assert watched.phases["web"] == [Phase.STARTING, Phase.HEALTHY, Phase.WAITING, Phase.STARTING, Phase.HEALTHY]
    assert watched.supervisor.lives["web"].restarts == 1
    assert (watched.folder / "web.log.1").exists() is False
    assert "-- was ended by signal 9" in (watched.folder / "web.log").read_text()


async def test_a_program_that_never_starts_well_is_given_up_with_its_last_words(watched: Watched) -> None:
    watched.supervisor.run(
        watched.program("web", "print('no such table')\nraise SystemExit(7)", probe=lambda: "no answer")
    )

    with pytest.raises(ChildError) as caught:
        await watched.healthy("web")

    assert caught.value.message == (
        "`web` ended with exit code 7, 2 times\n"
        "  the last lines of `web`:\n"
        "  | no such table\n  | -- ended with exit code 7\n  | no such table\n  | -- ended with exit code 7"
    )
    assert caught.value.remedy == f"its whole log is `{watched.folder / 'web.log'}`"


async def test_a_program_that_never_answers_is_named_with_the_reason(watched: Watched) -> None:
    watched.supervisor.run(watched.program("web", ENDLESS, probe=lambda: "port 1 does not answer"))
    watched.supervisor.run(watched.program("db", ENDLESS))

    with pytest.raises(ChildError) as caught:
        await watched.healthy("web", "db", seconds=0.6)

    assert caught.value.message == "not up in time: `web` (port 1 does not answer)\n  `web` printed nothing"


async def test_a_command_that_does_not_exist_is_said(watched: Watched) -> None:
    watched.supervisor.run(replace(watched.program("web", ""), command=["nothing-of-this-name"]))

    with pytest.raises(ChildError) as caught:
        await watched.healthy("web")

    wanted = "`web` could not be started: `nothing-of-this-name` is no program in PATH, 2 times\n"
    assert caught.value.message.startswith(wanted)


async def test_the_end_takes_grandchildren_along(watched: Watched) -> None:
    pid = watched.folder / "pid"
    grandchild = "import signal,time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nwhile True: time.sleep(9)"
    code = (
        f"import subprocess,sys,time\np=subprocess.Popen([sys.executable,'-c',{grandchild!r}])\n"
        f"open({str(pid)!r},'w').write(f'{{p.pid}}\\n')\n" + ENDLESS
    )
    watched.supervisor.run(watched.program("web", code, probe=lambda: "" if number_in(pid) else "no", grace=1.0))
    await watched.healthy("web")

    await watched.supervisor.stop(["web"])

    await watched.until(lambda: not runs(number_in(pid)))
    assert watched.phases["web"][-1] is Phase.STOPPED


async def test_who_does_not_hear_sigterm_is_killed(watched: Watched) -> None:
    pid = watched.folder / "pid"
    code = (
        "import os,signal,time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        f"open({str(pid)!r},'w').write(f'{{os.getpid()}}\\n')\n" + ENDLESS
    )
    watched.supervisor.run(watched.program("web", code, probe=lambda: "" if number_in(pid) else "no", grace=0.2))
    await watched.healthy("web")

    start = time.monotonic()
    await watched.supervisor.stop(["web"])

    assert time.monotonic() - start < 3
    assert not runs(number_in(pid))


PARENT = """
import asyncio, os, sys, time
from pathlib import Path
from policyd.cli.child import Program
from policyd.cli.supervise import Supervisor

async def main(folder: Path) -> None:
    async def probe() -> str:
        return "" if (folder / "pids").exists() and (folder / "pids").read_text().endswith("\\n") else "no"
    grandchild = "import time\\nwhile True: time.sleep(9)"
    code = (
        "import os,subprocess,sys,time\\n"
        f"p=subprocess.Popen([sys.executable,'-c',{grandchild!r}])\\n"
        f"open({str(folder / 'pids')!r},'w').write(f'{os.getpid()} {p.pid}\\\\n')\\n"
        "while True: time.sleep(9)"
    ).replace("{os.getpid()}", "{os.getpid()}")
    supervisor = Supervisor(folder)
    supervisor.run(Program("web", "application", [sys.executable, "-c", code], folder, dict(os.environ), probe))
    await supervisor.healthy(["web"], time.monotonic() + 20)
    print("up", flush=True)
    await asyncio.sleep(60)

asyncio.run(main(Path(sys.argv[1])))
"""


def test_a_supervisor_that_is_killed_leaves_no_orphan(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(PARENT.replace("{os.getpid()} {p.pid}", "{{os.getpid()}} {{p.pid}}"))
    parent = subprocess.Popen(
        [sys.executable, str(script), str(tmp_path)], stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]
    )
    try:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "up\n"
        pids = [int(word) for word in (tmp_path / "pids").read_text().split()]
        assert all(runs(pid) for pid in pids)
    finally:
        parent.kill()
        parent.communicate()

    deadline = time.monotonic() + 10
    while any(runs(pid) for pid in pids):
        assert time.monotonic() < deadline, pids
        time.sleep(0.02)


async def test_it_is_told_which_process_each_program_is_and_when_that_has_ended(watched: Watched) -> None:
    watched.supervisor.run(watched.program("web", ENDLESS))
    await watched.healthy("web")
    [(name, pid)] = watched.processes
    assert (name, os.getsid(pid)) == ("web", pid)
    await watched.supervisor.stop(["web"])
    assert watched.processes == [("web", pid), ("web", 0)]
