"""How a server at the edge proves itself to its clients, and what it wants of them."""

from __future__ import annotations

import re
from typing import Annotated, ClassVar, Final, Literal

from pydantic import AfterValidator, Field, model_validator
from pydantic.alias_generators import to_camel

from policyd.mesh.matching import check_credential
from policyd.strict import Many, Model

MAX_SHOWN: Final = 2  # Istio's: a certificate for RSA and one for ECDSA
Version = Literal["TLS_AUTO", "TLSV1_0", "TLSV1_1", "TLSV1_2", "TLSV1_3"]
ORDERED: Final = ("TLSV1_0", "TLSV1_1", "TLSV1_2", "TLSV1_3")
CIPHERS: Final = frozenset(
    {
        "ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-ECDSA-AES256-GCM-SHA384", "ECDHE-ECDSA-CHACHA20-POLY1305",
        "ECDHE-RSA-AES128-GCM-SHA256", "ECDHE-RSA-AES256-GCM-SHA384", "ECDHE-RSA-CHACHA20-POLY1305",
        "ECDHE-ECDSA-AES128-SHA", "ECDHE-ECDSA-AES256-SHA", "ECDHE-RSA-AES128-SHA", "ECDHE-RSA-AES256-SHA",
        "AES128-GCM-SHA256", "AES256-GCM-SHA384", "AES128-SHA", "AES256-SHA",
    }
)  # fmt: skip


def _check_file(path: str) -> str:
    """Return the path of a file in the folder of credentials."""
    parts = path.split("/")
    if len(parts) < 2 or parts[0] != "credentials" or any(part in ("", ".", "..") for part in parts):
        raise ValueError(f"`{path[:80]}` is outside of `credentials/`; put the file, or a link to it, there")
    return path


def _check_cipher(name: str) -> str:
    if name not in CIPHERS:
        raise ValueError(f"`{name[:80]}` is no cipher suite of Envoy's; known are {', '.join(sorted(CIPHERS))}")
    return name


def _check_hash(text: str) -> str:
    if not re.fullmatch(r"(?:[0-9A-Fa-f]{2}:?){31}[0-9A-Fa-f]{2}", text):
        raise ValueError(f"`{text[:80]}` is no SHA-256 in hexadecimal")
    return text


def _check_spki(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9+/]{43}=", text):
        raise ValueError(f"`{text[:80]}` is no SHA-256 in base64")
    return text


Credential = Annotated[str, AfterValidator(check_credential)]
File = Annotated[str, AfterValidator(_check_file)]


class TlsCertificate(Model):
    """A certificate that a server shows, with its key."""

    server_certificate: File
    private_key: File
    ca_certificates: File | None = None


class ServerTls(Model):
    """How a server proves itself, and what it wants of clients.

    A credential is a folder below `credentials/` with `tls.crt`, `tls.key`, for MUTUAL `ca.crt`, and `ca.crl` if some
    client's certificate was revoked; keys are readable by their owner alone. Of two, one is for RSA and one for ECDSA.
    Where `https_redirect` is set, requests in plain text are sent to https. With ISTIO_MUTUAL both sides show their
    identities of the mesh. With PASSTHROUGH it proves nothing: what the client sends is passed on as it is, with
    AUTO_PASSTHROUGH to the Service that the asked name means.
    """

    takes_any: ClassVar[bool] = False  # no file says so

    mode: Literal["SIMPLE", "MUTUAL", "OPTIONAL_MUTUAL", "ISTIO_MUTUAL", "PASSTHROUGH", "AUTO_PASSTHROUGH"] | None = (
        None
    )
    https_redirect: bool = False
    credential_name: Credential | None = None
    credential_names: Annotated[Many[Credential], Field(max_length=MAX_SHOWN)] = ()
    ca_cert_credential_name: Credential | None = None
    server_certificate: File | None = None
    private_key: File | None = None
    tls_certificates: Annotated[Many[TlsCertificate], Field(max_length=MAX_SHOWN)] = ()
    ca_certificates: File | None = None
    ca_crl: File | None = None
    subject_alt_names: Many[Annotated[str, Field(min_length=1, max_length=2048)]] = ()
    verify_certificate_hash: Many[Annotated[str, AfterValidator(_check_hash)]] = ()
    verify_certificate_spki: Many[Annotated[str, AfterValidator(_check_spki)]] = ()
    min_protocol_version: Version = "TLS_AUTO"
    max_protocol_version: Version = "TLS_AUTO"
    cipher_suites: Many[Annotated[str, AfterValidator(_check_cipher)]] = ()

    @model_validator(mode="after")
    def _shown(self) -> ServerTls:
        if not self.shows:
            return self._nothing_shown()
        ways = {
            "`credentialName`": self.credential_name is not None,
            "`credentialNames`": bool(self.credential_names),
            "`serverCertificate`, `privateKey`": self.server_certificate is not None or self.private_key is not None,
            "`tlsCertificates`": bool(self.tls_certificates),
        }
        given = [way for way, is_given in ways.items() if is_given]
        if len(given) > 1:
            raise ValueError(f"{given[0]} and {given[1]} exclude each other; keep one")
        if not given or (None in (self.server_certificate, self.private_key) and "privateKey" in given[0]):
            raise ValueError("it has no certificate; give `credentialName`, or `serverCertificate` and `privateKey`")
        if len(set(self.pairs)) < len(self.pairs):
            raise ValueError(f"{given[0]} names one certificate twice; of two, one is for RSA and one for ECDSA")
        return self

    @model_validator(mode="after")
    def _wanted(self) -> ServerTls:
        if not self.shows:
            return self
        authorities = {path for path in self._ca_paths if path is not None}
        if authorities and self.ca_cert_credential_name is not None:
            raise ValueError("`caCertificates` and `caCertCredentialName` exclude each other; keep one")
        if self.mode == "SIMPLE" and (self.subject_alt_names or self.verify_certificate_hash or self.ca_crl):
            raise ValueError("`SIMPLE` asks for no client certificate; write `MUTUAL`")
        if self.mode != "SIMPLE" and self.ca_file is None:
            raise ValueError(f"`{self.mode}` wants client certificates; give `caCertificates`")
        if len(authorities) > 1:
            raise ValueError("clients are checked by one file of authorities; name the same `caCertificates` in all")
        return self

    def _nothing_shown(self) -> ServerTls:
        given = self.model_fields_set - {"mode", "https_redirect"}
        if self.mode is not None and given:
            field = min(to_camel(name) for name in given)
            raise ValueError(f"`{field}` means nothing with `{self.mode}`; remove it")
        return self

    @model_validator(mode="after")
    def _versions(self) -> ServerTls:
        least = "TLSV1_2" if self.min_protocol_version == "TLS_AUTO" else self.min_protocol_version
        most = "TLSV1_3" if self.max_protocol_version == "TLS_AUTO" else self.max_protocol_version
        if ORDERED.index(least) > ORDERED.index(most):
            raise ValueError(f"no version is at least `{least}` and at most `{most}`")
        return self

    @property
    def shows(self) -> bool:
        """Whether it ends TLS with a certificate of the operator's."""
        return self.mode in ("SIMPLE", "MUTUAL", "OPTIONAL_MUTUAL")

    @property
    def pairs(self) -> tuple[tuple[str, str], ...]:
        """Where the certificates are that it shows, each with its private key, in the mesh's folder."""
        if self.server_certificate is not None and self.private_key is not None:
            return ((self.server_certificate, self.private_key),)
        if self.tls_certificates:
            return tuple((one.server_certificate, one.private_key) for one in self.tls_certificates)
        return tuple((f"credentials/{name}/tls.crt", f"credentials/{name}/tls.key") for name in self._names)

    @property
    def ca_file(self) -> str | None:
        """Where the authorities of client certificates are; None where none are wanted."""
        if not self._wants:
            return None
        named = next((path for path in self._ca_paths if path is not None), None)
        if named is not None:
            return named
        return f"credentials/{self._ca_name}/ca.crt" if self._ca_name else None

    @property
    def crl_file(self) -> str | None:
        """Where the list is of certificates that these have revoked; a credential need not have one."""
        if self.ca_crl is not None or not self._wants:
            return self.ca_crl
        return f"credentials/{self._ca_name}/ca.crl" if self._ca_name and not any(self._ca_paths) else None

    @property
    def _ca_paths(self) -> tuple[str | None, ...]:
        return (self.ca_certificates, *(one.ca_certificates for one in self.tls_certificates))

    @property
    def _wants(self) -> bool:
        return self.mode in ("MUTUAL", "OPTIONAL_MUTUAL")

    @property
    def _names(self) -> tuple[str, ...]:
        return (self.credential_name,) if self.credential_name is not None else self.credential_names

    @property
    def _ca_name(self) -> str | None:
        """The credential with the authorities; of two the first one, as in Istio."""
        return self.ca_cert_credential_name or next(iter(self._names), None)
