"""The certificates and keys of gateways, and of sidecars that open TLS to the outside, as far as others may know them.

Law: a private key is a file that only its proxy reads. Here it is a path and the hash of the public key that
belongs to it; nothing that is kept, sent or recorded has more.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from policyd.errors import Problem
from policyd.mesh.declare import Declaration, Declared
from policyd.mesh.istio.destination_rule import DestinationRule
from policyd.mesh.istio.gateway import Gateway, ServerTls
from policyd.mesh.istio.sidecar import Sidecar
from policyd.mesh.istio.traffic_policy import ClientTls
from policyd.yaml import Path

FOLDER: Final = "credentials"


@dataclass(frozen=True, slots=True)
class CredentialFile:
    """A file of credentials: `path` in the mesh's folder, `place` on the machine.

    `text` are its certificates in PEM, "" for a key; `public` is the hash of the public key of the key, or of the first
    certificate. `problem` is what is wrong with it, "" if nothing. `ended` is when its first certificate expired, None
    where it had not when it was read.
    """

    path: str
    place: str
    text: str = ""
    public: str = ""
    is_key: bool = False
    problem: str = ""
    remedy: str = ""
    ended: datetime | None = None


Credentials = Mapping[str, CredentialFile]  # by path in the mesh's folder


def check_credentials(declaration: Declaration, credentials: Credentials | None, problems: list[Problem]) -> None:
    """Each certificate that a Gateway names is there, can be used, and belongs to its key.

    None: they are not at hand (an earlier revision, kept without them), so nothing can be said.
    """
    for declared, path, shown in _shown(declaration) if credentials is not None else ():
        _check(declared, path, shown, credentials or {}, problems)
    for rule in declaration.of(DestinationRule) if credentials is not None else ():
        for path, tls in rule.resource.client_tls():
            _check_client(rule, (*path, "credentialName"), tls, credentials or {}, problems)


def _shown(declaration: Declaration) -> Iterator[tuple[Declared[Any], Path, ServerTls]]:
    """What servers of Gateways and ports of Sidecars show, with the places."""
    for gateway in declaration.of(Gateway):
        for at, server in enumerate(gateway.resource.spec.servers):
            if server.tls is not None and server.tls.shows:
                yield gateway, ("spec", "servers", at, "tls"), server.tls
    for sidecar in declaration.of(Sidecar):
        for at, one in enumerate(sidecar.resource.spec.ingress):
            if one.tls is not None:
                yield sidecar, ("spec", "ingress", at, "tls"), one.tls


def _check_client(
    declared: Declared[DestinationRule], path: Path, tls: ClientTls, credentials: Credentials, problems: list[Problem]
) -> None:
    for file, is_key in _files(tls):
        problem, remedy = _fault(file, credentials.get(file), is_key=is_key)
        if problem:
            problems.append(declared.problem("credential", problem, path, remedy))
    certificate, key = (credentials.get(file) for file in tls.own_files) if tls.own_files else (None, None)
    if certificate and key and not certificate.problem and not key.problem and certificate.public != key.public:
        message = f"the key `{key.path}` is not that of the certificate `{certificate.path}`"
        problems.append(declared.problem("credential", message, path, "put the two that belong together there"))


def _files(tls: ClientTls) -> Iterator[tuple[str, bool]]:
    """The files of a credential, and which is its key."""
    if tls.own_files is not None:
        yield tls.own_files[0], False
        yield tls.own_files[1], True
    if tls.ca_file is not None:
        yield tls.ca_file, False


def _check(
    declared: Declared[Any], path: Path, tls: ServerTls, credentials: Credentials, problems: list[Problem]
) -> None:
    wanted = (
        (tls.certificate_file, False, "serverCertificate"),
        (tls.key_file, True, "privateKey"),
        *([(tls.ca_file, False, "caCertificates")] if tls.ca_file else []),
    )
    before = len(problems)
    for file, is_key, field in wanted:
        where = (*path, field if getattr(tls, _FIELDS[field]) else "credentialName")
        problem, remedy = _fault(file, credentials.get(file), is_key=is_key)
        if problem:
            problems.append(declared.problem("credential", problem, where, remedy))
    certificate, key = credentials.get(tls.certificate_file), credentials.get(tls.key_file)
    if len(problems) == before and certificate and key and certificate.public != key.public:
        message = f"the key `{key.path}` is not that of the certificate `{certificate.path}`"
        problems.append(declared.problem("credential", message, path, "put the two that belong together there"))


_FIELDS: Final = {
    "serverCertificate": "server_certificate",
    "privateKey": "private_key",
    "caCertificates": "ca_certificates",
}


def _fault(path: str, file: CredentialFile | None, *, is_key: bool) -> tuple[str, str]:
    if file is None:
        return f"there is no file `{path}`", "put it there, or a link to it"
    if file.problem:
        return f"`{path}` {file.problem}", file.remedy
    if file.is_key != is_key:
        return f"`{path}` is a {'private key' if file.is_key else 'certificate'}", "name the right file"
    return "", ""


def used(declaration: Declaration) -> Iterable[str]:
    """Give the files that servers and callers need, by path, each once."""
    paths: dict[str, None] = {}
    for _, _, shown in _shown(declaration):
        files = (shown.certificate_file, shown.key_file, shown.ca_file)
        paths |= {path: None for path in files if path is not None}
    for rule in declaration.of(DestinationRule):
        for _, tls in rule.resource.client_tls():
            paths |= {path: None for path, _ in _files(tls)}
    return paths
