"""The machine: run nft, or iptables where there is no nft, and say what is missing where they refuse.

Rules of one are no more left behind by the other: what is removed is removed from both.

Law: nothing is read from the environment of these programs but PATH; each is told all that it does on standard input.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from policyd.errors import StateError
from proxy.capture import iptables, nftables
from proxy.capture.found import AGAIN, Found, State, judge
from proxy.capture.plan import Plan

CAP_NET_ADMIN: Final = 12  # capability.h
CAP_NET_RAW: Final = 13
IPV6: Final = Path("/proc/net/if_inet6")  # there where the kernel has IPv6
SECONDS: Final = 30.0
WAITED: Final = 10  # seconds, for who else changes rules at the time (xtables.lock)
_NOT_PERMITTED: Final = "Operation not permitted"  # nft
_DENIED: Final = "Permission denied"  # iptables
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
        # comments of others' rules may be any bytes
        done = subprocess.run(
            command, input=told, capture_output=True, encoding="utf-8", errors="replace", timeout=SECONDS, check=False
        )
    except OSError as error:
        raise CaptureError(f"`{command[0]}` cannot be run: {error.strerror}") from None
    except subprocess.TimeoutExpired:
        raise CaptureError(f"`{command[0]}` did not end in {SECONDS:.0f} s") from None
    return Done(done.returncode, done.stdout, done.stderr)


def capabilities(status: Path = Path("/proc/self/status")) -> int:
    """The bits of the capabilities that this process has."""
    try:
        lines = status.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return 0  # no Linux
    return next((int(line.split()[1], 16) for line in lines if line.startswith("CapEff:")), 0)


def is_privileged(status: Path = Path("/proc/self/status")) -> bool:
    """Whether this process has CAP_NET_ADMIN in its network."""
    return bool(capabilities(status) >> CAP_NET_ADMIN & 1)


class Tables:
    """What this machine's rules are set by, the best first: it has the plan, and nothing of ours is in the others."""

    def __init__(self, best: Nftables | Iptables, *others: Nftables | Iptables) -> None:
        self._best, self._others = best, others
        self.name = best.name

    def install(self, plan: Plan) -> None:
        """Have a plan in force, and no other of ours."""
        self._best.install(plan)
        for one in self._left():
            one.remove()

    def remove(self) -> None:
        """Have nothing of ours left."""
        self._best.remove()
        for one in self._left():
            one.remove()

    def show(self, asked: Plan | None = None) -> Found:
        """What there is."""
        found, others = self._best.show(asked), self._left()
        if not others:
            return found
        if found.verdict == "absent" and len(others) == 1:
            return others[0].show(asked)  # which did it before the best was here
        lines = tuple(line for one in others for line in (f"{one.name}:", *one.show().lines))
        faults = (f"changed: {one.name} has rules of a capture, too; {AGAIN}" for one in others)
        return Found("broken", (*found.lines, *lines, *faults))

    def text(self, plan: Plan) -> str:
        """What the best of them would be told of a plan, where there is nothing of ours."""
        return self._best.text(plan)

    def _left(self) -> list[Nftables | Iptables]:
        """Those of the others that have something of ours; one that the kernel does not have has nothing."""
        found = []
        for one in self._others:
            with suppress(CaptureError):
                if one.show().verdict != "absent":
                    found.append(one)
        return found


def tables(run: Run = run, *, privileged: bool | None = None, which: Callable[[str], object] = shutil.which) -> Tables:
    """What this machine's rules are set by; raises CaptureError where nothing is, or may be."""
    if not (is_privileged() if privileged is None else privileged):
        raise CaptureError(
            "rules of the network need the capability CAP_NET_ADMIN, which this process lacks",
            remedy="run it as root, in the network that is to be captured",
        )
    return here(run, which)


def here(run: Run = run, which: Callable[[str], object] = shutil.which) -> Tables:
    """The same for who only asks what would be done."""
    found: list[Nftables | Iptables] = [Nftables(run)] if which("nft") is not None else []
    if all(which(f"{name}-restore") is not None for name in FAMILIES.values()):
        found.append(Iptables(run))
    if not found:
        raise CaptureError("neither `nft` nor `iptables-restore` is here", remedy="install nftables")
    return Tables(*found)


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
        state = nftables.installed(done.output) if done.code == 0 else State()
        return judge(state, asked.rules if asked else None)

    def text(self, plan: Plan) -> str:
        """What nft is told of a plan."""
        return nftables.install(plan)

    def _take(self, ruleset: str) -> None:
        done = self._run(("nft", "-f", "-"), ruleset)
        if done.code != 0:
            raise self._refused(done)

    def _refused(self, done: Done) -> CaptureError:
        """Why, found out by asking the kernel for one thing after another."""
        if _NOT_PERMITTED in done.errors:
            return _foreign("nft")
        for module, ruleset in nftables.NEEDS:
            if self._run(("nft", "-c", "-f", "-"), ruleset).code != 0:
                remedy = f"`modprobe {module}` on the host, or a kernel that has it"
                return CaptureError(f"this kernel lacks the module `{module}`", remedy=remedy)
        return CaptureError(f"nft refuses: {_first(done.errors)}")


class Iptables:
    """Sets rules by iptables and ip6tables, each at once; `families` are those that the kernel has."""

    name = "iptables"

    def __init__(self, run: Run, *, ipv6: bool | None = None, held: Callable[[], int] = capabilities) -> None:
        self._run, self._held = run, held
        self._families = (4, 6) if (IPV6.exists() if ipv6 is None else ipv6) else (4,)

    def install(self, plan: Plan) -> None:
        """Have a plan in force, and no other of ours; where one family refuses, neither has it."""
        try:
            for family in self._families:
                self._take(family, iptables.install(plan, self._saved(family), family))
        except CaptureError as error:
            try:
                self.remove()
            except CaptureError:
                raise error from None  # what it refused first says more
            raise

    def remove(self) -> None:
        """Have nothing of ours left."""
        for family in self._families:
            if told := iptables.remove(self._saved(family)):
                self._take(family, told)

    def show(self, asked: Plan | None = None) -> Found:
        """What there is: all families are as they should be, or the capture is not."""
        found = [
            judge(iptables.installed(self._saved(family)), iptables.rules_of(asked, family) if asked else None)
            for family in self._families
        ]
        verdicts = {one.verdict for one in found}
        if verdicts == {"absent"}:
            return found[0]
        lines = [f"IPv{family} {line}" for family, one in zip(self._families, found, strict=True) for line in one.lines]
        if "absent" in verdicts:
            return Found("broken", (*lines, f"this is half of what was installed; {AGAIN}"))
        return Found(max(verdicts, key=("as asked", "other", "broken").index), tuple(lines))

    def text(self, plan: Plan) -> str:
        """What iptables-restore and ip6tables-restore are told of a plan."""
        told = (
            f"# {FAMILIES[one]}-restore --noflush --wait {WAITED}\n{iptables.install(plan, '', one)}"
            for one in self._families
        )
        return "".join(told)

    def _saved(self, family: int) -> str:
        done = self._run((f"{FAMILIES[family]}-save", "-t", "nat"))
        if done.code != 0:
            raise self._refused(family, done)
        return done.output

    def _take(self, family: int, told: str) -> None:
        done = self._run((f"{FAMILIES[family]}-restore", "--noflush", "--wait", str(WAITED)), told)
        if done.code != 0:
            raise self._refused(family, done)

    def _refused(self, family: int, done: Done) -> CaptureError:
        if _DENIED in done.errors:
            if not self._held() >> CAP_NET_RAW & 1:
                message = f"{FAMILIES[family]} needs the capability CAP_NET_RAW, too, which this process lacks"
                return CaptureError(message, remedy="give it that, or install nftables")
            return _foreign(FAMILIES[family])
        if module := iptables.missing_module(done.errors, family):
            remedy = f"`modprobe {module}` on the host, or a kernel that has it"
            return CaptureError(f"this kernel lacks the module `{module}`", remedy=remedy)
        return CaptureError(f"{FAMILIES[family]} refuses: {_first(done.errors)}")


def _foreign(program: str) -> CaptureError:
    """The capability is there, but not over this network."""
    return CaptureError(
        f"{program} may not change this network: CAP_NET_ADMIN counts in the user namespace to which a network "
        "belongs, and this process is in another",
        remedy="run it as root of the host, or in a network that was made in this user namespace",
    )


def _first(text: str) -> str:
    return next((line.strip()[:300] for line in text.splitlines() if line.strip()), "it does not say why")
