"""benchmarks/calibrate.py: what became of a run, and a fit that finds what the rows were made with."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from benchmarks.calibrate import Row, auroc, change_of, fit, measured_change, rows_of, runs_in, scores, table

from selftrain.calibration import EVIDENCE
from selftrain.calibration.forecast import TERMS
from selftrain.evals import Interval
from selftrain.evals.compare import problem_values
from selftrain.report import read_record
from selftrain.run import train_to_end
from tests.test_train import SMALL, config

UP, DOWN = Interval(0.2, 0.1, 0.3), Interval(-0.2, -0.3, -0.1)


def row(cell: int, gained: bool, agree: float, travel: float, source: str = "majority") -> Row:
    """A run whose labels all follow the policy and half of whose prompts train."""
    known = {
        "halves_frac": agree,
        "travel_nats": travel,
        "follows_frac": 1.0,
        "trains_frac": 0.5,
        "truth_frac": 0.0,
        "keyless_frac": 0.0,
        "share_mean_frac": agree,
    }
    return Row(f"run-{cell}", str(cell), "add:4", source, True, UP if gained else DOWN, {**dict.fromkeys(EVIDENCE), **known})


def made(count: int, seed: int) -> list[Row]:
    generator = np.random.Generator(np.random.Philox(key=seed))
    agree, travel = generator.random(count), 10 ** (2 * generator.random(count) - 1)
    chances = 1 / (1 + np.exp(-(8 * (agree - 0.5) - 4 * np.log10(travel))))
    return [
        row(at, bool(one < chance), float(a), float(t))
        for at, (one, chance, a, t) in enumerate(zip(generator.random(count), chances, agree, travel, strict=True))
    ]


def test_a_fit_finds_signs_and_tells_rows_it_has_not_seen() -> None:
    found = fit(made(400, 0))
    by_name = dict(zip(TERMS, found[1:], strict=True))
    assert by_name["trust"] > 2
    assert by_name["rate"] + by_name["chase"] < -2
    assert by_name["shortcut"] == pytest.approx(0.0, abs=1e-6)
    held_out = made(400, 1)
    judged = auroc(held_out, scores(held_out, found))
    alone = auroc(held_out, [one.evidence["share_mean_frac"] or 0 for one in held_out])
    assert judged is not None
    assert alone is not None
    assert judged.low > 0.8
    assert judged.value > alone.value + 0.03


def test_a_separable_half_is_fitted_to_finite_numbers() -> None:
    found = fit([row(0, True, 0.9, 0.1), row(1, False, 0.1, 10.0)])
    assert all(abs(value) < 20 for value in found)


def test_an_interval_takes_all_runs_of_a_cell_together() -> None:
    """Ten seeds of two cells are no better known than two runs."""
    rows = [row(cell, cell == 0, 0.9 - 0.5 * cell, 1.0) for cell in (0, 1) for _ in range(10)]
    found = auroc(rows, [float(one.evidence["halves_frac"] or 0) for one in rows])
    assert found == Interval(1.0, 1.0, 1.0)
    assert auroc(rows[:10], [0.0] * 10) is None
    assert len(table(rows, rows, fit(rows))) == 6
    assert len(table(rows, rows, None)) == 5


def test_evidence_of_real_runs_is_kept_and_shared_by_seeds(tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 1)):
        train_to_end(config(tmp_path / "runs", name, SMALL, run__seed=seed))
    assert [path.name for path in runs_in([tmp_path])] == ["a", "b"]
    cache = tmp_path / "cache.json"
    rows = rows_of([tmp_path], cache, 16)
    assert [(one.name, one.source, one.task, one.is_proxy) for one in rows] == [("a", "majority", "toy", True), ("b", "majority", "toy", True)]
    assert rows[0].cell == rows[1].cell
    assert rows[0].evidence == rows[1].evidence
    written = cache.read_bytes()
    assert rows_of([tmp_path], cache, 16) == rows
    assert cache.read_bytes() == written
    record = read_record(tmp_path / "runs" / "a")
    before, after = (record.evaluation(name) for name in ("before", "after"))
    assert before is not None
    assert after is not None
    assert (change_of(record) or DOWN).value == pytest.approx(after.avg.value - before.avg.value)


def test_the_newest_weights_may_be_evaluated_after_the_run(tmp_path: Path) -> None:
    """As they are for a run that handed over an older checkpoint: shares of right samples by problem, by steps done."""
    folder = Path(str(train_to_end(config(tmp_path, "a", SMALL)).folder))
    record = read_record(folder)
    before = record.evaluation("before")
    assert before is not None
    (tmp_path / "measured").mkdir()
    steps = record.config.run.num_steps
    shares = [min(1.0, value + 0.25) for value in problem_values(before, "avg")]
    (tmp_path / "measured" / "a.json").write_text(json.dumps({"held_out": {str(steps): shares, str(steps - 1): [0.0] * len(shares)}}))
    found = measured_change(record, folder, tmp_path / "measured")
    assert found is not None
    assert found.value == pytest.approx(sum(shares) / len(shares) - before.avg.value)
    assert measured_change(record, folder, None) is None
    assert measured_change(record, folder.with_name("other"), tmp_path / "measured") is None
