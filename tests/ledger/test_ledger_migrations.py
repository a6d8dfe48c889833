"""Runs of older formats are read, verified and replayed as they are; nobody writes on in them. `format_N` was written by the code of format N."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from selftrain.errors import LedgerError, RunFolderError
from selftrain.ledger import LedgerWriter, Status, read, verify
from selftrain.ledger.chain import FORMAT
from selftrain.ledger.columns import TABLES
from selftrain.ledger.migrations import ADDED, columns_of
from selftrain.replay import replay
from selftrain.run import read_config, resume, train_to_end
from selftrain.types import Role

FORMAT_1 = Path(__file__).parent / "format_1"
FORMAT_2 = Path(__file__).parent / "format_2"
HEADS = {
    FORMAT_1: "937f5f4e4bf61953015960046df36132c2c668227cc7a2a9eabe987888f7b495",
    FORMAT_2: "c3db5f3463d14a14e6990e78a56bdebc805fd532de396914a58e1437560fc0fb",
}
old_runs = pytest.mark.parametrize("old", HEADS, ids=lambda path: path.name)


@old_runs
def test_an_old_run_is_intact_and_follows_from_its_completions(old: Path) -> None:
    found = verify(old, head=HEADS[old])
    assert (found.status, found.head, found.num_segments) == (Status.INTACT, HEADS[old], 2)
    again = replay(read(old), read_config(old))
    assert (again.agrees, again.groups.num_groups, again.num_verdicts) == (True, 4, 2)


@old_runs
def test_the_same_run_today_has_the_same_groups(tmp_path: Path, old: Path) -> None:
    """What was sampled and decided did not change with the format: no draw moved, no label has a weight other than 1 or an offset.

    The hashes of the weights are others: the toy has had a weight more, for second turns, since.
    """
    number, config, old = int(old.name[-1]), read_config(old), read(old)
    place = config.run.model_copy(update={"folder": str(tmp_path), "name": "again"})
    new = read(train_to_end(config.model_copy(update={"run": place})).folder)
    assert (old.format, old.is_writable, new.format, new.is_writable) == (number, False, FORMAT, True)
    for step in (0, 1):
        assert old.groups(step) == new.groups(step)
        assert {(one.voted.group.role, len(one.voted.group.extras)) for one in old.groups(step)} == {(Role.VOTE, number - 1)}
        assert {(one.label.weight, one.label.offset, one.label.values) for one in old.groups(step)} == {(1.0, 0.0, ())}
    assert list(old.verdicts()) == list(new.verdicts())
    assert [(one.step, one.name) for one in old.checkpoints()] == [(one.step, one.name) for one in new.checkpoints()]


def test_a_change_in_an_old_segment_is_found(tmp_path: Path) -> None:
    shutil.copytree(FORMAT_1, tmp_path / "run")
    file = tmp_path / "run/ledger/segments/000002.groups.parquet"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    found = verify(tmp_path / "run")
    assert found.status is Status.DAMAGED
    assert found.first is not None
    assert (found.first.record, found.first.where) == (4, "ledger/segments/000002.groups.parquet")


def test_a_run_of_an_old_format_is_not_written_on(tmp_path: Path) -> None:
    shutil.copytree(FORMAT_1, tmp_path / "run")
    chain = tmp_path / "run/ledger/chain.jsonl"
    chain.write_bytes(b"".join(chain.read_bytes().splitlines(keepends=True)[:-1]))
    assert verify(tmp_path / "run").status is Status.UNFINISHED
    with pytest.raises(RunFolderError, match="its record has format 1, which this version reads and does not write"):
        resume(tmp_path / "run")
    with pytest.raises(RunFolderError, match="its record has format 1 and this version writes"):
        LedgerWriter.resume(tmp_path / "run", None, exact=True)


def test_a_chain_and_a_run_json_of_two_formats_do_not_go_together(tmp_path: Path) -> None:
    shutil.copytree(FORMAT_1, tmp_path / "run")
    file = tmp_path / "run/run.json"
    file.write_text(file.read_text().replace('"format":1', '"format":2'))
    assert "it has format 1, run.json has 2" in [fault.words for fault in verify(tmp_path / "run").faults]
    for number in (str(FORMAT + 1), "0", '"1"', "null"):
        file.write_text(file.read_text().replace('"format":2', f'"format":{number}'))
        with pytest.raises(LedgerError, match=f"this version reads formats 1 to {FORMAT}"):
            read(tmp_path / "run")
        file.write_text(file.read_text().replace(f'"format":{number}', '"format":2'))


def test_every_old_table_has_the_columns_it_had() -> None:
    assert {number for number, _ in ADDED} == set(range(2, FORMAT + 1))
    assert all(columns_of(FORMAT, name) == TABLES[name] for name in TABLES)
    assert len(columns_of(1, "groups")) == len(columns_of(2, "groups")) - 2 == len(TABLES["groups"]) - 4
    assert len(columns_of(1, "completions")) == len(columns_of(2, "completions")) == len(TABLES["completions"]) - 4
    assert [column.name for column in columns_of(1, "groups")][:3] == ["step", "group_index", "prompt_id"]
    assert [column.name for column in columns_of(FORMAT, "groups")][:5] == ["step", "group_index", "role", "serves", "prompt_id"]
