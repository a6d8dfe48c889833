"""Functions of the user's: what they must keep, and an error that names the option for each way in which they do not."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from selftrain.config_load import load_config
from selftrain.errors import ConfigError
from selftrain.extension import checked, resolve, source_hash
from selftrain.labels import Bounds
from selftrain.ledger import read
from selftrain.policies.base import ExtraRequest
from selftrain.replay import replay
from selftrain.run import read_config, start, train_to_end
from selftrain.types import Label, Outcome, Role
from tests.builders import voted

SMALL = {
    "policy.model": "toy",
    "labels.source": "majority",
    "run.num_steps": 2,
    "rollout.prompts_per_step": 4,
    "rollout.num_votes": 4,
    "evals.num_problems": 4,
    "evals.num_samples": 2,
    "update.learning_rate": 0.1,
}
RIGHT: dict[str, Any] = {"serves": np.int64(0), "role": Role.VIEW, "count": np.int64(2), "policy": "base", "params": None}
RULES = """
from fractions import Fraction
from selftrain.labels.majority import majority
from selftrain.types import Label, Outcome, Role

def raises(*_): raise KeyError("boom")
def none(*_): return None
def nan(*_): return float("nan")
def short(*_): return (1.0,)
def infinite(rewards): return [float("inf")] * len(rewards)
def whole(*_): return 1
def one_label(voted, bounds): return majority(voted[:1], bounds)
def told(voted, bounds): return [Label(Outcome.DECIDED, ("1",) * one.vote.num_votes, "told", "a friend", uses_truth=True) for one in voted]
def label(one, **more): return Label(Outcome.DECIDED, ("1",) * one.vote.num_votes, "mine", "vote", **more)
def numbered(voted, bounds): return [Label(Outcome.DECIDED, (1,) * one.vote.num_votes, "mine", "vote") for one in voted]
def nobody(voted, bounds): return [Label(Outcome.DECIDED, ("1",) * one.vote.num_votes, None, "s") for one in voted]
def negative(voted, bounds): return [label(one, weight=-1) for one in voted]
def shifted(voted, bounds): return [label(one, offset=float("inf")) for one in voted]
def valued(voted, bounds): return [label(one, values=(1.0,), notes=("right",)) for one in voted]
def silent(voted, bounds): return [label(one, values=(1.0,) * one.vote.num_votes) for one in voted]
def worded(voted, bounds): return [label(one, values=("1",) * one.vote.num_votes, notes=("right",) * one.vote.num_votes) for one in voted]
def narrow(voted, bounds): return [Label(Outcome.DECIDED, ("1",), "narrow", "vote") for one in voted]
def listed(voted, bounds): return [Label(Outcome.DECIDED, [one.vote.counts[0][0]] * one.vote.num_votes, "listed", "vote") for one in voted]
def lettered(voted, bounds): return [Label(Outcome.DECIDED, "1" * one.vote.num_votes, "lettered", "vote") for one in voted]
def unnamed(voted, bounds): return [Label("decided", ("1",) * one.vote.num_votes, "unnamed", "vote") for one in voted]
def untold(voted, bounds): return [label(one, values=[1] * one.vote.num_votes, notes=[None] * one.vote.num_votes) for one in voted]
def halved(voted, bounds): return [label(one, weight=Fraction(1, 2), values=[1] * one.vote.num_votes, notes=["why"] * one.vote.num_votes) for one in voted]
def one_key(answers): return ("a",)
def numbers(answers): return [1 for _ in answers]
def all_keys(answers): return ["a" for _ in answers]
def no_keys(answers): return [None for _ in answers]
def by_length(answers): return [None if answer is None else str(len(answer)) for answer in answers]
def of_the_step(voted, bounds): return [Label(Outcome.DECIDED, (str(len(voted)),) * one.vote.num_votes, "step", "vote") for one in voted]
"""


@pytest.fixture
def rules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a module with functions that do and do not keep their signatures."""
    name = f"rules_{abs(hash(tmp_path)):x}"
    (tmp_path / f"{name}.py").write_text(RULES)
    (tmp_path / f"{name}_broken.py").write_text("def f(:\n")
    (tmp_path / f"{name}_leaves.py").write_text("raise SystemExit(3)\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    return name


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("_broken:f", "it cannot be imported (SyntaxError"),
        ("_leaves:f", "it cannot be imported (SystemExit: 3)"),
        ("_gone:f", "it cannot be imported (ModuleNotFoundError"),
        (":gone", "it cannot be imported (AttributeError"),
        (":RULES", "it cannot be imported"),
        (":__doc__", "it is not a function"),
    ],
)
def test_a_function_that_cannot_be_imported(rules: str, name: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        resolve("reward.rule", f"{rules}{name}", {})
    assert caught.value.given == f"reward.rule = {rules}{name}"
    assert caught.value.why.startswith(words)


@pytest.mark.parametrize(("name", "words"), [(":f", "ValueError"), ("math:fsum", "the module math has no Python source")])
def test_a_name_without_a_module_or_a_source(name: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        resolve("reward.rule", name, {})
    if name == "math:fsum":
        with pytest.raises(ConfigError, match=words):
            source_hash(name, {})


@pytest.mark.parametrize(
    ("option", "function", "args", "words"),
    [
        ("reward.rule", "raises", (None, None, 0), "it raised KeyError: 'boom'"),
        ("reward.rule", "none", (None, None, 0), "it returned None, not a finite number"),
        ("reward.rule", "nan", (None, None, 0), "it returned nan, not a finite number"),
        ("advantage.rule", "none", ((1.0, 0.0),), "it returned None, not one advantage per reward"),
        ("advantage.rule", "short", ((1.0, 0.0),), "it returned 1 advantages for 2 rewards"),
        ("advantage.rule", "infinite", ((1.0, 0.0),), "one of its advantages is inf, not a finite number"),
        ("labels.clustering", "raises", (["x", None],), "it raised KeyError: 'boom'"),
        ("labels.clustering", "none", (["x", None],), "it returned None, not one key per answer"),
        ("labels.clustering", "one_key", (["x", None],), "it returned 1 keys for 2 answers"),
        ("labels.clustering", "numbers", (["x", "y"],), "one of its keys is 1, not a text"),
        ("labels.clustering", "all_keys", (["x", None],), "it gave a key where there is no answer: 'a'"),
        ("labels.clustering", "no_keys", (["x", None],), "it gave no key for an answer: 'x'"),
        ("labels.source", "none", ([voted(["1"])], Bounds()), "it returned None, not a list of labels"),
        ("labels.source", "one_label", ([voted(["1"]), voted(["2"])], Bounds()), "it returned 1 labels for 2 groups"),
        ("labels.source", "narrow", ([voted(["1", "2"])], Bounds()), "its label for prompt p0 has 1 targets for 2 completions"),
        ("labels.source", "numbered", ([voted(["1"])], Bounds()), "its label for prompt p0 has the target 1, not the text of an answer key or None"),
        ("labels.source", "nobody", ([voted(["1"])], Bounds()), "its label for prompt p0 has source None and decided_by 's', and both are texts"),
        ("labels.source", "negative", ([voted(["1"])], Bounds()), "has weight -1 and offset 0.0"),
        ("labels.source", "shifted", ([voted(["1"])], Bounds()), "has weight 1.0 and offset inf"),
        ("labels.source", "valued", ([voted(["1", "2"])], Bounds()), "has 1 values and 1 notes for 2 completions"),
        ("labels.source", "silent", ([voted(["1", "2"])], Bounds()), "has 2 values and 0 notes for 2 completions"),
        ("labels.source", "lettered", ([voted(["1", "2"])], Bounds()), "has the targets '11', not a tuple"),
        ("labels.source", "unnamed", ([voted(["1"])], Bounds()), "has the outcome 'decided', not one of Outcome"),
        ("labels.source", "untold", ([voted(["1"])], Bounds()), "has the note None, not a text"),
        ("labels.source", "worded", ([voted(["1"])], Bounds()), "has the value '1', not a finite number"),
        ("labels.source", "told", ([voted(["1"])], Bounds()), "says that a true answer touched it (uses_truth)"),
    ],
)
def test_a_function_that_does_not_keep_its_signature(rules: str, option: str, function: str, args: tuple[Any, ...], words: str) -> None:
    outside: Any = resolve(option, f"{rules}:{function}", {})
    with pytest.raises(ConfigError) as caught:
        outside(*args)
    assert caught.value.given == f"{option} = {rules}:{function}"
    assert words in caught.value.why


class Loud:
    def __call__(self, *_: Any) -> Any:
        raise self.error

    def __init__(self, error: BaseException) -> None:
        self.error = error


@pytest.mark.parametrize("error", [SystemExit(7), GeneratorExit(), OSError("gone")])
def test_whatever_a_function_raises_names_its_option(error: BaseException) -> None:
    with pytest.raises(ConfigError, match=f"it raised {type(error).__name__}: "):
        checked("reward.rule", "reward.rule = a:b", Loud(error))(1)


def test_the_loops_own_lists_cannot_be_changed() -> None:
    groups = [voted("1", "1"), voted("2", "2")]
    source = checked("labels.source", "labels.source = a:b", lambda given, _bounds: given.pop())
    with pytest.raises(ConfigError, match="'tuple' object has no attribute 'pop'"):
        source(groups, Bounds())
    assert len(groups) == 2


@pytest.mark.parametrize("value", [10**400, Fraction(10**400), -1e308, float("nan"), float("inf"), np.float32("inf"), np.float16("-inf"), "1"])
def test_a_reward_is_a_number_that_can_be_added_up(value: Any) -> None:
    with pytest.raises(ConfigError, match="not a finite number of at most 1e100"):
        checked("reward.rule", "reward.rule = a:b", lambda: value)()
    assert checked("reward.rule", "reward.rule = a:b", lambda: -(10**100))() == -1e100
    assert [checked("reward.rule", "reward.rule = a:b", lambda one=one: one)() for one in (np.float32(1), Fraction(1, 2), np.int8(-3), True)] == [1, 0.5, -3, 1]


@pytest.mark.parametrize("name", ["rules.py:f", "./rules.py:f", "/somewhere/rules:f"])
def test_a_module_named_by_its_file_says_how_it_is_written(name: str) -> None:
    with pytest.raises(ConfigError, match="as it is imported, not by its file\n  Write rules:f and call it in the folder"):
        resolve("reward.rule", name, {})


def test_a_file_of_this_folder_that_has_the_name_of_another_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "json.py").write_text("def f(one): return 1.0\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"The module of that name is .*/json/__init__.py: give json.py of this folder another name"):
        resolve("reward.rule", "json:f", {})


def test_good_values_pass(rules: str) -> None:
    reward: Any = resolve("reward.rule", f"{rules}:whole", {})
    source: Any = resolve("labels.source", f"{rules}:of_the_step", {})
    assert reward(None, None, 0) == 1.0
    assert source([voted(["1", "2"])], Bounds()) == [Label(Outcome.DECIDED, ("1", "1"), "step", "vote")]


def test_a_clustering_of_the_users_is_in_the_header_and_its_errors_name_it(rules: str, tmp_path: Path) -> None:
    clustered = {**SMALL, "run.folder": str(tmp_path), "run.name": "r", "labels.clustering": f"{rules}:by_length"}
    train_to_end(load_config(overrides=clustered))
    assert list(read(tmp_path / "r").header["outside_code"]) == ["labels.clustering"]
    assert {key for one in read(tmp_path / "r").groups(0) for key in one.voted.answers.keys} <= {"1", "2", "5", "6", "7"}
    with pytest.raises(ConfigError, match="it raised KeyError") as caught:
        train_to_end(load_config(overrides={**clustered, "run.name": "s", "labels.clustering": f"{rules}:raises"}))
    assert caught.value.given == f"labels.clustering = {rules}:raises"


def test_a_label_touched_by_truth_stops_a_label_free_run(rules: str, tmp_path: Path) -> None:
    config = load_config(overrides={**SMALL, "run.folder": str(tmp_path), "run.name": "r", "labels.source": f"{rules}:told"})
    with pytest.raises(ConfigError, match="the run is recorded as label-free"):
        train_to_end(config)
    assert not list(read(tmp_path / "r").steps())


@pytest.mark.parametrize("options", [{"first_of.sources": ["MODULE:told", "majority"]}, {"mixture.weights": {"MODULE:told": 1.0, "majority": 1.0}}])
def test_a_label_source_inside_a_composition_keeps_the_same_rules(rules: str, tmp_path: Path, options: dict[str, Any]) -> None:
    ((option, names),) = options.items()
    inside = [name.replace("MODULE", rules) for name in names]
    given = inside if isinstance(names, list) else dict.fromkeys(inside, 1.0)
    composed = {**SMALL, "run.folder": str(tmp_path), "labels.source": option.partition(".")[0], option: given}
    with pytest.raises(ConfigError, match="says that a true answer touched it") as caught:
        train_to_end(load_config((), composed))
    assert caught.value.given == f"{option} = {rules}:told"


def test_every_outside_source_of_a_composition_is_in_the_header(rules: str, tmp_path: Path) -> None:
    sources = [f"{rules}:of_the_step", f"{rules}_more:vote"]
    (tmp_path / f"{rules}_more.py").write_text("from selftrain.labels.majority import majority\ndef vote(voted, bounds): return majority(voted, bounds)\n")
    options = {**SMALL, "run.folder": str(tmp_path), "run.name": "r", "labels.source": "first_of", "first_of.sources": sources}
    start(load_config((), options)).ledger.close()
    hashes = read(tmp_path / "r").header["outside_code"]
    assert hashes == {f"first_of.sources={name}": source_hash(name, {}) for name in sources}
    assert len(set(hashes.values())) == 2


def test_a_label_source_of_the_users_that_remembers_is_refused(rules: str, tmp_path: Path) -> None:
    name = f"{rules}_kept"
    (tmp_path / f"{name}.py").write_text("from selftrain.labels.flip_damped import FlipDamped\nvote = FlipDamped()\n")
    for options in ({"labels.source": f"{name}:vote"}, {"labels.source": "first_of", "first_of.sources": [f"{name}:vote", "majority"]}):
        with pytest.raises(ConfigError, match="what a source of yours remembers is in no checkpoint"):
            start(load_config((), {**SMALL, "run.folder": str(tmp_path / "runs"), **options}))
    assert not (tmp_path / "runs").exists()


def test_a_label_source_that_looks_at_the_whole_step_is_replayed(rules: str, tmp_path: Path) -> None:
    config = load_config(overrides={**SMALL, "run.folder": str(tmp_path), "run.name": "r", "labels.source": f"{rules}:of_the_step"})
    train_to_end(config)
    ledger = read(tmp_path / "r")
    assert {one.label.targets[0] for one in ledger.groups(0)} == {"4"}
    found = replay(ledger, read_config(tmp_path / "r"))
    assert (found.groups.num_groups, found.groups.num_mismatches, found.agrees) == (8, 0, True)


def test_a_function_that_is_refused_leaves_no_run_folder(rules: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="SyntaxError"):
        start(load_config(overrides={**SMALL, "run.folder": str(tmp_path / "runs"), "reward.rule": f"{rules}_broken:f"}))
    assert not (tmp_path / "runs").exists()


def test_what_a_label_of_the_users_holds_is_what_the_record_reads_back(rules: str, tmp_path: Path) -> None:
    half = resolve("labels.source", f"{rules}:halved", {})([voted(["1", "2"])], Bounds())[0]
    assert (half.targets, half.values, half.notes, half.weight) == (("1", "1"), (1.0, 1.0), ("why", "why"), 0.5)
    assert [type(value) for value in (half.weight, half.offset, *half.values)] == [float] * 4
    folder = train_to_end(load_config((), {**SMALL, "run.folder": str(tmp_path), "labels.source": f"{rules}:listed"})).folder
    assert replay(read(folder), read_config(folder)).agrees


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"role": "teacher"}, "the role 'teacher', which is not one of Role.TEACHER"),
        ({"role": Role.PROBE}, "which is not one of Role.TEACHER"),
        ({"policy": "start"}, "the policy 'start', which is not current, base or ema"),
        ({"serves": "0"}, "the serves '0', which is not the index of a vote group"),
        ({"prompt": "1+1"}, "the prompt '1+1', which is not a Prompt"),
        ({"count": 4.0}, "the count 4.0, which is not a whole number of completions"),
        ({"count": True}, "which is not a whole number of completions"),
        ({"params": "hot"}, "the params 'hot', which is not SamplingParams or None"),
    ],
)
def test_a_request_that_cannot_be_drawn_names_the_option(change: dict[str, Any], words: str) -> None:
    prompt = voted(["1"]).group.prompt
    request = ExtraRequest(**{"serves": 0, "role": Role.TEACHER, "prompt": prompt, "count": 2, **change})
    asks = checked("requests", "labels.source = mine:f", lambda *_: [request])
    with pytest.raises(ConfigError) as caught:
        asks([], Bounds())
    assert caught.value.given == "labels.source = mine:f"
    assert words in caught.value.why
    right = checked("requests", "labels.source = mine:f", lambda *_: [replace(request, **{**change, **RIGHT, "prompt": prompt})])([], Bounds())
    assert [(type(one.serves), type(one.count)) for one in right] == [(int, int)]
