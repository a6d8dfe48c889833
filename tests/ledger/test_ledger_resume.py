"""After a crash the run is replayed from its last checkpoint; equal records change nothing, others are an error or a fork."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from samples import HEADER, decided, groups, metrics, verdict, write_run, write_step

from selftrain.errors import LedgerError, RunFolderError
from selftrain.ledger import LedgerWriter, Status, read, verify


def heads(folder: Path) -> list[str]:
    return [entry.hash for entry in read(folder).entries]


def tree(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def write_rest(writer: LedgerWriter, first: int, last: int = 4) -> str:
    """What `write_run` writes from step `first` on."""
    for step in range(first, last + 1):
        write_step(writer, step)
        if step % 2 == 0:
            writer.append_checkpoint(step, f"step-{step:06d}", "ab" * 32)
    head = writer.append_end("finished", "start")
    writer.record_eval({"step": last, "name": "held-out", "avg_at_16_frac": 0.75})
    return head


def test_a_replay_from_any_record_writes_the_same_bytes(tmp_path: Path) -> None:
    head = write_run(tmp_path)
    before = tree(tmp_path)
    checkpoint = next(iter(read(tmp_path).checkpoints()))
    with LedgerWriter.resume(tmp_path, checkpoint.head, exact=True) as writer:
        assert writer.head == checkpoint.head
        assert write_rest(writer, 3) == head
    assert tree(tmp_path) == before
    with LedgerWriter.resume(tmp_path, None, exact=True) as writer:
        assert writer.head == heads(tmp_path)[0]
        assert write_rest(writer, 1) == head
    assert tree(tmp_path) == before


@pytest.mark.parametrize("cut", [1, 40, 1_500])
def test_a_torn_tail_is_dropped_and_written_again(tmp_path: Path, cut: int) -> None:
    head = write_run(tmp_path)
    before = tree(tmp_path)
    checkpoint = next(iter(read(tmp_path).checkpoints()))
    chain = tmp_path / "ledger/chain.jsonl"
    chain.write_bytes(chain.read_bytes()[:-cut])
    if cut == 1_500:  # a segment that the killed writer published before its record, and one that it did not finish
        (tmp_path / "ledger/segments/.tmp-000004.groups.parquet").write_bytes(b"PAR1")
    assert verify(tmp_path).status in (Status.UNFINISHED, Status.DAMAGED)
    with LedgerWriter.resume(tmp_path, checkpoint.head, exact=True) as writer:
        assert write_rest(writer, 3) == head
    assert tree(tmp_path) == before
    assert verify(tmp_path, head).status is Status.INTACT


def test_a_missing_or_damaged_segment_after_the_checkpoint_is_written_again(tmp_path: Path) -> None:
    head = write_run(tmp_path)
    before = tree(tmp_path)
    segments = tmp_path / "ledger/segments"
    (segments / "000003.groups.parquet").unlink()
    (segments / "000004.completions.parquet").write_bytes(b"PAR1")
    with LedgerWriter.resume(tmp_path, next(iter(read(tmp_path).checkpoints())).head, exact=True) as writer:
        assert write_rest(writer, 3) == head
    assert tree(tmp_path) == before


def test_an_exact_run_refuses_another_replay_and_says_where(tmp_path: Path) -> None:
    write_run(tmp_path)
    before = tree(tmp_path)
    first, second = read(tmp_path).checkpoints()
    with LedgerWriter.resume(tmp_path, first.head, exact=True) as writer:
        changed = replace(groups(3)[0], advantages=(0.5, 0.5, -0.5, -0.5))
        with pytest.raises(LedgerError, match=r"completions.sha256 was '[0-9a-f]{64}' and is"):
            writer.append_groups(3, [changed, *groups(3)[1:]])
        writer.append_groups(3, groups(3))
        with pytest.raises(LedgerError, match="a verdict is recorded, a step came"):
            writer.append_step(metrics(3), {})
        writer.append_verdict(verdict(3))
        with pytest.raises(LedgerError, match=r"updates\.0\.loss was -0\.42.* and is 1\.0"):
            writer.append_step(metrics(3), {"0": {"loss": 1.0}})
    assert tree(tmp_path) == before
    with pytest.raises(LedgerError, match="no record of this run has that hash"):
        LedgerWriter.resume(tmp_path, "0" * 64, exact=True)
    with LedgerWriter.resume(tmp_path, second.head, exact=True) as writer:
        assert writer.append_end("finished", "start") == heads(tmp_path)[-1]


def test_a_replayable_run_forks_and_keeps_what_it_gave_up(tmp_path: Path) -> None:
    old_head = write_run(tmp_path)
    old = heads(tmp_path)
    checkpoint = next(iter(read(tmp_path).checkpoints()))
    with LedgerWriter.resume(tmp_path, checkpoint.head, exact=False) as writer:
        writer.append_groups(3, groups(3))
        assert writer.head in old  # still the same
        writer.append_verdict(replace(verdict(3), findings=()))
        writer.record_eval({"step": 3, "name": "held-out", "avg_at_16_frac": 0.1})
        writer.append_step(metrics(3), {})
        write_step(writer, 4)
        head = writer.append_end("finished", "start")
    ledger = read(tmp_path)
    (fork,) = ledger.forks()
    assert (fork.abandoned_head, fork.num_records) == (old_head, len(old) - 1 - old.index(checkpoint.head) - 1)
    assert heads(tmp_path)[: old.index(checkpoint.head) + 2] == old[: old.index(checkpoint.head) + 2]
    assert ledger.groups(4) == groups(4)
    assert [record["avg_at_16_frac"] for record in ledger.evals()] == [0.5, 0.1]  # the one of the given-up end is left out
    aside = tmp_path / "ledger" / f"abandoned-{old_head[:12]}"
    assert sorted(path.name for path in aside.iterdir()) == ["000004.completions.parquet", "000004.groups.parquet", "chain.jsonl"]
    assert verify(tmp_path, head).status is Status.INTACT
    assert "given up at a fork" in str(verify(tmp_path, old_head).first)
    (aside / "chain.jsonl").write_bytes(b"")
    assert verify(tmp_path, head).status is Status.DAMAGED


def test_a_second_fork_before_the_first_keeps_both(tmp_path: Path) -> None:
    write_run(tmp_path)
    checkpoint = next(iter(read(tmp_path).checkpoints()))
    for loss in (1.0, 2.0):
        with LedgerWriter.resume(tmp_path, checkpoint.head, exact=False) as writer:
            writer.append_groups(3, [replace(decided(3), advantages=(loss,) * 4)])
            writer.append_end(f"loss {loss}", "start")
    report = verify(tmp_path)
    assert (report.status, report.faults) == (Status.INTACT, ())
    assert len(list(read(tmp_path).forks())) == 2  # each marks the place where a replay left the record
    assert read(tmp_path).groups(3)[0].advantages == (2.0,) * 4
    assert len([path for path in (tmp_path / "ledger").iterdir() if path.name.startswith("abandoned-")]) == 2


def test_a_replay_after_a_fork_meets_the_fork_record(tmp_path: Path) -> None:
    write_run(tmp_path)
    checkpoint = next(iter(read(tmp_path).checkpoints()))

    def go_on() -> str:
        with LedgerWriter.resume(tmp_path, checkpoint.head, exact=False) as writer:
            writer.append_groups(3, [replace(decided(3), advantages=(1.0,) * 4)])
            return writer.append_end("finished", "start")

    head = go_on()
    before = tree(tmp_path)
    assert go_on() == head
    assert tree(tmp_path) == before


def test_killed_in_a_fork_the_next_resume_repeats_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed before the chain is replaced, and after it but before the old segments are removed."""
    from selftrain.ledger import storage

    class Killed(BaseException):
        pass

    def dies(*args: object, **options: object) -> None:
        raise Killed

    for name in ("read_at", "remove"):
        folder = tmp_path / name
        write_run(folder)
        checkpoint = next(iter(read(folder).checkpoints()))
        changed = [replace(decided(3), advantages=(1.0,) * 4)]
        with LedgerWriter.resume(folder, checkpoint.head, exact=False) as writer:
            monkeypatch.setattr(storage, name, dies)
            with pytest.raises(Killed):
                writer.append_groups(3, changed)
            monkeypatch.undo()
        with LedgerWriter.resume(folder, checkpoint.head, exact=False) as writer:
            writer.append_groups(3, changed)
            head = writer.append_end("finished", "start")
        assert (verify(folder, head).status, len(list(read(folder).forks()))) == (Status.INTACT, 1)


def test_evaluations_and_timings_of_a_replay_are_there_once(tmp_path: Path) -> None:
    write_run(tmp_path)
    with LedgerWriter.resume(tmp_path, None, exact=True) as writer:
        writer.record_eval({"step": 0, "name": "held-out", "avg_at_16_frac": 0.5})
        write_step(writer, 1)
        writer.record_timing({"step": 1, "total_s": 9.0})
    ledger = read(tmp_path)
    assert [record["step"] for record in ledger.evals()] == [0, 4]
    assert len((tmp_path / "evals.jsonl").read_text().splitlines()) == 2
    assert [record["total_s"] for record in ledger.timings()] == [9.0, 1.5, 1.5, 1.5]
    with LedgerWriter.resume(tmp_path, None, exact=True) as writer, pytest.raises(LedgerError, match="needs a step"):
        writer.record_eval({"name": "held-out"})


def test_a_run_that_was_killed_when_it_began_is_begun_again(tmp_path: Path) -> None:
    head = write_run(tmp_path / "whole")
    LedgerWriter.create(tmp_path / "run", HEADER, {"machine": "laptop"}).close()
    chain = tmp_path / "run/ledger/chain.jsonl"
    chain.write_bytes(chain.read_bytes()[:50])
    assert verify(tmp_path / "run").status is Status.UNFINISHED
    assert read(tmp_path / "run").entries == []
    with LedgerWriter.resume(tmp_path / "run", None, exact=True) as writer:
        writer.record_eval({"step": 0, "name": "held-out", "avg_at_16_frac": 0.5})
        assert write_rest(writer, 1) == head


def test_another_header_and_a_missing_run_are_refused(tmp_path: Path) -> None:
    write_run(tmp_path / "a")
    text = (tmp_path / "a/run.json").read_text()
    (tmp_path / "a/run.json").write_text(text.replace("1e-06", "2e-06"))
    with pytest.raises(LedgerError, match="not the one in the ledger"):
        LedgerWriter.resume(tmp_path / "a", None, exact=True)
    (tmp_path / "a/run.json").write_text(text.replace('"format":3', '"format":7'))
    with pytest.raises(LedgerError, match="has format 7"):
        read(tmp_path / "a")
    with pytest.raises(RunFolderError, match=r"no run\.json"):
        LedgerWriter.resume(tmp_path / "b", None, exact=True)


def test_what_an_earlier_version_did_not_record_is_no_difference(tmp_path: Path) -> None:
    """Metrics that came later, and other examples of a finding; the recorded lines stay. Anything else is a difference."""
    head = write_run(tmp_path)
    before, (first, *_) = tree(tmp_path), read(tmp_path).checkpoints()
    shown = replace(verdict(3), findings=tuple(replace(one, examples=((1, 2),)) for one in verdict(3).findings))
    more = replace(metrics(3), values={**metrics(3).values, "vote/share_speed_frac": 0.1})
    with LedgerWriter.resume(tmp_path, first.head, exact=True) as writer:
        writer.append_groups(3, groups(3))
        writer.append_verdict(shown)
        writer.append_step(more, {"0": {"loss": -3 / 7}})
        assert write_rest(writer, 4) == head
    assert tree(tmp_path) == before
    for other in ({"vote/share_mean_frac": 0.1}, {"vote/margin_mean_frac": 0.1}):
        with LedgerWriter.resume(tmp_path, first.head, exact=True) as writer:
            writer.append_groups(3, groups(3))
            writer.append_verdict(verdict(3))
            with pytest.raises(LedgerError, match="it differs from what is recorded"):
                writer.append_step(replace(metrics(3), values={**metrics(3).values, **other}), {"0": {"loss": -3 / 7}})
