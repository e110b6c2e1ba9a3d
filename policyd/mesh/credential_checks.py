"""Whether the certificates and keys that a folder names are there, can be used, and belong together.

Law: pure; each fault is told with the place that names the file. What a credential is stands in credentials.py, which
those who only read a Mesh need, and this not.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import Any, Final

from policyd.errors import Problem
from policyd.mesh.credentials import CredentialFile, Credentials
from policyd.mesh.declaration import Declaration, Declared
from policyd.mesh.gateway_api.values import OpensTls, ShowsBackends
from policyd.mesh.istio.client_tls import ClientTls
from policyd.mesh.istio.destination_rule import DestinationRule
from policyd.mesh.istio.gateway import Gateway
from policyd.mesh.istio.server_tls import ServerTls
from policyd.mesh.istio.sidecar import Sidecar
from policyd.yaml import Path

CERTIFICATE, KEY, LIST = "certificate", "private key", "list of revoked certificates"


def check_credentials(declaration: Declaration, credentials: Credentials | None, problems: list[Problem]) -> None:
    """Each certificate that a Gateway names is there, can be used, and belongs to its key.

    None: they are not at hand (an earlier revision, kept without them), so nothing can be said.
    """
    for declared, path, shown in _shown(declaration) if credentials is not None else ():
        _check(declared, path, shown, credentials or {}, problems)
    for rule in declaration.of(DestinationRule) if credentials is not None else ():
        for path, tls in rule.resource.client_tls():
            _check_client(rule, (*path, "credentialName"), tls, credentials or {}, problems)
    for gateway in declaration.of(ShowsBackends) if credentials is not None else ():
        certificate, key = gateway.resource.files
        _note(gateway, ("spec", "tls", "backend"), _misfit((certificate, key), credentials or {}), problems)


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
    for file, kind in _files(tls):
        _note(declared, path, _fault(file, credentials.get(file), kind), problems)
    _note(declared, path, _list_fault(tls.crl_file, credentials, needed=False), problems)
    if tls.own_files is not None:
        _note(declared, path, _misfit(tls.own_files, credentials), problems)


def _note(declared: Declared[Any], path: Path, fault: tuple[str, str], problems: list[Problem]) -> None:
    problem, remedy = fault
    if problem:
        problems.append(declared.problem("credential", problem, path, remedy))


def _files(tls: ClientTls) -> Iterator[tuple[str, str]]:
    """The files of a credential, and what each is."""
    if tls.own_files is not None:
        yield tls.own_files[0], CERTIFICATE
        yield tls.own_files[1], KEY
    if tls.ca_file is not None:
        yield tls.ca_file, CERTIFICATE


def _check(
    declared: Declared[Any], path: Path, tls: ServerTls, credentials: Credentials, problems: list[Problem]
) -> None:
    before = len(problems)
    for at, (certificate, key) in enumerate(tls.pairs):
        _note(
            declared, _field(path, tls, at, 0), _fault(certificate, credentials.get(certificate), CERTIFICATE), problems
        )
        _note(declared, _field(path, tls, at, 1), _fault(key, credentials.get(key), KEY), problems)
    if tls.ca_file is not None:
        where = (*path, "caCertificates" if tls.ca_certificates else _way(tls))
        _note(declared, where, _fault(tls.ca_file, credentials.get(tls.ca_file), CERTIFICATE), problems)
    where = (*path, "caCrl" if tls.ca_crl else _way(tls))
    _note(declared, where, _list_fault(tls.crl_file, credentials, needed=tls.ca_crl is not None), problems)
    if len(problems) > before:
        return
    for at, pair in enumerate(tls.pairs):
        _note(declared, _field(path, tls, at, 0), _misfit(pair, credentials), problems)
    shown = [credentials[certificate].algorithm for certificate, _ in tls.pairs if certificate in credentials]
    if len(shown) > len(set(shown)):
        message = f"both of its certificates are for {shown[0]}: clients would never see the second one"
        remedy = "of two, one is for RSA and one for ECDSA; keep one of these"
        problems.append(declared.problem("credential", message, (*path, _way(tls)), remedy))


_FIELDS: Final = ("serverCertificate", "privateKey")


def _way(tls: ServerTls) -> str:
    """The field by which a server names what it shows."""
    if tls.tls_certificates:
        return "tlsCertificates"
    return "credentialNames" if tls.credential_names else "credentialName"


def _field(path: Path, tls: ServerTls, at: int, which: int) -> Path:
    """Where one of its certificates, or its key, is named."""
    if tls.server_certificate is not None:
        return (*path, _FIELDS[which])
    if tls.tls_certificates:
        return (*path, "tlsCertificates", at, _FIELDS[which])
    return (*path, "credentialNames", at) if tls.credential_names else (*path, "credentialName")


def _fault(path: str, file: CredentialFile | None, kind: str) -> tuple[str, str]:
    if file is None:
        return f"there is no file `{path}`", "put it there, or a link to it"
    if file.problem:
        return f"`{path}` {file.problem}", file.remedy
    found = KEY if file.is_key else LIST if file.is_list else CERTIFICATE
    return (f"`{path}` is a {found}", "name the right file") if found != kind else ("", "")


def _list_fault(path: str | None, credentials: Credentials, *, needed: bool) -> tuple[str, str]:
    """What is wrong with a list of revoked certificates; that of a credential may be missing."""
    if path is None or (path not in credentials and not needed):
        return "", ""
    return _fault(path, credentials.get(path), LIST)


def _misfit(pair: tuple[str, str], credentials: Credentials) -> tuple[str, str]:
    certificate, key = (credentials.get(path) for path in pair)
    if certificate is None or key is None or certificate.problem or key.problem or certificate.public == key.public:
        return "", ""
    message = f"the key `{key.path}` is not that of the certificate `{certificate.path}`"
    return message, "put the two that belong together there"


def used(declaration: Declaration) -> Iterable[str]:
    """Give the files that servers and callers need, or may have, by path, each once."""
    paths: dict[str, None] = {}
    for _, _, shown in _shown(declaration):
        files = (*itertools.chain(*shown.pairs), shown.ca_file, shown.crl_file)
        paths |= {path: None for path in files if path is not None}
    for rule in declaration.of(DestinationRule):
        for _, tls in rule.resource.client_tls():
            paths |= {path: None for path, _ in _files(tls)}
            paths |= {tls.crl_file: None} if tls.crl_file is not None else {}
    for opened in declaration.of(OpensTls):
        ca_file, crl_file = opened.resource.tls.ca_file, opened.resource.tls.crl_file
        paths |= {path: None for path in (ca_file, crl_file) if path is not None}
    for gateway in declaration.of(ShowsBackends):
        paths |= dict.fromkeys(gateway.resource.files)
    return paths
