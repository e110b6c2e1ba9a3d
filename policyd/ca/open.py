"""The authority of a state folder, made at the first start and checked at every other.

Law: an authority that cannot sign for at least an hour does not start, and one that nears its end says so
in time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Final

from cryptography import x509

from policyd.ca import authorities_store, keystore, template
from policyd.ca.authority import Authority, Material, authority_of, new_material
from policyd.ca.rotation import Authorities, Generation, authority
from policyd.ca.template import Random
from policyd.ca.upstream import Upstream, behind, read
from policyd.errors import IdentityError, StateError
from policyd.svid.x509 import read_trust_domain

WARN_ROOT: Final = timedelta(days=365)
WARN_INTERMEDIATE: Final = timedelta(days=60)
MARGIN: Final = template.LEAF_LIFE

_ANEW: Final = "start anew with `--fresh`: every agent then joins again"


@dataclass(frozen=True, slots=True)
class Opened:
    """An authority ready to sign; `notices` say what this start changed, `warnings` what needs care soon.

    `held` are all its generations.
    """

    authority: Authority
    created: bool
    held: Authorities
    notices: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def open_authority(
    state: Path,
    trust_domain: str,
    *,
    clock: Callable[[], datetime],
    random: Random,
    passphrase: bytes | None = None,
    upstream: Upstream | None = None,
) -> Opened:
    """The authority of `trust_domain` in the state folder `state` (`DIR/.policyd`), made if there is none.

    With `upstream` it is made of that; one that is there already takes it over by a rotation.

    Raises StateError where what is there does not fit together, is of another trust domain, or has expired or
    will within the hour; KeyFileError where a key is missing, broken, too open or needs another passphrase.
    """
    now = clock()
    if not keystore.exists(state) and upstream is not None:
        return _begin_upstream(state, trust_domain, upstream, now, passphrase, random)
    if not keystore.exists(state):
        material = new_material(trust_domain, now=now, random=random)
        keystore.create(state, material, passphrase, random)
        first = authority_of(material, trust_domain, now=now)
        notice = f"made a certificate authority for `{trust_domain}`, root SHA-256 {first.root_sha256}"
        return Opened(first, True, _first(material), (notice,))
    folder = state / keystore.FOLDER
    if authorities_store.exists(folder):
        return _open_generations(state, trust_domain, now, passphrase, random, upstream)
    loaded = keystore.load(state, passphrase, random)
    checked = _checked(loaded.material, folder, trust_domain, now)
    notices = tuple(f"`{folder / name}` is encrypted from now on" for name in loaded.encrypted_now)
    return Opened(checked, False, _first(loaded.material), notices, expiry_warnings(checked, now))


def _first(material: Material) -> Authorities:
    return Authorities((Generation(material, "active", material.intermediate.not_valid_before_utc),))


def _begin_upstream(
    state: Path, trust_domain: str, upstream: Upstream, now: datetime, passphrase: bytes | None, random: Random
) -> Opened:
    material = read(upstream, passphrase)
    try:
        made = authority_of(material, trust_domain, now=now)
    except IdentityError as error:
        raise StateError(f"`{upstream.chain}`: {error.message}", remedy=error.remedy) from error
    held = Authorities((Generation(material, "active", now.replace(microsecond=0)),))
    keystore.create_folder(state, lambda folder: authorities_store.save(folder, held, passphrase, random))
    notice = f"the authority for `{trust_domain}` is under another's, root SHA-256 {made.root_sha256}"
    return Opened(made, True, held, (notice,), expiry_warnings(made, now))


def _open_generations(
    state: Path,
    trust_domain: str,
    now: datetime,
    passphrase: bytes | None,
    random: Random,
    upstream: Upstream | None,
) -> Opened:
    """The authority where there was a rotation."""
    folder = state / keystore.FOLDER
    keystore.check_folder(folder)
    signer = upstream.signer if upstream else None
    elsewhere = partial(behind, signer) if signer is not None else None
    kept = authorities_store.load(folder, passphrase, elsewhere)
    held, notices = kept.authorities, tuple[str, ...]()
    if kept.plain:
        authorities_store.save(folder, held, passphrase, random)
        notices = (f"`{folder / authorities_store.FILE}` is encrypted from now on",)
    else:
        authorities_store.tidy(folder, held)
    _checked(held.active.material, folder, trust_domain, now)
    made = authority(held, trust_domain, now)
    return Opened(made, False, held, notices, expiry_warnings(made, now))


def expiry_warnings(authority: Authority, now: datetime) -> tuple[str, ...]:
    """What to say of certificates that end soon, at start and by a clock later."""
    found = []
    for name, certificate, margin in (
        ("root", authority.root, WARN_ROOT),
        ("intermediate", authority.intermediate, WARN_INTERMEDIATE),
    ):
        end = certificate.not_valid_after_utc
        if end - now < margin:
            found.append(f"the {name} certificate ends at {end:%FT%TZ}, in {max((end - now).days, 0)} days")
    return tuple(found)


def _checked(material: Material, folder: Path, trust_domain: str, now: datetime) -> Authority:
    """The expiry and the trust domain first: they have remedies of their own."""
    try:
        own = trust_domain if material.root_key is None else read_trust_domain(material.root)
        if own != trust_domain:
            raise StateError(
                f"the authority in `{folder}` is of the trust domain `{own}`, not of `{trust_domain}`",
                remedy=f"set the settings back to it, or {_ANEW}",
            )
        for name, certificate in (("root", material.root), ("intermediate", material.intermediate)):
            _check_margin(name, certificate, folder, now)
        return authority_of(material, trust_domain, now=now)
    except IdentityError as error:
        raise StateError(
            f"the authority in `{folder}` does not hold together: {error.message}",
            remedy=f"restore it from a copy, or {_ANEW}",
        ) from error


def _check_margin(name: str, certificate: x509.Certificate, folder: Path, now: datetime) -> None:
    end = certificate.not_valid_after_utc
    if end <= now:
        raise StateError(f"the {name} certificate in `{folder}` expired at {end:%FT%TZ}", remedy=_ANEW)
    if end - now < MARGIN:
        message = f"the {name} certificate in `{folder}` ends at {end:%FT%TZ}, too soon to issue any"
        raise StateError(message, remedy=_ANEW)
