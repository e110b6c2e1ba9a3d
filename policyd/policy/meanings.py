"""What each field of policyd's own files is for: the reference says it, and editors do.

Law: a field without a meaning, or the reverse, stops the generator of the reference.

DestinationRule, Gateway, VirtualService and Service have none: they are Istio's and Kubernetes' own, whose references
explain them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

_PLACE: Final = {
    "serviceAccount": "The identity's name; otherwise that of `defaults`.",
    "namespace": "Its namespace; otherwise that of `defaults`.",
    "address": "The address at which others reach it.",
    "locality": "Where it is, `region/zone/subzone`; DestinationRules may prefer what is near.",
}
_CASE: Final = {
    "name": "Shown where it fails.",
    "headers": "The request's headers.",
    "time": "When it happens, for policies that read `context.time`.",
    "user": "The end user that a token proves, `<issuer>/<subject>`.",
    "claims": "The claims of that token, as JSON has them.",
}
MEANINGS: Final[Mapping[str, Mapping[str, str]]] = {
    "WorkloadsFile": {
        "workloads": "The instances that have a sidecar, by name.",
        "gateways": "The Envoys at the edge, by name.",
        "serviceAccounts": "Labels of identities, by `<name>` or `<name>.<namespace>`.",
        "defaults": "What holds where nothing else is said.",
    },
    "WorkloadSpec": {
        "service": "The Service that it serves; one is made for each name.",
        "port": "The Service's port, which callers use.",
        "protocol": "What it speaks, `http` unless given. Of `tcp` and `tls` connections are decided, and callers come"
        " by CONNECT; of the others requests; of `auto` what the first bytes are.",
        "ports": "Its ports, where there are several; in the place of `port`.",
        "command": "What `up` starts. Without it someone else starts the application.",
        "health": "A path that answers 200 once the application is ready; without it, its port must open.",
        "labels": "Labels of the instance; `app` is its service unless given.",
        "environment": "Added to the application's environment; wins over what `up` sets.",
        "workdir": "Where `command` runs, relative to the folder.",
        **_PLACE,
        "appPort": "Where the application listens, on loopback of its machine: its PORT.",
        "inboundPort": "Where its sidecar listens for others.",
        "outboundPort": "Its own HTTP proxy, on loopback.",
        "weight": "Its share of the requests to several instances; otherwise 1.",
        "metrics": "Where the application shows metrics for Prometheus; its agent's page has them, too.",
        "proxyless": "No sidecar: the application speaks xDS by itself, as gRPC does, and peers come to `inboundPort`.",
    },
    "MetricsSpec": {
        "path": "Their path.",
        "port": "A port on loopback; otherwise the application's first one.",
    },
    "PortSpec": {
        "port": "The Service's port, which callers use.",
        "name": "What it is called, with its protocol in front, as `http-admin`; `targetPort` of Services may name it.",
        "protocol": "What it speaks, where the name does not say it: `auto` for one that has a name, else `http`.",
        "appPort": "Where the application listens: its PORT, or PORT_ and the name of the port.",
        "inboundPort": "Where its sidecar listens for others.",
    },
    "GatewayInstanceSpec": {
        "listen": "The port or ports to open. One that is taken on this machine is replaced by a free one.",
        "labels": "For the `selector` of Gateways; `istio: ingressgateway` unless given.",
        **_PLACE,
        "gatewayTopology": "What stands before it, as in Istio's ProxyConfig.",
        "http3": "Its encrypted servers speak HTTP/3 too, on the UDP port of the same number.",
    },
    "TopologySpec": {
        "numTrustedProxies": "So many proxies add to `x-forwarded-for`; the client is whom the first of them says.",
        "forwardClientCertDetails": "What applications hear of clients' certificates, in `x-forwarded-client-cert`.",
        "proxyProtocol": "A load balancer begins each connection with a PROXY header.",
    },
    "ProxyProtocolSpec": {"from": "Addresses and ranges from which that is believed; all others are closed."},
    "ServiceAccountSpec": {"labels": "Policies read them as tags of the caller."},
    "Defaults": {
        "namespace": "The namespace of what has none.",
        "gatewayTopology": "What stands before gateways that do not say it, as in Istio's MeshConfig.",
        "serviceAccount": "The identity's name of what has none.",
    },
    "GroupsFile": {"groups": 'The groups, by name: `Group::"<name>"` in policies.'},
    "GroupSpec": {
        "workloads": "Identities.",
        "users": "End users, `<issuer>/<subject>`.",
        "hosts": "Names outside the mesh.",
        "services": "Services.",
        "operators": "Who may operate: `unix:<user id>`.",
        "groups": "Groups whose members are members of this one too.",
    },
    "_CheckSpec": {
        "name": "Shown in the table.",
        "request": "`FROM METHOD URL`.",
        "expect": "The HTTP status.",
        "body": "A text that the answer must contain.",
        "client": "An address from which a gateway with a `gatewayTopology` is asked.",
    },
    "_CaseSpec": {
        **_CASE,
        "request": "`FROM METHOD URL`.",
        "expect": "The decision.",
        "by": "Policies that must be among its reasons.",
    },
    "_TableSpec": {
        **_CASE,
        "table": "Every combination is asked.",
        "allow": "`FROM METHOD` of those that are allowed; every other one must be denied.",
    },
    "_Table": {"who": "Callers.", "may": "Methods.", "url": "What they ask for."},
    "Settings": {
        "trustDomain": "The name in front of every SPIFFE ID. Choose it before the first start: certificates bear it.",
        "audit": "The journal: how safe a record is, and what holds when there is no room for one.",
        "ca": "The certificate authority.",
        "listen": "Where the server listens: on loopback unless written here.",
        "console": "Where the console listens, and what opens it from elsewhere.",
        "log": "What policyd says about itself.",
        "shadow": "Policies that are tried beside the active ones.",
        "workers": "How many processes decide requests, each on a port and a core of its own; without it one a core "
        "but one, at least one, at most four. `policyd serve --workers` wins.",
        "outboundTrafficPolicy": "What becomes of names outside the mesh that no ServiceEntry declares.",
        "egress": "Where names outside may lead.",
        "tracing": "Where proxies send the spans of requests.",
        "accessLogFile": "Where each proxy writes a line for each request: `/dev/stdout` is its own log, in the "
        "agent's folder. Without it, as in Istio, there is none.",
        "accessLogEncoding": "`TEXT`, or `JSON`: an object a line.",
        "accessLogFormat": "The line in Envoy's operators, with `JSON` an object of them; otherwise Istio's own.",
        "extensionProviders": "Where a Telemetry of the mesh may send spans and lines to, by name. `prometheus`, "
        "`envoy` (the access log above) and `policyd` (its window of traces) are there without being declared.",
    },
    "AuditSettings": {
        "durability": "When a decision takes effect: once its record is `written` to the operating system, once it is "
        "on disk (`fsync`), or at once (`async`: a crash may lose the last records).",
        "onFull": "When no record of a decision can be kept: `deny` answers every request with 503, `drop` goes on "
        "without it. Certificates, changes and operations are refused either way.",
        "segmentSize": "How large a file of the journal grows before it is finished, sealed and packed.",
        "segmentAge": "How old it gets. What is not sealed yet is proven by hashes alone.",
        "retain": "How long sealed files of the journal are kept, and the texts of revisions.",
        "maxSize": "How much room the journal may take: the oldest sealed files go before their time.",
        "export": "Where the journal is streamed to, beside being kept. What it has not taken is kept until it has.",
        "include": "What is recorded of requests besides what policies read.",
        "mask": "What is not recorded as it is; the first rules first.",
    },
    "ExportSettings": {
        "otlp": "The URL of a collector's OTLP logs over HTTP, as in `https://collector:4318/v1/logs`; plain `http` on "
        "this machine only. Records are sent at least once; `policyd.writer` and `policyd.seq` tell which came twice.",
        "name": "Of the target: how far it is stands in `exported-<name>.json` in the journal's folder.",
        "headersFile": "A private file with a header a line, as in `x-api-key: …`, relative to the folder.",
        "caFile": "The authorities in PEM that the collector's certificate is checked against, relative to the folder; "
        "otherwise those of the system.",
    },
    "IncludeSettings": {
        "headers": "Headers that are recorded wherever they are sent. Credentials never are.",
        "claims": "Claims of verified tokens that are recorded with their user, `outer.inner` for one inside another.",
    },
    "MaskSettings": {
        "header": "The header whose value is masked.",
        "claim": "Instead of a header: the claim of a verified user, `outer.inner` for one inside another, of "
        "which each value is masked. `iss` and `sub` are masked wherever the record names the user.",
        "attribute": "Instead of a header: the path of what is masked in the context of a record, as `request.path` "
        "or `client_ip`.",
        "how": "`remove` it, replace it by a keyed `hash` (equal values stay equal; the key is "
        "`.policyd/mask.key`), or `truncate` it.",
        "length": "How many characters `truncate` leaves.",
    },
    "UpstreamSettings": {
        "chainFile": "PEM: policyd's certificate, then what signed it, the root last. Looked at every few seconds; "
        "another certificate is taken into use by a rotation.",
        "keyFile": "Its key, PEM, readable by policyd's user only; taken over into the state.",
        "signCommand": "In place of a key: a program that signs its input (ECDSA with SHA-256, DER).",
        "signUrl": "In place of a key: a service that signs what is posted to it and answers with the signature "
        "(ECDSA with SHA-256, DER), `https://` or on this machine.",
        "signTokenFile": "A file, readable by policyd's user only, whose first line is sent to the service as its "
        "bearer token; read anew each time.",
        "signCaFile": "PEM: the roots that vouch for the service; without it, those of the system.",
    },
    "ClusterSettings": {
        "audience": "For whom the tokens are: a pod's volume asks for it (`serviceAccountToken.audience`).",
        "issuer": "The cluster's issuer, as its tokens bear it in `iss`; with keys only.",
        "keysFile": "The cluster's keys, a JWK set: what `kubectl get --raw /openid/v1/jwks` prints.",
        "keysUrl": "Where the cluster publishes its keys; asked every five minutes, the last good ones hold for a day.",
        "reviewUrl": "The cluster's TokenReview, `https://…/apis/authentication.k8s.io/v1/tokenreviews`: each token is "
        "shown to it.",
        "tokenFile": "A file, readable by policyd's user only, with the bearer token for the URL.",
        "caFile": "PEM: the roots that vouch for the URL; without it, those of the system.",
    },
    "EvidenceSettings": {
        "kubernetes": "Clusters whose pods' tokens are believed.",
        "machineRootsFile": "PEM: the roots of certificates that machines have already, whose keys sign a challenge.",
    },
    "CaSettings": {
        "ttl": "How long certificates of workloads live; they are renewed at half of it.",
        "passphraseFile": "A file, relative to the folder, whose first line encrypts the authority's keys. The "
        "environment variable `POLICYD_CA_PASSPHRASE` does too.",
        "passphraseCommand": "In place of a file: a program whose first line of output is the passphrase, started in "
        "the folder once, at the start, and by no shell.",
        "federation": "Other trust domains, each once, whose workloads are verified here by their own bundles; what "
        "they may do, policies say. Unlike most of `ca` it may be changed while policyd runs.",
        "bundleEndpoint": "Where other trust domains fetch this one's bundle; without it, nowhere.",
        "tokenIssuer": "The `https://` URL that tokens bear as `iss`, by which those who know OpenID Connect and no "
        "SPIFFE find the keys: it leads to the bundle endpoint, which answers for it.",
        "evidence": "What workloads without an agent may show of themselves; entries say what it leads to. May be "
        "changed while policyd runs.",
        "upstream": "Another authority, as a company's, that policyd's is an intermediate of; without it, of nobody's.",
        "comeBackWithin": "How long after its certificate has ended an agent may come back by the key of it, as "
        "after an outage of policyd; `0s`: not at all, it joins anew.",
        "revokeSerials": "Whether proxies look at lists of revoked certificates, which `policyd ca revoke --serial` "
        "needs; workloads of other trust domains then name theirs as the server's name (SNI). May be changed while "
        "policyd runs.",
    },
    "FederatedSettings": {
        "trustDomain": "The other trust domain. A bundle that is of another one is refused.",
        "bundleEndpoint": "The `https://` URL where its bundle is published; asked again as often as the bundle hints. "
        "Without it the bundle is brought by `policyd ca bundle import`.",
        "profile": "How that endpoint proves itself: by an SVID and the bundle that is at hand (`https_spiffe`; the "
        "first one is imported), or by its name, as web servers do (`https_web`).",
        "endpointId": "The SPIFFE ID that the endpoint's SVID bears; for `https_spiffe`.",
    },
    "BundleEndpointSettings": {
        "listen": "Where to listen; whoever reaches it may read the bundle, which is not secret.",
        "certificateFile": "A certificate with its chain in PEM, relative to the folder: `https_web`. Files that are "
        "renewed are noticed. Without them the endpoint shows policyd's own SVID: `https_spiffe`.",
        "keyFile": "Its key, which nobody else may read.",
    },
    "ListenSettings": {
        "xds": "Agents and Envoys: configuration and certificates, mutual TLS.",
        "authz": "Envoys: decisions, mutual TLS; each further decision process has the port after the last one's.",
        "attestation": "Agents that have a join token and no identity yet: TLS.",
        "signing": "Agents that have keys certified: mutual TLS. Where only `xds` is reachable, they ask there.",
        "http": "`/livez`, `/readyz`, `/metrics`, plain HTTP.",
    },
    "ConsoleSettings": {
        "listen": "HTTP on loopback; HTTPS on any other address, which needs the three files. Without it the console "
        "chooses a free port, and keeps it.",
        "apply": "Whether policies that were edited in it can be enforced from it, by whom the operators' policies "
        "let; it is on record.",
        "names": "The names by which browsers may ask for it, besides the address; others are refused. Without it on "
        "loopback: `localhost`.",
        "tokenFile": "A file, 0600, with a token of at least 32 characters that opens the console where no link can.",
        "certificateFile": "Its certificate chain, PEM.",
        "keyFile": "The key of that certificate, PEM.",
        "oidc": "With whom people log in; what `oidc:<issuer>/<subject>` then may do, the operators' policies say.",
    },
    "OidcSettings": {
        "issuer": "`https://`, or `http://` on loopback; what it publishes is read below it, at "
        "`/.well-known/openid-configuration`.",
        "clientId": "The client that the issuer knows the console as. Its redirect address is the console's own with "
        "`/enter/back`.",
        "clientSecretFile": "A file, 0600, with the client's secret; without it the client is a public one.",
    },
    "OutboundSettings": {
        "mode": "`REGISTRY_ONLY` answers 502. `ALLOW_ANY` routes them, and no more: a policy must still permit.",
    },
    "EgressSettings": {
        "allowAddresses": "Addresses that names outside may have although they are loopback, link-local, a cloud's "
        "metadata or the mesh's own. For tests and demonstrations on one machine.",
        "dnsResolvers": "The DNS servers that proxies ask; otherwise those of their machine.",
    },
    "TracingSettings": {
        "endpoint": "A collector that takes OTLP, over HTTP as in `https://collector:4318/v1/traces` or by gRPC as in "
        "`grpcs://collector:4317`; without it "
        "policyd itself takes spans, for `policyd traces`.",
        "headers": "By which the collector knows who sends, as for a provider's collector.",
        "sampling": "Of how many requests in a hundred, of those that have no trace yet. One that comes with a sampled "
        "`traceparent` is traced.",
        "window": "How much memory policyd's own traces may take, the oldest go first; `0MiB` traces nothing without "
        "an `endpoint`.",
    },
    "ProviderSettings": {
        "name": "By which a Telemetry names it.",
        "envoyFileAccessLog": "A file on each proxy's machine.",
        "envoyOtelAls": "A collector that takes lines as OTLP logs.",
        "opentelemetry": "A collector that takes spans as OTLP; requests carry W3C's `traceparent`.",
        "zipkin": "A collector that takes spans as Zipkin's JSON, as in `http://127.0.0.1:9411/api/v2/spans`; requests "
        "carry B3's headers, if it says so W3C's too.",
    },
    "FileLogSettings": {
        "path": "As `accessLogFile`.",
        "logFormat": "What a line says; otherwise Istio's own.",
    },
    "LogFormatSettings": {
        "text": "A line in Envoy's operators.",
        "labels": "An object of them, a line each.",
    },
    "CollectorSettings": {
        "endpoint": "Its whole URL, or by gRPC `grpcs://collector:4317`; plain `http` and `grpc` on this machine only.",
        "headers": "By which it knows who sends, as an API key: of each header the file below `credentials/` that "
        "holds its value and nothing else, mode 0600, on each proxy's machine. Proxies read it, also when it changes.",
    },
    "ZipkinSettings": {
        "endpoint": "Its whole URL; plain `http` on this machine only.",
        "headers": "As for a collector.",
        "traceContextOption": "Which headers tell the next hop of a trace: B3's, or B3's and W3C's `traceparent`.",
    },
    "LogSettings": {"level": "The least that is said."},
    "ShadowSettings": {
        "policies": "A folder of `.cedar` files, relative to the folder; `--shadow` wins over it. See "
        "[try a policy](../tasks/try-a-policy.md).",
    },
}
