"""The record in an object store: the same record as on a disk, one writer, nothing half-written, read while it is written."""

from __future__ import annotations

import json
import os
import shutil
import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.local import LocalFileSystem
from samples import HEADER, groups, metrics, verdict, write_run, write_step

from selftrain import query
from selftrain.cli import call
from selftrain.config_load import load_config
from selftrain.errors import ConfigError, LedgerError, MissingExtraError, RunFolderError, UpdateError
from selftrain.kept_checkpoints import load_latest, names
from selftrain.ledger import LedgerWriter, Status, objects, read, storage, verify
from selftrain.ledger.objects import ObjectLog, ObjectPath, Place, place
from selftrain.report import read_record, write_report
from selftrain.run import Outcome, Run, resume, start, train_to_end
from selftrain.train import StepReport

TOY = {
    "policy.model": "toy",
    "labels.source": "majority",
    "update.learning_rate": 0.1,
    "rollout.prompts_per_step": 4,
    "rollout.num_votes": 6,
    "evals.num_problems": 8,
    "evals.num_samples": 4,
}
TOY |= {"run.num_steps": 6, "run.checkpoint_every_steps": 2, "probes.num_prompts": 8}


@pytest.fixture(params=["memory", "local through fsspec"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ObjectPath]:
    """An empty folder of an fsspec file system."""
    if request.param == "memory":
        yield ObjectPath(fsspec.filesystem("memory"), f"/{tmp_path.name}")
        fsspec.filesystem("memory").rm(f"/{tmp_path.name}", recursive=True)
    else:
        yield ObjectPath(LocalFileSystem(auto_mkdir=True), str(tmp_path / "store"))


def contents(folder: Place) -> dict[str, bytes]:
    """Every file below a folder, by path relative to it; empty ones and the lock left out."""
    if isinstance(folder, ObjectPath):
        found = {str(name).removeprefix(f"{folder.path}/"): folder.fs.cat_file(name) for name in folder.fs.find(folder.path)}
    else:
        found = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    return {name: data for name, data in found.items() if name != "ledger/lock" and data}


def test_a_closed_run_has_the_same_files_as_on_a_disk(store: ObjectPath, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objects, "JOIN_EVERY", 5)
    head = write_run(tmp_path / "disk")
    assert write_run(store / "run") == head  # type: ignore[arg-type]
    assert contents(store / "run") == contents(tmp_path / "disk")
    assert objects.names(objects.tail_of(store / "run" / "ledger" / "chain.jsonl")) == []
    report = verify(store / "run", head)
    assert (report.status, report.num_records, report.faults) == (Status.INTACT, 16, ())
    ledger = read(store / "run")
    assert [one.voted.group.step for step in ledger.group_steps() for one in ledger.groups(step)] == [1, 1, 2, 2, 3, 3, 4, 4]
    assert ledger.groups(2) == groups(2)
    assert [one["avg_at_16_frac"] for one in ledger.evals()] == [0.5, 0.75]


def test_a_run_is_read_while_it_is_written(store: ObjectPath) -> None:
    with LedgerWriter.create(store, HEADER) as writer:
        for step in (1, 2):
            head = write_step(writer, step)
            assert verify(store, head).status is Status.UNFINISHED
            ledger = read(store)
            assert (ledger.head, ledger.group_steps()) == (head, list(range(1, step + 1)))
            with query.open_run(store) as database:
                assert database.query("select count(*) from groups where role = 'vote'").rows == ((2 * step,),)
                assert database.query("select text from completions where step = 1 order by group_index, completion_index limit 1").rows == (
                    (groups(1)[0].voted.group.completions[0].text,),
                )


def test_a_second_writer_is_refused(store: ObjectPath) -> None:
    with LedgerWriter.create(store, HEADER) as writer:
        write_step(writer, 1)
        for again in (lambda: LedgerWriter.create(store, HEADER), lambda: LedgerWriter.resume(store, writer.head, exact=True)):
            with pytest.raises(RunFolderError, match=f"another process is writing this run .host {socket.gethostname()}, process {os.getpid()}"):
                again()
    with pytest.raises(RunFolderError, match="it holds a run already"):
        LedgerWriter.create(store, HEADER)
    LedgerWriter.resume(store, None, exact=True).close()


def test_the_lock_of_a_dead_process_is_taken_over_and_that_of_another_machine_is_not(store: ObjectPath) -> None:
    with LedgerWriter.create(store, HEADER) as writer:
        head = write_step(writer, 1)
    gone = os.spawnlp(os.P_NOWAIT, "true", "true")
    os.waitpid(gone, 0)
    for host, refused in (("elsewhere", True), (socket.gethostname(), False)):
        objects.publish(store / "ledger" / "lock", json.dumps({"host": host, "process": gone, "token": "x"}).encode())
        if refused:
            with pytest.raises(RunFolderError, match="If it was lost with its machine, remove"):
                LedgerWriter.resume(store, head, exact=True)
        else:
            LedgerWriter.resume(store, head, exact=True).close()


def test_the_lock_of_an_earlier_process_of_the_same_number_is_taken_over(store: ObjectPath) -> None:
    """A container begun anew has the host name and the process number of the one that was killed."""
    with LedgerWriter.create(store, HEADER) as writer:
        head = write_step(writer, 1)
    objects.publish(store / "ledger" / "lock", json.dumps({"host": socket.gethostname(), "process": os.getpid(), "token": "x"}).encode())
    assert read(store).is_being_written is False
    with LedgerWriter.resume(store, head, exact=True):
        assert read(store).is_being_written is True
    assert read(store).is_being_written is False


def test_a_writer_that_lost_its_lock_leaves_the_files_to_the_other(store: ObjectPath) -> None:
    one = LedgerWriter.create(store, HEADER)
    head = write_step(one, 1)
    objects.remove(store / "ledger" / "lock")
    with LedgerWriter.resume(store, head, exact=True) as other:
        other.append_verdict(verdict(2))
        there = contents(store)
        one.close()
        assert contents(store) == there
        with pytest.raises(RunFolderError, match="another process is writing this run"):
            LedgerWriter.resume(store, head, exact=True)
        kept = other.append_step(metrics(2), {})
    one.close()
    assert verify(store, kept).status is Status.UNFINISHED


@pytest.mark.parametrize("joined", [False, True])
def test_a_writer_that_lost_its_lock_cannot_go_on(store: ObjectPath, joined: bool) -> None:
    one = LedgerWriter.create(store, HEADER)
    head = write_step(one, 1)
    objects.remove(store / "ledger" / "lock")  # by hand, though its process lives
    other = LedgerWriter.resume(store, head, exact=True)
    kept = other.append_verdict(verdict(2))
    if joined:
        other.close()
    with pytest.raises(RunFolderError, match="another process has written this run since"):
        one.append_step(metrics(2), {})
    assert read(store).head == kept
    assert verify(store, kept).status is Status.UNFINISHED


def test_a_killed_writer_loses_the_append_in_flight_only(store: ObjectPath) -> None:
    with LedgerWriter.create(store / "whole", HEADER) as writer:
        for step in (1, 2):
            head = write_step(writer, step)
    killed = LedgerWriter.create(store / "killed", HEADER)
    first = write_step(killed, 1)
    killed.append_groups(2, groups(2))
    chain = store / "killed" / "ledger" / "chain.jsonl"
    objects.remove(objects.tail_of(chain) / objects.names(objects.tail_of(chain))[-1])  # the segment is there, its record is not
    objects.remove(store / "killed" / "ledger" / "lock")
    report = verify(store / "killed", first)
    assert report.status is Status.UNFINISHED
    assert "is not in the chain" in report.notes[0]
    with LedgerWriter.resume(store / "killed", first, exact=True) as writer:
        assert write_step(writer, 2) == head
    assert contents(store / "killed") == contents(store / "whole")


def test_a_fork_keeps_what_it_gives_up(store: ObjectPath, tmp_path: Path) -> None:
    heads = []
    for folder in (store / "run", tmp_path / "disk"):
        with LedgerWriter.create(folder, HEADER) as writer:
            head = write_step(writer, 1)
            write_step(writer, 2)
        with LedgerWriter.resume(folder, head, exact=False) as writer:
            writer.append_groups(2, groups(2)[:1])
            heads.append(write_step(writer, 3))
        report = verify(folder, heads[-1])
        assert (report.status, report.faults, len(list(read(folder).forks()))) == (Status.UNFINISHED, (), 1)
    assert heads[0] == heads[1]
    assert contents(store / "run") == contents(tmp_path / "disk")


def test_an_exact_replay_that_differs_is_an_error(store: ObjectPath) -> None:
    with LedgerWriter.create(store, HEADER) as writer:
        head = write_step(writer, 1)
        writer.append_verdict(verdict(2))
    with LedgerWriter.resume(store, head, exact=True) as writer, pytest.raises(LedgerError, match="it differs from what is recorded"):
        writer.append_verdict(verdict(3))


def drop_part(run: ObjectPath) -> None:
    data = (objects.read_bytes(run / "ledger" / "chain.jsonl") or b"").splitlines(keepends=True)
    objects.publish(run / "ledger" / "chain.jsonl", b"".join(data[:4] + data[5:]))


def flip(name: str) -> Callable[[ObjectPath], None]:
    def change(run: ObjectPath) -> None:
        path = ObjectPath(run.fs, f"{run.path}/{name}")
        data = bytearray(objects.read_bytes(path) or b"")
        data[len(data) // 2] ^= 1
        objects.publish(path, bytes(data))

    return change


@pytest.mark.parametrize(
    ("change", "record"),
    [(drop_part, 4), (flip("ledger/segments/000002.completions.parquet"), 4), (flip("run.json"), 0), (flip("evals.jsonl"), None)],
)
def test_what_was_changed_in_the_store_is_found(store: ObjectPath, change: Callable[[ObjectPath], None], record: int | None) -> None:
    head = write_run(store / "run")  # type: ignore[arg-type]
    change(store / "run")
    report = verify(store / "run", head)
    assert report.status is Status.DAMAGED
    assert report.first is not None
    assert report.first.record == record


def test_a_log_that_is_joined_while_it_is_read_has_no_gap(store: ObjectPath, monkeypatch: pytest.MonkeyPatch) -> None:
    log = ObjectLog(store / "log.jsonl")
    for number in range(4):
        log.append(b"%d\n" % number)
    real = objects.names
    left = [1]

    def names(folder: ObjectPath) -> list[str]:
        found = real(folder)
        if left:
            left.pop()
            monkeypatch.setattr(objects, "names", real)
            log.join()
            log.append(b"4\n")
        return found

    monkeypatch.setattr(objects, "names", names)
    assert [raw for _, raw in objects.lines(store / "log.jsonl", 0)] in ([b"0\n", b"1\n", b"2\n", b"3\n"], [b"0\n", b"1\n", b"2\n", b"3\n", b"4\n"])
    assert list(objects.lines(store / "log.jsonl", 4)) == [(4, b"2\n"), (6, b"3\n"), (8, b"4\n")]
    log.cut(4)
    assert [raw for _, raw in objects.lines(store / "log.jsonl", 0)] == [b"0\n", b"1\n"]
    log.append(b"x\n")
    assert objects.read_at(store / "log.jsonl", 4, 2) == b"x\n"


def configured(folder: str, **options: Any) -> Run:
    return start(load_config((), {**TOY, "run.folder": folder, **options}))


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    yield f"memory://{tmp_path.name}/runs"
    fsspec.filesystem("memory").rm(f"/{tmp_path.name}", recursive=True)


def left_after(run: Run, step: int) -> None:
    """Run until a step is reported, and give the run back."""
    for event in run.events():
        if isinstance(event, StepReport) and event.metrics.step == step:
            break
    run.ledger.close()


def test_a_whole_run_in_a_store_is_that_on_a_disk(url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    disk = train_to_end(load_config((), {**TOY, "run.folder": str(tmp_path / "runs")}))
    run = configured(url)
    assert str(run.folder) == f"{url}/train-0001".replace("memory://", "memory:///")
    left_after(run, 2)  # as if it had been killed: no checkpoint of step 3
    taken_up = resume(run.folder)
    assert taken_up.steps_done == 2
    outcome = next(event for event in taken_up.events() if isinstance(event, Outcome))
    assert (outcome.head, outcome.handed_over) == (disk.head, disk.handed_over)
    assert names(outcome.folder / "checkpoints") == names(disk.folder / "checkpoints") == ["step-000002", "step-000004", "step-000006"]
    assert verify(outcome.folder, disk.head).status is Status.INTACT
    found = load_latest(outcome.folder / "checkpoints")
    assert found is not None
    assert (found.path / "toy.json").read_bytes() == (Path(disk.path) / "toy.json").read_bytes()
    text = str(outcome.folder)
    assert call(["verify", text, "--replay"]) == 0
    assert capsys.readouterr().out.startswith("intact: ")
    assert call(["query", text, "select max(step) as last from groups", "--format", "csv"]) == 0
    assert capsys.readouterr().out.splitlines() == ["last", "5"]
    assert call(["report", text]) == 0
    assert capsys.readouterr().out.splitlines() == [f"{text}/report.html", f"{text}/report.md"]
    assert "finished, 6 steps" in (objects.read_bytes(outcome.folder / "report.md") or b"").decode()  # type: ignore[arg-type, operator]
    assert call(["evaluate", text, "--log", "json"]) == 0
    measured = json.loads(capsys.readouterr().out)["models"][0]
    assert outcome.after is not None
    assert measured["measures"]["avg@4"]["value"] == pytest.approx(outcome.after.avg.value)


@pytest.mark.parametrize("by", ["an error", "a display that fails", "nobody who listens"])
def test_a_run_that_stops_is_given_back(url: str, monkeypatch: pytest.MonkeyPatch, by: str) -> None:
    run = configured(url)
    with suppress(UpdateError, LookupError):
        for event in run.events():
            if isinstance(event, StepReport) and event.metrics.step == 3:
                if by == "nobody who listens":
                    break
                if by == "a display that fails":
                    raise LookupError
                monkeypatch.setattr(run.policy, "update", fails)
    monkeypatch.undo()
    del event
    again = resume(run.folder)
    run.ledger.close()  # it has nothing to give back any more
    assert again.steps_done == 4
    outcome = next(event for event in again.events() if isinstance(event, Outcome))
    assert (outcome.reason, verify(run.folder, outcome.head).status) == ("done", Status.INTACT)


def fails(*_: object) -> None:
    raise UpdateError("update 3", "its gradient is not finite", "lower the rate")


def test_a_damaged_checkpoint_in_a_store_is_refused_by_name(url: str) -> None:
    run = configured(url)
    left_after(run, 3)
    flip("checkpoints/step-000004/toy.json")(run.folder)  # type: ignore[arg-type]
    taken_up = resume(run.folder)
    taken_up.ledger.close()
    assert (taken_up.steps_done, [one.name for one in taken_up.refused]) == (2, ["step-000004"])
    objects.remove(run.folder / "checkpoints" / "step-000004" / "manifest.json")  # type: ignore[arg-type, operator]
    assert names(run.folder / "checkpoints") == ["step-000002"]
    assert read_record(run.folder).handed_over == "step-000002"


def test_what_a_killed_process_left_of_a_checkpoint_goes(url: str) -> None:
    """It had put or dropped a part when it was killed: a folder of a store without a manifest."""
    run = configured(url)
    left_after(run, 5)
    objects.publish(run.folder / "checkpoints" / "step-000001" / "toy.json", b"{}")  # type: ignore[arg-type, operator]
    assert next(event for event in resume(run.folder).events() if isinstance(event, Outcome)).reason == "done"
    assert storage.names(run.folder / "checkpoints") == ["step-000002", "step-000004", "step-000006"]


def test_names_are_free_or_refused(url: str, tmp_path: Path) -> None:
    configured(url, **{"run.name": "mine"}).ledger.close()
    with pytest.raises(RunFolderError, match="it exists already"):
        configured(url, **{"run.name": "mine"})
    assert configured(url).folder.name == "train-0001"
    assert configured(f"file://{tmp_path}/runs").folder == tmp_path / "runs" / "train-0001"
    shutil.rmtree(tmp_path / "runs")
    assert write_report(configured(url).folder).html == place(f"{url}/train-0002") / "report.html"


def test_places() -> None:
    assert place("runs/x/") == Path("runs/x")
    assert place("file:///tmp/x") == Path("/tmp/x")
    with pytest.raises(ConfigError, match="no storage has that protocol"):
        place("nope://bucket/x")
    try:
        import s3fs  # noqa: F401
    except ImportError:
        with pytest.raises(MissingExtraError, match="its package is not installed"):
            place("s3://bucket/x")
