"""policyd.yaml as a whole."""

from __future__ import annotations

import ipaddress
from typing import Annotated, Final, Literal

from annotated_types import MaxLen
from pydantic import AfterValidator, Field, model_validator

from policyd.access_log import check_format, check_json
from policyd.config.addresses import Listen, ListenSettings
from policyd.config.audit import AuditSettings
from policyd.config.authority import CaSettings, TrustDomain
from policyd.config.console import ConsoleSettings
from policyd.config.observing import LogPath, ProviderSettings, TracingSettings
from policyd.environment import Level
from policyd.errors import InvalidInput, Problem
from policyd.strict import Many, Model, parse
from policyd.yaml import load_one

SETTINGS_FILE: Final = "policyd.yaml"
MAX_WORKERS: Final = 64


def _check_range(text: str) -> str:
    try:
        return str(ipaddress.ip_network(text))
    except ValueError:
        raise ValueError(f"`{text[:80]}` is no range of addresses; write one, as in `127.0.0.2/32`") from None


class LogSettings(Model):
    """What policyd says about itself."""

    level: Level = "info"


class ShadowSettings(Model):
    """Policies that are tried beside the active ones: a folder of `.cedar` files, relative to the mesh's folder."""

    policies: Annotated[str, Field(min_length=1)] | None = None


class OutboundSettings(Model):
    """What becomes of names outside that nothing declares: 502, or asked about like a declared one (`ALLOW_ANY`)."""

    mode: Literal["REGISTRY_ONLY", "ALLOW_ANY"] = "REGISTRY_ONLY"


class EgressSettings(Model):
    """What names outside may lead to: ranges allowed although they are loopback, link-local or the mesh's, and the DNS
    servers that proxies ask (none: those of their machine).
    """

    allow_addresses: Many[Annotated[str, AfterValidator(_check_range)]] = ()
    dns_resolvers: Many[Listen] = ()


class Settings(Model):
    """policyd.yaml; every line is optional. `workers` is how many processes decide, by default one a core but one."""

    trust_domain: TrustDomain = "cluster.local"
    audit: AuditSettings = AuditSettings()
    ca: CaSettings = CaSettings()
    listen: ListenSettings = ListenSettings()
    console: ConsoleSettings = ConsoleSettings()
    log: LogSettings = LogSettings()
    shadow: ShadowSettings = ShadowSettings()
    workers: Annotated[int, Field(ge=1, le=MAX_WORKERS)] | None = None
    outbound_traffic_policy: OutboundSettings = OutboundSettings()
    egress: EgressSettings = EgressSettings()
    tracing: TracingSettings = TracingSettings()
    access_log_file: LogPath | None = None
    access_log_encoding: Literal["TEXT", "JSON"] = "TEXT"
    access_log_format: str = ""
    extension_providers: Annotated[Many[ProviderSettings], MaxLen(32)] = ()

    @model_validator(mode="after")
    def _knows_others(self) -> Settings:
        if any(one.trust_domain == self.trust_domain for one in self.ca.federation):
            raise ValueError(f"`{self.trust_domain}` is this trust domain itself; `ca.federation` names others")
        return self

    @model_validator(mode="after")
    def _check_access_log(self) -> Settings:
        if self.access_log_format:
            (check_json if self.access_log_encoding == "JSON" else check_format)(self.access_log_format)
        names = [one.name for one in self.extension_providers]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise ValueError(f"two of `extensionProviders` are called `{twice}`; give each a name of its own")
        return self


def parse_settings(text: str, file: str = SETTINGS_FILE) -> Settings:
    """Parse the text of policyd.yaml; empty text gives the defaults. Raises InvalidInput."""
    problems: list[Problem] = []
    settings = parse(Settings, load_one(text, file), problems)
    if settings is None:
        raise InvalidInput(problems)
    return settings
