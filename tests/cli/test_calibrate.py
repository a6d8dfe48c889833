"""`selftrain calibrate`: its tables, its pages, and what it leaves out."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from selftrain.calibration.figure import shares_svg
from selftrain.evals.bootstrap import Interval
from selftrain.evals.proxy import Bin
from selftrain.policies.toy import ToyPolicy
from tests.cli.conftest import Selftrain, assert_refused

CALIBRATE = ("calibrate", "--policy.model", "toy", "--update.learning-rate", "0.1", "--run.num-steps", "30", "--prompts.count", "80")
TABLES = ["Evidence, without labels", "The forecast's terms", "Against true answers, 48 prompts"]


def test_tables_and_pages(command: Selftrain, tmp_path: Path) -> None:
    called = command(*CALIBRATE, "--count", "48", "--folder", "runs/c")
    assert called.status == 0, called.err
    assert all(title in called.out for title in TABLES)
    assert "48 of 80 training prompts, 16 votes each" in called.out
    assert re.search(r"The forecast is (a gain|a loss|open)", called.out)
    assert called.out.rstrip().endswith("json: runs/c/calibration.json")
    markdown, page = ((tmp_path / f"runs/c/calibration.{kind}").read_text("utf-8") for kind in ("md", "html"))
    assert all(f"## {title}" in markdown for title in TABLES)
    assert page.count("<svg") == 1
    assert not re.findall(r"(?:src|href)=|https?://|<script", page)
    found = json.loads((tmp_path / "runs/c/calibration.json").read_text())
    quality = found["truth"]["quality"]
    assert found["truth"]["judge"] == "true answers"
    assert 0.5 < quality["auc"]["value"] <= 1
    assert [size for size, _ in quality["maj_by_votes"]] == [1, 2, 4, 8, 16]
    assert quality["maj_by_votes"][0][1]["value"] == quality["avg"]["value"]
    assert sum(one["num_prompts"] for one in quality["bins"]) <= 48
    assert (found["subject"]["label_source"], found["evidence"]["follows_frac"]) == ("ema", 0.25)


def test_without_answers_one_line_says_so(command: Selftrain, tmp_path: Path) -> None:
    with_truth = json.loads(command(*CALIBRATE, "--count", "20", "--log", "json").out)
    called = command(*CALIBRATE, "--count", "20", "--no-answers")
    assert called.out.count("Not compared with the truth: true answers were not asked for.") == 1
    assert "Against" not in called.out
    assert with_truth["files"]["json"] == "runs/calibrate-0001/calibration.json"
    without = json.loads((tmp_path / "runs/calibrate-0002/calibration.json").read_text())
    assert (without["truth"], without["evidence"], without["forecast"]) == (None, with_truth["evidence"], with_truth["forecast"])
    page = (tmp_path / "runs/calibrate-0002/calibration.html").read_text()
    assert "dots: how often" not in page
    assert "Not compared with the truth" in page


def test_a_verifier_is_the_truth_where_there_is_one(command: Selftrain, tmp_path: Path) -> None:
    (tmp_path / "checks.py").write_text("def even(submission):\n    return submission.answer is not None and int(submission.answer) % 2 == 0\n")
    called = command(*CALIBRATE, "--count", "40", "--verifier.function", "checks:even", "--log", "json")
    assert called.status == 0, called.err
    found = json.loads(called.out)
    assert found["truth"]["judge"] == "the verifier"
    assert found["truth"]["quality"]["num_prompts"] == 40
    assert found["subject"]["truth_channels"] == []
    assert found["evidence"]["truth_frac"] == 0.0


def test_a_verifier_that_cannot_start_is_said_before_the_first_sample(command: Selftrain, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it is only the truth beside another source's labels, too."""
    assert command(*CALIBRATE, "--count", "20", "--no-answers", "--verifier.function", "nomod:f").status == 0
    monkeypatch.setattr(ToyPolicy, "sample", lambda *_: pytest.fail("it was sampled"))
    assert_refused(command(*CALIBRATE, "--verifier.function", "nomod:f"), 2, "verifier.function = nomod:f", "it cannot be imported")


def test_a_source_that_uses_the_truth_is_named(command: Selftrain) -> None:
    called = command(*CALIBRATE, "--count", "20", "--labels.source", "reference")
    assert "Not label-free: the config's source uses the truth (labels.source=reference)" in " ".join(called.out.split())


def test_what_a_run_refuses_is_refused(command: Selftrain) -> None:
    assert_refused(command(*CALIBRATE, "--labels.source", "majorty"), 2, "Did you mean majority?")
    assert_refused(command("calibrate", "--policy.model", "toy", "--prompts.count", "3"), 2, "a step needs that many")


def test_the_figure_shows_right_winners_below_and_accuracies_as_dots() -> None:
    shares = [(0.05, None), (0.5, True), (0.55, False), (1.0, True)]
    bins = (Bin(0.4, 0.6, 2, 0.525, Interval(0.5, 0.0, 1.0)),)
    drawn = shares_svg(shares, bins)
    assert (drawn.count('class="right"'), drawn.count('class="other"'), drawn.count("<circle")) == (2, 2, 1)
    assert "2 of 4 prompts, 1 of them right" in drawn
    assert "share 0.4 to 0.6: 2 prompts, 50 % right [0, 100]" in drawn
    bare = shares_svg([(share, None) for share, _ in shares], ())
    assert (bare.count('class="right"'), bare.count("<circle"), "diagonal" in bare) == (0, 0, False)


def test_no_forecast_where_nothing_would_train(command: Selftrain) -> None:
    called = command(*CALIBRATE, "--count", "20", "--rollout.temperature", "0.001")
    assert called.status == 0, called.err
    assert "No forecast: none of the prompts that were asked would train" in called.out
    assert "The forecast is" not in called.out
