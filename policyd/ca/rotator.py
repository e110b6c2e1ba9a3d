"""Rotation as it is done: a step is decided, recorded, written, and only then in force.

Law: after a crash at any point the step was made or was not, and can be made again; the value on the disk is the only
memory. What the clock demands is done here too, never against somebody who would be cut off.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from policyd.audit.operations import operation
from policyd.audit.record import Entry
from policyd.ca import authorities_store, rotation, template
from policyd.ca.authority import Material
from policyd.ca.holdings import Holding, using, waiting
from policyd.ca.issuer import Issuer
from policyd.ca.jwt_keys import JwtKeys
from policyd.ca.jwt_store import JwtKeyStore
from policyd.ca.rotation import Authorities, What
from policyd.ca.template import Random
from policyd.cedar.model import Decision
from policyd.errors import PolicydError, RotationError

UPSTREAM: Final = "upstream"  # the reason of one that came with files
TOKEN: Final = "token"  # noqa: S105 - of a step: the keys of tokens
SCHEDULE: Final = "schedule"  # the reason of a step that no operator asked for


@dataclass(frozen=True, slots=True)
class Ports:
    """What a Rotator needs from outside.

    `decide` asks the operators' policies, `record` appends to the journal or raises JournalError; `present` are the
    agents that are connected, `holdings` what all said last, `life` that of a certificate; `changed` is called once
    another value is in force.
    """

    clock: Callable[[], datetime]
    random: Random
    decide: Callable[[], Decision]
    record: Callable[[Entry], object]
    present: Callable[[], Collection[str]]
    holdings: Callable[[], Collection[Holding]]
    changed: Callable[[], object]
    life: Callable[[], timedelta] = lambda: template.LEAF_LIFE
    make_key: Callable[[], ec.EllipticCurvePrivateKey] = lambda: ec.generate_private_key(ec.SECP256R1())


@dataclass(frozen=True, slots=True)
class Step:
    """What an operator asks for."""

    step: str
    what: str = ""
    without: tuple[str, ...] = ()
    early: bool = False


@dataclass(slots=True)
class Rotator:
    """The generations of the authority in `folder`, which the `issuer` signs with; safe for any thread."""

    folder: Path
    issuer: Issuer
    held: Authorities
    ports: Ports
    passphrase: bytes | None = field(default=None, repr=False)
    tokens: JwtKeyStore | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def do(self, step: Step) -> Authorities:
        """Make a step for an operator; raises RotationError where it does not follow or would cut somebody off."""
        with self._lock:
            decision = self.ports.decide()
            if not decision.allowed:
                self._record(decision, step, {})
                message = f"the operators' policies forbid it: {decision.because}"
                raise RotationError(message, remedy="see operators.cedar")
            return self._make(step, decision) if step.what != TOKEN else self._make_token(step, decision)

    def behind(self) -> dict[str, str]:
        """The agents that do not hold the bundle of now yet, and why."""
        return waiting(self.ports.holdings(), self.issuer.bundle.sequence or 0, *self._who())

    def adopt(self, material: Material) -> bool:
        """Take in what another authority made for us, as what signs next; False where it is known already."""
        with self._lock:
            if self.knows(material.intermediate):
                return False
            now, domain = self.ports.clock(), self.issuer.authority.trust_domain
            made = rotation.adopt(self.held, material, domain, now, self.ports.random)
            self._record(Decision(True, reasons=(UPSTREAM,)), Step("prepare", "upstream"), _described(made))
            self._keep(made)
            return True

    def knows(self, signer: x509.Certificate) -> bool:
        """Whether a certificate is that of one of the generations."""
        return any(one.material.intermediate == signer for one in self.held.generations)

    def turn(self) -> tuple[str, str]:
        """Make the step that time demands: which, and why it was not made; both "" where there is none."""
        with self._lock:
            self._meet()
            demanded = rotation.due(self.held, self.ports.clock())
            if demanded is None:
                return "", ""
            name, what = demanded
            try:
                self._make(Step(name, what or ""), Decision(True, reasons=(SCHEDULE,)))
            except PolicydError as error:
                return name, str(error)
            return name, ""

    def waiting(self) -> dict[str, str]:
        """Whom the next step waits for, and why."""
        held, name = self.held, self.held.next
        if name == "revoke" and held.old is not None:
            return self._using(held.tainted)
        other = held.prepared or held.old
        if other is None or rotation.what_differs(other, held.active) == "intermediate":
            return {}  # a new intermediate comes with every chain: there is nothing to have before
        return waiting(self.ports.holdings(), self.issuer.bundle.sequence or 0, *self._who())

    def _make_token(self, step: Step, decision: Decision) -> Authorities:
        """A step of the keys of tokens, which have generations of their own."""
        if self.tokens is None:
            raise RotationError("this authority signs no tokens")
        self._check_named(step.without)

        def record(made: JwtKeys) -> None:
            self._record(decision, step, {"kids": [one.kid for one in made.keys], "sequence": made.sequence})

        self.tokens.step(step.step, self.behind(), record, without=step.without, early=step.early)
        self.ports.changed()
        return self.held

    def _make(self, step: Step, decision: Decision) -> Authorities:
        made = self._stepped(step)
        self._record(decision, step, _described(made))
        self._keep(made)
        return made

    def _stepped(self, step: Step) -> Authorities:
        held, now = self.held, self.ports.clock()
        self._check_named(step.without)
        match step.step:
            case "prepare" if step.what in ("root", "intermediate"):
                what: What = "root" if step.what == "root" else "intermediate"
                return rotation.prepare(held, what, now, self.ports.make_key, self.ports.random)
            case "activate":
                return rotation.activate(held, self.waiting(), now, without=step.without)
            case "taint":
                return rotation.taint(held, self.waiting(), now, without=step.without)
            case "revoke":
                return rotation.revoke(held, self.waiting(), now, without=step.without, early=step.early)
            case "abort":
                prepared = held.prepared
                users = self._using(prepared.signers) if prepared else {}
                return rotation.abort(held, users, now)
        raise RotationError(
            f"`{step.step[:40]} {step.what[:40]}` is no step of a rotation",
            remedy="one of `prepare root`, `prepare intermediate`, `activate`, `taint`, `revoke`, `abort`",
        )

    def _check_named(self, names: Collection[str]) -> None:
        known = {one.agent for one in self.ports.holdings()} | set(self.ports.present())
        for name in names:
            if name not in known:
                raise RotationError(f"`{name[:80]}` is no agent", remedy="`policyd ca rotate status` names them")

    def _keep(self, made: Authorities) -> None:
        authority = rotation.authority(made, self.issuer.authority.trust_domain, self.ports.clock())
        authorities_store.save(self.folder, made, self.passphrase, self.ports.random)
        self.held, self.issuer.authority = made, authority
        self.ports.changed()

    def _meet(self) -> None:
        """Those that were left out and have come since are shown the new way with all others."""
        if self.held.left_out:
            met = rotation.met(self.held, self.waiting())
            if met is not self.held:
                self._keep(met)

    def _using(self, signers: Collection[bytes]) -> dict[str, str]:
        return using(self.ports.holdings(), signers, *self._who())

    def _who(self) -> tuple[Collection[str], int, timedelta]:
        return frozenset(self.ports.present()), int(self.ports.clock().timestamp()), self.ports.life()

    def _record(self, decision: Decision, step: Step, detail: Mapping[str, Any]) -> None:
        asked = {"what": step.what[:64], "without": list(step.without)}
        said = {**{name: value for name, value in asked.items() if value}, **detail}
        name = f"ca.rotate.{step.step}"[:64]
        self.ports.record(operation(self.ports.clock(), name, said, decision=decision.word, reasons=decision.reasons))


def _described(held: Authorities) -> dict[str, Any]:
    generations = [
        f"{one.state} {one.material.root.fingerprint(hashes.SHA256()).hex()[:16]}"
        f"/{one.material.intermediate.fingerprint(hashes.SHA256()).hex()[:16]}"
        for one in held.generations
    ]
    return {"generations": generations, "sequence": held.sequence}
