"""`selftrain compare --controls`: what the added runs have, what they go without, and what may join a comparison later."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from selftrain.comparing import Choice, Plan, make_plan
from selftrain.ledger import read
from tests.cli.conftest import Selftrain, assert_refused
from tests.cli.test_compare import CONFIG

NET = """
[first_of]
sources = ["reference", "majority"]
[reference]
frac = 0.2
"""
OWN_RULE = "def halves(group, label):\n    return [0.5 if key == label.key else 0.0 for key in group.answers.keys]\n"
CONTROLS = ("random", "format_only", "inverted")


def planned(tmp_path: Path, options: dict[str, Any], choice: Choice | None = None) -> Plan:
    return make_plan((), {"policy.model": "toy", "run.folder": str(tmp_path), **options}, choice or Choice(seeds=(0,), controls=True))


def configs(plan: Plan) -> dict[str, Any]:
    return {cell.source: config for cell, config in plan.cells.items()}


def test_the_added_reference_has_all_true_answers(tmp_path: Path) -> None:
    """Those that the user names keep what the user gave."""
    net = {"labels.source": "first_of", "first_of.sources": ["reference", "ema"], "reference.frac": 0.05}
    plan = planned(tmp_path, net)
    assert {name: config.reference.frac for name, config in configs(plan).items()} == {"first_of": 0.05, **dict.fromkeys(CONTROLS, 0.05), "reference": 1.0}
    assert {cell.source: cell.instead for cell in plan.cells if cell.instead} == {"reference": ("reference.frac = 1.0 instead of 0.05",)}
    named = planned(tmp_path, net, Choice(sources=("first_of", "reference"), seeds=(0,), controls=True))
    assert configs(named)["reference"].reference.frac == 0.05
    assert not [cell for cell in named.cells if cell.instead]


@pytest.mark.parametrize(
    ("options", "without"),
    [
        ({"labels.source": "majority", "reward.rule": "share"}, {"reward.rule": ("match", (*CONTROLS, "reference"))}),
        ({"labels.source": "majority", "reward.rule": "rules_here:halves"}, {"reward.rule": ("match", CONTROLS)}),
        ({"labels.source": "majority", "correction.mode": "own"}, {"correction.mode": ("off", CONTROLS)}),
        ({"labels.source": "majority", "labels.clustering": "overlap"}, {"labels.clustering": ("exact", ("reference",))}),
        ({"rollback.remedy": "higher_min_share"}, {"rollback.remedy": ("lower_rate", ("random", "format_only", "reference"))}),
        (
            {"labels.source": "first_of", "first_of.sources": ["reference", "ema"], "reference.frac": 0.5, "step_share.reference_frac": 0.5},
            {"reference.frac": (1.0, ("reference",)), "step_share.reference_frac": (None, (*CONTROLS, "reference"))},
        ),
    ],
)
def test_a_control_goes_without_what_it_cannot_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], without: dict[str, tuple[Any, tuple[str, ...]]]
) -> None:
    (tmp_path / "rules_here.py").write_text(OWN_RULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    plan = planned(tmp_path, options)
    assert list(configs(plan)) == [options.get("labels.source", "ema"), *CONTROLS, "reference"]
    for name, config in configs(plan).items():
        expected = {**options, **{option: value for option, (value, sources) in without.items() if name in sources}, "labels.source": name}
        assert {option: config.model_dump(mode="json")[option.partition(".")[0]][option.partition(".")[2]] for option in expected} == expected
    for cell in plan.cells:
        assert [text.split(" ")[0] for text in cell.instead] == [option for option, (_, sources) in without.items() if cell.source in sources]


def test_the_page_and_the_terminal_say_what_the_controls_go_without(command: Selftrain, tmp_path: Path) -> None:
    (tmp_path / "shared.toml").write_text(CONFIG.replace('source = "majority"', 'source = "first_of"') + NET + "[step_share]\nreference_frac = 0.5\n")
    words = ("compare", "shared.toml", "--controls", "--seeds", "0", "--run.num-steps", "2", "--folder", "runs/c", "--log", "plain")
    called = command(*words)
    assert called.status == 0, called.err
    said = "random, format_only, inverted: step_share.reference_frac unset instead of 0.5; reference: reference.frac = 1.0 instead of 0.2, "
    said += "step_share.reference_frac unset instead of 0.5"
    page = (tmp_path / "runs/c/comparison.md").read_text("utf-8")
    assert said in page
    assert said in called.out.splitlines()[0]
    header = read(tmp_path / "runs/c/toy-reference-seed-0").header["config"]
    assert (header["reference"]["frac"], header["step_share"]["reference_frac"]) == (1.0, None)
    again = command(*words)
    assert again.status == 0, again.err
    assert again.out.count("finished before, kept") == 5
    (tmp_path / "runs/c/comparison.md").unlink()
    assert command("compare", "--only-report", "runs/c").status == 0
    assert (tmp_path / "runs/c/comparison.md").read_text("utf-8") == page
    rows = json.loads((tmp_path / "runs/c/comparison.json").read_text("utf-8"))["starts"][0]["sources"]
    assert {row["source"]: len(row["instead"]) for row in rows} == {"first_of": 0, **dict.fromkeys(CONTROLS, 1), "reference": 2}


def test_a_variant_keeps_such_options_to_itself(tmp_path: Path) -> None:
    (tmp_path / "own.toml").write_text('[labels]\nsource = "majority"\n[correction]\nmode = "own"\n')
    plan = planned(tmp_path, {}, Choice(sources=(f"own={tmp_path / 'own.toml'}",), seeds=(0,), controls=True))
    assert {name: config.correction.mode for name, config in configs(plan).items()} == {"own": "own", **dict.fromkeys((*CONTROLS, "reference"), "off")}
    assert not [cell for cell in plan.cells if cell.instead]


def test_a_remedy_that_the_start_of_a_run_refuses_is_told_before_the_first_run(command: Selftrain, tmp_path: Path) -> None:
    (tmp_path / "shared.toml").write_text(CONFIG)
    words = ("compare", "shared.toml", "--sources", "majority", "random", "--rollback.remedy", "higher_min_share")
    assert_refused(command(*words), 2, "rollback.remedy = higher_min_share", "labels.source = random")
    assert not list(tmp_path.glob("runs/*"))


def test_what_joins_later_shares_the_objective(command: Selftrain, tmp_path: Path) -> None:
    """What belongs to a source may differ; in a folder that an earlier version began, what variants may change is not known."""
    (tmp_path / "shared.toml").write_text(CONFIG)
    words = ("compare", "shared.toml", "--seeds", "0", "--run.num-steps", "2", "--folder", "runs/j")
    assert command(*words, "--sources", "majority").status == 0
    plan = json.loads((tmp_path / "runs/j/compare.json").read_text())
    other = ("--advantage.rule", "grpo", "--objective.kl-in", "reward", "--labels.min-share-frac", "0.5")
    told = ("advantage.rule = rloo there, grpo now", "objective.kl_in = none there, reward now", "labels.min_share_frac = 0.0 there, 0.5 now")
    assert_refused(command(*words, "--sources", "frozen", *other), 2, "comparison runs/j", *told, "choose another --folder", "NAME=FILE.toml")
    assert json.loads((tmp_path / "runs/j/compare.json").read_text()) == plan
    assert not (tmp_path / "runs/j/toy-frozen-seed-0").exists()
    called = command(*words, "--sources", "gate", "--gate.conditions", "base")
    assert called.status == 0, called.err
    (tmp_path / "sure.toml").write_text('[labels]\nmin_share_frac = 0.5\n[advantage]\nrule = "grpo"\n')
    assert command(*words, "--sources", "sure=sure.toml").status == 0
    (tmp_path / "runs/j/compare.json").write_text(json.dumps({name: value for name, value in plan.items() if name != "shared"}))
    assert command(*words, "--sources", "majority").status == 0
    assert "shared" not in json.loads((tmp_path / "runs/j/compare.json").read_text())
