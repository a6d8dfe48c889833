"""Runs of older formats are read, verified and replayed as they are; nobody writes on in them. `format_1` was written by the code of format 1."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from selftrain.errors import LedgerError, RunFolderError
from selftrain.ledger import LedgerWriter, Status, read, verify
from selftrain.ledger.chain import FORMAT
from selftrain.ledger.migrations import OLD_TABLES, columns_of
from selftrain.replay import replay
from selftrain.run import read_config, resume, train_to_end
from selftrain.types import Role

FORMAT_1 = Path(__file__).parent / "format_1"
HEAD = "937f5f4e4bf61953015960046df36132c2c668227cc7a2a9eabe987888f7b495"


def test_a_run_of_format_1_is_intact_and_follows_from_its_completions() -> None:
    found = verify(FORMAT_1, head=HEAD)
    assert (found.status, found.head, found.num_segments) == (Status.INTACT, HEAD, 2)
    again = replay(read(FORMAT_1), read_config(FORMAT_1))
    assert (again.agrees, again.groups.num_groups, again.num_verdicts) == (True, 4, 2)


def test_the_same_run_today_has_the_same_groups(tmp_path: Path) -> None:
    """What was sampled and decided did not change with the format: no draw of a run without extra samples moved."""
    old, config = read(FORMAT_1), read_config(FORMAT_1)
    place = config.run.model_copy(update={"folder": str(tmp_path), "name": "again"})
    new = read(train_to_end(config.model_copy(update={"run": place})).folder)
    assert (old.format, old.is_writable, new.format, new.is_writable) == (1, False, FORMAT, True)
    for step in (0, 1):
        assert old.groups(step) == new.groups(step)
        assert {(one.voted.group.role, one.voted.group.extras) for one in old.groups(step)} == {(Role.VOTE, ())}
    assert list(old.verdicts()) == list(new.verdicts())
    assert [one.weights_hash for one in old.checkpoints()] == [one.weights_hash for one in new.checkpoints()]


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
    for number in ("3", "0", '"1"', "null"):
        file.write_text(file.read_text().replace('"format":2', f'"format":{number}'))
        with pytest.raises(LedgerError, match="this version reads formats 1 to 2"):
            read(tmp_path / "run")
        file.write_text(file.read_text().replace(f'"format":{number}', '"format":2'))


def test_every_old_table_is_named_with_its_columns() -> None:
    assert set(OLD_TABLES) == {(1, "groups")}
    assert [column.name for column in columns_of(1, "groups")][:3] == ["step", "group_index", "prompt_id"]
    assert [column.name for column in columns_of(FORMAT, "groups")][:5] == ["step", "group_index", "role", "serves", "prompt_id"]
