"""A sealed journal that was tampered with is found out, however it was done."""

from __future__ import annotations

import shutil
from base64 import b64decode, b64encode
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest

from policyd.audit.block import Start
from policyd.audit.lines import open_lines
from policyd.audit.pack import pack
from policyd.audit.record import decode, digest
from policyd.audit.sealed import write_sealed
from policyd.audit.seals import SEALS_FILE, read_seal, sign_line
from policyd.audit.seals_file import SealsFile
from policyd.audit.segments import parse_segment, segment_name
from policyd.audit.verify_segments import Task, check_all
from policyd.audit.verify_writer import Chain
from policyd.ca.sealing import SealingKeys
from policyd.spiffe import SpiffeId
from tests.audit.samples import NOON, WRITER
from tests.audit.sealing import AUTHORITY, DOMAIN, Sealed, an_authority, issuer
from tests.fakes.clock import FakeClock
from tests.fakes.disk import FailingDisk


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two writers, three sealed segments each under three seals, and open ones behind them."""
    sealed = Sealed(tmp_path_factory.mktemp("whole") / "journal", FakeClock(NOON))
    for _ in range(3):
        sealed.write(4, "decide-2")
        sealed.write(4)
        sealed.sealer.turn()
    return sealed.folder


@pytest.fixture
def sealed(whole: Path, tmp_path: Path) -> Sealed:
    folder = tmp_path / "journal"
    shutil.copytree(whole, folder)
    return Sealed(folder, FakeClock(NOON))


def file(sealed: Sealed, first: int, writer: str = WRITER) -> Path:
    return (sealed.folder / segment_name(writer, first)).with_suffix(".sealed")


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def unnamed(path: Path) -> None:
    """Have its index name a writer in what is no text."""
    before, _, behind = path.read_bytes().rpartition(WRITER.encode())
    path.write_bytes(before + WRITER.replace("s", "\x80", 1).encode("latin-1") + behind)


def rewrite(path: Path, change: Callable[[list[bytes]], list[bytes]], sealed: Sealed) -> None:
    """What someone does who knows the format: other lines, with a chain of their own."""
    segment = parse_segment(path)
    assert segment is not None
    with open_lines(segment, pytest.fail) as lines:
        old = [found.raw for found in lines.forward(0)]
    prev = decode(old[0]).prev
    chained: list[bytes] = []
    for seq, line in enumerate(change(old), segment.first_seq):
        body = line[: line.rindex(b',"writer"')]
        chained.append(
            b'%b,"writer":"%b","seq":%d,"prev":"%b"}\n' % (body, segment.writer.encode(), seq, prev.encode())
        )
        prev = digest(chained[-1])
    with path.open("wb") as target:
        write_sealed(target, chained, Start(segment.writer, segment.first_seq, decode(old[0]).prev))


def seal_lines(sealed: Sealed) -> list[bytes]:
    return (sealed.folder / "seals.jsonl").read_bytes().splitlines(keepends=True)


def write_seals(sealed: Sealed, lines: list[bytes]) -> None:
    (sealed.folder / "seals.jsonl").write_bytes(b"".join(lines))


@pytest.mark.parametrize("options", [{}, {"seals_only": True}, {"jobs": 2}])
def test_a_whole_journal_is_whole(sealed: Sealed, options: dict[str, bool]) -> None:
    verdict = sealed.verify(**options)
    assert verdict.problems == ()
    assert verdict.chains == (Chain("decide-2", 1, 12, sealed=9), Chain(WRITER, 1, 12, sealed=9))
    assert verdict.newest is not None
    assert verdict.newest.number == 4
    assert verdict.sealed_bytes == sum(path.stat().st_size for path in sealed.folder.glob("*.sealed"))


@pytest.mark.parametrize("unpack", [False, True])
def test_several_processes_find_what_one_finds(sealed: Sealed, unpack: bool) -> None:
    flip(file(sealed, 4), 60)
    parts = SealsFile(sealed.folder, FailingDisk()).parts.values()
    tasks = [Task(str(sealed.folder / part.file), part) for part in parts]
    told: list[int] = []
    alone = check_all(tasks, unpack=unpack, jobs=1, progress=told.append)
    shared = check_all(tasks, unpack=unpack, jobs=2, progress=told.append, alone_bytes=0)
    assert shared == alone
    assert [one.part.first for one in alone if one.error] == [4]
    assert told == [3] * 12


@pytest.mark.parametrize("seals_only", [False, True])
@pytest.mark.parametrize(
    ("damage", "said", "last"),
    [
        (lambda s: flip(file(s, 4), 60), "record", 3),
        (lambda s: flip(file(s, 4), -40), "", 3),
        (lambda s: unnamed(file(s, 4)), "its index is unreadable", 3),
        (lambda s: file(s, 4).write_bytes(file(s, 4).read_bytes()[:-200]), "is no sealed segment of this name", 3),
        (lambda s: file(s, 4).unlink(), "records 4 to 6 were sealed, their file is missing", 3),
        (lambda s: file(s, 7).unlink(), "records 7 to 9 were sealed, their file is missing", 6),
        (lambda s: file(s, 1).unlink(), "records 1 to 3 were sealed, their file is missing", 0),
        (lambda s: shutil.copy(file(s, 4, "decide-2"), file(s, 4)), "it holds record 4 of `decide-2`", 3),
        (lambda s: shutil.copy(file(s, 7), file(s, 4)), "it holds record 7 of", 3),
        (
            lambda s: rewrite(file(s, 4), lambda lines: [lines[0], lines[1].replace(b"allow", b"deny"), lines[2]], s),
            "these are not the records 4 to 6 that were sealed", 6,
        ),
        (
            lambda s: rewrite(file(s, 4), lambda lines: lines[:2], s),
            "these are not the records 4 to 6 that were sealed", 5,
        ),
    ],
)  # fmt: skip
def test_what_was_done_to_a_sealed_segment_is_found_and_named(
    sealed: Sealed, damage: Callable[[Sealed], object], said: str, last: int, seals_only: bool
) -> None:
    damage(sealed)
    (problem,) = sealed.verify(seals_only=seals_only).problems
    assert problem.file.startswith(str(sealed.folder))
    assert said in problem.message
    chains = {chain.writer: chain for chain in sealed.verify().chains}
    assert chains["decide-2"] == Chain("decide-2", 1, 12, sealed=9)
    assert chains[WRITER].last == last


def test_two_segments_that_were_swapped_are_found(sealed: Sealed) -> None:
    one, two = file(sealed, 4), file(sealed, 7)
    held = one.read_bytes()
    one.write_bytes(two.read_bytes())
    two.write_bytes(held)
    assert len(sealed.verify().problems) == 1


def test_a_line_taken_out_behind_the_seals_is_found(sealed: Sealed) -> None:
    path = sealed.folder / segment_name(WRITER, 10)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:1], *lines[2:]]))
    (problem,) = sealed.verify().problems
    assert (problem.file, problem.line, problem.message) == (str(path), 2, "record 12 follows record 10")


def test_an_open_segment_that_was_written_anew_does_not_follow_what_is_sealed(sealed: Sealed, tmp_path: Path) -> None:
    other = Sealed(tmp_path / "other", FakeClock())
    other.write(12)
    path = sealed.folder / segment_name(WRITER, 10)
    path.write_bytes((other.folder / path.name).read_bytes())
    (problem,) = sealed.verify().problems
    assert problem.message.startswith("record 10 does not continue what stands before it")


def test_all_seals_cut_off_with_all_that_they_sealed_are_missed_by_what_follows(sealed: Sealed) -> None:
    for path in [sealed.folder / SEALS_FILE, *sealed.folder.glob("*.sealed")]:
        path.unlink()
    assert [one.message for one in sealed.verify().problems] == [
        "records 1 to 9 are missing, and no seal says that they were removed",
        "records 1 to 9 are missing, and no seal says that they were removed",
    ]


def test_a_sealed_file_that_no_seal_names_is_found(sealed: Sealed) -> None:
    shutil.copy(file(sealed, 4), file(sealed, 40))
    (problem,) = sealed.verify().problems
    assert (problem.file, problem.message) == (str(file(sealed, 40)), "no seal names this segment")


def test_an_open_file_beside_its_sealed_form_has_to_be_the_same(sealed: Sealed) -> None:
    leftover = sealed.folder / segment_name(WRITER, 4)
    leftover.write_bytes(b'{"planted":1}\n')
    (problem,) = sealed.verify().problems
    assert problem.message == f"`{leftover.name}` differs from what was sealed"


def test_a_segment_that_is_packed_and_not_yet_under_a_seal_is_whole(sealed: Sealed) -> None:
    sealed.write(2)
    path = sealed.folder / segment_name(WRITER, 10)
    segment = parse_segment(path)
    assert segment is not None
    pack(segment)
    assert sealed.verify().problems == ()
    assert sealed.verify().chains[1] == Chain(WRITER, 1, 14, sealed=9)


# ---- seals


def changed(lines: list[bytes], at: int, old: bytes, new: bytes) -> list[bytes]:
    return [line.replace(old, new, 1) if number == at else line for number, line in enumerate(lines)]


@pytest.mark.parametrize(
    ("damage", "line", "said"),
    [
        (lambda lines: [*lines[:2], *lines[3:]], 3, "seal 4 does not continue seal 2"),
        (lambda lines: [lines[0], lines[2], lines[1], lines[3]], 2, "seal 3 does not continue seal 1"),
        (lambda lines: changed(lines, 1, b'"last":3', b'"last":2'), 2, "seal 2 is forged: its signature does not fit"),
        (lambda lines: changed(lines, 0, b'"key":"', b'"key":"0'), 1, "seal 1 introduces another key than it names"),
        (lambda lines: lines[1:], 1, "seal 2 is signed with a key that was not introduced"),
        (lambda lines: [lines[0], b"{}\n"], 2, "no seal"),
        (lambda lines: [b"\xff\n", *lines], 1, "no seal"),
    ],
)  # fmt: skip
def test_what_was_done_to_the_seals_is_found(
    sealed: Sealed, damage: Callable[[list[bytes]], list[bytes]], line: int, said: str
) -> None:
    write_seals(sealed, damage(seal_lines(sealed)))
    problem = sealed.verify().problems[0]
    assert (problem.file, problem.line) == (str(sealed.folder / "seals.jsonl"), line)
    assert problem.message.startswith(said)


@pytest.mark.parametrize(
    ("authority", "identity", "said"),
    [
        (an_authority(), SpiffeId.journal(DOMAIN), "the key of seal 1 is not the journal's: "),
        (AUTHORITY, SpiffeId.workload(DOMAIN, "default", "reviews"), "/ns/default/sa/reviews` is not the journal"),
        (AUTHORITY, SpiffeId.server(DOMAIN), "`spiffe://cluster.local/policyd/server` is not the journal"),
    ],
)  # fmt: skip
def test_seals_of_somebody_else_are_forged(tmp_path: Path, authority: object, identity: SpiffeId, said: str) -> None:
    sealed = Sealed(tmp_path / "journal", FakeClock())
    keys = SealingKeys(issuer(authority, sealed.clock, identity), sealed.clock)  # type: ignore[arg-type]
    sealed.write(4)
    sealed.new_sealer(signer=keys).turn()
    assert said in sealed.verify().problems[0].message


@pytest.mark.parametrize(
    ("old", "new"),
    [("a003020102", "a00302017f"), ("0c07706f6c69637964", "2707706f6c69637964")],  # version; a name of no kind
)
def test_a_chain_that_is_read_halfway_is_nobodys(sealed: Sealed, old: str, new: str) -> None:
    lines = seal_lines(sealed)
    first = read_seal(lines[0])
    _, signer = (b64decode(one) for one in first.chain)
    spoilt = signer.replace(bytes.fromhex(old), bytes.fromhex(new), 1)
    assert spoilt != signer
    write_seals(sealed, changed(lines, 0, b64encode(signer), b64encode(spoilt)))
    problem = sealed.verify().problems[0]
    assert problem.message == "the key of seal 1 is not the journal's: a certificate cannot be read"


def test_a_seal_of_a_time_at_which_its_key_was_not_valid_is_forged(sealed: Sealed) -> None:
    write_seals(sealed, [])
    keys = SealingKeys(issuer(AUTHORITY, sealed.clock), sealed.clock)
    sealed.new_sealer(signer=keys).turn()
    sealed.write(7, "decide-9")
    sealed.new_sealer(signer=keys).turn()
    lines = seal_lines(sealed)[:1]
    late = msgspec.structs.replace(
        read_seal(lines[0]), number=2, kind="seal", time=NOON + timedelta(days=2), chain=(), prev=digest(lines[0])
    )
    write_seals(sealed, [*lines, sign_line(late, keys())])
    assert sealed.verify().problems[0].message == "seal 2 is forged: its signature does not fit"


def test_seals_without_a_root_to_check_them_with_prove_nothing(sealed: Sealed) -> None:
    assert sealed.verify(trust=None).problems[0].message == (
        "there are seals, and no root certificate to check them with"
    )


def test_an_end_that_was_cut_off_with_its_seal_is_found_by_a_seal_that_was_noted(sealed: Sealed) -> None:
    newest = sealed.verify().newest
    assert newest is not None
    noted = (newest.number, newest.hash)
    assert sealed.verify(noted=noted).problems == ()
    write_seals(sealed, seal_lines(sealed)[:-1])
    for writer in (WRITER, "decide-2"):
        file(sealed, 7, writer).unlink()
        (sealed.folder / segment_name(writer, 10)).unlink()
    assert sealed.verify().problems == ()
    (problem,) = sealed.verify(noted=noted).problems
    assert problem.message == "seal 4 is missing, the last one is 3"


def test_a_seal_that_was_noted_and_made_anew_is_found(sealed: Sealed) -> None:
    problem = sealed.verify(noted=(3, "0" * 64)).problems[0]
    assert problem.message == "seal 3 is not the one that was noted"
