"""The benchmarks that need more than a test's time: what they teach, store and say is checked here; they run with --quick."""

from __future__ import annotations

import importlib
import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from xml.etree import ElementTree

import numpy as np
import pytest

from selftrain.config_load import load_config
from selftrain.evals import Evaluation, ProblemResult, VoteResult
from selftrain.prompts.gym import load_gym

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
installed = pytest.mark.skipif(importlib.util.find_spec("reasoning_gym") is None, reason="needs the extra `gym`")
STORY = "Max is married to Jo. They have children called Ann, Tom and Lea. Tom is married to Eve. They have a child called Ida.\n\n"


Load = Callable[[str], ModuleType]


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Load:
    """The modules of benchmarks/ import each other as scripts do."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module


@pytest.fixture
def lessons(load: Load) -> ModuleType:
    return load("climb_lessons")


LEVELS = [("family", 0), ("family", 5), ("family", 8), ("letters", 0), ("letters", 2)]


@pytest.fixture(scope="module")
def solved() -> dict[tuple[str, int], list[tuple[float | None, float | None]]]:
    """The scores of 60 solutions of each level, as they are and with a 0 behind them: a process that makes or checks problems takes long to start."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        climbs = importlib.import_module("climb_lessons").CLIMBS
    made = load_gym(",".join(f"gym:{climbs[name].task}:{level}" for name, level in LEVELS), 60 * len(LEVELS), seed=5)
    place = {f"gym-{climbs[name].task}-{level}": (name, level) for name, level in LEVELS}
    of = {prompt.id: place[prompt.id.rpartition("/")[0]] for prompt in made.prompts}
    answers = [(prompt.id, climbs[of[prompt.id][0]].solution(prompt.text, None, 0.0).partition("####")[2]) for prompt in made.prompts]
    scores = made.scores([*answers, *((prompt_id, f"{answer}0") for prompt_id, answer in answers)])
    found: dict[tuple[str, int], list[tuple[float | None, float | None]]] = {level: [] for level in LEVELS}
    for prompt, right, wrong in zip(made.prompts, scores[: len(answers)], scores[len(answers) :], strict=True):
        found[of[prompt.id]].append((right, wrong))
    return found


@installed
@pytest.mark.parametrize(("name", "level"), LEVELS)
def test_solutions_end_in_the_answer_that_the_verifier_accepts(
    solved: dict[tuple[str, int], list[tuple[float | None, float | None]]], name: str, level: int
) -> None:
    right, wrong = zip(*solved[name, level], strict=True)
    assert list(right) == [1.0] * 60
    assert max(score for score in wrong if score is not None) < 1  # it gives a part for an answer that holds the right one


@installed
@pytest.mark.parametrize(
    ("first", "second", "solution"),
    [
        ("Ida", "Eve", "Ida<Tom,Eve;Eve=Tom>Ida;Ida<Eve;f####daughter"),
        ("Tom", "Lea", "Tom<Max,Jo=Eve>Ida;Lea<Max,Jo;Tom<Max>Lea;m####brother"),
        ("Jo", "Ida", "Jo=Max>Ann,Tom,Lea;Ida<Tom,Eve;Jo>Tom>Ida;f####grandmother"),
    ],
)
def test_a_family_solution_looks_up_both_and_the_way(lessons: ModuleType, monkeypatch: pytest.MonkeyPatch, first: str, second: str, solution: str) -> None:
    monkeypatch.setattr(lessons, "names_of_men", lambda: frozenset({"Max", "Tom"}))
    question = f"{STORY}What relation is {first} to {second}? Answer with a single word."
    assert lessons.family_solution(question) == solution
    assert lessons.family_size(question) == 7


def test_letters_are_counted_word_by_word_and_slips_are_carried_on(lessons: ModuleType) -> None:
    question = 'How many times does the letter "n" appear in the text: "Then nine and now"?'
    assert lessons.letter_solution(question) == "Then:1,nine:3,and:4,now:5####5"
    assert lessons.letter_size(question) == 4
    slipped = lessons.letter_solution(question, np.random.default_rng(0), 1.0)
    totals = [int(step.partition(":")[2]) for step in slipped.partition("####")[0].split(",")]
    assert [abs(b - a - right) for a, b, right in zip([0, *totals], totals, (1, 2, 1, 1), strict=False)] == [1, 1, 1, 1]
    assert slipped.endswith(f"####{totals[-1]}")


@installed
@pytest.mark.parametrize("name", ["family", "letters"])
def test_the_tokenizer_gives_texts_back_and_solutions_fit(load: Load, lessons: ModuleType, name: str) -> None:
    climb = lessons.CLIMBS[name]
    tokenizer = load("climb_start").build_tokenizer(climb)
    for prompt in load_gym(f"gym:{climb.task}:{climb.levels[2]}", 20, seed=5).prompts:
        solution = climb.solution(prompt.text, None, 0.0)
        ids = tokenizer(f"{prompt.text}{solution}")["input_ids"]
        assert tokenizer.unk_token_id not in ids
        assert tokenizer.decode(ids) == f"{prompt.text}{solution}"
        assert len(tokenizer(solution)["input_ids"]) < climb.max_new_tokens


def test_the_fixed_teacher_is_the_supervised_start_on_both_rungs(load: Load, tmp_path: Path) -> None:
    climb = load("climb")
    args = SimpleNamespace(
        task="letters", folder=tmp_path, steps=None, threads=1, prompts=64, prompts_per_step=4, learning_rate=None, problems=16
    )  # what `main` parses
    first, second = (climb.config_of(args, climb.CLIMBS["letters"], rung, "frozen", 7, tmp_path / "model") for rung in (1, 2))
    assert (first.labels.source, first.stored_file) == ("frozen", None)
    assert (second.labels.source, second.stored_file) == ("stored", str(tmp_path / "letters" / "teacher-seed-7.jsonl"))
    others = [climb.config_of(args, climb.CLIMBS["letters"], rung, arm, 7, tmp_path / "model") for rung in (1, 2) for arm in ("majority", "ema", "reference")]
    assert {config.stored_file for config in others} == {None}


GSM8K = ["train.jsonl", "test.jsonl", "--folder", "there"]


@pytest.mark.parametrize("name", ["t1", "t07_slow", "t07"])
def test_each_block_is_one_comparison(load: Load, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """By options that the product has; the temperature of the votes is that of the loss, and evaluations stay at 1."""
    gsm8k = load("gsm8k")
    calls: list[list[str]] = []
    monkeypatch.setattr(gsm8k.subprocess, "run", lambda words, **_: calls.append(words) or SimpleNamespace(returncode=3))
    monkeypatch.setattr("sys.argv", ["gsm8k.py", *GSM8K, "--blocks", name])
    with pytest.raises(SystemExit, match="3"):
        gsm8k.main()
    (words,) = calls
    flags = [word for word in words if word.startswith("--") and "." in word]
    config = load_config([], {flag[2:].replace("-", "_"): words[words.index(flag) + 1] for flag in flags})
    assert (config.rollout.temperature, config.update.learning_rate) == (gsm8k.BLOCKS[name].temperature, float(gsm8k.BLOCKS[name].learning_rate))
    assert config.evals.temperature == 1
    assert "selftrain compare --sources reference majority ema" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("share", "high", "said"),
    [
        (0.7, -0.02, "ema reaches 70.0 % [60.0, 80.0] of the labelled gain: at least 60 %; majority gains -8.0 % [-12.0, -2.0] (points of avg@4): it loses"),
        (0.5, 0.02, "ema reaches 50.0 % [40.0, 60.0] of the labelled gain: NOT 60 %; majority gains -8.0 % [-12.0, 2.0] (points of avg@4): no loss"),
    ],
)
def test_the_verdict_on_the_gsm8k_rows(load: Load, tmp_path: Path, share: float, high: float, said: str) -> None:
    gain = {"avg": {"end": {"value": -0.08, "low": -0.12, "high": high}}}
    rows = [
        {"source": "reference", "gain": gain, "share_of_reference_gain": None},
        {"source": "ema", "gain": gain, "share_of_reference_gain": {"value": share, "low": share - 0.1, "high": share + 0.1}},
        {"source": "majority", "gain": gain, "share_of_reference_gain": None},
    ]
    (tmp_path / "comparison.json").write_text(json.dumps({"starts": [{"sources": rows}]}))
    assert load("gsm8k").verdict(tmp_path) == said


def found(rights: dict[str, int]) -> Evaluation:
    """An evaluation of 16 samples with so many right ones by prompt id; the vote is right from 9 on."""
    results = tuple(
        ProblemResult(prompt_id, right, 16, 0, VoteResult.RIGHT if right > 8 else VoteResult.WRONG, float(right > 8), 0.5, 9.0)
        for prompt_id, right in rights.items()
    )
    return Evaluation("0:0", "task", "0" * 64, 16, 1.0, 1.0, 64, results)


def test_the_table_of_a_climb(load: Load, lessons: ModuleType) -> None:
    """Levels are told apart by prompt ids, new problems by their size; gains are those on level k + 2 from the start to the end."""
    report, climb = load("climb_report"), lessons.CLIMBS["letters"]
    ids = [f"gym-letter_counting-{level}/{name}" for level in (0, 1, 2) for name in ("short", "long")]
    sizes = dict(zip(ids, (5, 7, 6, 9, 7, 11), strict=True))
    start, middle = found(dict(zip(ids, (16, 8, 8, 0, 8, 0), strict=True))), found(dict(zip(ids, (16, 16, 16, 8, 8, 4), strict=True)))
    ends = {"majority": (16, 16, 16, 8, 16, 12), "frozen": (16, 16, 16, 8, 0, 12), "reference": (16, 16, 16, 16, 16, 16)}
    arms = [
        report.Arm(
            name, {(0, report.POINTS[0]): start, (0, report.POINTS[1]): middle, (0, report.POINTS[2]): found(dict(zip(ids, end, strict=True)))}, 30, sizes
        )
        for name, end in ends.items()
    ]
    lines = [[cell.split(" [")[0].strip() for cell in line.split("|")[1:-1]] for line in report.page(arms, climb, [0]) if line.startswith("|")]
    assert ["the start", "level 0, supervised", "75.0", "50.0", "25.0", "0.0", "25.0", "0.0", "0.0", "0.0"] in lines
    assert ["majority", "level 1", "100.0", "100.0", "75.0", "50.0", "37.5", "0.0", "25.0", "0.0"] in lines
    assert ["majority", "level 2", "100.0", "100.0", "75.0", "50.0", "87.5", "100.0", "75.0", "100.0"] in lines
    assert ["majority", "+62.5", "+50.0", "83 %", "2 / 0"] in lines
    assert ["frozen", "+12.5", "", "17 %", "1 / 0"] in lines
    assert ["reference", "+75.0", "+62.5", "", "2 / 0"] in lines
    drawn = ElementTree.fromstring(report.figure(arms, climb))
    assert len(drawn.findall("{http://www.w3.org/2000/svg}svg")) == 3
