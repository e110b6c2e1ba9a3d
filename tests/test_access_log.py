"""The form of access logs: what Envoy takes is taken, what it would refuse is refused, no credential is shown."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from policyd.access_log import HEADERS, JSON, PLAIN, TEXT, check_format, check_json
from policyd.envoy_api import envoy_binary

FILE = "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog"
EVERY = [
    *(f"%{name}%" for name in sorted(PLAIN)),
    *(f"%{name}(:PATH)%" for name in sorted(HEADERS)),
    "%DYNAMIC_METADATA(a:b)%", "%DYNAMIC_METADATA(a:b):10%", "%START_TIME(ms)%", "%GRPC_STATUS(NUMBER)%",
    "%PATH(NQ)%", "%REQ(X-A?:PATH):40%", "100%%",
]  # fmt: skip


@pytest.mark.parametrize("form", [TEXT, *JSON.values(), *EVERY, "no operator", ""])
def test_what_istio_and_envoy_have_is_taken(form: str) -> None:
    assert check_format(form) == form


def test_the_real_envoy_takes_all_of_it(tmp_path: Path) -> None:
    logs = [{"text_format_source": {"inline_string": form}} for form in (TEXT, " ".join(EVERY))]
    logs += [{"json_format": JSON}]
    loggers = [
        {"name": "file", "typed_config": {"@type": FILE, "path": "/dev/null", "log_format": form}} for form in logs
    ]
    config = {"admin": {"access_log": loggers, "address": {"pipe": {"path": str(tmp_path / "admin")}}}}
    (tmp_path / "envoy.json").write_text(json.dumps(config))

    command = [str(envoy_binary(None)), "--mode", "validate", "-c", str(tmp_path / "envoy.json")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)

    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize(
    ("form", "why"),
    [
        ("%NONSENSE%", "`%NONSENSE%` is no operator of Envoy's access logs"),
        ("%REQ%", "`%REQ%` is no operator of Envoy's access logs without an argument, as in `%REQ(:PATH)%`"),
        ("%DURATION(x)%", "`%DURATION%` is no operator of Envoy's access logs with an argument"),
        ("50% of it", "`% of it` begins no operator; write `%%` for a percent sign"),
        ("%REQ(:PATH)", "`%REQ(:PATH)` begins no operator; write `%%` for a percent sign"),
        ("%REQ(Authorization)%", "`Authorization` is a credential, which no log shows"),
        ("%REQ(X-A?COOKIE)%", "`COOKIE` is a credential, which no log shows"),
        ("%RESP(set-cookie):20%", "`set-cookie` is a credential, which no log shows"),
        ("%REQ(X-POLICYD-PEER):9%", "`X-POLICYD-PEER` is what proxies tell each other, which no log shows"),
        ("x" * 5000, "a format has at most 4096 characters, this one 5000"),
    ],
)
def test_what_envoy_would_refuse_or_nobody_should_see_is_refused(form: str, why: str) -> None:
    with pytest.raises(ValueError) as refused:
        check_format(form)

    assert str(refused.value) == why


@pytest.mark.parametrize("form", ["", "[]", "{}", '{"a": 1}', "{", '{"a": {"b": "c"}}'])
def test_an_object_of_forms_is_one(form: str) -> None:
    with pytest.raises(ValueError, match="is a JSON object of names and forms"):
        check_json(form)


def test_each_form_of_an_object_is_looked_at() -> None:
    assert check_json('{"path": "%PATH(NQ)%"}') == '{"path": "%PATH(NQ)%"}'
    with pytest.raises(ValueError, match="is a credential"):
        check_json('{"who": "%REQ(cookie)%"}')
