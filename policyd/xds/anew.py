"""Secrets in a writing that is each stream's own, so that an Envoy which comes back looks at them once more.

Law: what a secret says and its version are as before. Envoy 1.40 takes a secret that it rejected for its own when the
same bytes come again, and does not use it; what became of it on an earlier stream nobody but this Envoy knows.
"""

from __future__ import annotations

from typing import Any, Final

from msgspec.structs import replace as with_parts

from policyd import envoy_api
from policyd.envoy_api import SECRET, TYPE_PREFIX, EnvoyApi
from policyd.xds.snapshot import Resource
from policyd.xds.state import Push

_SECRET: Final = SECRET.removeprefix(TYPE_PREFIX)
_NAME: Final = "stream"  # among the texts of a generic secret, of which Envoy reads the one that is asked for


def anew(push: Push, stream: str, api: EnvoyApi | None = None) -> Push:
    """The push with secrets as they are written on this stream; `stream` is one line that no other one has."""
    if push.type_url != SECRET or not push.resources:
        return push
    message = (api or envoy_api.shared()).message(_SECRET)
    return with_parts(push, resources=tuple(_written(one, stream, message) for one in push.resources))


def _written(one: Resource, stream: str, message: Any) -> Resource:
    secret = message.FromString(one.body)
    match secret.WhichOneof("type"):
        case "tls_certificate":
            _below(secret.tls_certificate.certificate_chain, stream)
        case "validation_context":
            _below(secret.validation_context.trusted_ca, stream)
        case "generic_secret":
            secret.generic_secret.secrets[_NAME].inline_string = stream
    return Resource(one.name, one.version, one.type_url, secret.SerializeToString(), one.references)


def _below(source: Any, stream: str) -> None:
    """What stands below the last certificate of a PEM text is passed over by whoever reads it."""
    if source.WhichOneof("specifier") == "inline_string":
        source.inline_string = f"{source.inline_string}\n# {stream}\n"
