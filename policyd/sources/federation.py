"""The bundles of other trust domains: fetched where they are published, or imported, and the last good ones kept.

Law: a bundle belongs to the trust domain that an operator named, whatever it says itself, and is never merged with
another's. What was good stays until something better is, over restarts too; an older one is no better one. When to ask
next is decided here from a clock that is an argument; asking is `bundle_fetch`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Final

from policyd.config.authority import FederatedSettings
from policyd.errors import FederationError, IdentityError, NotFound, PolicydError, StateError
from policyd.sources.state import write_private
from policyd.svid import bundle as bundles
from policyd.svid.bundle import Bundle

LEAST_REFRESH: Final = 5.0  # seconds; whoever publishes a shorter hint is asked no oftener
MOST_REFRESH: Final = 3600.0


@dataclass(frozen=True, slots=True)
class Kept:
    """What is known of one trust domain: its bundle, None before the first one, and when to ask again."""

    relation: FederatedSettings
    bundle: Bundle | None = None
    due: float = 0.0
    problem: str = ""

    @property
    def refresh(self) -> float:
        """The seconds between two questions: what the bundle hints, within bounds (SPIFFE Federation, section 4.1)."""
        hint = self.bundle.refresh_hint if self.bundle is not None else None
        return min(max(float(hint or bundles.REFRESH_HINT), LEAST_REFRESH), MOST_REFRESH)


def taken(kept: Kept, bundle: Bundle, now: float) -> Kept:
    """After a bundle came; raises FederationError for one that is older than what is at hand."""
    before, after = (one.sequence if one else None for one in (kept.bundle, bundle))
    if before is not None and (after is None or after < before):
        raise FederationError(f"the bundle has the sequence {after}, and the one at hand {before}")
    found = replace(kept, bundle=bundle, problem="")
    return replace(found, due=now + found.refresh)


def missed(kept: Kept, problem: str, now: float) -> Kept:
    """After one did not: it is asked for at the next interval, not sooner (section 6.2)."""
    return replace(kept, due=now + kept.refresh, problem=problem)


class Federation:
    """The trust domains that are wanted; `folder` keeps their bundles. Readers in any thread see one whole mapping."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._kept: Mapping[str, Kept] = MappingProxyType({})

    def want(self, relations: Collection[FederatedSettings]) -> bool:
        """Only these are wanted from now on; tells whether that changes the bundles."""
        before, found = self._kept, dict[str, Kept]()
        for relation in relations:
            name = relation.trust_domain
            kept = before.get(name) or Kept(relation, _load(self._folder, name))
            found[name] = kept if kept.relation == relation else Kept(relation, kept.bundle)
        self._kept = MappingProxyType(found)
        for name in before.keys() - found.keys():
            _file(self._folder, name).unlink(missing_ok=True)
        return self._bundles_of(before) != self.bundles()

    def bundles(self) -> tuple[Bundle, ...]:
        """Those that are at hand, by trust domain."""
        return self._bundles_of(self._kept)

    def all(self) -> tuple[Kept, ...]:
        """What is known of each, by trust domain."""
        return tuple(kept for _, kept in sorted(self._kept.items()))

    def due(self, now: float) -> list[Kept]:
        """Those to ask now."""
        return [kept for kept in self._kept.values() if kept.relation.bundle_endpoint and kept.due <= now]

    def pause(self, now: float) -> float:
        """How many seconds there are until one is due."""
        waits = [kept.due - now for kept in self._kept.values() if kept.relation.bundle_endpoint]
        return max(0.0, min(waits, default=MOST_REFRESH))

    def hurry(self, trust_domain: str) -> None:
        """Ask this one next; raises FederationError where there is nothing to ask, NotFound for a stranger."""
        kept = self.named(trust_domain)
        if kept.relation.bundle_endpoint is None:
            raise FederationError(f"`{trust_domain}` has no bundle endpoint", remedy="import its bundle")
        self._put(replace(kept, due=0.0))

    def took(self, trust_domain: str, data: bytes, now: float, record: Callable[[Bundle], object]) -> bool:
        """Keep a bundle, once `record` is done with one that is new; tells whether it was.

        Raises FederationError for what is none of that trust domain, and where it cannot be kept; NotFound for a
        stranger; what `record` raises.
        """
        before = self.named(trust_domain)
        try:
            bundle = bundles.read(data, trust_domain)
        except PolicydError as error:
            raise FederationError(error.message) from None
        after = taken(before, bundle, now)
        if bundle != before.bundle:
            record(bundle)
            _store(self._folder, bundle)
        self._put(after)
        return bundle != before.bundle

    def missed(self, trust_domain: str, problem: str, now: float) -> None:
        """It could not be had."""
        if trust_domain in self._kept:  # it may have been let go meanwhile
            self._put(missed(self._kept[trust_domain], problem, now))

    def problems(self) -> Iterator[str]:
        """A line for each trust domain whose workloads are not known, or whose bundle may be out of date."""
        for name, kept in sorted(self._kept.items()):
            if kept.problem:
                then = "the one from before is used" if kept.bundle else "its workloads are strangers"
                yield f"the bundle of `{name}` cannot be fetched: {kept.problem}; {then}"
            elif kept.bundle is None and kept.relation.bundle_endpoint is None:
                yield f"the workloads of `{name}` are strangers until `policyd ca bundle import` has its bundle"
            elif kept.bundle is not None and not kept.bundle.roots:
                yield f"the bundle of `{name}` has no root: its workloads are strangers"

    def named(self, trust_domain: str) -> Kept:
        """What is at hand of one; raises NotFound for a stranger."""
        kept = self._kept.get(trust_domain)
        if kept is None:
            remedy = "name it under `ca.federation` in policyd.yaml, or by `policyd ca federation create`"
            raise NotFound(f"`{trust_domain[:255]}` is no trust domain that is known here", remedy=remedy)
        return kept

    def _put(self, kept: Kept) -> None:
        self._kept = MappingProxyType({**self._kept, kept.relation.trust_domain: kept})

    @staticmethod
    def _bundles_of(all_kept: Mapping[str, Kept]) -> tuple[Bundle, ...]:
        return tuple(kept.bundle for _, kept in sorted(all_kept.items()) if kept.bundle is not None)


def _file(folder: Path, trust_domain: str) -> Path:
    return folder / f"{trust_domain}.json"  # its name was checked: no separator is in it


def _store(folder: Path, bundle: Bundle) -> None:
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        write_private(_file(folder, bundle.trust_domain), bundles.write(bundle))
    except OSError as error:
        raise FederationError(f"it cannot be kept: {(error.strerror or str(error)).lower()}") from None


def _load(folder: Path, trust_domain: str) -> Bundle | None:
    """What was kept; what is broken is as if it were not there."""
    try:
        with _file(folder, trust_domain).open("rb") as file:
            return bundles.read(file.read(bundles.MAX_BYTES + 1), trust_domain)
    except (OSError, IdentityError, StateError):
        return None
