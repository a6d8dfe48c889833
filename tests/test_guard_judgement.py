"""benchmarks/guard.py: what counts as a collapse, as found in time, as disturbed and as handed over is checked on runs that are written down here."""

from __future__ import annotations

import importlib
import json
import math
import sys
from argparse import Namespace
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from types import ModuleType
from typing import Any
from xml.etree import ElementTree

import pytest

from selftrain.config import GuardSection
from selftrain.guard import RULES
from selftrain.guard_stream import Step, verdicts
from selftrain.run import train_to_end
from selftrain.types import Action, PolicyVersion, StepMetrics

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
NAMES = (
    "guard_curves",
    "guard_runs",
    "guard_tables",
    "guard_fit",
    "guard_figures",
    "guard_pairs",
    "guard_lab",
    "guard_measure",
    "guard_probes",
    "guard",
    "guard_real",
    "guard_pace",
)


@pytest.fixture(scope="module")
def modules() -> Iterator[Mapping[str, ModuleType]]:
    """They import each other as scripts do."""
    sys.path.insert(0, str(BENCHMARKS))
    yield {name: importlib.import_module(name) for name in NAMES}
    sys.path.remove(str(BENCHMARKS))


@pytest.fixture
def curves(modules: Mapping[str, ModuleType]) -> Any:
    return modules["guard_curves"]


@pytest.fixture
def tables(modules: Mapping[str, ModuleType]) -> Any:
    return modules["guard_tables"]


def curve(*percents: float) -> list[tuple[int, float]]:
    """An evaluation at every fifth step."""
    return [(5 * at, value / 100) for at, value in enumerate(percents)]


@pytest.mark.parametrize(
    ("percents", "expected"),
    [
        ((50, 60, 50, 50, 49, 48, 40, 40, 40), "collapsed"),  # exactly 10 points under from the third on
        ((50, 60, 55, 52, 51, 50, 50, 50, 50), "fallen"),  # four times
        ((50, 60, 40, 40, 40, 60, 40, 61, 50), "collapsed"),  # five times, not in a row
        ((50, 60, 57, 60, 60, 60, 60, 60, 60), "between"),  # exactly 3 points
        ((50, 60, 57.1, 70, 67.1, 67.1, 67.1, 70, 70), "healthy"),
        ((70, 60, 60, 60, 60, 60, 80, 80, 80), "collapsed"),  # from the start on, though it recovers
        ((5, 4, 3, 2.5, 2.1, 2.1, 2.1, 2.1, 2.1), "healthy"),  # there was nothing to lose
        ((30, 45), "healthy"),
    ],
)
def test_what_became_of_a_run(curves: Any, percents: tuple[float, ...], expected: str) -> None:
    assert curves.fate(curve(*percents)) == expected


def test_accuracy_between_evaluations_is_linear(curves: Any) -> None:
    falling = curve(50, 60, 50, 30)
    assert curves.accuracy_at(falling, 2) == pytest.approx(0.54)
    assert curves.accuracy_at(falling, 12) == pytest.approx(0.42)
    assert curves.accuracy_at(falling, 40) == 0.3
    assert curves.loss_at(falling, 2) == 0  # rising
    assert curves.loss_at(falling, 10) == pytest.approx(0.1)
    assert curves.loss_at(falling, 12) == pytest.approx(0.18)
    with pytest.raises(ValueError, match="the first evaluation is that of step 5"):
        curves.accuracy_at(falling[1:], 4)


def test_found_in_time_is_before_the_fifth_point_is_lost(curves: Any) -> None:
    falling = curve(50, 60, 50, 30)
    assert curves.step_of_loss(falling) == pytest.approx(7.5)
    assert curves.step_of_loss(falling, 0.2) == pytest.approx(12.5)
    assert curves.in_time(falling, 7)
    assert not curves.in_time(falling, 8)
    assert not curves.in_time(falling, None)
    assert curves.step_of_loss(curve(50, 60, 57, 70)) is None
    assert curves.in_time(curve(50, 60, 57, 70), 12)
    assert curves.step_of_loss(curve(50, 45)) == pytest.approx(5)  # reached exactly at an evaluation
    assert not curves.in_time(curve(50, 45), 5)
    assert curves.step_of_loss(curve(60, 58, 61, 54)) == pytest.approx(10 + 5 * 5 / 7)  # of the second peak


@pytest.mark.parametrize(
    ("hits", "of", "low", "high"),
    [
        (0, 10, 0.0, 0.308497),  # 1 - 0.025 ** (1 / 10)
        (10, 10, 0.691503, 1.0),
        (5, 10, 0.187086, 0.812914),
        (1, 20, 0.001265, 0.248733),
    ],
)
def test_clopper_pearson_bounds(tables: Any, hits: int, of: int, low: float, high: float) -> None:
    """Against `binom.test` of R."""
    assert tables.clopper_pearson(hits, of) == pytest.approx((low, high), abs=2e-6)
    assert tables.clopper_pearson(of - hits, of) == pytest.approx((1 - high, 1 - low), abs=2e-6)


def test_bounds_are_where_the_tails_hold_a_fortieth(tables: Any) -> None:
    low, high = tables.clopper_pearson(57, 60)
    assert low < 57 / 60 < high
    assert tables.at_least(57, 60, low) == pytest.approx(0.025)
    assert 1 - tables.at_least(58, 60, high) == pytest.approx(0.025)
    assert tables.at_least(2, 3, 0.5) == pytest.approx(0.5)


def test_shares_in_words(tables: Any) -> None:
    assert tables.share(5, 10) == "5 of 10: 50 % [19, 81]"
    assert tables.share(0, 0) == "none"


def lab_run(modules: Mapping[str, ModuleType], percents: tuple[float, ...], noise_from: int = 99, source: str = "majority") -> Any:
    """A run of 40 steps whose entropy doubles (the rule `noise`, at 1.75 times) from a step on; each of 4 problems has the accuracy of its evaluations."""
    cell = modules["guard_lab"].Cell("default", "add:4", "1e-4", source, 20)
    steps = []
    for step in range(40):
        values = {"vote/share_mean_frac": 0.6, "policy/entropy_mean_nats": 0.2 if step < noise_from else 0.45}
        steps.append(Step(StepMetrics(step, PolicyVersion(0, step), values)))
    points = {step: (value,) * 4 for step, value in curve(*percents)}
    return modules["guard_runs"].LabRun(cell, points, tuple(steps), 5, 40)


FALLS_LATE = (50, 55, 60, 60, 60, 48, 45, 40, 40)
"""from step 20 on: the fifth point is lost at step 22.1; 10 points under from step 25 on, at four evaluations"""


def test_later_probes_take_the_place_of_the_recorded_ones(modules: Mapping[str, ModuleType]) -> None:
    values = {"vote/share_mean_frac": 0.5, "probe/base_agree_frac": 0.9, "probe/drift_nats": 0.1}
    steps = [Step(StepMetrics(step, PolicyVersion(0, step), values)) for step in range(2)]
    again = modules["guard_probes"].with_probes(steps, {1: {"probe/base_agree_frac": 0.4}})
    assert [one.metrics.values for one in again] == [{"vote/share_mean_frac": 0.5}, {"vote/share_mean_frac": 0.5, "probe/base_agree_frac": 0.4}]
    assert modules["guard_probes"].with_probes(steps, {}) == tuple(steps)


def test_a_run_is_halted_and_hands_over_an_older_checkpoint(modules: Mapping[str, ModuleType]) -> None:
    """The mean of five steps passes 1.75 times the first ones when three of them are doubled: 0.2 + 3 / 5 * 0.25 = 0.35 = 1.75 * 0.2, not above; so four."""
    found = modules["guard_runs"].judged(lab_run(modules, FALLS_LATE, noise_from=18))
    (alone,) = {rule for rules in found.said for rule in rules}
    assert alone == "noise"
    assert found.warned == 21
    assert found.in_time("warned")
    assert found.lost("warned") == pytest.approx(0.12 / 5)
    assert found.delay("warned") == pytest.approx(21 - (20 + 5 * 5 / 12))
    assert found.harmed in (21, 22, 23)  # when its interval is wholly below one half, or after three steps
    assert found.handed_over == 15  # before the window that harm was first seen in: 21 - 5 = 16
    assert found.best == 10


def test_verdicts_of_the_lab_are_those_of_the_guard_itself(modules: Mapping[str, ModuleType]) -> None:
    run = lab_run(modules, FALLS_LATE, noise_from=18)
    said = list(verdicts(run.steps, GuardSection(action="halt")))
    found = modules["guard_runs"].judged(run)
    assert next(one.step for one in said if one.action is Action.HALT) == found.harmed
    assert all(one.action is Action.CONTINUE for one in said[: found.warned])


def test_a_run_without_a_finding_hands_over_its_last_checkpoint(modules: Mapping[str, ModuleType]) -> None:
    found = modules["guard_runs"].judged(lab_run(modules, (50, 55, 60, 62, 64, 64, 64, 65, 66)))
    assert (found.warned, found.harmed, found.handed_over, found.best) == (None, None, 40, 40)
    assert found.lost("harmed") is None


def test_limits_and_rules_can_be_others(modules: Mapping[str, ModuleType]) -> None:
    runs = modules["guard_runs"]
    run = lab_run(modules, FALLS_LATE, noise_from=18)
    assert runs.judged(run, runs.with_limits({"noise": 2.0})).warned is None
    earlier = runs.judged(run, runs.with_limits({"noise": 0.5})).warned
    assert earlier == 19  # ln(0.3 / 0.2) passes half of ln(1.75)
    assert runs.judged(run, [rule for rule in RULES.values() if rule.name != "noise"]).warned is None
    with pytest.raises(ValueError, match="there is no rule nothing"):
        runs.with_limits({"nothing": 1.0})


def test_scores_count_collapses_in_time_and_healthy_runs_disturbed(modules: Mapping[str, ModuleType], tables: Any) -> None:
    collapses, healthy = (60, 60, 60, 60, 50, 50, 50, 50, 50), (50, 55, 60, 62, 64, 64, 64, 65, 66)
    given = [(collapses, 8), (collapses, 30), (collapses, 99), (healthy, 30), (healthy, 99), (FALLS_LATE, 18)]
    judged = [modules["guard_runs"].judged(lab_run(modules, percents, noise)) for percents, noise in given]
    found = tables.score(judged)
    assert (found.collapsed, found.found["warned"], found.found["harmed"]) == (3, 1, 1)
    assert (found.fallen, found.fallen_found["warned"]) == (1, 1)
    assert (found.healthy, found.disturbed["warned"], found.disturbed["harmed"]) == (2, 1, 1)
    page = tables.page(judged, {})
    assert "6 runs: 3 collapsed (C), 1 fallen (F), 0 between (b), 2 healthy (H)." in page
    assert "| all | 1 of 3: 33 % [1, 91] | 1 of 3: 33 % [1, 91] | 1 of 1: 100 % [2, 100] |" in page
    assert "| majority 1e-4 | CCCHHF |" in page
    assert page.count("(healthy, others)") == 1
    row = tables.in_json(judged[0], tables.handover(judged[0], {}))
    assert json.loads(json.dumps(row))["in_time"] == {"warned": True, "harmed": True}


def test_what_is_handed_over_is_compared_on_fresh_problems_where_they_are(modules: Mapping[str, ModuleType], tables: Any) -> None:
    one = modules["guard_runs"].judged(lab_run(modules, FALLS_LATE, noise_from=18))
    recorded = tables.handover(one, {})
    assert (recorded.steps, recorded.best, recorded.fresh) == (15, 10, False)
    assert (recorded.to_base.value, recorded.to_best.value) == (pytest.approx(0.1), pytest.approx(0))
    fresh = tables.handover(one, {0: (0.5, 0.5), 10: (0.6, 0.8), 15: (0.5, 0.7)})
    assert fresh.fresh
    assert (fresh.to_base.value, fresh.to_best.value) == (pytest.approx(0.1), pytest.approx(-0.1))
    assert tables.handover(one, {0: (0.5,), 10: (0.6,)}) == recorded  # not all three: those of the record


def test_every_rule_is_in_one_family(modules: Mapping[str, ModuleType]) -> None:
    named = [name for names in modules["guard_fit"].FAMILIES.values() for name in names]
    assert sorted(named) == sorted(RULES)


def test_ablation_names_the_rule_that_found_it(modules: Mapping[str, ModuleType]) -> None:
    page = modules["guard_fit"].ablation_page([lab_run(modules, (60, 60, 60, 60, 50, 50, 50, 50, 50), 8)])
    assert "| all rules | 1 of 1: 100 % [2, 100] |" in page
    assert "| without `noise` | 0 of 1: 0 % [0, 98] |" in page
    assert "| only `noise` | 1 of 1: 100 % [2, 100] |" in page
    assert "`shrinking`" in page.splitlines()[-1]


def test_headroom_is_what_rules_reach_before_it_is_too_late(modules: Mapping[str, ModuleType]) -> None:
    healthy = lab_run(modules, (50, 55, 60, 62, 64, 64, 64, 65, 66), 37)  # three doubled steps at the end
    falling = lab_run(modules, FALLS_LATE, 20)  # two doubled steps and a third in the verdict of step 22, the last before 22.1
    found = modules["guard_fit"].headroom([healthy, falling])
    reached = math.log(0.35 / 0.2) / math.log(1.75)
    assert found["noise"] == (pytest.approx([reached], abs=1e-5), pytest.approx([reached], abs=1e-5))
    assert found["shortcut"] == ([0.0], [0.0])
    assert "no_signal" not in found
    page = "\n".join(modules["guard_fit"].headroom_page([healthy, falling]))
    assert f"| `noise` | 0.56 |{f' {reached:.2f} |' * 4} 1 of 1 |" in page


def test_the_fit_takes_what_finds_more_and_disturbs_less(modules: Mapping[str, ModuleType], tables: Any) -> None:
    """A made-up guard: a tighter `shortcut` finds two more collapses, a tighter `noise` one more but disturbs three of twenty healthy runs."""

    def measure(scales: Mapping[str, float]) -> Any:
        found = 5 + 2 * (scales.get("shortcut", 1.0) <= 0.7) + (scales.get("noise", 1.0) < 1)
        disturbed = 3 * (scales.get("noise", 1.0) < 1)
        return tables.Score(10, {"warned": found, "harmed": found}, 0, {"warned": 0, "harmed": 0}, 20, {"warned": disturbed, "harmed": disturbed})

    assert modules["guard_fit"].fitted(measure).scales == {"shortcut": 0.7}


def test_the_fit_opens_no_run_of_the_judging_half(modules: Mapping[str, ModuleType], tmp_path: Path) -> None:
    """Its folder is no run at all: to open it would be an error."""
    guard_lab = modules["guard_lab"]
    judge = guard_lab.Cell("default", guard_lab.JUDGE[0], "1e-4", "majority", 20)
    (tmp_path / judge.name).mkdir()
    (tmp_path / judge.name / "run.json").write_text("no run")
    runs = modules["guard_runs"]
    assert list(runs.load(tmp_path, guard_lab.FIT)) == []
    assert runs.cell_of(judge.name) == judge
    assert runs.cell_of("something-else") is None
    with pytest.raises(Exception, match=r"run\.json"):
        list(runs.load(tmp_path, guard_lab.JUDGE))


def test_cells_have_names_that_can_be_read(modules: Mapping[str, ModuleType]) -> None:
    cells = list(modules["guard_lab"].cells())
    assert len({cell.name for cell in cells}) == len(cells)
    assert all(modules["guard_runs"].cell_of(cell.name) == cell for cell in cells)


def toy(folder: Path, name: str, **options: Any) -> Path:
    """A collapsing run of the toy, evaluated and kept at every second step, with probes at every third and no glances, which would see it at once."""
    from selftrain.config_load import load_config

    given = {
        "policy.model": "toy:weak",
        "labels.source": "majority",
        "update.learning_rate": 3.0,
        "run.num_steps": 16,
        "guard.window_steps": 2,
        "guard.baseline_steps": 2,
        "probes.every_steps": 3,
        "probes.num_prompts": 48,
    }
    given |= {"rollout.prompts_per_step": 8, "rollout.num_votes": 8, "evals.num_problems": 8, "evals.num_samples": 4, "evals.every_steps": 2}
    given |= {"prompts.count": 40, "run.folder": str(folder), "run.name": name, "run.checkpoint_every_steps": 2, "run.num_checkpoints": 16}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("selftrain.probes.probing.GLANCES", 0)
        return Path(str(train_to_end(load_config(overrides={**given, **options})).folder))


def test_the_last_evaluation_is_of_what_is_handed_over(curves: Any, tmp_path: Path) -> None:
    """A run whose guard only warned may hand over an old checkpoint: its evaluation is no evaluation of the last weights."""
    from selftrain.ledger import read

    folder = toy(tmp_path, "warned", **{"guard.action": "warn", "update.learning_rate": 0.7, "probes.every_steps": 2, "probes.num_prompts": 300})
    (end,) = (line.body for line in read(folder).lines("end"))
    points = curves.points_of(folder)
    assert end["handed_over"] not in ("step-000016", "start")
    assert list(points) == list(range(0, 16, 2))
    assert curves.handed_over(read(folder)) == int(end["handed_over"].rpartition("-")[2])
    assert all(len(shares) == 8 for shares in points.values())


def test_a_run_that_rolls_back_is_paired_with_what_halting_hands_over(modules: Mapping[str, ModuleType], tmp_path: Path) -> None:
    """The same run up to the step at which the guard acts; the recorded one goes on, the other one rolls back."""
    from selftrain.guard_stream import steps_of_run
    from selftrain.ledger import read

    runs, pairs, points_of = modules["guard_runs"], modules["guard_pairs"], modules["guard_curves"].points_of
    warned = toy(tmp_path, "warned", **{"guard.action": "warn"})
    rolled = toy(tmp_path, "rolled", **{"guard.action": "roll_back"})
    cell = modules["guard_lab"].Cell("default", "add:4", "1e-4", "majority", 20)
    run = runs.LabRun(cell, points_of(warned), tuple(steps_of_run(warned)), 2, 16)
    at = read(rolled).branches[0].left_at - 1
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs, "SECTION", GuardSection(action="halt", window_steps=2, baseline_steps=2))
        found = pairs.pair_of(run, rolled)
        assert found.step == at
        assert found.halted == (int(read(rolled).branches[0].step), run.points[read(rolled).branches[0].step])  # where it went back to
        assert found.num_rollbacks == len(read(rolled).branches)
        assert len(found.rolled[1]) == 8
        assert "Mean gain, paired" in pairs.pairs_page([found], [], "lower_rate")
        assert found.start == run.points[0]
        assert max(map(fmean, run.points.values())) == fmean(found.best)
        near = replace(found, halted=(4, (0.5,) * 8), rolled=(16, (0.8,) * 8), start=(0.53,) * 8, best=(0.82,) * 8)
        words = "within 3 points of the best checkpoint of the run that nobody stopped"
        assert f"- halted: 0 of 1 {words}, 1 of 1 more than 2 under the start (worst -3.0)" in pairs.pairs_page([near], [], "lower_rate")
        assert f"- rolled: 1 of 1 {words}, 0 of 1 more than 2 under the start (worst +27.0)" in pairs.pairs_page([near], [], "lower_rate")
        assert "the guard acted 0 times in it" in pairs.pair_of(run, warned)
    ElementTree.fromstring(modules["guard_figures"].two_runs(run, rolled, "lower_rate"))


def test_figures_are_drawings(modules: Mapping[str, ModuleType]) -> None:
    figures = modules["guard_figures"]
    judged = [modules["guard_runs"].judged(lab_run(modules, FALLS_LATE, noise)) for noise in (18, 99)]
    drawn = figures.lost_when_found(judged)
    ElementTree.fromstring(drawn)
    assert "share of 2 collapses found" in drawn
    assert figures.stairs([1.0, 3.0], 4, 10) == ((0.0, 0.0), (1.0, 0.0), (1.0, 0.25), (3.0, 0.25), (3.0, 0.5), (10.0, 0.5))


def test_only_the_runs_that_are_asked_for_are_measured(modules: Mapping[str, ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`guard.py measure --cells --seeds --half`: nothing of other runs is made."""
    guard, measure, lab = modules["guard"], modules["guard_measure"], modules["guard_lab"]
    first = lab_run(modules, FALLS_LATE, 99)
    other = replace(first, cell=replace(first.cell, seed=21))
    judge = replace(first, cell=replace(first.cell, task=lab.JUDGE[0]))
    made: list[str] = []
    monkeypatch.setattr(measure, "load", lambda *_, **__: iter([first, other, judge]))
    monkeypatch.setattr(measure, "missing", lambda *_: [40])
    monkeypatch.setattr(measure, "shares", lambda _lab, _out, run, _step, _fresh: made.append(run.cell.name) or [0.5])
    args = Namespace(folder=tmp_path, out=tmp_path / "out", hours=1.0, fresh=False, half="FIT", cells=[], seeds=[21])
    guard.measure_missing(args)
    assert made == [other.cell.name]
    assert modules["guard_runs"].read_measured(tmp_path / "out" / "measured", other.cell) == {"held_out": {"40": [0.5]}}
    guard.measure_missing(Namespace(**{**vars(args), "half": "all", "seeds": [], "cells": [judge.cell.name, first.cell.name]}))
    assert made == [other.cell.name, first.cell.name, judge.cell.name]


def test_fresh_problems_are_in_no_set_of_the_run_and_fewer_where_there_are_no_more(modules: Mapping[str, ModuleType]) -> None:
    from selftrain.compose import load_sets
    from selftrain.errors import PromptError
    from selftrain.prompts import ids_of_forms

    measure, lab = modules["guard_measure"], modules["guard_lab"]
    for task, expected in (("sub:2", 192), ("mul:2", 176)):
        config = lab.config_of(lab.Cell("default", task, "1e-4", "majority", 26), Path("nowhere"))
        found, sets = measure.fresh_problems(config), load_sets(config)
        assert len(found) == expected
        assert not ids_of_forms(found) & ids_of_forms(sets.train).union(ids_of_forms(sets.held_out), ids_of_forms(sets.aside))
    with pytest.raises(PromptError, match="the level has"):
        measure.fresh_problems(lab.config_of(lab.Cell("default", "add:1", "1e-4", "majority", 26), Path("nowhere")))
