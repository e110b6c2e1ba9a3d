"""`policyd why`: a line for why requests were refused, and in the next what would have let them pass."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from msgspec.structs import replace

from policyd.audit.journal import Journal
from policyd.audit.record import Entry, Fault
from policyd.authz.ruling import Ruling
from policyd.cedar.http import Endpoint, HttpFacts
from policyd.cli.exits import Exit
from policyd.spiffe import SpiffeId
from tests.cli import recorded
from tests.cli.conftest import Said
from tests.policy import traffic

Command = Callable[..., Said]
DAY = "2026-11-20"
DENIED = "no policy permits `bookinfo-reviews` GET /details/0 on `details`"
WOULD = "the caller `bookinfo-productpage` (by `details-from-productpage`)"
EARLIER = "the time 2026-11-20T12:01:29.999Z"
FAILED = "revision: the mesh changed meanwhile"


def _asked(ruling: Ruling, number: int, caller: str, service: str, path: str) -> Entry:
    listener = next(one for one in ruling.mesh.listeners.values() if one.service == f"{service}.default")
    facts = HttpFacts(
        principal=SpiffeId.workload("cluster.local", "default", f"bookinfo-{caller}"),
        service=listener.service,
        method="GET",
        target=path,
        host=service,
        time=_at(number),
        source=Endpoint("10.0.0.1", 40_000 + number),
        destination=Endpoint("10.0.0.2", listener.port),
        instance=listener.instance,
        headers={},
    )
    return traffic.entry(facts, listener, ruling, number)


def _at(number: int) -> datetime:
    return traffic.START + timedelta(minutes=number)


@pytest.fixture(scope="module")
def folder(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Bookinfo: three requests denied for one reason, one allowed, one failed, one of a revision that is gone."""
    folder = recorded.bookinfo(root, tmp_path_factory.mktemp("why") / "bookinfo")
    ruling = recorded.in_force(folder)
    gone = Entry(
        time=_at(5),
        kind="decision",
        decision="deny",
        decision_id="e" * 32,
        request_id="two-hops",
        principal='Workload::"spiffe://a/ns/b/sa/c"',
        action='Action::"GET"',
        resource='Service::"ratings.default"',
        revision="5f2e" * 16,
    )
    failed = Entry(
        time=_at(6), kind="decision", decision="error", decision_id="f" * 32, request_id="two-hops",
        errors=(Fault("revision", "the mesh changed meanwhile"),),
    )  # fmt: skip
    change = Entry(time=_at(7), kind="change", decision="deny", decision_id="c" * 32)
    requests = [_asked(ruling, number, "reviews", "details", "/details/0") for number in range(3)]
    requests += [_asked(ruling, 4, "productpage", "details", "/details/0")]
    journal = Journal(folder / ".policyd" / "journal", "decide-1", lambda: traffic.START)
    for entry in (*requests, gone, failed, change):
        journal.append(entry)
    journal.close()
    return folder


def _reason(number: int, times: int = 1) -> dict[str, object]:
    return {
        "decision": "deny",
        "why": DENIED,
        "would_allow": WOULD,
        "decision_id": f"{number:032x}",
        "time": _at(number).isoformat(),
        "first": _at(number - times + 1).isoformat(),
        "times": times,
    }


def test_requests_refused_for_one_reason_are_told_once_and_the_newest_reason_last(
    policyd: Command, folder: Path
) -> None:
    said = policyd("why", "--dir", folder)
    why_not = f"no revision `{'5f2e' * 16}` is kept; `policyd policy revisions` lists them"
    assert (said.code, said.err) == (Exit.OK, "")
    assert said.out.splitlines() == [
        f"{DAY} 12:02:00Z  00000000  deny: {DENIED}  (3 times since {DAY} 12:00:00Z)",
        f"                                would be allowed with {WOULD}",
        f"{DAY} 12:05:00Z  eeeeeeee  deny: no policy allows it (not explained: {why_not})",
        f"{DAY} 12:06:00Z  ffffffff  error: {FAILED}",
    ]


def test_an_id_has_a_line_and_what_would_have_allowed_it_the_next(policyd: Command, folder: Path) -> None:
    assert policyd("why", f"{1:032x}", "--dir", folder).out.splitlines() == [
        f"{DAY} 12:01:00Z  00000000  deny: {DENIED}",
        f"                                would be allowed with {WOULD}",
    ]


def test_each_hop_of_a_request_is_told_the_last_one_last(policyd: Command, folder: Path) -> None:
    said = policyd("why", "two-hops", "--dir", folder).out.splitlines()
    assert [line.split()[2] for line in said] == ["eeeeeeee", "ffffffff"]
    assert [one["decision"] for one in policyd("why", "two-hops", "--dir", folder, "--json").value] == ["error", "deny"]


def test_an_allowed_request_is_told_by_what(policyd: Command, folder: Path) -> None:
    said = policyd("why", f"{4:032x}", "--dir", folder)
    assert (
        said.out
        == f"{DAY} 12:04:00Z  00000000  allow: permitted by `details-from-productpage` (policies/details.cedar:2)\n"
    )


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--resource", "details"), [_reason(2, times=3)]),
        (("--principal", "bookinfo-reviews", "--until", "2026-11-20T12:02:00Z"), [_reason(1, times=2)]),
        (("--since", "2026-11-20T12:02:00Z", "--resource", "details"), [_reason(2)]),
        ((f"{1:032x}",), [_reason(1)]),
        (("--principal", "nobody"), []),
    ],
)
def test_machines_are_told_the_same(
    policyd: Command, folder: Path, words: tuple[str, ...], expected: list[dict[str, object]]
) -> None:
    assert policyd("why", *words, "--dir", folder, "--json").value == expected


def test_only_so_many_reasons_are_told(policyd: Command, folder: Path) -> None:
    assert [one["decision"] for one in policyd("why", "-n", "1", "--dir", folder, "--json").value] == ["error"]


def test_requests_are_not_told_together_where_another_moment_or_instance_has_another_reason(
    policyd: Command, root: Path, tmp_path: Path
) -> None:
    """What would have let them pass is of policies that their decisions did not read."""
    folder = recorded.bookinfo(root, tmp_path / "bookinfo")
    (folder / "policies" / "reviews.cedar").write_text(
        """
        @id("morning") permit (principal == Workload::"spiffe://cluster.local/ns/default/sa/bookinfo-productpage",
            action == Action::"GET", resource == Service::"reviews.default")
        when { context.time < datetime("2026-11-20T12:01:30Z") };
        @id("second") permit (principal == Workload::"spiffe://cluster.local/ns/default/sa/bookinfo-details",
            action == Action::"POST", resource == Service::"reviews.default")
        when { context.destination.labels.hasTag("version") &&
               context.destination.labels.getTag("version") == "v2" };
        """
    )
    ruling = recorded.in_force(folder)
    entries = [_asked(ruling, number, "ratings", "reviews", "/reviews/0") for number in (0, 1, 2)] + [
        replace(_asked(ruling, 3 + at, "details", "reviews", "/reviews/0"), proxy=proxy)
        for at, proxy in enumerate(("reviews-v1", "reviews-v2"))
    ]
    traffic.write(folder, entries)
    told = policyd("why", "--dir", folder, "--json").value
    assert {one["decision_id"][-1]: (one["would_allow"], one["times"]) for one in told} == {
        "1": ("the caller `bookinfo-productpage` (by `morning`)", 2),
        "2": (f"{EARLIER} and the caller `bookinfo-productpage` (by `morning`)", 1),
        "3": (f"{EARLIER} and the caller `bookinfo-productpage` (by `morning`)", 1),
        "4": (
            f"`POST` instead of `GET` (by `second`); or {EARLIER} and the caller `bookinfo-productpage` (by `morning`)",
            1,
        ),
    }


def test_where_nothing_was_refused_that_is_said(policyd: Command, folder: Path) -> None:
    said = policyd("why", "--resource", "nothing", "--dir", folder)
    assert (said.code, said.out) == (Exit.OK, "nothing that matches was refused\n")


@pytest.mark.parametrize(
    ("words", "code", "error"),
    [
        (("abc",), Exit.USAGE, "error: `abc` is too short for an id\n  write at least 4 digits of it\n"),
        (
            ("abcde",),
            Exit.INVALID,
            "error: the journal has no decision or request `abcde`\n  `policyd log query --json` shows the ids",
        ),
        (("c" * 32,), Exit.INVALID, f"error: `{'c' * 32}` is no decision\n  `policyd log show {'c' * 32}` shows it\n"),
        (
            ("f" * 32, "--since", "1h"),
            Exit.USAGE,
            "error: an id names what to explain\n  leave out the other options\n",
        ),
        (("--since", "soon"), Exit.USAGE, "error: `soon` is no time"),
    ],
)
def test_what_cannot_be_asked_is_refused(
    policyd: Command, folder: Path, words: tuple[str, ...], code: Exit, error: str
) -> None:
    said = policyd("why", *words, "--dir", folder)
    assert (said.code, said.out) == (code, "")
    assert said.err.startswith(error)
