"""Several Envoys' pages of metrics as one."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from policyd import signals
from proxy.exposition import MAX_LINES, Page, read, written

TAGS = 'local="web-v1|default|web|v1|web.default|spiffe://d/web",response_code="200"'
FIRST = f"""# TYPE envoy_istio_requests_total counter
envoy_istio_requests_total{{{TAGS}}} 4

# TYPE envoy_istio_request_bytes histogram
envoy_istio_request_bytes_bucket{{{TAGS},le="0.5"}} 3
envoy_istio_request_bytes_bucket{{{TAGS},le="+Inf"}} 4
envoy_istio_request_bytes_sum{{{TAGS}}} 3.5
envoy_istio_request_bytes_count{{{TAGS}}} 4
# TYPE envoy_server_live gauge
envoy_server_live{{}} 1
# TYPE envoy_cluster_upstream_cx gauge
envoy_cluster_upstream_cx{{envoy_cluster_name="policyd-xds"}} 1
"""


def test_the_mesh_s_metrics_get_their_standard_names_and_every_line_its_proxy() -> None:
    page = Page()

    assert page.add("web-1", FIRST) == 3

    lines = page.text().splitlines()
    [counter] = [line for line in lines if line.startswith("istio_requests_total{")]
    assert counter.startswith('istio_requests_total{reporter="destination",source_workload="unknown",')
    assert 'destination_workload="web-v1"' in counter
    assert counter.endswith(',proxy="web-1"} 4')
    bounds = [line.rpartition("proxy=")[2] for line in lines if line.startswith("istio_request_bytes_bucket")]
    assert bounds == ['"web-1",le="0.5"} 3', '"web-1",le="+Inf"} 4']
    assert 'envoy_server_live{proxy="web-1"} 1' in lines
    assert 'envoy_cluster_upstream_cx{envoy_cluster_name="policyd-xds",proxy="web-1"} 1' in lines


def test_a_family_stands_once_whoever_has_it() -> None:
    page = Page()
    for name in ("web-1", "web-2"):
        page.add(name, FIRST)

    lines = page.text().splitlines()
    at = lines.index("# TYPE istio_requests_total counter")
    assert [line.rpartition("proxy=")[2] for line in lines[at + 1 : at + 3]] == ['"web-1"} 4', '"web-2"} 4']
    assert len([line for line in lines if line.startswith("# TYPE istio_requests_total")]) == 1


def test_what_is_no_line_is_left_out_and_counted() -> None:
    page = Page()

    page.add("web", "envoy_before_its_type 1\n# TYPE a counter\na{ 1\na 1\nnot a line\n# HELP a no\n")

    assert page.text() == '# TYPE a counter\na{proxy="web"} 1\n'
    assert page.odd == 3


def test_messages_of_grpc_are_counted_by_service() -> None:
    tags = TAGS.replace('response_code="200"', 'remote="a|n|a|v1|a.n",cluster="outbound|80||a.n"')
    outside = TAGS.replace('response_code="200"', 'remote="",cluster="outbound|443||api.example"')
    told = [
        ("n_", "outbound|80||a", 3),
        ("example_", "outbound|443||api", 4),
        ("default_", "inbound|80||web", 5),
        ("", "policyd-authz", 6),
        ("n_", "outbound|80||b", 7),
    ]
    page = Page()
    page.add(
        "web",
        "".join(
            f"# TYPE envoy_cluster_{rest}grpc_request_message_count counter\n"
            f'envoy_cluster_{rest}grpc_request_message_count{{envoy_cluster_name="{name}"}} {count}\n'
            for rest, name, count in told
        )
        + "# TYPE envoy_istio_requests_total counter\n"
        + "".join(f"envoy_istio_requests_total{{{each}}} 1\n" for each in (tags, outside)),
    )

    lines = [line for line in page.text().splitlines() if line.startswith("istio_request_messages_total{")]
    found = [(read(line.partition("{")[2].rpartition("}")[0]), line.rpartition(" ")[2]) for line in lines]
    assert [
        (one["reporter"], one["source_workload"], one["destination_workload"], one["destination_service"], count)
        for one, count in found
    ] == [
        ("source", "web-v1", "unknown", "a.n.svc.cluster.local", "3"),
        ("source", "web-v1", "unknown", "api.example", "4"),
        ("destination", "unknown", "web-v1", "web.default.svc.cluster.local", "5"),
    ]
    assert {(one["request_protocol"], one["proxy"]) for one, _ in found} == {("grpc", "web")}
    assert not any("response_code" in one or "decision" in one for one, _ in found)


def test_what_an_envoy_counts_by_one_tag_is_written_out() -> None:
    tags = read(TAGS)
    page, plain = Page(), Page()
    page.add("web", FIRST.replace(TAGS, written(signals.folded(tags))))
    plain.add("web", FIRST)

    assert page.text() == plain.text()


def test_what_is_told_apart_no_more_is_one_line() -> None:
    page = Page()
    lines = [
        f'envoy_istio_requests_total{{{TAGS},decision="{decision}",without="decision"}} {count}'
        for decision, count in (("allow", "4"), ("deny", "2"), ("error", "odd"))
    ]
    page.add("web", "\n".join(["# TYPE envoy_istio_requests_total counter", *lines[:2], ""]))
    page.add("api", "\n".join(["# TYPE envoy_istio_requests_total counter", lines[0], lines[2], ""]))

    _, web, api = page.text().splitlines()
    assert (web.endswith(',proxy="web"} 6'), "decision" in web) == (True, False)
    assert api.endswith(',proxy="api"} nan')


APPLICATION = """\
# HELP orders_total Orders.
# TYPE orders_total counter
orders_total{kind="book",proxy="theirs"} 3 1700000000000
# TYPE took histogram
took_bucket{le="1"} 2
took_sum 1.5
took_count 2
loose 4
# TYPE istio_requests_total counter
istio_requests_total{decision="allow"} 9
policyd_proxy_up 0
odd{a=b} 1
bad many
"""


def test_an_application_s_metrics_stand_beside_with_their_proxy_and_none_of_others() -> None:
    page = Page()
    page.add("web", FIRST)
    before = page.text()
    page.add_application("api", APPLICATION)
    page.add_application("web", "# TYPE orders_total counter\r\norders_total 1\r\n# EOF\r\n")

    assert page.text() == before + (
        "# TYPE orders_total counter\n"
        'orders_total{kind="book",exported_proxy="theirs",proxy="api"} 3\n'
        'orders_total{proxy="web"} 1\n'
        '# TYPE took histogram\ntook_bucket{le="1",proxy="api"} 2\ntook_sum{proxy="api"} 1.5\n'
        'took_count{proxy="api"} 2\n'
        '# TYPE loose untyped\nloose{proxy="api"} 4\n'
    )
    assert page.odd == 4


def test_an_application_has_so_many_lines() -> None:
    page = Page()
    page.add_application("api", "\n".join(f'a{{b="{at}"}} 1' for at in range(MAX_LINES + 3)))

    assert (page.text().count("\n"), page.odd) == (MAX_LINES + 1, 3)


@given(st.text(max_size=200))
def test_whatever_an_application_shows_the_page_stays_one(text: str) -> None:
    page = Page()
    page.add_application("api", text)
    again = Page()
    again.add_application("api", page.text())

    assert again.odd == 0


def test_figures_of_our_own_stand_beside_them() -> None:
    page = Page()

    page.put("policyd_proxy_up", [({}, True), ({"proxy": 'a"b'}, 1.5)])

    assert page.text() == '# TYPE policyd_proxy_up gauge\npolicyd_proxy_up 1\npolicyd_proxy_up{proxy="a\\"b"} 1.5\n'


@given(st.dictionaries(st.from_regex(r"[a-z_]{1,8}", fullmatch=True), st.text(max_size=20)))
def test_labels_are_read_as_they_were_written(labels: dict[str, str]) -> None:
    assert read(written(labels)) == labels
