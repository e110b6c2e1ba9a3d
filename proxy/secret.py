"""An SVID and bundles as the secrets that Envoy asks its agent for.

Law: pure. Secrets are made only from values that `proxy.identity` checked, so a broken pair cannot be pushed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from policyd.envoy_api import SECRET, TYPE_PREFIX, EnvoyApi
from policyd.spiffe import SpiffeId
from policyd.xds.agreed import IDENTITY_SECRET, LISTED_SECRET, ROOTS_SECRET
from policyd.xds.snapshot import Snapshot, make_snapshot, resource
from proxy.identity import Bundle, Svid

_VALIDATOR = TYPE_PREFIX + "envoy.extensions.transport_sockets.tls.v3.SPIFFECertValidatorConfig"


def secrets(
    api: EnvoyApi, svid: Svid, bundle: Bundle, federated: Sequence[Bundle] = (), crls: Sequence[bytes] = ()
) -> Snapshot:
    """Return the secrets as a snapshot; the version of each is a hash of what it holds.

    Each trust domain is verified by its own bundle, and by no other. With `crls` (DER) there are secrets of each apart:
    its own trust domain's by Envoy's default validator, which looks at them.
    """
    held = [(IDENTITY_SECRET, identity(svid)), (ROOTS_SECRET, roots((bundle, *federated)))]
    if crls:
        held.append((LISTED_SECRET, listed(bundle, crls)))
        held += [(str(SpiffeId(one.trust_domain, "")), roots([one])) for one in federated]
    return make_snapshot(resource(SECRET, name, {"name": name, **body}, api=api) for name, body in held)


def identity(svid: Svid) -> dict[str, Any]:
    """The body of the secret with a certificate and its key."""
    return {
        "tls_certificate": {
            "certificate_chain": {"inline_string": svid.chain_pem().decode()},
            "private_key": {"inline_string": svid.key_pem.decode()},
        }
    }


def listed(bundle: Bundle, crls: Iterable[bytes]) -> dict[str, Any]:
    """The body of the secret that verifies peers of one trust domain, but for those that its lists name.

    Who uses it says which identities it takes: by itself it takes whatever the roots vouch for.
    """
    lists = b"".join(x509.load_der_x509_crl(one).public_bytes(Encoding.PEM) for one in crls)
    return {
        "validation_context": {
            "trusted_ca": {"inline_string": bundle.pem().decode()},
            "crl": {"inline_string": lists.decode()},
            "only_verify_leaf_cert_crl": True,  # there are lists of those that sign leaves
        }
    }


def roots(bundles: Iterable[Bundle]) -> dict[str, Any]:
    """The body of the secret that verifies peers of these trust domains."""
    trusted = [{"name": each.trust_domain, "trust_bundle": {"inline_string": each.pem().decode()}} for each in bundles]
    validator = {"@type": _VALIDATOR, "trust_domains": trusted}
    named = {"name": "envoy.tls.cert_validator.spiffe", "typed_config": validator}
    return {"validation_context": {"custom_validator_config": named}}
