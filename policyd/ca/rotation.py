"""New keys for the authority, step by step, as a value: prepared, active, retired, tainted, gone.

Law: pure. At any moment every certificate in use can be verified with every bundle that is in use: a root is published
before anything chains to it, nothing chains to it alone before all have it, and it goes only when nothing chains to it
any more. Whoever is left out of that is named by an operator, and is shown the way over the root that he has.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final, Literal

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from policyd.ca import template
from policyd.ca.authority import Authority, Bridge, Material, authority_of
from policyd.ca.template import Random
from policyd.errors import IdentityError, RotationError
from policyd.svid.x509 import read_trust_domain

PREPARE: Final = 0.5  # of a certificate's life: then its successor is made
ACTIVATE: Final = 5 / 6  # of a certificate's life: then its successor signs
AFTERLIFE: Final = timedelta(hours=24)  # of what a retired key has signed, unless a longer life was granted by hand

State = Literal["prepared", "active", "retired", "tainted"]
What = Literal["root", "intermediate"]
MakeKey = Callable[[], ec.EllipticCurvePrivateKey]
Waiting = Mapping[str, str]  # who is not there yet, and why


@dataclass(frozen=True, slots=True)
class Generation:
    """A root and an intermediate that belong together; `bridge` is its intermediate, vouched for by the root before."""

    material: Material = field(compare=False)
    state: State
    since: datetime
    bridge: x509.Certificate | None = None

    @property
    def signers(self) -> frozenset[bytes]:
        """The SHA-256 of each certificate that a chain of this generation can show above the leaf."""
        shown = (self.material.intermediate, *((self.bridge,) if self.bridge else ()))
        return frozenset(one.fingerprint(hashes.SHA256()) for one in shown)


@dataclass(frozen=True, slots=True)
class Authorities:
    """The generations, oldest first: one is active, and there may be one before or after it, never both.

    `sequence` grows with every change of the trusted roots, 0 before the first; `left_out` are agents that an
    operator named.
    """

    generations: tuple[Generation, ...]
    sequence: int = 0
    left_out: frozenset[str] = frozenset()

    @property
    def active(self) -> Generation:
        """The one that signs."""
        return next(one for one in self.generations if one.state == "active")

    @property
    def prepared(self) -> Generation | None:
        """The one that is to sign next."""
        return next((one for one in self.generations if one.state == "prepared"), None)

    @property
    def old(self) -> Generation | None:
        """The one that signed before."""
        return next((one for one in self.generations if one.state in ("retired", "tainted")), None)

    @property
    def roots(self) -> tuple[x509.Certificate, ...]:
        """All that are trusted, each once, that of the active generation first."""
        return tuple(dict.fromkeys(one.material.root for one in (self.active, *self.generations)))

    @property
    def tainted(self) -> frozenset[bytes]:
        """What nothing should be signed by any more: agents renew whatever shows one of these (by SHA-256)."""
        if self.old is None or self.old.state != "tainted":
            return frozenset()
        bridge = self.active.bridge
        return self.old.signers | (frozenset({bridge.fingerprint(hashes.SHA256())}) if bridge else frozenset())

    @property
    def next(self) -> str:
        """The step that can follow; "" where nothing is under way."""
        if self.prepared is not None:
            return "activate"
        if self.old is None:
            return ""
        return "taint" if self.old.state == "retired" else "revoke"


def prepare(held: Authorities, what: What, now: datetime, make: MakeKey, random: Random) -> Authorities:
    """Make the next generation: a new root and what signs under it, or only that; a new root is published at once."""
    if len(held.generations) > 1:
        raise RotationError("a rotation is under way already", remedy=f"the next step is `{held.next}`, or `abort`")
    before = held.active.material
    if before.root_key is None:
        raise RotationError(
            "the root is another's, what signs under it is not made here",
            remedy="lay the next certificate and its key where policyd.yaml says under `ca.upstream`",
        )
    key = make()
    domain = read_trust_domain(before.root)
    if what == "root":
        root_key = make()
        root = template.root(domain, root_key.public_key(), now, random).sign(root_key, hashes.SHA256())
    else:
        root, root_key = before.root, before.root_key
    order = template.intermediate(root, domain, key.public_key(), now, random)
    material = Material(root, root_key, order.sign(root_key, hashes.SHA256()), key)
    authority_of(material, domain, now=now)
    bridge = _bridge(before, key, now, random) if what == "root" else None
    made = Generation(material, "prepared", _second(now), bridge)
    return _published(held, (*held.generations, made), now)


def adopt(held: Authorities, material: Material, trust_domain: str, now: datetime, random: Random) -> Authorities:
    """Take in what another authority has made for us, as the generation that signs next."""
    if len(held.generations) > 1:
        raise RotationError("a rotation is under way already", remedy=f"the next step is `{held.next}`, or `abort`")
    authority_of(material, trust_domain, now=now)
    before = held.active.material
    bridge = _bridge(before, material.intermediate_key, now, random) if before.root != material.root else None
    return _published(held, (*held.generations, Generation(material, "prepared", _second(now), bridge)), now)


def activate(held: Authorities, waiting: Waiting, now: datetime, *, without: Collection[str] = ()) -> Authorities:
    """Let the prepared generation sign; raises RotationError while somebody `waiting` is neither there nor named."""
    prepared = held.prepared
    if prepared is None:
        raise RotationError("no generation is prepared", remedy="begin with `prepare`")
    _refuse(waiting, without, "does not trust the new root yet")
    found = tuple(
        replace(one, state="active" if one is prepared else "retired", since=_second(now)) for one in held.generations
    )
    return replace(held, generations=found, left_out=frozenset(waiting))


def taint(held: Authorities, waiting: Waiting, now: datetime, *, without: Collection[str] = ()) -> Authorities:
    """Have all that the old generation signed renewed; from now on nobody is shown the way over the old root."""
    old = held.old
    if old is None or old.state == "tainted":
        raise RotationError("no generation is retired", remedy=_follow(held))
    _refuse(waiting, without, "would be cut off, it does not trust the new root")
    found = tuple(replace(one, state="tainted", since=_second(now)) if one is old else one for one in held.generations)
    return replace(held, generations=found, left_out=frozenset())


def revoke(
    held: Authorities, waiting: Waiting, now: datetime, *, without: Collection[str] = (), early: bool = False
) -> Authorities:
    """Forget the old generation, its keys too; raises RotationError while what it signed is in use.

    `early`: although a certificate that nobody has told of, as one issued by hand, may still be good.
    """
    old = held.old
    if old is None or old.state != "tainted":
        raise RotationError("no generation is tainted", remedy=_follow(held))
    _refuse(waiting, without, "still uses what the old key signed")
    ends = min(old.since + AFTERLIFE, old.material.intermediate.not_valid_after_utc)
    if now < ends and not early:
        raise RotationError(
            f"certificates of the old key may be good until {ends:%FT%TZ}",
            remedy="wait, or see with `policyd ca list` that none is left and give --early",
        )
    active = replace(held.active, bridge=None)
    return _published(held, (active,), now)


def abort(held: Authorities, waiting: Waiting, now: datetime) -> Authorities:
    """Go a step back: what signed before signs again, or what was prepared is forgotten, if nobody uses it."""
    prepared, old = held.prepared, held.old
    if prepared is not None:
        _refuse(waiting, (), "uses what the prepared key signed before it was taken back")
        return _published(held, tuple(one for one in held.generations if one is not prepared), now)
    if old is None:
        raise RotationError("no rotation is under way")
    if old.state == "tainted":
        raise RotationError("the old key is tainted, nothing may be signed by it", remedy="go on with `revoke`")
    states: dict[State, State] = {"active": "prepared", "retired": "active"}
    found = tuple(replace(one, state=states[one.state], since=_second(now)) for one in held.generations)
    return replace(held, generations=found, left_out=frozenset())


def met(held: Authorities, waiting: Waiting) -> Authorities:
    """Those that were left out and have come since are waited for no more; the same value where none has."""
    left = held.left_out & frozenset(waiting)
    return held if left == held.left_out else replace(held, left_out=left)


def due(held: Authorities, now: datetime) -> tuple[str, What | None] | None:
    """The step that time demands: what to prepare at half of a life, to let it sign at five sixths, to clear away."""
    if len(held.generations) == 1:
        kinds: tuple[What, ...] = ("root", "intermediate")
        active = held.active.material
        ends = {"root": active.root, "intermediate": active.intermediate}
        return next((("prepare", what) for what in kinds if now >= _at(ends[what], PREPARE)), None)
    step, moment = comes(held)
    return (step, None) if now >= moment else None


def comes(held: Authorities) -> tuple[str, datetime]:
    """The next step that time brings by itself, and when."""
    if held.old is not None:
        return held.next, held.old.since + AFTERLIFE
    prepared = held.prepared
    taken_back = prepared is not None and prepared.since <= held.active.since
    if prepared is not None and prepared.material.root_key is None and not taken_back:
        return held.next, prepared.since  # who made it wants it used
    share = PREPARE if held.prepared is None else ACTIVATE  # what is prepared has a new intermediate in any case
    active = held.active.material
    return held.next or "prepare", min(_at(one, share) for one in (active.root, active.intermediate))


def what_differs(one: Generation, other: Generation) -> What:
    """Whether two generations have different roots, or only different intermediates."""
    return "root" if one.material.root != other.material.root else "intermediate"


def authority(held: Authorities, trust_domain: str, now: datetime) -> Authority:
    """What signs now; raises IdentityError unless its parts are valid and belong together."""
    active, old = held.active, held.old
    made = authority_of(active.material, trust_domain, now=now)
    bridge = None
    if active.bridge is not None and old is not None and old.state == "retired":
        bridge = Bridge(active.bridge, old.material.root)
    return replace(made, bridge=bridge, bridging=bool(held.left_out), others=held.roots[1:], sequence=held.sequence)


def _bridge(
    before: Material, key: ec.EllipticCurvePrivateKey, now: datetime, random: Random
) -> x509.Certificate | None:
    """The new key, vouched for by the old root; None where that is not ours, or has no life left to do so."""
    if before.root_key is None:
        return None
    domain = read_trust_domain(before.root)
    try:
        order = template.intermediate(before.root, domain, key.public_key(), now, random)
    except IdentityError:
        return None
    return order.sign(before.root_key, hashes.SHA256())


def _published(held: Authorities, generations: tuple[Generation, ...], now: datetime) -> Authorities:
    """With those generations; the sequence grows if other roots are trusted than before."""
    made = replace(held, generations=generations, left_out=frozenset())
    if set(made.roots) == set(held.roots):
        return made
    first = int(held.active.material.root.not_valid_before_utc.timestamp())
    return replace(made, sequence=max((held.sequence or first) + 1, int(now.timestamp())))


def _refuse(waiting: Waiting, without: Collection[str], why: str) -> None:
    found = sorted(set(waiting) - set(without))
    if found:
        names = ", ".join(f"`{name}`" for name in found[:5]) + (f" and {len(found) - 5} more" if found[5:] else "")
        first = waiting[found[0]]
        raise RotationError(
            f"{names} {why}: {first}", remedy="wait for it, or name it with --without if it may be cut off"
        )


def _follow(held: Authorities) -> str:
    return f"the next step is `{held.next}`" if held.next else "begin with `prepare`"


def _at(certificate: x509.Certificate, share: float) -> datetime:
    begins, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    return begins + (ends - begins) * share


def _second(moment: datetime) -> datetime:
    return moment.replace(microsecond=0)
