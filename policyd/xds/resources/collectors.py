"""The ways to collectors that are no part of policyd, and how OTLP is spoken there.

Law: what is told in the clear stays on this machine, which the settings see to; elsewhere a server proves its name. By
what a collector knows who sends is in no resource: proxies read it from the file that is named there.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping
from pathlib import PurePath
from typing import Any, Final
from urllib.parse import urlsplit

from policyd.mesh.model import Mesh
from policyd.xds.resources import policies, tls
from policyd.xds.resources.model import Control, OtlpLog, Tracing, socket

TIMEOUT: Final = "5s"
PORTS: Final = {"http": 80, "https": 443, "grpc": 4317, "grpcs": 4317}  # where a URL names none


def clusters(control: Control) -> Iterator[dict[str, Any]]:
    """All ways that settings and providers name."""
    yield from (_cluster(one.cluster, one.url, one.headers) for one in _ways(control))


def secrets(mesh: Mesh, control: Control) -> Iterator[dict[str, Any]]:
    """The values of the headers that they send (Secret), as far as the files are there.

    A file that is replaced Envoy reads again by itself, and one that is written over as another writing is named.
    """
    files = {file.path: file for file in mesh.credentials}
    named = {path for one in _ways(control) for path in one.headers.values()}
    for path in sorted(named & files.keys()):
        file = files[path]
        held = {"filename": file.place, "watched_directory": {"path": str(PurePath(file.place).parent)}}
        yield {
            "name": _secret_of(path),
            "generic_secret": {"secret": held, "secrets": {"writing": {"inline_string": file.writing}}},
        }


def _ways(control: Control) -> Iterator[Tracing | OtlpLog]:
    """All that lead to a collector; without a URL policyd is one."""
    spans = [*([control.tracing] if control.tracing is not None else []), *control.spans.values()]
    yield from (one for one in spans if one.url)
    yield from (one for one in control.logs.values() if isinstance(one, OtlpLog))


def _secret_of(path: str) -> str:
    return f"header:{path}"


def _cluster(name: str, url: str, headers: Mapping[str, str]) -> dict[str, Any]:
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or PORTS[parts.scheme]
    endpoint = {"endpoint": {"address": socket(host, port)}}
    made: dict[str, Any] = {
        "name": name,
        "type": "STATIC" if _is_address(host) else "STRICT_DNS",
        "connect_timeout": policies.CONNECT_TIMEOUT,
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]},
        "typed_extension_protocol_options": policies.protocol(
            "http2_protocol_options" if _is_grpc(url) else "http_protocol_options"
        ),
    }
    if headers:
        options = made["typed_extension_protocol_options"][policies.HTTP_OPTIONS]
        options["http_filters"] = [*(_says(header, path) for header, path in headers.items()), policies.CODEC]
    if parts.scheme in ("https", "grpcs"):
        made["transport_socket"] = tls.to_server(host, *(["h2"] if _is_grpc(url) else []))
    return made


def _says(header: str, path: str) -> dict[str, Any]:
    """Adds a header whose value is in a file; without it nothing is sent (credential_injector.v3)."""
    generic = {
        "@type": "type.googleapis.com/envoy.extensions.http.injected_credentials.generic.v3.Generic",
        "credential": tls.over_ads(_secret_of(path)),
        "header": header,
    }
    config = {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.credential_injector.v3.CredentialInjector",
        "overwrite": True,
        "credential": {"name": "envoy.http.injected_credentials.generic", "typed_config": generic},
    }
    return {"name": f"header.{header}", "typed_config": config}


def otlp(url: str, cluster: str) -> dict[str, Any]:
    """How OTLP is spoken there, as the URL says: by gRPC or by HTTP."""
    if _is_grpc(url):
        return {"grpc_service": {"envoy_grpc": {"cluster_name": cluster}, "timeout": TIMEOUT}}
    return {"http_service": {"http_uri": {"uri": url, "cluster": cluster, "timeout": TIMEOUT}}}


def _is_grpc(url: str) -> bool:
    return url.startswith(("grpc:", "grpcs:"))


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
