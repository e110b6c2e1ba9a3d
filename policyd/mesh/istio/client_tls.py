"""The TLS that a caller opens to a destination (Istio's ClientTLSSettings)."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field, model_validator

from policyd.mesh.istio.common import HostPattern
from policyd.mesh.matching import check_credential
from policyd.strict import Many, Model


def _check_proxy_file(path: str) -> str:
    """Return the path of a file that a proxy reads, in whatever folder it runs."""
    if not path.startswith("/"):
        raise ValueError(f"`{path[:80]}` is a file of the caller's machine; write its whole path, from `/` on")
    return path


ProxyFile = Annotated[str, Field(max_length=4096), AfterValidator(_check_proxy_file)]


class ClientTls(Model):
    """What a caller does for a connection: the mesh's own mutual TLS, none, or TLS of its own."""

    trusts_nobody: ClassVar[bool] = False  # no file says so

    mode: Literal["DISABLE", "SIMPLE", "MUTUAL", "ISTIO_MUTUAL"] = "DISABLE"
    ca_certificates: ProxyFile | None = None
    client_certificate: ProxyFile | None = None
    private_key: ProxyFile | None = None
    ca_crl: ProxyFile | None = None
    subject_alt_names: Many[Annotated[str, Field(min_length=1, max_length=2048)]] = ()
    sni: HostPattern | None = None
    insecure_skip_verify: bool = False
    credential_name: Annotated[str, AfterValidator(check_credential)] | None = None

    @model_validator(mode="after")
    def _fits(self) -> ClientTls:
        own = (self.client_certificate is not None, self.private_key is not None)
        if self.mode == "MUTUAL" and not all(own) and self.credential_name is None:
            raise ValueError("`MUTUAL` needs `clientCertificate` and `privateKey`, or `credentialName`; add them")
        if self.credential_name is not None and (any(own) or self.ca_certificates is not None):
            raise ValueError("`credentialName` has the certificates and the key; remove the other files")
        if self.mode != "MUTUAL" and any(own):
            raise ValueError("`clientCertificate` and `privateKey` are for `MUTUAL`; remove them")
        if self.ca_crl is not None and (self.ca_certificates is None or self.insecure_skip_verify):
            raise ValueError(
                "`caCrl` lists what `caCertificates` have revoked; give these, without `insecureSkipVerify`"
            )
        named = self.sni is not None and (self.mode == "DISABLE" or "*" in self.sni)
        given = (
            self.ca_certificates or self.subject_alt_names or named or self.insecure_skip_verify
            or self.credential_name
        )  # fmt: skip
        if self.mode in ("DISABLE", "ISTIO_MUTUAL") and given:
            other = "nothing but `sni`, a name," if self.mode == "ISTIO_MUTUAL" else "nothing else"
            raise ValueError(f"with `{self.mode}` {other} is given; remove the other fields")
        return self

    @property
    def ca_file(self) -> str | None:
        """The authorities that a credential has, by path in the mesh's folder; None where there is none."""
        return f"credentials/{self.credential_name}/ca.crt" if self.credential_name else None

    @property
    def crl_file(self) -> str | None:
        """The list of what these have revoked, which a credential need not have."""
        return f"credentials/{self.credential_name}/ca.crl" if self.credential_name else None

    @property
    def own_files(self) -> tuple[str, str] | None:
        """The certificate and the key of a credential."""
        if self.credential_name is None or self.mode != "MUTUAL":
            return None
        return f"credentials/{self.credential_name}/tls.crt", f"credentials/{self.credential_name}/tls.key"
