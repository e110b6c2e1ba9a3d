"""Settings and environment: safe defaults, strict reading, folders found and private."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policyd.config.addresses import Address, ListenSettings, parse_address
from policyd.config.audit import AuditSettings, ExportSettings
from policyd.config.authority import CaSettings
from policyd.config.observing import TracingSettings
from policyd.config.settings import LogSettings, Settings, ShadowSettings, parse_settings
from policyd.errors import InvalidInput

WHOLE = """\
trustDomain: example.org
audit:
  durability: fsync
  onFull: drop
  retain: 12h
  export: {otlp: "https://collector:4318/v1/logs", name: soc, headersFile: secrets/soc, caFile: soc.pem}
ca: {ttl: 10m, passphraseFile: secrets/ca}
listen: {xds: "0.0.0.0:15012", authz: "[::1]:9000", attestation: "10.0.0.7:0", http: "127.0.0.1:15014"}
log: {level: debug}
shadow: {policies: ../next}
"""


def test_every_setting_is_optional_and_safe() -> None:
    settings = parse_settings("")
    assert settings == Settings()
    assert (settings.trust_domain, settings.audit.on_full, settings.ca.ttl) == ("cluster.local", "deny", 3600.0)
    assert (settings.audit.durability, settings.audit.retain) == ("written", 604_800.0)
    listen = settings.listen
    assert all(address.is_loopback for address in (listen.xds, listen.authz, listen.attestation, listen.http))


def test_the_sample_folder_states_the_defaults_but_traces_every_request(root: Path) -> None:
    found = parse_settings((root / "examples" / "bookinfo" / "policyd.yaml").read_text())
    assert found == Settings(tracing=TracingSettings(sampling=100))


def test_every_setting_is_read() -> None:
    assert parse_settings(WHOLE) == Settings(
        trust_domain="example.org",
        audit=AuditSettings(
            durability="fsync",
            on_full="drop",
            retain=43_200.0,
            export=ExportSettings(
                otlp="https://collector:4318/v1/logs", name="soc", headers_file="secrets/soc", ca_file="soc.pem"
            ),
        ),
        ca=CaSettings(ttl=600.0, passphrase_file="secrets/ca"),
        listen=ListenSettings(
            xds=Address("0.0.0.0", 15012),
            authz=Address("::1", 9000),
            attestation=Address("10.0.0.7", 0),
            http=Address("127.0.0.1", 15014),
        ),
        log=LogSettings(level="debug"),
        shadow=ShadowSettings(policies="../next"),
    )


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("trustdomain: a", "unknown field `trustdomain`; did you mean `trustDomain`?"),
        (
            "trustDomain: Example.org",
            "`trustDomain`: `Example.org` is no trust domain name; "
            "use lower-case letters, digits, dots, dashes and underscores",
        ),
        ("audit: {onFull: on}", "`audit.onFull` must be 'deny' or 'drop', not the text `on`"),
        (
            "audit: {retain: forever}",
            "`audit.retain`: `forever` is no duration; write it as in `10s`, `0.5s` or `1m30s`",
        ),
        ("audit: {retain: 1s}", "`audit.retain` must be at least 3600, not the text `1s`"),
        ("ca: {ttl: 48h}", "`ca.ttl` must be at most 86400.0, not the text `48h`"),
        ("ca: {ttl: 3600}", "`ca.ttl`: `3600` is no duration; write it as in `10s`, `0.5s` or `1m30s`"),
        ("ca: {upstream: {chainFile: c.pem}}", "`ca.upstream`: give one of `keyFile`, `signCommand` and `signUrl`"),
        (
            "ca: {upstream: {chainFile: c.pem, keyFile: k.pem, signCommand: [sign]}}",
            "`ca.upstream`: give one of `keyFile`, `signCommand` and `signUrl`",
        ),
        ("ca: {passphraseFile: ''}", "`ca.passphraseFile` must have at least 1 characters, not the text ``"),
        (
            "ca: {federation: [{trustDomain: cluster.local}]}",
            "`cluster.local` is this trust domain itself; `ca.federation` names others",
        ),
        (
            "ca: {federation: [{trustDomain: a.org}, {trustDomain: a.org}]}",
            "`ca`: `a.org` stands twice under `federation`; name each trust domain once",
        ),
        (
            "ca: {federation: [{trustDomain: ../a}]}",
            "`ca.federation[0].trustDomain`: `../a` is no trust domain name; "
            "use lower-case letters, digits, dots, dashes and underscores",
        ),
        (
            "ca: {federation: [{trustDomain: a.org, bundleEndpoint: 'http://a.org/'}]}",
            "`ca.federation[0].bundleEndpoint`: `http://a.org/` is no bundle endpoint; write it as in "
            "`https://mesh.partner.org:8443/`",
        ),
        (
            "ca: {federation: [{trustDomain: a.org, bundleEndpoint: 'https://u:p@a.org/'}]}",
            "`ca.federation[0].bundleEndpoint`: `https://u:p@a.org/` is no bundle endpoint; write it as in "
            "`https://mesh.partner.org:8443/`",
        ),
        (
            "ca: {federation: [{trustDomain: a.org, bundleEndpoint: 'https://a.org/'}]}",
            "`ca.federation[0]`: an endpoint of `https_spiffe` needs its `endpointId`, or write `profile: https_web`",
        ),
        (
            "ca: {federation: [{trustDomain: a.org, bundleEndpoint: 'https://a.org/', endpointId: 'spiffe://b.org/x'}]}",
            "`ca.federation[0]`: `endpointId` is not of `a.org`, by whose bundle it would have to prove itself",
        ),
        (
            "ca: {federation: [{trustDomain: a.org, endpointId: 'spiffe://a.org/x'}]}",
            "`ca.federation[0]`: `endpointId` is for a `bundleEndpoint` of `https_spiffe`; remove it",
        ),
        (
            "ca: {tokenIssuer: 'https://a.org/'}",
            "`ca.tokenIssuer`: `https://a.org/` is no issuer; write it without `?` and without `/` at its end",
        ),
        (
            "ca: {bundleEndpoint: {listen: '127.0.0.1:1', keyFile: k}}",
            "`ca.bundleEndpoint`: `certificateFile` and `keyFile` go together; add the other one",
        ),
        (
            "listen: {xds: ':9000'}",
            "`listen.xds`: `:9000` is no address; write an IP address and a port, as in `127.0.0.1:0`",
        ),
        ("log: {level: loud}", "`log.level` must be 'debug', 'info', 'warning' or 'error', not the text `loud`"),
        (
            "audit: {export: {otlp: 'http://collector:4318/v1/logs'}}",
            "`audit.export.otlp`: `http://collector:4318/v1/logs` would be told in the clear; use https, or a "
            "collector on this machine",
        ),
        (
            "audit: {export: {otlp: 'collector:4318'}}",
            "`audit.export.otlp`: `collector:4318` is no URL of a collector; write it as in "
            "`https://collector:4318/v1/logs`",
        ),
        ("audit: {export: {}}", "`audit.export.otlp` is missing; add it"),
        (
            "tracing: {endpoint: 'https://c/', headers: {Content-Type: credentials/key}}",
            "`tracing.headers.Content-Type`: `Content-Type` is the proxy's own header; a collector knows who sends by "
            "another one",
        ),
        (
            "tracing: {endpoint: 'https://c/', headers: {'x y': credentials/key}}",
            "`tracing.headers.x y`: `x y` is no name of a header; write it as in `end-user`",
        ),
        (
            "tracing: {endpoint: 'https://c/', headers: {x-key: credentials/../key}}",
            "`tracing.headers.x-key`: `credentials/../key` is no file below `credentials/`; put it, or a link to it, "
            "there",
        ),
        (
            "tracing: {headers: {x-key: credentials/key}}",
            "`tracing`: `headers` go with an `endpoint`: policyd knows proxies by their certificates",
        ),
        (
            "extensionProviders: [{name: a}]",
            "`extensionProviders[0]`: a provider is one of `envoyFileAccessLog`, `envoyOtelAls`, `opentelemetry` or "
            "`zipkin`",
        ),
        (
            "extensionProviders: [{name: envoy, zipkin: {endpoint: 'https://z/'}}]",
            "`extensionProviders[0].name`: the provider `envoy` is there without being declared; use another name",
        ),
        (
            "extensionProviders: [{name: a, zipkin: {endpoint: 'http://z/'}}]",
            "`extensionProviders[0].zipkin.endpoint`: `http://z/` would be told in the clear; use https, or a "
            "collector on this machine",
        ),
        (
            "extensionProviders: [{name: a, envoyFileAccessLog: {path: /l, logFormat: {text: '%REQ(COOKIE)%'}}}]",
            "`extensionProviders[0].envoyFileAccessLog.logFormat.text`: `COOKIE` is a credential, which no log shows",
        ),
        (
            "extensionProviders: [{name: a, envoyFileAccessLog: {path: /l, logFormat: {}}}]",
            "`extensionProviders[0].envoyFileAccessLog.logFormat`: a form is a `text`, or an object of `labels`",
        ),
        (
            "extensionProviders: [{name: a, zipkin: {endpoint: 'https://z/'}}, {name: a, zipkin: {endpoint: "
            "'https://z/'}}]",
            "two of `extensionProviders` are called `a`; give each a name of its own",
        ),
        ("audit: no", "`audit` must be a mapping, not the text `no`"),
        ("[]", "the document must be a mapping, not an empty list"),
    ],
)
def test_a_bad_setting_is_refused_with_its_line(text: str, problem: str) -> None:
    with pytest.raises(InvalidInput) as error:
        parse_settings(f"# settings\n{text}\n")
    assert str(error.value) == f"policyd.yaml:2: {problem}"


@pytest.mark.parametrize(
    "text", ["", "9000", ":9000", "localhost:1", "127.0.0.1", "127.0.0.1:", "127.0.0.1:65536", "127.0.0.1:-1",
             "127.0.0.1:٣", "::1:80", "[127.0.0.1]:80", "[::1]", "127.0.0.1:0\n", 80, None]
)  # fmt: skip
def test_what_is_no_address_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match="is no address"):
        parse_address(text)


@given(st.ip_addresses(), st.integers(0, 65535))
def test_an_address_reads_back_as_it_is_written(host: object, port: int) -> None:
    address = Address(str(host), port)
    assert parse_address(str(address)) == address


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:4318/v1/logs", "http://localhost/x", "http://[::1]:4318/", "https://collector/v1/logs"]
)
def test_records_may_go_over_tls_or_stay_on_this_machine(url: str) -> None:
    export = parse_settings(f"audit: {{export: {{otlp: '{url}'}}}}").audit.export
    assert export is not None
    assert (export.otlp, export.name) == (url, "otlp")


@pytest.mark.parametrize(
    "url",
    ["ftp://x/", "https://user:secret@x/", "https://", "https://x:99999/", "https://x/#a", "http://10.0.0.1/", ""],
)
def test_another_url_of_a_collector_is_refused(url: str) -> None:
    with pytest.raises(InvalidInput, match=r"audit\.export\.otlp"):
        parse_settings(f"audit: {{export: {{otlp: '{url}'}}}}")


@pytest.mark.parametrize(
    "url", ["https://collector:4318/v1/traces", "http://[::1]:4318/x", "grpcs://collector", "grpc://127.0.0.1:4317/"]
)
def test_spans_go_by_http_or_grpc_over_tls_or_stay_on_this_machine(url: str) -> None:
    assert parse_settings(f"tracing: {{endpoint: '{url}'}}").tracing.endpoint == url


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("tracing: {endpoint: 'grpc://collector:4317'}",
         "`tracing.endpoint`: `grpc://collector:4317` would be told in the clear; use grpcs, or a collector on this "
         "machine"),
        *(
            (f"tracing: {{endpoint: '{url}'}}",
             f"`tracing.endpoint`: `{url}` is no address of a collector; write it as in `grpcs://collector:4317`")
            for url in ("grpcs://c/v1", "grpcs://c?x=1", "grpcs://a:b@c", "grpcs://:4317", "grpcs://c:odd")
        ),
        ("extensionProviders: [{name: z, zipkin: {endpoint: 'grpcs://c'}}]",
         "`extensionProviders[0].zipkin.endpoint`: `grpcs://c` is no URL of a collector; write it as in "
         "`https://collector:4318/v1/logs`"),
        ("audit: {export: {otlp: 'grpcs://c'}}",
         "`audit.export.otlp`: `grpcs://c` is no URL of a collector; write it as in `https://collector:4318/v1/logs`"),
    ],
)  # fmt: skip
def test_a_collector_that_cannot_be_or_would_be_told_in_the_clear_is_refused(text: str, problem: str) -> None:
    with pytest.raises(InvalidInput) as error:
        parse_settings(text)
    assert [one.message + (f"; {one.remedy}" if one.remedy else "") for one in error.value.problems] == [problem]
