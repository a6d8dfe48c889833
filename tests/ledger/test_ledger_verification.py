"""`verify` finds every corruption, names the record, and says `unfinished` of a run without an end."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from samples import HEADER, decided, groups, write_run, write_step

from selftrain.errors import LedgerError, RunFolderError
from selftrain.ledger import LedgerWriter, Status, read, records, segments, verify, verify_replay
from selftrain.ledger.chain import FORMAT, Line, make_line
from selftrain.ledger.columns import digest
from selftrain.ledger.reader import read_segment
from selftrain.types import Answers, ScoredGroup


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("verified") / "run"
    return folder, write_run(folder)


def test_a_whole_run_is_intact(run: tuple[Path, str]) -> None:
    folder, head = run
    report = verify(folder, head)
    assert (report.status, report.head, report.num_records, report.num_segments) == (Status.INTACT, head, 16, 4)
    assert (report.faults, report.notes, report.first) == ((), (), None)
    middle = read(folder).entries[5].hash
    assert (verify(folder, middle).status, verify(folder, middle).notes) == (Status.INTACT, ("10 records follow the given head",))
    assert str(verify(folder, "0" * 64).first).count("is not in it") == 1


def test_a_run_without_an_end_is_unfinished(tmp_path: Path) -> None:
    with LedgerWriter.create(tmp_path, HEADER) as writer:
        assert verify(tmp_path).status is Status.UNFINISHED
        head = write_step(writer, 1)
        assert verify(tmp_path, head).status is Status.UNFINISHED
    (tmp_path / "ledger/segments/000002.groups.parquet").write_bytes(b"")
    report = verify(tmp_path)
    assert report.status is Status.UNFINISHED
    assert "is not in the chain" in report.notes[0]
    with pytest.raises(RunFolderError):
        verify(tmp_path / "nowhere")


Corruption = Callable[[Path, random.Random], object]


def a_file(folder: Path, draw: random.Random) -> Path:
    """A file that belongs to the record: run.json, the chain, a segment or the evaluations."""
    files = [folder / "run.json", folder / "ledger/chain.jsonl", folder / "evals.jsonl", *sorted((folder / "ledger/segments").iterdir())]
    return draw.choice(files)


def flip_bit(folder: Path, draw: random.Random) -> None:
    path = a_file(folder, draw)
    data = bytearray(path.read_bytes())
    data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    path.write_bytes(data)


def cut_end(folder: Path, draw: random.Random) -> None:
    path = a_file(folder, draw)
    while path.name == "evals.jsonl":  # outside the chain: that a last evaluation is gone cannot be seen
        path = a_file(folder, draw)
    data = path.read_bytes()
    path.write_bytes(data[: draw.randrange(len(data))])


def cut_middle(folder: Path, draw: random.Random) -> None:
    path = a_file(folder, draw)
    data = path.read_bytes()
    start = draw.randrange(len(data) - 1)
    path.write_bytes(data[:start] + data[start + draw.randrange(1, 9) :] if path.name != "evals.jsonl" else data[: start + 1] + b"x" + data[start + 1 :])


def delete_file(folder: Path, draw: random.Random) -> None:
    draw.choice([folder / "ledger/chain.jsonl", *sorted((folder / "ledger/segments").iterdir())]).unlink()


def swap_files(folder: Path, draw: random.Random) -> None:
    table = draw.choice(("groups", "completions"))
    one, other = draw.sample(sorted((folder / "ledger/segments").glob(f"*.{table}.parquet")), 2)
    data = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(data)


def edit_lines(change: Callable[[list[bytes], random.Random], object]) -> Corruption:
    def corrupt(folder: Path, draw: random.Random) -> None:
        path = folder / "ledger/chain.jsonl"
        lines = path.read_bytes().splitlines(keepends=True)
        change(lines, draw)
        path.write_bytes(b"".join(lines))

    return corrupt


def swap_lines(lines: list[bytes], draw: random.Random) -> None:
    one, other = draw.sample(range(len(lines)), 2)
    lines[one], lines[other] = lines[other], lines[one]


def forge_line(lines: list[bytes], draw: random.Random) -> None:
    """A record with a body of its own and the right hash, in a chain that goes on with the old one."""
    at = draw.randrange(len(lines) - 1)
    old = json.loads(lines[at])
    forged = make_line(old["seq"], old["kind"], old["prev"], old["body"] | {"step": 99})
    lines[at] = replace(forged, files=old.get("files", {})).encode()


def append_file(folder: Path, draw: random.Random) -> None:
    segment = draw.choice(sorted((folder / "ledger/segments").iterdir()))
    shutil.copy(segment, segment.with_name(f"{draw.randrange(5, 9):06d}{segment.name[6:]}"))


def append_bytes(folder: Path, draw: random.Random) -> None:
    path = a_file(folder, draw)
    path.write_bytes(path.read_bytes() + draw.randbytes(draw.randrange(1, 9)) + b"\n")


def forge_segment(folder: Path, draw: random.Random) -> None:
    """Other rewards in a segment, its digest and checksum recomputed in its record, the chain left alone."""
    path = folder / "ledger/chain.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    at = draw.choice([index for index, raw in enumerate(lines) if b'"kind":"segment"' in raw])
    old = json.loads(lines[at])
    number, step = old["body"]["segment"], old["body"]["step"]
    tables = records.to_tables(step, [replace(decided(step), advantages=(9.0,) * 4), *groups(step)[1:]])
    files = dict(old["files"])
    for name, table in tables.items():
        data = segments.encode(name, table, number, old["prev"])
        (folder / "ledger/segments" / segments.file_name(number, name)).write_bytes(data)
        files[segments.file_name(number, name)] = segments.checksum(data)
        old["body"][name]["sha256"] = digest(name, table)
    kept_hash = old["hash"] if draw.random() < 0.5 else make_line(old["seq"], "segment", old["prev"], old["body"]).hash
    lines[at] = Line(old["seq"], "segment", old["prev"], old["body"], kept_hash, files).encode()
    path.write_bytes(b"".join(lines))


def claim_file(folder: Path, draw: random.Random) -> None:
    """A file that no record has, claimed by a line outside what its hash covers."""
    path = folder / "ledger/chain.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    at = draw.randrange(len(lines))
    old = json.loads(lines[at])
    (folder / "ledger/segments/000009.groups.parquet").write_bytes(b"PAR1")
    files = old.get("files", {}) | {"000009.groups.parquet": segments.checksum(b"PAR1")}
    lines[at] = Line(old["seq"], old["kind"], old["prev"], old["body"], old["hash"], files).encode()
    path.write_bytes(b"".join(lines))


CORRUPTIONS: dict[str, Corruption] = {
    "flip": flip_bit,
    "cut the end": cut_end,
    "cut the middle": cut_middle,
    "delete a file": delete_file,
    "swap files": swap_files,
    "swap records": edit_lines(swap_lines),
    "drop a record": edit_lines(lambda lines, draw: lines.pop(draw.randrange(len(lines)))),
    "repeat a record": edit_lines(lambda lines, draw: lines.insert(draw.randrange(len(lines)), draw.choice(lines))),
    "forge a record": edit_lines(forge_line),
    "append a file": append_file,
    "append bytes": append_bytes,
    "forge a segment": forge_segment,
    "claim a file": claim_file,
}


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_sixteen_random_corruptions_of_each_kind_are_caught(run: tuple[Path, str], tmp_path: Path, kind: str) -> None:
    folder, head = run
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    whole = {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()}
    for number in range(16):
        CORRUPTIONS[kind](copy, random.Random(f"{kind} {number}"))
        report = verify(copy, head)
        assert report.status is Status.DAMAGED, f"{kind} {number}"
        assert report.first is not None
        restore(copy, whole)
    assert verify(copy, head).status is Status.INTACT


def restore(folder: Path, whole: dict[Path, bytes]) -> None:
    for path in folder.rglob("*"):
        if path.is_file() and path not in whole:
            path.unlink()
    for path, data in whole.items():
        if not path.exists() or path.read_bytes() != data:
            path.write_bytes(data)


def test_the_first_bad_record_is_named(run: tuple[Path, str], tmp_path: Path) -> None:
    folder, head = run
    segment = "ledger/segments/000002.completions.parquet"
    corruptions: list[tuple[str, Corruption, int | None]] = [
        ("ledger/chain.jsonl", edit_lines(lambda lines, draw: lines.__setitem__(5, lines[5].replace(b"falls", b"rises"))), 5),
        (segment, lambda copy, draw: (copy / segment).write_bytes(b"PAR1"), 4),
        ("run.json", lambda copy, draw: (copy / "run.json").write_text((copy / "run.json").read_text().replace("1e-06", "1e-05")), 0),
        ("ledger/notes", lambda copy, draw: (copy / "ledger/notes").touch(), None),
        ("evals.jsonl", lambda copy, draw: (copy / "evals.jsonl").write_text((copy / "evals.jsonl").read_text().replace("0.75", "0.95")), None),
    ]
    for where, corrupt, record in corruptions:
        copy = tmp_path / "copy"
        shutil.copytree(folder, copy)
        corrupt(copy, random.Random(0))
        first = verify(copy, head).first
        assert first is not None
        assert (first.record, first.where) == (record, where)
        shutil.rmtree(copy)


def test_a_rewritten_chain_is_caught_by_the_head_kept_elsewhere(tmp_path: Path) -> None:
    head = write_run(tmp_path / "real")
    other = write_run(tmp_path / "forged", num_steps=3)
    assert verify(tmp_path / "forged").status is Status.INTACT
    assert verify(tmp_path / "forged", other).status is Status.INTACT
    assert verify(tmp_path / "forged", head).status is Status.DAMAGED


def test_rows_other_than_the_recorded_ones_are_caught_without_the_checksum(run: tuple[Path, str], tmp_path: Path) -> None:
    """The digest in the chain holds even where somebody repairs the checksum of the file."""
    folder, _ = run
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    line = next(read(copy).lines("segment"))
    table = records.to_tables(1, [replace(decided(1), advantages=(9.0,) * 4), *groups(1)[1:]])["completions"]
    data = segments.encode("completions", table, 1, line.prev)
    (copy / "ledger/segments/000001.completions.parquet").write_bytes(data)
    repaired = replace(line, files=dict(line.files) | {"000001.completions.parquet": segments.checksum(data)})
    with pytest.raises(LedgerError, match="its rows are not those that were recorded"):
        read_segment(copy / "ledger/segments", repaired, FORMAT)


def test_a_damaged_segment_is_not_read(run: tuple[Path, str], tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(run[0], copy)
    (copy / "ledger/segments/000001.groups.parquet").unlink()
    ledger = read(copy)
    assert ledger.groups(2) == groups(2)
    with pytest.raises(LedgerError, match=r"000001\.groups\.parquet: it is missing"):
        ledger.groups(1)


def test_replay_recomputes_and_compares(run: tuple[Path, str]) -> None:
    ledger = read(run[0])

    def reads_all(scored: ScoredGroup) -> Answers:
        answers = scored.voted.answers
        return answers if scored.voted.group.index == 1 else Answers(answers.texts, (answers.keys[0],) * 4)

    agreed = verify_replay(ledger, {"vote": lambda scored: scored.voted.vote, "rewards": lambda scored: scored.rewards})
    assert (agreed.num_groups, agreed.num_mismatches, agreed.mismatches) == (8, 0, ())
    report = verify_replay(ledger, {"answers": reads_all}, max_shown=2)
    assert (report.num_groups, report.num_mismatches, len(report.mismatches)) == (8, 4, 2)
    first = report.mismatches[0]
    assert (first.step, first.group_index, first.name, first.recorded) == (1, 0, "answers", decided(1).voted.answers)
    with pytest.raises(LedgerError, match="choose from extras, missing_extras, answers, vote"):
        verify_replay(ledger, {"votes": reads_all})
