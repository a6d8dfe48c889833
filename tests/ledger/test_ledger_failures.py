"""Full disks and killed processes: what was written stays, and the run can go on."""

from __future__ import annotations

import errno
import os
import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from samples import HEADER, groups, metrics, verdict, write_step
from tests.killing import processes

from selftrain.checkpoints import checkpoint_name, load_latest, save
from selftrain.errors import RunFolderError, StorageError
from selftrain.ledger import LedgerWriter, Status, read, storage, verify


@pytest.mark.parametrize(("number", "words"), [(errno.ENOSPC, "disk is full"), (errno.EDQUOT, "quota"), (errno.EROFS, "read-only"), (errno.EIO, "resume")])
def test_a_disk_that_fails_at_any_write_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, words: str) -> None:
    """Each write of a step fails in turn, after half of its bytes; the append is refused, then repeated."""
    whole = LedgerWriter.create(tmp_path / "whole", HEADER)
    expected = write_step(whole, 1)
    whole.close()
    write = os.write
    for failing in range(6):
        folder = tmp_path / str(failing)
        writer = LedgerWriter.create(folder, HEADER)
        calls = iter(range(99))

        def write_half(descriptor: int, data: memoryview, calls: object = calls, failing: int = failing) -> int:
            if next(calls) == failing:  # type: ignore[call-overload]
                write(descriptor, data[: len(data) // 2])
                raise OSError(number, os.strerror(number))
            return write(descriptor, data)

        monkeypatch.setattr(os, "write", write_half)
        with pytest.raises(StorageError, match=words):
            write_step(writer, 1)
        monkeypatch.undo()
        report = verify(folder, writer.head)
        assert (report.status, report.faults) == (Status.UNFINISHED, ())
        if writer.head == read(folder).entries[0].hash:
            assert len(storage.names(folder / "ledger" / "segments")) == (2 if failing == 2 else 0)  # 2: the line of the chain
            writer.append_groups(1, groups(1))
        if len(read(folder).entries) == 2:
            writer.append_verdict(verdict(1))
        if len(read(folder).entries) == 3:
            writer.append_step(metrics(1), {"0": {"loss": -1 / 7}})
        assert writer.head == expected
        writer.record_timing({"step": 1, "total_s": 1.5})
        assert [record["total_s"] for record in read(folder).timings()] == [1.5]
        writer.close()


def test_a_writer_interrupted_in_a_write_has_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with LedgerWriter.create(tmp_path, HEADER) as writer:

        def interrupted(descriptor: int) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(os, "fsync", interrupted)
        with pytest.raises(KeyboardInterrupt):
            writer.append_verdict(verdict(1))
        monkeypatch.undo()
        assert read(tmp_path).head == writer.head
        writer.append_verdict(verdict(1))
        assert read(tmp_path).head == writer.head


def test_a_folder_that_may_not_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RunFolderError, match=f"{tmp_path}/file is a file, not a folder"):
        LedgerWriter.create(tmp_path / "file" / "run", HEADER)
    (tmp_path / "link").symlink_to("nowhere")
    with pytest.raises(RunFolderError, match=f"{tmp_path}/link is a link to nothing"):
        LedgerWriter.create(tmp_path / "link" / "run", HEADER)


NUM_STEPS = 24


def weights(step: int) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        (folder / "weights").write_bytes(bytes(step))

    return write


def train(folder: Path) -> str:
    """Stands for the loop: begins or resumes the run, checkpoints every third step, ends it. Returns the head."""
    checkpoint = load_latest(folder / "checkpoints")
    writer = LedgerWriter.resume(folder, str(checkpoint.state["ledger_head"]) if checkpoint else None, exact=True)
    with writer:
        for step in range(int(checkpoint.state["step"]) + 1 if checkpoint else 1, NUM_STEPS + 1):
            write_step(writer, step)
            writer.record_eval({"step": step, "name": "held-out", "avg_at_16_frac": step / NUM_STEPS})
            if step % 3 == 0:
                name = checkpoint_name(step)
                head = writer.append_checkpoint(step, name, "ab" * 32)
                save(folder / "checkpoints", name, weights(step), {"step": step, "ledger_head": head})
        return writer.append_end("finished", "start")


def test_killed_at_twenty_random_moments_it_ends_with_the_same_head(tmp_path: Path) -> None:
    for name in ("whole", "killed"):
        LedgerWriter.create(tmp_path / name, HEADER).close()
    expected = train(tmp_path / "whole")
    draw = random.Random(0)
    evals = tmp_path / "killed/evals.jsonl"
    num_killed = 0
    for _ in range(200):
        process = processes().Process(target=train, args=(tmp_path / "killed",))
        before, deadline = evals.stat().st_size, time.monotonic() + draw.choice((0.02, 5))
        process.start()
        while process.is_alive() and evals.stat().st_size == before and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(draw.random() * 0.03)
        process.kill()
        process.join()
        num_killed += process.exitcode == -9
        report = verify(tmp_path / "killed")
        assert (report.status, report.faults) in ((Status.UNFINISHED, ()), (Status.INTACT, ()))
        if num_killed == 20:
            break
    assert num_killed == 20
    assert train(tmp_path / "killed") == expected
    assert verify(tmp_path / "killed", expected).status is Status.INTACT
    chains = [(tmp_path / name / "ledger/chain.jsonl").read_bytes() for name in ("whole", "killed")]
    assert chains[0] == chains[1]
    assert [record["step"] for record in read(tmp_path / "killed").evals()] == list(range(1, NUM_STEPS + 1))
    latest = load_latest(tmp_path / "killed/checkpoints")
    assert latest is not None
    assert (latest.name, latest.refused) == ("step-000024", ())
