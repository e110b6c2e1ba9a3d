"""A rule that delegates is replaced by those of its delegate, which may only be narrower."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import yaml

from policyd.mesh.istio.http_route import HttpRoute
from policyd.mesh.istio.matches import HttpMatch
from tests.mesh.sample import GOOD, meshed, problems


def virtual(name: str, namespace: str = "default", **spec: object) -> str:
    return yaml.safe_dump(
        {
            "apiVersion": "networking.istio.io/v1",
            "kind": "VirtualService",
            "metadata": {"name": name, "namespace": namespace},
            "spec": spec,
        },
        default_flow_style=True,
        width=1000,
    )


TO_WEB = [{"destination": {"host": "web"}}]


def folder(rule: Mapping[str, object], leaf: list[object], **more: object) -> dict[str, str]:
    """A root with one rule that delegates to `inner`."""
    return {
        **GOOD,
        "mesh/routes.yaml": virtual("root", hosts=["api"], http=[{"delegate": {"name": "inner"}, **rule}]),
        "mesh/inner.yaml": virtual("inner", http=leaf, **more),
    }


def rules(files: Mapping[str, str]) -> tuple[HttpRoute, ...]:
    (root,) = meshed(files).virtual_services
    return root.spec.http


def blocks(files: Mapping[str, str]) -> list[HttpMatch]:
    return [match for rule in rules(files) for match in rule.match]


def test_the_rules_of_the_delegate_stand_where_it_was_named() -> None:
    files = folder({"match": [{"uri": {"prefix": "/a"}}]}, [{"route": TO_WEB}, {"directResponse": {"status": 404}}])

    first, second = rules(files)

    assert (first.route[0].destination.host, second.direct_response is not None) == ("web.default", True)
    assert [one.match[0].uri.prefix for one in (first, second) if one.match[0].uri] == ["/a", "/a"]


def test_what_the_delegate_does_not_say_the_root_says() -> None:
    root = {"name": "root", "timeout": "3s", "rewrite": {"uri": "/r"}, "headers": {"request": {"remove": ["x-a"]}}}
    (rule,) = rules(folder(root, [{"name": "leaf", "route": TO_WEB, "rewrite": {"uri": "/l"}}]))

    assert (rule.name, rule.timeout, rule.rewrite and rule.rewrite.uri) == ("root-leaf", 3.0, "/l")
    assert rule.headers.request.remove == ("x-a",)


def test_short_names_mean_services_of_the_delegates_namespace() -> None:
    workloads = GOOD["workloads.yaml"].replace(
        "  api-v1", "  web-far: {service: web, port: 80, namespace: far}\n  api-v1"
    )
    files = {
        **GOOD,
        "workloads.yaml": workloads,
        "mesh/routes.yaml": virtual("root", hosts=["api"], http=[{"delegate": {"name": "inner", "namespace": "far"}}]),
        "mesh/inner.yaml": virtual(
            "inner", "far", http=[{"route": TO_WEB, "mirror": {"host": "web"}, "match": [{"port": 8080}]}]
        ),
    }
    (rule,) = rules(files)

    assert (rule.route[0].destination.host, rule.mirror and rule.mirror.host) == ("web.far", "web.far")


@pytest.mark.parametrize(
    ("root", "leaf", "merged"),
    [
        ({"uri": {"prefix": "/a"}}, {"uri": {"prefix": "/a/b"}}, {"uri": {"prefix": "/a/b"}}),
        ({"uri": {"prefix": "/a"}}, {"uri": {"exact": "/a/b"}}, {"uri": {"exact": "/a/b"}}),
        (
            {"uri": {"prefix": "/a"}},
            {"method": {"exact": "GET"}},
            {"uri": {"prefix": "/a"}, "method": {"exact": "GET"}},
        ),
        ({"headers": {"x": {"exact": "1"}}}, {"headers": {"y": {}}}, {"headers": {"x": {"exact": "1"}, "y": {}}}),
        ({"headers": {"x": {}}}, {"headers": {"x": {"regex": "a+"}}}, {"headers": {"x": {"regex": "a+"}}}),
        ({"port": 80}, {"sourceNamespace": "default"}, {"port": 80, "sourceNamespace": "default"}),
        ({"sourceLabels": {"a": "b"}}, {"sourceLabels": {"c": "d"}}, {"sourceLabels": {"a": "b", "c": "d"}}),
        ({"name": "r"}, {"name": "l"}, {"name": "r-l"}),
        ({"gateways": ["mesh"]}, {"uri": {"exact": "/"}}, {"gateways": ["mesh"], "uri": {"exact": "/"}}),
        ({"uri": {"prefix": "/A"}, "ignoreUriCase": True}, {}, {"uri": {"prefix": "/A"}, "ignoreUriCase": True}),
    ],
)
def test_both_conditions_hold(root: object, leaf: object, merged: object) -> None:
    assert blocks(folder({"match": [root]}, [{"match": [leaf], "route": TO_WEB}])) == [
        HttpMatch.model_validate(merged, by_alias=True)
    ]


@pytest.mark.parametrize(
    ("root", "leaf"),
    [
        ({"uri": {"prefix": "/a"}}, {"uri": {"prefix": "/b"}}),
        ({"uri": {"prefix": "/a/b"}}, {"uri": {"prefix": "/a"}}),
        ({"uri": {"exact": "/a"}}, {"uri": {"prefix": "/a"}}),
        ({"uri": {"exact": "/a"}}, {"uri": {"exact": "/b"}}),
        ({"uri": {"prefix": "/a"}}, {"uri": {"regex": "/a.*"}}),
        ({"uri": {"regex": "/a.*"}}, {"uri": {"exact": "/a"}}),
        ({"uri": {"prefix": "/a"}}, {"uri": {"prefix": "/a"}, "ignoreUriCase": True}),
        ({"headers": {"x": {"exact": "1"}}}, {"headers": {"x": {}}}),
        ({"headers": {"x": {"exact": "1"}}}, {"headers": {"x": {"exact": "2"}}}),
        ({"queryParams": {"x": {"exact": "1"}}}, {"queryParams": {"x": {"exact": "2"}}}),
        ({"withoutHeaders": {"x": {"exact": "1"}}}, {"withoutHeaders": {"x": {"exact": "2"}}}),
        ({"method": {"exact": "GET"}}, {"method": {"exact": "PUT"}}),
        ({"port": 80}, {"port": 81}),
        ({"sourceNamespace": "a"}, {"sourceNamespace": "b"}),
        ({"sourceLabels": {"a": "b"}}, {"sourceLabels": {"a": "c"}}),
    ],
)
def test_a_delegate_that_is_wider_or_elsewhere_is_refused(root: object, leaf: object) -> None:
    assert problems(folder({"match": [root]}, [{"match": [leaf], "route": TO_WEB}])) == [
        "mesh/routes.yaml:1: rule 1 of the delegate `default/inner` can match nothing of what is delegated here; "
        "let its `match` be narrower than this one"
    ]


def test_a_delegate_that_is_not_there_is_refused() -> None:
    files = folder({}, [{"route": TO_WEB}])
    del files["mesh/inner.yaml"]

    assert problems(files) == [
        "mesh/routes.yaml:1: no VirtualService `default/inner` is a delegate; "
        "declare it, without `hosts` and `gateways`"
    ]


def test_one_with_hosts_is_no_delegate() -> None:
    assert problems(folder({}, [{"route": TO_WEB}], hosts=["web"])) == [
        "mesh/routes.yaml:1: no VirtualService `default/inner` is a delegate; "
        "declare it, without `hosts` and `gateways`"
    ]


def test_a_delegate_to_which_nobody_delegates_is_refused() -> None:
    files = {**GOOD, "mesh/inner.yaml": virtual("inner", http=[{"route": TO_WEB}])}

    assert problems(files) == [
        "mesh/inner.yaml:1: no VirtualService delegates to `default/inner`, and it has no `hosts`; "
        "add `hosts`, or remove it"
    ]


def test_a_delegate_does_not_delegate() -> None:
    assert problems(folder({}, [{"delegate": {"name": "third"}}])) == [
        "mesh/inner.yaml:1: `spec`: a delegate does not delegate; give it `hosts`, or `route` here"
    ]


def test_a_delegate_is_exported_to_who_delegates() -> None:
    files = {
        **GOOD,
        "mesh/routes.yaml": virtual("root", hosts=["api"], http=[{"delegate": {"name": "inner", "namespace": "far"}}]),
        "mesh/inner.yaml": virtual("inner", "far", exportTo=["."], http=[{"directResponse": {"status": 204}}]),
    }

    assert problems(files) == [
        "mesh/routes.yaml:1: the delegate `far/inner` is not exported to the namespace `default`; "
        "add it to the delegate's `exportTo`"
    ]
