"""Istio's kinds: what is supported is read exactly, what is not is refused by name."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policyd.mesh.declare import declare
from policyd.mesh.istio.answers import Body, DirectResponse, Redirect, Rewrite
from policyd.mesh.istio.common import Metadata
from policyd.mesh.istio.destination import Destination, HeaderOperations, Headers, PortSelector, RouteDestination
from policyd.mesh.istio.http_route import HttpRoute, Retries
from policyd.mesh.istio.kinds import KINDS
from policyd.mesh.istio.matches import HttpMatch, StringMatch
from policyd.mesh.istio.virtual_service import VirtualService, VirtualServiceSpec
from policyd.mesh.matching import check_host, check_path, check_regex
from tests.mesh.sample import GOOD, broken, problems

EVERYTHING = """\
apiVersion: networking.istio.io/v1beta1
kind: VirtualService
metadata:
  name: everything
  namespace: shop
  labels: {team: blue}
  annotations: {why: "to show it"}
spec:
  hosts: [web, www.example.com]
  gateways: [mesh, edge, default/other]
  http:
    - name: main
      match:
        - uri: {regex: "/v[0-9]+/.*"}
          method: {exact: GET}
          authority: {prefix: www}
          headers: {End-User: {exact: jason}, x-debug: {}}
          withoutHeaders: {x-old: {}}
          queryParams: {page: {regex: "[0-9]+"}}
        - {uri: {prefix: /api}, ignoreUriCase: true}
      route:
        - {destination: {host: web, port: {number: 80}}, weight: 90}
        - {destination: {host: web.other}, weight: 10}
      rewrite: {uri: /, authority: web}
      timeout: 1m30s
      retries: {attempts: 3, perTryTimeout: 0.5s, retryOn: "5xx,503"}
      headers:
        request: {set: {X-Set: a}, add: {x-add: b}, remove: [x-gone]}
        response: {remove: [server]}
    - match: [{uri: {exact: /old}}]
      redirect: {uri: /new, authority: example.com, redirectCode: 308}
    - directResponse: {status: 404, body: {string: not here}}
"""


def test_a_virtual_service_is_read_whole() -> None:
    (declared,) = declare({"mesh/a.yaml": EVERYTHING}).of(VirtualService)
    main = HttpRoute(
        name="main",
        match=(
            HttpMatch(
                uri=StringMatch(regex="/v[0-9]+/.*"),
                method=StringMatch(exact="GET"),
                authority=StringMatch(prefix="www"),
                headers={"end-user": StringMatch(exact="jason"), "x-debug": StringMatch()},
                without_headers={"x-old": StringMatch()},
                query_params={"page": StringMatch(regex="[0-9]+")},
            ),
            HttpMatch(uri=StringMatch(prefix="/api"), ignore_uri_case=True),
        ),
        route=(
            RouteDestination(destination=Destination(host="web", port=PortSelector(number=80)), weight=90),
            RouteDestination(destination=Destination(host="web.other"), weight=10),
        ),
        rewrite=Rewrite(uri="/", authority="web"),
        timeout=90.0,
        retries=Retries(attempts=3, per_try_timeout=0.5, retry_on="5xx,503"),
        headers=Headers(
            request=HeaderOperations(set={"x-set": "a"}, add={"x-add": "b"}, remove=("x-gone",)),
            response=HeaderOperations(remove=("server",)),
        ),
    )
    moved = HttpRoute(
        match=(HttpMatch(uri=StringMatch(exact="/old")),),
        redirect=Redirect(uri="/new", authority="example.com", redirect_code=308),
    )
    gone = HttpRoute(direct_response=DirectResponse(status=404, body=Body(string="not here")))
    assert declared.resource == VirtualService(
        api_version="networking.istio.io/v1beta1",
        metadata=Metadata(
            name="everything", namespace="shop", labels={"team": "blue"}, annotations={"why": "to show it"}
        ),
        spec=VirtualServiceSpec(
            hosts=("web", "www.example.com"), gateways=("mesh", "edge", "default/other"), http=(main, moved, gone)
        ),
    )
    assert declared.resource.in_mesh
    assert declared.resource.gateway_ids() == ("shop/edge", "default/other")


def test_a_header_that_any_value_satisfies_is_there() -> None:
    assert StringMatch().presence
    assert not StringMatch(exact="").presence


# as large as regexes may be; the real Envoy takes them, see tests/xds/resources
LARGE = [
    "/[a-z]{1,200}",
    "(a{30}){30}",
    "a{1000}" * 3,
    "[^x]{0,1000}" * 3,
    "(a{1,9}|b{2}){1,100}",
    r"\pL{999}",
    "a|" * 511,
]
RULE = "route: [{destination: {host: web}}]"
LATER = "remove it, so that nothing is thought to hold that does not"


@pytest.mark.parametrize(
    ("rule", "problem"),
    [
        (
            f"fault: {{delay: {{fixedDelay: 1s, exponentialDelay: 1s}}}}\n      {RULE}",
            "field `exponentialDelay` of VirtualService is not supported in `spec.http[0].fault.delay`; "
            "Istio itself does not implement it; write `fixedDelay`",
        ),
        (
            f"fault: {{abort: {{httpStatus: 500, http2Error: x}}}}\n      {RULE}",
            "field `http2Error` of VirtualService is not supported in `spec.http[0].fault.abort`; "
            "Istio itself does not implement it; write `httpStatus` or `grpcStatus`",
        ),
        (
            f"corsPolicy: {{allowOrigin: ['*'], allowOrigins: [{{exact: a}}]}}\n      {RULE}",
            "`spec.http[0].corsPolicy`: `allowOrigin` and `allowOrigins` exclude each other; keep `allowOrigins`",
        ),
        (
            f"match: [{{headers: {{'@request.auth.claims': {{exact: x}}}}}}]\n      {RULE}",
            "`spec.http[0].match[0].headers.@request.auth.claims`: `@request.auth.claims` is no claim; "
            "write `@request.auth.claims.NAME`, or `@request.auth.claims[OUTER][INNER]`",
        ),
        (
            f"headers: {{request: {{remove: ['@request.auth.claims.a']}}}}\n      {RULE}",
            "`spec.http[0].headers.request.remove[0]`: `@request.auth.claims.a` is a claim of a token, of which only "
            "`match` knows; remove it",
        ),
        (f"fault: {{}}\n      {RULE}", "`spec.http[0].fault`: neither `delay` nor `abort` is given; add one"),
        (
            f"fault: {{delay: {{fixedDelay: 0s}}}}\n      {RULE}",
            "`spec.http[0].fault.delay.fixedDelay`: input should be greater than 0",
        ),
        (
            f"fault: {{delay: {{fixedDelay: 1s, percentage: {{value: 101}}}}}}\n      {RULE}",
            "`spec.http[0].fault.delay.percentage.value` must be at most 100.0, not the number 101.0",
        ),
        (
            f"fault: {{abort: {{httpStatus: 500, grpcStatus: OK}}}}\n      {RULE}",
            "`spec.http[0].fault.abort`: give exactly one of `httpStatus` and `grpcStatus`",
        ),
        (
            f"fault: {{abort: {{grpcStatus: BROKEN}}}}\n      {RULE}",
            "`spec.http[0].fault.abort.grpcStatus`: `BROKEN` is no gRPC status; write one as in `UNAVAILABLE`",
        ),
        (
            f"mirror: {{host: api}}\n      mirrors: [{{destination: {{host: api}}}}]\n      {RULE}",
            "`spec.http[0]`: `mirror` and `mirrors` exclude each other; keep `mirrors`",
        ),
        (
            f"mirrorPercentage: {{value: 5}}\n      {RULE}",
            "`spec.http[0]`: a percentage of no `mirror`; add `mirror`",
        ),
        (
            "redirect: {uri: /}\n      mirror: {host: api}",
            "`spec.http[0]`: `mirror` and `mirrors` need `route`; remove them",
        ),
        (
            f"rewrite: {{uri: /, uriRegexRewrite: {{match: a, rewrite: b}}}}\n      {RULE}",
            "`spec.http[0].rewrite`: `uri` and `uriRegexRewrite` exclude each other; keep one",
        ),
        (
            f"rewrite: {{uriRegexRewrite: {{match: '(a)', rewrite: '\\2'}}}}\n      {RULE}",
            "`spec.http[0].rewrite.uriRegexRewrite`: `rewrite` names group 2, and `match` has 1",
        ),
        (
            f"rewrite: {{uriRegexRewrite: {{match: a, rewrite: '/b?c'}}}}\n      {RULE}",
            "`spec.http[0].rewrite.uriRegexRewrite.rewrite`: `/b?c` is no part of a path with `\\1` for groups; "
            "write it without `?`, `#`, spaces",
        ),
        (
            "redirect: {port: 1, derivePort: FROM_REQUEST_PORT}",
            "`spec.http[0].redirect`: `port` and `derivePort` exclude each other; keep one",
        ),
        (
            f"rewrite: {{authority: '*.example'}}\n      {RULE}",
            "`spec.http[0].rewrite.authority`: `*.example` is no host name; "
            "use lower-case letters, digits, dots and dashes, and no port",
        ),
        (
            "redirect: {authority: 'a.example:0'}",
            "`spec.http[0].redirect.authority`: `a.example:0` is no host name; "
            "use lower-case letters, digits, dots and dashes, and no port",
        ),
        (
            "directResponse: {status: 200, body: {bytes: '!'}}",
            "`spec.http[0].directResponse.body.bytes`: it is no base64; encode the bytes with `base64`",
        ),
        (
            "directResponse: {status: 200, body: {}}",
            "`spec.http[0].directResponse.body`: give exactly one of `string` and `bytes`",
        ),
        (
            f"headers: {{response: {{set: {{host: a}}}}}}\n      {RULE}",
            "`spec.http[0].headers`: a response has no `:authority`; remove it",
        ),
        (
            f"headers: {{request: {{set: {{host: a, ':authority': b}}}}}}\n      {RULE}",
            "`spec.http[0].headers.request.set`: the header `:authority` is there twice; "
            "the case of its letters does not matter",
        ),
        (
            f"match: [{{statPrefix: 'a b'}}]\n      {RULE}",
            "`spec.http[0].match[0].statPrefix`: `a b` is no part of a statistic's name; "
            "use letters, digits, dashes, underscores",
        ),
        (
            "route: [{destination: {host: web, subset: 'a|b'}}]",
            "`spec.http[0].route[0].destination.subset`: `a|b` is no name of a subset; "
            "use at most 63 letters, digits and dashes",
        ),
        (
            "routes: []",
            "unknown field `routes` in `spec.http[0]`; did you mean `route`?",
        ),
        ("name: x", "`spec.http[0]`: give exactly one of `route`, `redirect`, `directResponse` and `delegate`"),
        (
            f"redirect: {{uri: /}}\n      {RULE}",
            "`spec.http[0]`: give exactly one of `route`, `redirect`, `directResponse` and `delegate`",
        ),
        (
            "redirect: {uri: /}\n      timeout: 1s",
            "`spec.http[0]`: `rewrite`, `timeout` and `retries` need `route`; remove them",
        ),
        (
            "route: [{destination: {host: web}}, {destination: {host: api}}]",
            "`spec.http[0]`: the weights add up to 0; give one destination a `weight`",
        ),
        (
            "route: [{destination: {host: web}, weight: -1}]",
            "`spec.http[0].route[0].weight` must be at least 0, not the number -1",
        ),
        (
            "route: [{destination: {host: 'Web:80'}}]",
            "`spec.http[0].route[0].destination.host`: `Web:80` is no host name; "
            "use lower-case letters, digits, dots and dashes, and no port",
        ),
        (
            f"match: [{{uri: {{exact: /, prefix: /}}}}]\n      {RULE}",
            "`spec.http[0].match[0].uri`: several of `exact`, `prefix` and `regex`; keep one",
        ),
        (
            f"match: [{{uri: {{}}}}]\n      {RULE}",
            "`spec.http[0].match[0].uri`: one of `exact`, `prefix` and `regex` is missing; add it",
        ),
        (
            f"match: [{{uri: {{prefix: api}}}}]\n      {RULE}",
            "`spec.http[0].match[0].uri`: `api` is no path; start it with a slash, without `?`, `#` and spaces",
        ),
        (
            f"match: [{{uri: {{regex: '(a'}}}}]\n      {RULE}",
            "`spec.http[0].match[0].uri.regex`: `(a` is no regex: missing ), unterminated subpattern at position 0",
        ),
        (
            f"match: [{{uri: {{regex: a}}, ignoreUriCase: true}}]\n      {RULE}",
            "`spec.http[0].match[0]`: `ignoreUriCase` does not hold for a regex; write `(?i)` into it",
        ),
        (
            f"match: [{{ignoreUriCase: yes}}]\n      {RULE}",
            "`spec.http[0].match[0].ignoreUriCase` must be `true` or `false`, not the text `yes`",
        ),
        (
            f"match: [{{headers: {{X-A: {{}}, x-a: {{}}}}}}]\n      {RULE}",
            "`spec.http[0].match[0].headers`: the header `x-a` is there twice; the case of its letters does not matter",
        ),
        (
            f"headers: {{request: {{set: {{':path': /}}}}}}\n      {RULE}",
            "`spec.http[0].headers.request.set.:path`: `:path` is no ordinary header; "
            "use `method`, `authority`, `uri` or `rewrite`",
        ),
        (
            f"timeout: 10\n      {RULE}",
            "`spec.http[0].timeout`: `10` is no duration; write it as in `10s`, `0.5s` or `1m30s`",
        ),
        (
            f"retries: {{attempts: 2, retryOn: sometimes}}\n      {RULE}",
            "`spec.http[0].retries.retryOn`: `sometimes` is no retry condition; known are 5xx, cancelled, "
            "connect-failure, deadline-exceeded, envoy-ratelimited, gateway-error, internal, refused-stream, reset, "
            "reset-before-request, resource-exhausted, retriable-4xx, retriable-status-codes, unavailable",
        ),
        (
            "redirect: {redirectCode: 301}",
            "`spec.http[0].redirect`: it leads nowhere else; give `uri`, `authority`, `scheme` or `port`",
        ),
        (
            "directResponse: {status: 100}",
            "`spec.http[0].directResponse.status` must be at least 200, not the number 100",
        ),
    ],
)
def test_a_rule_that_is_not_understood_is_refused_with_its_line(rule: str, problem: str) -> None:
    old = "- match: [{uri: {prefix: /}}]\n      route: [{destination: {host: web}}]"
    found = problems(broken("mesh/routes.yaml", old, f"-\n      {rule}"))
    assert found == [f"mesh/routes.yaml:9: {problem}"]


@pytest.mark.parametrize(
    ("file", "old", "new", "problem"),
    [
        (
            "routes",
            "kind: VirtualService",
            "kind: EnvoyFilter",
            "2: the kind `EnvoyFilter` is not supported; proxies take nothing but what is made from resources; "
            "say what you need by another kind",
        ),
        (
            "routes",
            "kind: VirtualService",
            "kind: VirtualServise",
            f"2: the kind `VirtualServise` is not supported; supported are {', '.join(sorted(KINDS))}",
        ),
        (
            "routes",
            "kind: VirtualService",
            "kind: [x]",
            f"2: `kind` must be text; supported are {', '.join(sorted(KINDS))}",
        ),
        (
            "routes",
            "kind: VirtualService\n",
            "",
            "1: `kind` is missing; add it",
        ),
        (
            "routes",
            "istio.io/v1",
            "istio.io/v2",
            "1: `apiVersion` must be 'networking.istio.io/v1', 'networking.istio.io/v1beta1' or "
            "'networking.istio.io/v1alpha3', not the text `networking.istio.io/v2`",
        ),
        (
            "routes",
            "name: web",
            "name: Web",
            "3: `metadata.name`: `Web` is no DNS label; use at most 63 lower-case letters, digits and dashes",
        ),
        (
            "routes",
            "name: web",
            "name: web, uid: x",
            "3: unknown field `uid` in `metadata`; known are `annotations`, `labels`, `name`, `namespace`",
        ),
        (
            "routes",
            "gateways: [edge]",
            "tcp: [{match: [{sourceSubnet: 192.0.2.0/24}], route: [{destination: {host: web}}]}]",
            "6: field `sourceSubnet` of VirtualService is not supported in `spec.tcp[0].match[0]`; "
            "Istio itself does not implement it; write `sourceLabels` or `sourceNamespace`",
        ),
        (
            "routes",
            "hosts: [www.example.com]",
            "hosts: []",
            "4: `spec`: `hosts` is missing; add it, or remove `gateways`, which a delegate has not",
        ),
        (
            "gateway",
            "protocol: HTTP",
            "protocol: HTTPS",
            "7: `spec.servers[0]`: `HTTPS` needs a certificate; give `tls` with its `mode`",
        ),
        (
            "gateway",
            "protocol: HTTP",
            "protocol: MONGO",
            "7: `spec.servers[0].port.protocol`: `MONGO` is no protocol of a server here: nothing here reads Mongo's "
            "protocol; write `TCP`",
        ),
        (
            "gateway",
            "hosts: [",
            "tls: {mode: SIMPLE}, hosts: [",
            "7: `spec.servers[0].tls`: it has no certificate; give `credentialName`, or `serverCertificate` "
            "and `privateKey`",
        ),
        (
            "gateway",
            "hosts: [",
            "tls: {mode: SIMPLE, credentialName: a}, hosts: [",
            "7: `spec.servers[0]`: `HTTP` is plain text; write `HTTPS`, or remove `tls.mode`",
        ),
        (
            "gateway",
            "hosts: [",
            "tls: {mode: AUTO_PASSTHROUGH}, hosts: [",
            "7: `spec.servers[0]`: `HTTP` is plain text; write `HTTPS`, or remove `tls.mode`",
        ),
        (
            "gateway",
            "protocol: HTTP",
            "protocol: HTTPS}, tls: {mode: AUTO_PASSTHROUGH",
            "7: `spec.servers[0]`: what `AUTO_PASSTHROUGH` passes on is not looked into; write `TLS`",
        ),
        (
            "gateway",
            "protocol: HTTP",
            "protocol: TCP}, tls: {mode: AUTO_PASSTHROUGH",
            "7: `spec.servers[0]`: `TCP` has no names to go by; write `TLS`, or remove `tls`",
        ),
        (
            "gateway",
            "protocol: HTTP",
            "protocol: TLS}, tls: {mode: AUTO_PASSTHROUGH, credentialName: a",
            "7: `spec.servers[0].tls`: `credentialName` means nothing with `AUTO_PASSTHROUGH`; remove it",
        ),
        (
            "gateway",
            "protocol: HTTP",
            "protocol: GRPC-WEB",
            "7: `spec.servers[0].port.protocol`: `GRPC-WEB` is no protocol of a server here: sidecars translate it; "
            "write `HTTP` here, and `grpc-web` at the Service's port",
        ),
        (
            "gateway",
            "hosts: [",
            "bind: 127.0.0.1, hosts: [",
            "7: field `bind` of Gateway is not supported in `spec.servers[0]`; "
            "a gateway listens at its `address` in workloads.yaml",
        ),
        (
            "gateway",
            "hosts: [",
            "tls: {mode: SIMPLE, credentialName: a, credentialNames: [b, c]}, hosts: [",
            "7: `spec.servers[0].tls`: `credentialName` and `credentialNames` exclude each other; keep one",
        ),
        (
            "gateway",
            "hosts: [",
            "tls: {mode: SIMPLE, credentialNames: [a, a]}, hosts: [",
            "7: `spec.servers[0].tls`: `credentialNames` names one certificate twice; of two, one is for RSA and one "
            "for ECDSA",
        ),
        (
            "gateway",
            "hosts: [",
            "tls: {mode: SIMPLE, credentialNames: [a, b, c]}, hosts: [",
            "7: `spec.servers[0].tls.credentialNames` must have at most 2 entries, not a list of 3",
        ),
        (
            "gateway",
            "hosts: [",
            "tls: {mode: MUTUAL, tlsCertificates: [{serverCertificate: credentials/a.crt, privateKey: "
            "credentials/a.key, caCertificates: credentials/x.crt}, {serverCertificate: credentials/b.crt, privateKey: "
            "credentials/b.key, caCertificates: credentials/y.crt}]}, hosts: [",
            "7: `spec.servers[0].tls`: clients are checked by one file of authorities; name the same `caCertificates` "
            "in all",
        ),
        (
            "gateway",
            "hosts: [",
            "tls: {mode: SIMPLE, serverCertificate: credentials/a.crt, tlsCertificates: [{serverCertificate: "
            "credentials/b.crt, privateKey: credentials/b.key}]}, hosts: [",
            "7: `spec.servers[0].tls`: `serverCertificate`, `privateKey` and `tlsCertificates` exclude each other; "
            "keep one",
        ),
        (
            "gateway",
            "hosts: [",
            "tls: {mode: SIMPLE, tlsCertificates: [{serverCertificate: credentials/b.crt}]}, hosts: [",
            "7: `spec.servers[0].tls.tlsCertificates[0].privateKey` is missing; add it",
        ),
        (
            "gateway",
            "hosts: [",
            "tls: {mode: SIMPLE, credentialName: a, caCrl: credentials/a.crl}, hosts: [",
            "7: `spec.servers[0].tls`: `SIMPLE` asks for no client certificate; write `MUTUAL`",
        ),
        (
            "gateway",
            "hosts: [",
            "tls: {mode: MUTUAL, credentialName: a, caCrl: /etc/a.crl}, hosts: [",
            "7: `spec.servers[0].tls.caCrl`: `/etc/a.crl` is outside of `credentials/`; put the file, or a link to it, "
            "there",
        ),
        (
            "gateway",
            "hosts: [",
            "tls: {mode: SIMPLE, credentialName: a, minProtocolVersion: TLSV1_3, maxProtocolVersion: TLSV1_2}, "
            "hosts: [",
            "7: `spec.servers[0].tls`: no version is at least `TLSV1_3` and at most `TLSV1_2`",
        ),
        (
            "gateway",
            "hosts: [",
            "tls: {mode: SIMPLE, credentialName: a, cipherSuites: [RC4]}, hosts: [",
            "7: `spec.servers[0].tls.cipherSuites[0]`: `RC4` is no cipher suite of Envoy's; known are "
            "AES128-GCM-SHA256, AES128-SHA, AES256-GCM-SHA384, AES256-SHA, ECDHE-ECDSA-AES128-GCM-SHA256, "
            "ECDHE-ECDSA-AES128-SHA, ECDHE-ECDSA-AES256-GCM-SHA384, ECDHE-ECDSA-AES256-SHA, "
            "ECDHE-ECDSA-CHACHA20-POLY1305, ECDHE-RSA-AES128-GCM-SHA256, ECDHE-RSA-AES128-SHA, "
            "ECDHE-RSA-AES256-GCM-SHA384, ECDHE-RSA-AES256-SHA, ECDHE-RSA-CHACHA20-POLY1305",
        ),
        (
            "gateway",
            "hosts: [",
            "tls: {mode: SIMPLE, serverCertificate: /etc/a.crt, privateKey: credentials/a.key}, hosts: [",
            "7: `spec.servers[0].tls.serverCertificate`: `/etc/a.crt` is outside of `credentials/`; "
            "put the file, or a link to it, there",
        ),
        (
            "gateway",
            "hosts: [",
            "tls: {mode: MUTUAL, serverCertificate: credentials/a.crt, privateKey: credentials/a.key}, hosts: [",
            "7: `spec.servers[0].tls`: `MUTUAL` wants client certificates; give `caCertificates`",
        ),
        (
            "gateway",
            "protocol: HTTP",
            "protocol: HTTPS}, tls: {mode: SIMPLE, credentialName: a, httpsRedirect: true",
            "7: `spec.servers[0]`: `httpsRedirect` is for servers in plain text; remove it",
        ),
        (
            "gateway",
            '"*.example.com"',
            '"Shop/*"',
            "7: `spec.servers[0].hosts[0]`: `Shop` is no DNS label; "
            "use at most 63 lower-case letters, digits and dashes",
        ),
        (
            "gateway",
            "selector: {istio: ingressgateway}",
            "selector: {}",
            "5: `spec.selector` must have at least 1 entries, not an empty mapping",
        ),
        (
            "service",
            "name: http-main",
            "name: udp",
            "6: `spec.ports[0].name`: what port `udp` speaks is not carried by sidecars; "
            "begin it with `http`, `http2`, `grpc`, `grpc-web`, `tls` or `tcp`, as in `http-<suffix>`",
        ),
        (
            "service",
            "selector:",
            "clusterIP: 10.0.0.1\n  selector:",
            "5: `spec.clusterIP`: `10.0.0.1`: no addresses are allotted here, callers ask by name; take it out",
        ),
        (
            "service",
            "selector:",
            "sessionAffinity: ClientIP\n  selector:",
            "5: `spec.sessionAffinity`: `ClientIP` is no affinity here; let a DestinationRule choose by what requests "
            "have in common: `loadBalancer: {consistentHash: …}`",
        ),
        (
            "service",
            "selector:",
            "internalTrafficPolicy: Local\n  selector:",
            "5: `spec.internalTrafficPolicy`: `Local` keeps to one node, and there are none here; write `Cluster`, or "
            "take it out",
        ),
        (
            "service",
            "selector:",
            "externalName: x.example\n  selector:",
            "5: field `externalName` of Service is not supported in `spec`; "
            "declare the name outside with a ServiceEntry",
        ),
        (
            "service",
            "{tier: canary}",
            "{tier: a b}",
            "3: `metadata.labels`: `a b` is no value of the label `tier`; use at most 63 letters, digits, "
            "dots, dashes and underscores, a letter or a digit at both ends",
        ),
    ],
)
def test_a_resource_that_is_not_understood_is_refused_with_its_line(
    file: str, old: str, new: str, problem: str
) -> None:
    assert [f"mesh/{file}.yaml:{problem}"] == problems(broken(f"mesh/{file}.yaml", old, new))


def test_every_document_of_a_file_is_a_resource() -> None:
    text = f"---\n{GOOD['mesh/gateway.yaml']}---\n---\njust text\n"
    assert problems({"mesh/a.yaml": text}) == ["mesh/a.yaml:11: a resource is a mapping, not the text `just text`"]


@pytest.mark.parametrize("pattern", LARGE)
def test_a_large_regex_is_taken(pattern: str) -> None:
    assert check_regex(pattern) == pattern


@pytest.mark.parametrize(
    "pattern",
    [
        "a{1001}",
        "a{1,1001}",
        "(a{40}){40}",
        "(a{1,1000}){1,1000}",
        "((a{10}b){10}c){11}",
        "(?:a{0,999}){2,}",
        "ab{999}" * 5,
    ],
)
def test_a_regex_that_explodes_is_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match="the regex repeats its parts more than 1,000 times"):
        check_regex(pattern)


@pytest.mark.parametrize("pattern", ["a", "/v[0-9]+", r"\pL+", "(?i)abc", "[[:alpha:]]+", "(?P<n>a)", r"a\+\+", "a+b+"])
def test_what_envoy_takes_as_a_regex_is_taken(pattern: str) -> None:
    assert check_regex(pattern) == pattern


@pytest.mark.parametrize(
    "pattern",
    ["", "(", "a**", "[z-a]", "(?=a)", "(?!a)", "(?<=a)", "(?<!a)", r"(a)\1", "a++", "(?>a)", "a" * 1025, "(" * 1000],
)
def test_other_regexes_are_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match="regex"):
        check_regex(pattern)


@given(st.text(max_size=30))
def test_any_text_is_a_path_and_a_host_or_refused(text: str) -> None:
    for check in (check_path, check_host):
        with contextlib.suppress(ValueError):
            assert check(text) == text
