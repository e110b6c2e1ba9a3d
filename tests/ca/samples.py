"""One good sample of each thing that the tests of this room break or use."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding

from policyd.ca.authority import Authority, Material, authority_of, new_material
from policyd.ca.issuer import Issuer, Ports
from policyd.ca.jwt_keys import JwtKeys, turn
from policyd.ca.template import Random
from policyd.errors import JournalError
from policyd.mesh.model import Instance, Mesh, Service, Workload
from policyd.spiffe import SpiffeId
from tests.fakes.clock import FakeClock
from tests.fakes.decider import Decider
from tests.fakes.recorder import Recorder

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
DOMAIN = "cluster.local"
REVIEWS = SpiffeId.workload(DOMAIN, "default", "reviews")
RATINGS = SpiffeId.workload(DOMAIN, "default", "ratings")
LAPTOP = SpiffeId.agent(DOMAIN, "laptop")

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


def a_material(now: datetime = NOW) -> Material:
    return new_material(DOMAIN, now=now, random=os.urandom)


def an_authority(now: datetime = NOW) -> Authority:
    return authority_of(a_material(now), DOMAIN, now=now)


def a_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def a_csr(
    key: Key | None = None,
    *,
    subject: str = "",
    names: Sequence[x509.GeneralName] = (),
    extensions: Sequence[x509.ExtensionType] = (),
) -> bytes:
    subject_name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, subject)] if subject else [])
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject_name)
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=True)
    for extension in extensions:
        builder = builder.add_extension(extension, critical=True)
    return builder.sign(key or a_key(), hashes.SHA256()).public_bytes(Encoding.DER)


def a_mesh(**changes: object) -> Mesh:
    services = {f"{name}.default": Service(name, "default", ()) for name in ("reviews", "ratings")}
    fields: dict[str, object] = {
        "trust_domain": DOMAIN,
        "services": services,
        "workloads": {REVIEWS: Workload(REVIEWS, {"team": "books"}), RATINGS: Workload(RATINGS)},
        "instances": {
            "reviews-v1": Instance("reviews-v1", REVIEWS, "sidecar", "reviews.default"),
            "reviews-v2": Instance("reviews-v2", REVIEWS, "sidecar", "reviews.default"),
            "ratings-v1": Instance("ratings-v1", RATINGS, "sidecar", "ratings.default"),
        },
        "groups": {},
        "gateways": (),
        "virtual_services": (),
        "listeners": {},
    }
    return Mesh(**(fields | changes))  # type: ignore[arg-type]


@dataclass
class Office:
    """An Issuer with all its ports in the test's hands."""

    authority: Authority = field(default_factory=an_authority)
    clock: FakeClock = field(default_factory=lambda: FakeClock(NOW))
    decider: Decider = field(default_factory=Decider)
    recorder: Recorder = field(default_factory=Recorder)
    counted: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    mesh: Mesh = field(default_factory=a_mesh)
    revoked: set[SpiffeId] = field(default_factory=set)
    serials: set[str] = field(default_factory=set)
    token_issuer: str = ""
    revision: str = "r1"
    random: Random = os.urandom
    jwt_keys: JwtKeys = field(default_factory=lambda: turn(JwtKeys(), NOW, a_key))

    @property
    def issuer(self) -> Issuer:
        ports = Ports(
            mesh=lambda: self.mesh,
            decide=self.decider,
            record=self.recorder,
            count=self.counted.append,
            clock=self.clock,
            random=self.random,
            revision=lambda: self.revision,
            refused=self.refused.append,
            jwt_keys=lambda: self.jwt_keys,
            revoked=self.revoked.__contains__,
            revoked_serial=self.serials.__contains__,
            token_issuer=lambda: self.token_issuer,
        )
        return Issuer(self.authority, ports)


def nothing() -> None:
    """Keep no record."""


def full() -> None:
    """Keep no record, for want of space."""
    raise JournalError("full")
