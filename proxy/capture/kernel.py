"""The machine: run nft, or iptables where there is no nft, and say what is missing where they refuse.

Law: nothing is read from the environment of these programs but PATH; each is told all that it does on standard input.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from policyd.errors import StateError
from proxy.capture import iptables, nftables
from proxy.capture.found import Found, judge
from proxy.capture.plan import Plan

CAP_NET_ADMIN: Final = 12  # capability.h
SECONDS: Final = 30.0
FAMILIES: Final[Mapping[int, str]] = {4: "iptables", 6: "ip6tables"}


class CaptureError(StateError):
    """The kernel, or who asks it, does not let connections be captured."""

    code = "capture"


@dataclass(frozen=True, slots=True)
class Done:
    """How a program ended, and what it printed."""

    code: int
    output: str
    errors: str


class Run(Protocol):
    """Runs a program with a text on its standard input."""

    def __call__(self, command: Sequence[str], told: str = "", /) -> Done:
        """How it ended."""


def run(command: Sequence[str], told: str = "") -> Done:
    """Run a program of this machine."""
    try:
        done = subprocess.run(command, input=told, capture_output=True, text=True, timeout=SECONDS, check=False)
    except OSError as error:
        raise CaptureError(f"`{command[0]}` cannot be run: {error.strerror}") from None
    except subprocess.TimeoutExpired:
        raise CaptureError(f"`{command[0]}` did not end in {SECONDS:.0f} s") from None
    return Done(done.returncode, done.stdout, done.stderr)


def is_privileged(status: Path = Path("/proc/self/status")) -> bool:
    """Whether this process has CAP_NET_ADMIN in its network."""
    try:
        lines = status.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return False  # no Linux
    effective = next((int(line.split()[1], 16) for line in lines if line.startswith("CapEff:")), 0)
    return bool(effective >> CAP_NET_ADMIN & 1)


def tables(
    run: Run = run, *, privileged: bool | None = None, which: Callable[[str], object] = shutil.which
) -> Nftables | Iptables:
    """What this machine's rules are set by; raises CaptureError where nothing is, or may be."""
    if not (is_privileged() if privileged is None else privileged):
        raise CaptureError(
            "rules of the network need the capability CAP_NET_ADMIN, which this process lacks",
            remedy="run it as root, in the network that is to be captured",
        )
    if which("nft") is not None:
        return Nftables(run)
    if all(which(f"{name}-restore") is not None for name in FAMILIES.values()):
        return Iptables(run)
    raise CaptureError("neither `nft` nor `iptables-restore` is here", remedy="install nftables")


class Nftables:
    """Sets rules by nft."""

    name = "nftables"

    def __init__(self, run: Run) -> None:
        self._run = run

    def install(self, plan: Plan) -> None:
        """Have a plan in force, and no other of ours."""
        self._take(nftables.install(plan))

    def remove(self) -> None:
        """Have nothing of ours left."""
        self._take(nftables.REMOVE)

    def show(self, asked: Plan | None = None) -> Found:
        """What there is."""
        done = self._run(("nft", "-j", "list", "table", "inet", nftables.TABLE))
        if done.code != 0 and "No such file or directory" not in done.errors:
            raise self._refused(done)
        return judge(nftables.installed(done.output) if done.code == 0 else (), asked.digest if asked else None)

    def _take(self, ruleset: str) -> None:
        done = self._run(("nft", "-f", "-"), ruleset)
        if done.code != 0:
            raise self._refused(done)

    def _refused(self, done: Done) -> CaptureError:
        """Why, found out by asking the kernel for one thing after another."""
        for module, ruleset in nftables.NEEDS:
            if self._run(("nft", "-c", "-f", "-"), ruleset).code != 0:
                remedy = f"`modprobe {module}` on the host, or a kernel that has it"
                return CaptureError(f"this kernel lacks the module `{module}`", remedy=remedy)
        return CaptureError(f"nft refuses: {_first(done.errors)}")


class Iptables:
    """Sets rules by iptables and ip6tables, each at once."""

    name = "iptables"

    def __init__(self, run: Run) -> None:
        self._run = run

    def install(self, plan: Plan) -> None:
        """Have a plan in force, and no other of ours; where one family refuses, neither has it."""
        try:
            for family in FAMILIES:
                self._take(family, iptables.install(plan, self._saved(family), family))
        except CaptureError:
            self.remove()
            raise

    def remove(self) -> None:
        """Have nothing of ours left."""
        for family in FAMILIES:
            if told := iptables.remove(self._saved(family)):
                self._take(family, told)

    def show(self, asked: Plan | None = None) -> Found:
        """What there is: both families are as they should be, or the capture is not."""
        found = [
            judge(iptables.installed(self._saved(family)), iptables.digest_of(asked, family) if asked else None)
            for family in FAMILIES
        ]
        verdicts = {one.verdict for one in found}
        if verdicts == {"absent"}:
            return found[0]
        lines = tuple(f"IPv{family} {line}" for family, one in zip(FAMILIES, found, strict=True) for line in one.lines)
        worst = "broken" if "absent" in verdicts else max(verdicts, key=("as asked", "other", "broken").index)
        return Found(worst, lines)

    def _saved(self, family: int) -> str:
        done = self._run((f"{FAMILIES[family]}-save", "-t", "nat"))
        if done.code != 0:
            raise self._refused(family, done)
        return done.output

    def _take(self, family: int, told: str) -> None:
        done = self._run((f"{FAMILIES[family]}-restore", "--noflush"), told)
        if done.code != 0:
            raise self._refused(family, done)

    def _refused(self, family: int, done: Done) -> CaptureError:
        if module := iptables.missing_module(done.errors):
            remedy = f"`modprobe {module}` on the host, or a kernel that has it"
            return CaptureError(f"this kernel lacks the module `{module}`", remedy=remedy)
        return CaptureError(f"{FAMILIES[family]} refuses: {_first(done.errors)}")


def _first(text: str) -> str:
    return next((line.strip()[:300] for line in text.splitlines() if line.strip()), "it does not say why")
