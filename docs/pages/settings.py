"""settings.md: policyd.yaml field by field, and the environment."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Final

from docs.pages.models import fields, title
from docs.pages.tables import code, table
from policyd import environment
from policyd.config.addresses import ListenSettings
from policyd.config.audit import AuditSettings, ExportSettings, IncludeSettings, MaskSettings
from policyd.config.authority import (
    BundleEndpointSettings,
    CaSettings,
    ClusterSettings,
    EvidenceSettings,
    FederatedSettings,
    UpstreamSettings,
)
from policyd.config.console import ConsoleSettings, OidcSettings
from policyd.config.observing import (
    CollectorSettings,
    FileLogSettings,
    LogFormatSettings,
    ProviderSettings,
    TracingSettings,
    ZipkinSettings,
)
from policyd.config.settings import EgressSettings, LogSettings, OutboundSettings, Settings, ShadowSettings
from policyd.policy.meanings import MEANINGS
from policyd.strict import Model

SECTIONS: Final[tuple[type[Model], ...]] = (
    Settings,
    AuditSettings,
    ExportSettings,
    FederatedSettings,
    IncludeSettings,
    MaskSettings,
    BundleEndpointSettings,
    UpstreamSettings,
    EvidenceSettings,
    ClusterSettings,
    CaSettings,
    ConsoleSettings,
    OidcSettings,
    EgressSettings,
    ListenSettings,
    LogSettings,
    OutboundSettings,
    ShadowSettings,
    TracingSettings,
    ProviderSettings,
    FileLogSettings,
    LogFormatSettings,
    CollectorSettings,
    ZipkinSettings,
)
VARIABLES: Final = (
    ("POLICYD_DIR", "The mesh's folder, where `--dir` is not given."),
    ("POLICYD_CA_PASSPHRASE", "What the authority's keys are encrypted under; only the server sees it."),
    ("POLICYD_CONSOLE", "`off`: `policyd up` runs no console, unless it is told `--console`; `on`."),
    ("POLICYD_ENVOY", "Another Envoy than the installed one; its version must be the same."),
    ("POLICYD_LOG", "`debug`, `info`, `warning` or `error`; wins over `log.level`."),
    ("POLICYD_PORTS", "`FIRST-LAST`: the ports from which policyd picks those that nobody chose; `20000-32767`."),
    ("XDG_RUNTIME_DIR", "Sockets go to `policyd/` in it; otherwise to a private folder below TMPDIR."),
    ("XDG_CACHE_HOME", "Where what is read from Envoy once is kept; otherwise `~/.cache`."),
    ("TMPDIR", "Where sockets go without XDG_RUNTIME_DIR."),
)


def settings() -> Iterator[str]:
    """Every setting with its default, and every variable."""
    yield from (
        "# Settings",
        "",
        "`policyd.yaml` in the mesh's folder. The file and each of its lines is optional.",
        "",
    )
    for model in SECTIONS:
        if name := title(model):
            yield from (f"## {name}", "")
        yield from fields(model, MEANINGS[model.__name__])
    yield from ("## Environment", "")
    read = inspect.getsource(environment)
    if missing := [name for name, _ in VARIABLES if name not in read]:
        raise ValueError(f"the environment is not asked for {missing}")
    yield from table(("variable", "what it does"), ((code(name), text) for name, text in VARIABLES))
