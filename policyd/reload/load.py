"""A folder is checked as a whole, and becomes what is in force; so does what changes besides the folder."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection
from dataclasses import replace

from policyd.authz.ruling import Ruling, make_ruling
from policyd.ca.revocations import FILE as REVOKED_FILE
from policyd.cedar.engine import Engine
from policyd.cedar.policies import PolicySet, set_of
from policyd.cedar.schema import Schema
from policyd.config.settings import Settings
from policyd.errors import InvalidInput
from policyd.local.enforcing import Enforced, Terms, enforced
from policyd.local.enforcing import problems as unenforced
from policyd.local.guarding import Guarded, guarded
from policyd.local.guarding import problems as unguarded
from policyd.mesh.declaration import Declaration
from policyd.mesh.model import Mesh
from policyd.mesh.placement import Placement
from policyd.policy.cases import failures
from policyd.reload.live import Earlier, Issuance, Live, Schemas
from policyd.reload.parsed import Parsed, parse
from policyd.reload.remarks import warnings
from policyd.sources.files import Folder, digest
from policyd.spiffe import SpiffeId
from policyd.xds.resources.build import ProxyClass, build_snapshots
from policyd.xds.resources.model import Control
from policyd.xds.resources.observing import STATIC_CLUSTERS
from policyd.xds.resources.reuse import Snapshots


def load(
    folder: Folder,
    schemas: Schemas,
    place: Callable[[Declaration], Placement],
    control: Control,
    earlier: Earlier | None = None,
    living: Callable[[Mesh], Mesh] = lambda mesh: mesh,
    distrusted: Callable[[str], Collection[SpiffeId]] = lambda revision: (),
) -> Live:
    """Check all of a folder; raises InvalidInput with every problem that can be found at once.

    `place` says where instances are; `control` where proxies ask for decisions; `earlier` spares work; `living` is the
    mesh with the instances that do not answer marked as such; `distrusted` are the workloads whose sidecars decided
    otherwise than policyd under a revision.
    """
    earlier = earlier or Earlier()
    parsed = parse(folder, schemas, place, earlier)
    parsed = replace(parsed, mesh=living(parsed.mesh))
    ruling = make_ruling(parsed.mesh, parsed.traffic.active, schemas.mesh, parsed.traffic.shadow, earlier.entities)
    terms = _terms(parsed.settings, ruling, distrusted)
    local, alone = enforced(ruling, terms, earlier.enforced), guarded(ruling, earlier.guarded)
    problems = failures(parsed.cases, _without_revoked(parsed, ruling, schemas.mesh))
    problems += [*unenforced(local, parsed.declaration, terms), *unguarded(alone, parsed.declaration)]
    if problems:
        raise InvalidInput(problems)
    snapshots = _snapshots(parsed.mesh, control, earlier.snapshots, local, alone)
    return Live(
        digest=folder.digest,
        texts=folder.texts,
        files={path: digest({path: text}) for path, text in folder.known.items()},
        settings=parsed.settings,
        declaration=parsed.declaration,
        placement=parsed.placement,
        mesh=parsed.mesh,
        ruling=ruling,
        issuance=_issuance(parsed.issuance, schemas.issuance),
        snapshots=snapshots,
        config=snapshots.config,
        warnings=tuple(warnings(parsed)),
        shadow_place=folder.shadow_place,
        operators=parsed.operators,
        enforced=local,
        guarded=alone,
    )


def relive(live: Live, control: Control, living: Callable[[Mesh], Mesh]) -> Live:
    """The same, for what is known by now of the instances that answer."""
    mesh = living(live.mesh)
    snapshots = _snapshots(mesh, control, live.snapshots, live.enforced, live.guarded)
    return replace(live, mesh=mesh, snapshots=snapshots, config=snapshots.config)


def reenforce(live: Live, control: Control, distrusted: Callable[[str], Collection[SpiffeId]]) -> Live:
    """The same, for who is distrusted by now: where an Enforcement is `auto` policyd decides for them."""
    found = enforced(live.ruling, _terms(live.settings, live.ruling, distrusted), live.enforced)
    snapshots = _snapshots(live.mesh, control, live.snapshots, found, live.guarded)
    return replace(live, snapshots=snapshots, config=snapshots.config, enforced=found)


def _terms(settings: Settings, ruling: Ruling, distrusted: Callable[[str], Collection[SpiffeId]]) -> Terms:
    audit = settings.audit
    return Terms(audit.durability, audit.include.headers, distrusted(ruling.revision), audit.include.claims)


def _snapshots(
    mesh: Mesh, control: Control, before: Snapshots[ProxyClass] | None, local: Enforced, alone: Guarded
) -> Snapshots[ProxyClass]:
    """What proxies are sent; nothing of it leads nowhere."""
    return build_snapshots(mesh, control, before, local.switches, alone.guards).check(STATIC_CLUSTERS)


def _issuance(policies: PolicySet, schema: Schema) -> Issuance:
    digest = hashlib.sha256("\n".join(policy.text for policy in policies.policies).encode())
    return Issuance(Engine(policies, schema), digest.hexdigest()[:16])


def _without_revoked(parsed: Parsed, ruling: Ruling, schema: Schema) -> Ruling:
    """What cases are about: a policy's author could not know whose identity would be revoked."""
    active = parsed.traffic.active
    if not any(policy.file == REVOKED_FILE for policy in active.policies):
        return ruling
    rest = set_of(policy for policy in active.policies if policy.file != REVOKED_FILE)
    return make_ruling(parsed.mesh, rest, schema, parsed.traffic.shadow)
