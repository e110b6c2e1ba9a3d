"""Who answers the questions of ext_authz: `/no` is refused, and everything that was asked is kept."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any, Self

import grpc

from policyd import envoy_api
from policyd.authz import reply


class Authorization:
    """`Authorization.Check` in the clear, at `port`."""

    def __init__(self) -> None:
        self.asked: list[Any] = []  # what the questions say of their requests (AttributeContext.HttpRequest)
        self.told: list[dict[str, str]] = []  # what came beside them, as metadata of the call
        self._server = grpc.server(ThreadPoolExecutor(2))
        handlers = {"Check": grpc.unary_unary_rpc_method_handler(self._check)}
        service = "envoy.service.auth.v3.Authorization"
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
        self.port: int = self._server.add_insecure_port("127.0.0.1:0")
        self._server.start()

    def _check(self, body: bytes, context: grpc.ServicerContext) -> bytes:
        question: Any = envoy_api.message("envoy.service.auth.v3.CheckRequest").FromString(body)
        http = question.attributes.request.http
        self.asked.append(http)
        self.told.append({name: value for name, value in context.invocation_metadata() if isinstance(value, str)})
        return reply.deny("1" * 32, "no") if http.path == "/no" else reply.allow("2" * 32, "yes")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop(0).wait()
