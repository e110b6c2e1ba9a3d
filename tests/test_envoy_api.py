"""Messages out of the Envoy binary: all that it knows, nothing else, and kept where only we can write."""

from __future__ import annotations

import gc
import json
import stat
import subprocess
import sys
import threading
import tracemalloc
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from policyd import envoy_api
from policyd.envoy_api import CLUSTER, TYPE_PREFIX, EnvoyApi, Reference, envoy_binary
from policyd.envoy_api.references import named
from policyd.errors import EnvoyError

NAME = CLUSTER.removeprefix(TYPE_PREFIX)
HTTP = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
A_CLUSTER: dict[str, Any] = {
    "name": "a",
    "connect_timeout": "1s",
    "typed_extension_protocol_options": {
        HTTP: {"@type": TYPE_PREFIX + HTTP, "explicit_http_config": {"http2_protocol_options": {}}}
    },
    "metadata": {"filter_metadata": {"one": {"a": 1.0}, "two": {"b": "c"}}},
}


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder that was filled once."""
    folder = tmp_path_factory.mktemp("kept")
    EnvoyApi(cache=folder).message(NAME)
    return folder


@pytest.mark.parametrize(
    "name",
    [
        "envoy.service.discovery.v3.DeltaDiscoveryRequest",
        "envoy.service.auth.v3.CheckRequest",
        "envoy.service.accesslog.v3.StreamAccessLogsMessage",
        "envoy.config.bootstrap.v3.Bootstrap",
        "envoy.config.core.v3.Metadata.FilterMetadataEntry",
        "envoy.extensions.filters.http.ext_authz.v3.ShadowDecision",
        "envoy.extensions.transport_sockets.tls.v3.SPIFFECertValidatorConfig",
        "envoy.extensions.access_loggers.stats.v3.Config",
    ],
)
def test_it_has_the_messages_of_the_binary(kept: Path, name: str) -> None:
    assert EnvoyApi(cache=kept).message(name).DESCRIPTOR.full_name == name


def test_the_classes_of_what_stands_in_a_message_are_never_collected(kept: Path) -> None:
    api = EnvoyApi(cache=kept)

    def classes() -> list[type[Any]]:
        said = api.message("envoy.service.auth.v3.CheckRequest")(
            attributes={"metadata_context": {"filter_metadata": {"a": {"fields": {"b": {"string_value": "c"}}}}}}
        )
        found = said.attributes.metadata_context.filter_metadata["a"]
        return [type(said.attributes), type(said.attributes.metadata_context), type(found), type(found.fields["b"])]

    before = [weakref.ref(one) for one in classes()]
    gc.collect()

    assert [one() for one in before] == classes()


@pytest.mark.parametrize("name", ["envoy.config.cluster.v3.Nothing", "nothing", "", "envoy..v3", NAME + ".name"])
def test_what_is_no_message_is_said_to_be_none(kept: Path, name: str) -> None:
    with pytest.raises(EnvoyError) as raised:
        EnvoyApi(cache=kept).message(name)
    assert raised.value.message == f"Envoy 1.40.0 has no message `{name}`"


def test_a_message_goes_there_and_back() -> None:
    made = envoy_api.message(NAME).FromString(envoy_api.pack(NAME, A_CLUSTER))
    assert envoy_api.to_dict(made) == A_CLUSTER
    assert made == envoy_api.build(NAME, A_CLUSTER)


def test_what_is_given_stays_as_it_was() -> None:
    fields = {"@type": TYPE_PREFIX + HTTP, "explicit_http_config": {"http2_protocol_options": {}}}
    given = {"name": "a", "typed_extension_protocol_options": {HTTP: fields}}
    before = repr(given)
    envoy_api.pack(NAME, given)
    assert sorted(repr(given)) == sorted(before)


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"nme": "a"}, 'has no field named "nme"'),
        ({"type": "NEARBY"}, "Invalid enum value NEARBY"),
        ({"connect_timeout": "soon"}, 'must end with letter "s"'),
        ({"transport_socket": {"name": "t", "typed_config": {"@type": TYPE_PREFIX + "x.Y"}}}, "x.Y"),
        ({"transport_socket": {"name": "t", "typed_config": {"common": 1}}}, "@type is missing"),
        ({"name": 1}, "name"),
        ({"metadata": {"filter_metadata": {"x": {"a": object()}}}}, "unexpected type"),
    ],
)
@pytest.mark.parametrize("made", [envoy_api.build, envoy_api.pack])
def test_what_envoy_does_not_know_is_an_error_on_one_line(
    made: Callable[[str, dict[str, Any]], object], fields: dict[str, Any], why: str
) -> None:
    with pytest.raises(EnvoyError) as raised:
        made(NAME, fields)
    assert why in raised.value.message
    assert "\n" not in raised.value.message


def test_the_bytes_are_the_same_in_every_process() -> None:
    inside = {f"key{number}": {"a": float(number)} for number in range(30)}
    nested = {"@type": TYPE_PREFIX + "envoy.config.core.v3.Metadata", "filter_metadata": inside}
    fields = {"name": "a", "metadata": {"typed_filter_metadata": {"x": nested}, "filter_metadata": inside}}
    script = f"from policyd import envoy_api; print(envoy_api.pack({NAME!r}, {fields!r}).hex())"
    outputs = {subprocess.run([sys.executable, "-c", script], capture_output=True, text=True).stdout for _ in range(3)}
    assert outputs == {envoy_api.pack(NAME, fields).hex() + "\n"}


class TestCache:
    def test_it_is_for_this_user_only(self, tmp_path: Path) -> None:
        folder = tmp_path / "new" / "folder"
        EnvoyApi(cache=folder).message(NAME)
        (kept,) = folder.iterdir()
        assert [stat.S_IMODE(path.stat().st_mode) for path in (folder, kept)] == [0o700, 0o600]

    @pytest.mark.parametrize("harm", ["cut", "empty", "noise", "flip"])
    def test_a_broken_file_is_made_again(self, kept: Path, tmp_path: Path, harm: str) -> None:
        (whole,) = kept.iterdir()
        good = whole.read_bytes()
        broken = {"cut": good[:1000], "empty": b"", "noise": b"x" * 99, "flip": good[:5000] + b"!!" + good[5002:]}
        path = tmp_path / whole.name
        path.touch(mode=0o600)
        path.write_bytes(broken[harm])
        assert EnvoyApi(cache=tmp_path).build(NAME, A_CLUSTER).name == "a"
        assert path.read_bytes() == good

    def test_a_file_that_others_could_have_written_is_not_read(self, kept: Path, tmp_path: Path) -> None:
        (whole,) = kept.iterdir()
        path = tmp_path / whole.name
        path.write_bytes(whole.read_bytes())
        path.chmod(0o666)
        EnvoyApi(cache=tmp_path).message(NAME)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600

    def test_a_folder_that_cannot_be_is_done_without(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        assert EnvoyApi(cache=tmp_path / "file").build(NAME, A_CLUSTER).name == "a"

    def test_an_unfinished_file_is_not_left(self, kept: Path) -> None:
        assert [path.suffix for path in kept.iterdir()] == [".zip"]


def test_threads_that_begin_together_get_the_same_class(kept: Path) -> None:
    api = EnvoyApi(cache=kept)
    gate, got = threading.Barrier(8), []

    def ask() -> None:
        gate.wait()
        api.build(NAME, A_CLUSTER)
        got.append(api.message(NAME))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == 8
    assert len(set(got)) == 1


def test_importing_does_nothing() -> None:
    script = "import policyd.envoy_api as e; print(e._shared.cache_info().currsize)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout == "0\n"


class TestBinary:
    def test_the_wheels_own_is_found(self) -> None:
        assert envoy_binary().name == "envoy"

    def test_another_that_is_named_is_used(self) -> None:
        assert envoy_binary(envoy_binary()) == envoy_binary()

    @pytest.mark.parametrize(
        ("script", "problem"),
        [
            (
                "#!/bin/sh\necho 'envoy  version: 6eb0d2d9/1.39.3/Clean/RELEASE/BoringSSL'",
                "is Envoy 1.39.3, policyd is",
            ),
            ("#!/bin/sh\necho hello", "is Envoy of unknown version, policyd is"),
            ("no program", "does not run"),
        ],
    )
    def test_one_of_another_version_is_refused(self, tmp_path: Path, script: str, problem: str) -> None:
        other = tmp_path / "envoy"
        other.write_text(script)
        other.chmod(0o755)
        with pytest.raises(EnvoyError) as raised:
            envoy_binary(other)
        assert problem in raised.value.message
        assert "1.40.0" in raised.value.remedy

    @pytest.mark.parametrize("make", [lambda path: None, Path.mkdir, Path.touch])
    def test_what_cannot_be_run_is_refused(self, tmp_path: Path, make: Any) -> None:
        make(tmp_path / "envoy")
        with pytest.raises(EnvoyError) as raised:
            envoy_binary(tmp_path / "envoy")
        assert raised.value.message == f"`{tmp_path}/envoy` is no program that can be run"

    def test_a_missing_binary_is_an_error_of_ours_for_messages_too(self, tmp_path: Path) -> None:
        with pytest.raises(EnvoyError):
            EnvoyApi(tmp_path / "nothing", tmp_path).message(NAME)

    def test_a_binary_without_descriptors_is_refused(self, tmp_path: Path) -> None:
        other = tmp_path / "envoy"
        other.write_text("#!/bin/sh\necho 'envoy  version: 9e55/1.40.0/Clean/RELEASE/BoringSSL'")
        other.chmod(0o755)
        with pytest.raises(EnvoyError) as raised:
            EnvoyApi(other, tmp_path / "cache").message(NAME)
        assert raised.value.message == f"the descriptors inside `{other}` are not complete"


FORMS: list[dict[str, Any]] = [
    A_CLUSTER,
    {"name": "a", "connect_timeout": "0.000000001s", "lb_policy": "MAGLEV", "type": 3},
    {"name": "a", "connectTimeout": "-1.5s", "maglevLbConfig": {"tableSize": 7}},
    {"name": "a", "metadata": {"filter_metadata": {"x": {"a": [1, "b", None, {"c": True}]}}}},
    {"name": "a", "common_lb_config": {"locality_weighted_lb_config": {}, "healthy_panic_threshold": {"value": 0}}},
    {"name": "a", "common_lb_config": None},
    {"name": "a", "max_requests_per_connection": "5"},
    {
        "name": "a",
        "filters": [
            {"name": "f", "typed_config": {"@type": TYPE_PREFIX + "google.protobuf.StringValue", "value": "v"}}
        ],
    },
    {
        "name": "a",
        "transport_socket": {
            "name": "tls",
            "typed_config": {
                "@type": TYPE_PREFIX + "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
                "common_tls_context": {"tls_certificates": [{"private_key": {"inline_bytes": "a2V5"}}]},
            },
        },
    },
]


@pytest.mark.parametrize("fields", FORMS)
def test_the_fast_way_makes_what_protobufs_own_reader_makes(fields: dict[str, Any]) -> None:
    made = envoy_api.message(NAME).FromString(envoy_api.pack(NAME, fields))

    assert envoy_api.to_dict(made) == envoy_api.to_dict(envoy_api.build(NAME, fields))


def test_what_is_packed_once_is_not_kept() -> None:
    """Ten kilobytes in each of four thousand connection managers, which a mesh's proxies have one each of."""
    manager = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
    api = EnvoyApi()
    api.pack(NAME, A_CLUSTER)
    tracemalloc.start()
    try:
        for number in range(4_000):
            config = {"@type": TYPE_PREFIX + manager, "stat_prefix": f"{number}".rjust(10_000)}
            api.pack("envoy.config.listener.v3.Filter", {"name": "a", "typed_config": config})
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert held < 20_000_000


def _messages(shown: Any) -> Iterator[dict[str, Any]]:
    """All in a JSON form that say their type."""
    if isinstance(shown, dict) and "@type" in shown:
        yield shown
    for one in shown.values() if isinstance(shown, dict) else shown if isinstance(shown, list) else ():
        yield from _messages(one)


@pytest.mark.parametrize(
    "file", sorted((Path(__file__).parent / "golden" / "xds").glob("*.json")), ids=lambda it: it.stem
)
def test_what_is_noted_on_the_way_is_what_a_walk_finds(file: Path) -> None:
    for one in _messages(json.loads(file.read_text())):
        fields = {name: value for name, value in one.items() if name != "@type"}
        noted = envoy_api.shared().pack_naming(one["@type"].removeprefix(TYPE_PREFIX), fields)[1]
        assert noted == frozenset(named(fields))


def test_what_is_packed_already_still_names_what_it_needs() -> None:
    manager = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
    routes = [{"match": {"prefix": "/"}, "route": {"cluster": "a"}}]
    inside = {"virtual_hosts": [{"name": "v", "domains": ["*"], "routes": routes}]}
    config = {"@type": TYPE_PREFIX + manager, "stat_prefix": "s", "route_config": inside}
    for _ in range(2):
        listed = {"name": "f", "typed_config": config}
        noted = envoy_api.shared().pack_naming("envoy.config.listener.v3.Filter", listed)[1]
        assert noted == {Reference(CLUSTER, "a")}


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("envoy.config.core.v3.GrpcService", {"envoy_grpc": {}}),
        ("envoy.config.core.v3.GrpcService", {"envoy_grpc": None}),
        ("envoy.config.route.v3.RouteAction", {"weighted_clusters": {}}),
        ("envoy.config.route.v3.RouteAction", {"weighted_clusters": None}),
        ("envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager", {"rds": {}}),
    ],
)
def test_what_names_nothing_yet_is_packed_all_the_same(name: str, fields: dict[str, Any]) -> None:
    made = envoy_api.build(name, fields)
    assert envoy_api.shared().pack_naming(name, fields) == (made.SerializeToString(deterministic=True), frozenset())
