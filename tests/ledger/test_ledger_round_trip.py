"""What is written comes back equal."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from samples import HEADER, decided, extra, groups, judged, metrics, verdict, with_extras, write_run, write_step

from selftrain.errors import LedgerError, RunFolderError
from selftrain.ledger import LedgerWriter, read
from selftrain.types import Answers


def test_a_run_comes_back_as_it_was_written(tmp_path: Path) -> None:
    head = write_run(tmp_path / "run")
    ledger = read(tmp_path / "run")
    assert ledger.header == json.loads(json.dumps(HEADER))
    assert ledger.environment == {"machine": "laptop"}
    assert ledger.head == head
    assert ledger.finished
    assert ledger.end_reason == "finished"
    assert ledger.group_steps() == [1, 2, 3, 4]
    assert ledger.groups(3) == groups(3)
    assert ledger.groups(9) == []
    assert list(ledger.verdicts()) == [verdict(step) for step in range(1, 5)]
    steps = list(ledger.steps())
    assert [step.metrics for step in steps] == [metrics(step) for step in range(1, 5)]
    assert steps[1].updates == {"0": {"loss": -2 / 7}}
    assert [(item.step, item.name) for item in ledger.checkpoints()] == [(2, "step-000002"), (4, "step-000004")]
    assert [record["avg_at_16_frac"] for record in ledger.evals()] == [0.5, 0.75]
    assert ledger.evals()[1]["head"] == head
    assert len(ledger.timings()) == 4


def test_what_a_label_says_about_its_group_comes_back(tmp_path: Path) -> None:
    with LedgerWriter.create(tmp_path, HEADER) as writer:
        writer.append_groups(1, [decided(1, 0), judged(1, 1)])
    plain, weighted = read(tmp_path).groups(1)
    assert (plain, weighted) == (decided(1, 0), judged(1, 1))
    assert (weighted.label.weight, weighted.label.offset, plain.label.values) == (0.5, -1 / 3, ())


def test_the_same_run_twice_has_the_same_head(tmp_path: Path) -> None:
    assert write_run(tmp_path / "a") == write_run(tmp_path / "b")
    chains = [(tmp_path / name / "ledger/chain.jsonl").read_bytes() for name in "ab"]
    assert chains[0] == chains[1]


def test_a_run_being_written_can_be_read(tmp_path: Path) -> None:
    with LedgerWriter.create(tmp_path, HEADER) as writer:
        assert read(tmp_path).head == writer.head
        head = write_step(writer, 1)
        ledger = read(tmp_path)
        assert (ledger.head, ledger.finished, ledger.groups(1)) == (head, False, groups(1))


def test_an_existing_run_and_a_second_writer_are_refused(tmp_path: Path) -> None:
    with LedgerWriter.create(tmp_path, HEADER) as writer:
        with pytest.raises(RunFolderError, match="another process is writing"):
            LedgerWriter.resume(tmp_path, writer.head, exact=True)
        with pytest.raises(RunFolderError, match="another process is writing"):
            LedgerWriter.create(tmp_path, HEADER)
    with pytest.raises(RunFolderError, match="holds a run already"):
        LedgerWriter.create(tmp_path, HEADER)
    with pytest.raises(RunFolderError, match=r"no run\.json"):
        read(tmp_path / "elsewhere")


def test_nothing_follows_the_end(tmp_path: Path) -> None:
    write_run(tmp_path)
    with LedgerWriter.resume(tmp_path, read(tmp_path).head, exact=True) as writer, pytest.raises(LedgerError, match="has an end already"):
        writer.append_verdict(verdict(5))


def test_parts_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with LedgerWriter.create(tmp_path, HEADER) as writer:
        head = writer.head
        for broken, words in (
            (replace(decided(1), advantages=(1.0,)), "1 advantages"),
            (replace(decided(1), trained=(3, 1)), "not sorted"),
            (replace(decided(1), label=replace(decided(1).label, values=(1.0,), notes=("right",))), "1 label values"),
            (decided(2), "handed over with step 1"),
            (with_extras(decided(1), extra(2, 3, "yes")), "group 3 of step 2: it was handed over with step 1"),
            (with_extras(decided(1), extra(1, 0, "yes")), "two of them share an index"),
            (with_extras(decided(1), replace(extra(1, 3, "yes"), answers=Answers((), ()))), "1 completions and 0 answer texts"),
        ):
            with pytest.raises(LedgerError, match=words):
                writer.append_groups(1, [broken])
        assert writer.head == head
        assert writer.append_groups(1, groups(1)) != head


def test_importing_the_ledger_loads_neither_pyarrow_nor_torch() -> None:
    program = "import selftrain.ledger, selftrain.checkpoints, sys; raise SystemExit(bool({'pyarrow', 'torch'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_log_probabilities_are_rounded_to_what_is_stored_and_the_rest_is_not(tmp_path: Path) -> None:
    sample = decided(1)
    first = replace(sample.voted.group.completions[0], logprobs=(-0.1,) * 5)
    group = replace(sample.voted.group, completions=(first, *sample.voted.group.completions[1:]))
    with LedgerWriter.create(tmp_path, HEADER) as writer:
        writer.append_groups(1, [replace(sample, voted=replace(sample.voted, group=group))])
    (found,) = read(tmp_path).groups(1)
    assert found.voted.group.completions[0].logprobs == (-0.10000000149011612,) * 5
    assert found.advantages == sample.advantages
