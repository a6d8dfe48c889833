"""Verifiers: what they decide is the reward; whatever they do costs the completion they do it to, never the run."""

from __future__ import annotations

import base64
import linecache
import pickle
import time
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from selftrain import compose
from selftrain.compose_labels import truth_channels
from selftrain.config_load import load_config
from selftrain.errors import ConfigError, RunFolderError
from selftrain.evals import Evaluation
from selftrain.events import Evaluated
from selftrain.events import Outcome as Ended
from selftrain.labels import Bounds, Labelling
from selftrain.labels.composed import FirstOf
from selftrain.labels.majority import majority
from selftrain.labels.verified import verified
from selftrain.ledger import Status, read, verify
from selftrain.policies.toy import true_digit
from selftrain.prompts.loading import load_prompts
from selftrain.replay import replay
from selftrain.rollout import read_and_count
from selftrain.run import read_config, resume, start, train_to_end
from selftrain.seeds import Stream
from selftrain.train import StepReport
from selftrain.types import Check, Finish, Group, Message, Outcome
from selftrain.verifiers.pool import Limits, VerifierPool, read_check
from selftrain.verifiers.verification import Verification
from tests.builders import completion, group, voted
from tests.test_train import SMALL, config, finish, shuffled_truth

MODULE = """
import os, subprocess, sys, time
from decimal import Decimal
from numbers import Real
import numpy
from selftrain.policies.toy import true_digit

KEPT = []

def by_words(submission):
    words = submission.completion
    if "hang" in words:
        subprocess.Popen(["sleep", "60"])
        while True: pass
    if "allocate" in words: KEPT.append(bytearray(10**10))
    if "die" in words: os._exit(3)
    if "leave" in words: sys.exit(0)
    if "raise" in words: raise RuntimeError("no")
    if "listen" in words: return float(len(sys.stdin.read()))
    if "talk" in words: print('{"score": 1.0, "note": "verified"}'); return 0
    for word, value in {"none": None, "text": "1", "nan": float("nan"), "two": 2, "half": 0.5, "yes": True, "no": False}.items():
        if word in words: return value
    return submission.answer == "1"

def toy(submission):
    return submission.answer == str(true_digit(submission.prompt))

def sometimes(submission):
    if submission.answer == "0": os._exit(1)
    if submission.answer == "1": return "right"
    return toy(submission)

def forks(submission):
    if os.fork() == 0: sys.exit(0)
    time.sleep(0.05)
    return float(submission.answer)

def returns(submission):
    return {"1": numpy.bool_(True), "2": numpy.array(0.5), "3": Decimal("0.25"), "4": 10**400, "5": numpy.float32("nan"), "6": numpy.ones(1),
            "7": Decimal("nan"), "8": [10**6000]}[submission.answer]

def keeps(submission):
    # like a cache: nothing is ever given back
    size = {"1": 600, "2": 2000, "3": 3}[submission.answer]
    if submission.answer == "2" and "caught" in submission.completion:
        try:
            while True: KEPT.append(bytearray(2**20))
        except MemoryError: return 0.5
    if submission.answer == "3" and KEPT and "error" in submission.completion: raise RuntimeError("can't allocate memory")
    KEPT.append(bytearray(size * 2**20))
    return True

class Lying(float):
    def __new__(cls, value, told):
        made = float.__new__(cls, value)
        made.told = told
        return made
    def __float__(self): return self.told
    def __le__(self, other): return True
    def __ge__(self, other): return True

@Real.register
class Registered(Lying):
    pass

@Real.register
class Empty:
    def __le__(self, other): return True
    def __ge__(self, other): return True

def lies(submission):
    return {"1": Lying(0.5, float("nan")), "2": Lying(0.5, 7.0), "3": Registered(0.5, float("inf")), "4": Empty(), "5": Lying(9.0, 0.25)}[submission.answer]

def noisy(submission):
    return os.urandom(1)[0] % 2

def told(submission):
    return [submission.prompt_id, submission.prompt, submission.answer] == ["p0", "what?", None]
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    name = f"checks_{abs(hash(tmp_path)):x}"
    (tmp_path / f"{name}.py").write_text(MODULE)
    (tmp_path / f"{name}_large.py").write_text("KEPT = bytearray(10**10)\ndef check(submission): return 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    return name


@pytest.fixture
def pool(module: str) -> Iterator[VerifierPool]:
    made = VerifierPool(f"{module}:by_words", Limits(timeout_s=1.0, memory_mib=1024), num_workers=2)
    yield made
    made.close()


ANY_FAILURE = pytest.mark.filterwarnings("ignore:verifier.function:RuntimeWarning")


def verification(pool: VerifierPool, frac: float = 1.0, **more: Any) -> Verification:
    return Verification(pool, frac, Stream(0), {}, **more)


@ANY_FAILURE
def test_whatever_a_verifier_does_costs_one_completion(pool: VerifierPool) -> None:
    words = [
        "#### 1",
        "hang",
        "allocate",
        "die",
        "leave",
        "raise",
        "none",
        "text",
        "nan",
        "two",
        "half",
        "yes",
        "no",
        "listen",
        "talk",
        "#### 2",
        "again #### 1",
    ]
    one = read_and_count(Group(0, 0, group(["1"]).prompt, (1,), tuple(completion(text) for text in words)))
    begun = time.monotonic()
    (checked,) = verification(pool)([one])
    assert time.monotonic() - begun < 60
    found = dict(zip(words, checked.checks, strict=True))
    assert {word: check for word, check in found.items() if check.score is None} == {
        "hang": Check(None, "timed_out"),
        "allocate": Check(None, "out_of_memory"),
        **{word: Check(None, "crashed") for word in ("die", "leave", "raise")},
        **{word: Check(None, "no_score") for word in ("none", "text", "nan", "two")},
    }
    assert [found[word].score for word in ("#### 1", "again #### 1", "yes", "half", "no", "listen", "talk", "#### 2")] == [1, 1, 1, 0.5, 0, 0, 0, 0]
    assert [found[word].note for word in ("yes", "half", "no")] == ["verified", "partly_verified", "refuted"]
    (label,) = verified([checked], Bounds())
    assert (label.outcome, label.uses_truth, label.source, label.decided_by) == (Outcome.DECIDED, True, "verifier", "verifier")
    assert label.values == tuple(check.score or 0.0 for check in checked.checks)
    assert label.notes == tuple(check.note for check in checked.checks)


def test_a_process_that_a_verifier_forks_answers_nothing(module: str) -> None:
    """It shares the pipes: it would take requests and reply to others."""
    pool = VerifierPool(f"{module}:forks", Limits(5.0, 1024), num_workers=1)
    texts = [f"#### {index % 2}" + " " * index for index in range(6)]
    one = read_and_count(Group(0, 0, group(["1"]).prompt, (1,), tuple(completion(text) for text in texts)))
    for _ in range(2):
        assert [check.score for check in verification(pool)([one])[0].checks] == [0, 1, 0, 1, 0, 1]
    pool.close()


def test_numbers_of_other_libraries_are_scores(module: str) -> None:
    pool = VerifierPool(f"{module}:returns", Limits(5.0, 1024), num_workers=1)
    one = read_and_count(Group(0, 0, group(["1"]).prompt, (1,), tuple(completion(f"#### {index}") for index in range(1, 9))))
    with pytest.warns(RuntimeWarning, match=r"verifier.function = .*:returns: it returned 1000.* 5 of 8 submissions of this step have no score"):
        found = verification(pool)([one])[0].checks
    none = Check(None, "no_score")
    assert found == (Check(1.0, "verified"), Check(0.5, "partly_verified"), Check(0.25, "partly_verified"), none, none, none, none, none)
    pool.close()


def test_the_range_of_a_score_is_that_of_the_number_in_the_record(module: str) -> None:
    """Comparisons of an object may say anything, and its float() something else."""
    pool = VerifierPool(f"{module}:lies", Limits(5.0, 1024), num_workers=1)
    with pytest.warns(RuntimeWarning, match=r"it returned 0\.5, and a score is .* 4 of 5 submissions of this step have no score"):
        found = checks_of(pool, "#### 1", "#### 2", "#### 3", "#### 4", "#### 5")
    assert found == (*[Check(None, "no_score")] * 4, Check(0.25, "partly_verified"))
    pool.close()


@pytest.mark.parametrize("score", [float("nan"), float("inf"), 7.0, -0.5])
def test_a_reply_with_a_score_outside_the_range_is_none(score: float) -> None:
    assert read_check({"score": score, "note": "verified"}) == Check(None, "no_score")
    with pytest.raises(ValueError, match="True"):
        read_check({"score": True, "note": "verified"})


def checks_of(pool: VerifierPool, *texts: str) -> tuple[Check, ...]:
    one = read_and_count(Group(0, 0, group(["1"]).prompt, (1,), tuple(completion(text) for text in texts)))
    return verification(pool)([one])[0].checks


RIGHT, NO_MEMORY = Check(1.0, "verified"), Check(None, "out_of_memory")


def test_memory_that_runs_out_costs_one_completion_and_is_said_once(module: str) -> None:
    pool = VerifierPool(f"{module}:keeps", Limits(20.0, 1024), num_workers=1)
    with pytest.warns(RuntimeWarning, match="a completion needed more memory than verifier.memory_mib = 1024. 1 of 4 submissions") as told:
        assert checks_of(pool, "#### 3", "#### 2", " #### 3", "  #### 3") == (RIGHT, NO_MEMORY, RIGHT, RIGHT)
    assert len(told) == 1
    pool.close()


def test_memory_that_others_keep_costs_no_completion(module: str) -> None:
    """Each fits alone, and the process keeps what each took; nor does it help a function that it catches MemoryError."""
    pool = VerifierPool(f"{module}:keeps", Limits(20.0, 1024), num_workers=1)
    assert checks_of(pool, *["#### 1" + " " * index for index in range(4)]) == (RIGHT,) * 4
    assert checks_of(pool, "caught #### 2", "#### 3", " #### 3") == (Check(0.5, "partly_verified"), RIGHT, RIGHT)
    pool.close()


@ANY_FAILURE
def test_a_process_that_fails_with_its_memory_almost_gone_is_replaced(module: str) -> None:
    """Libraries have errors of their own for memory that cannot be had."""
    pool = VerifierPool(f"{module}:keeps", Limits(20.0, 1024), num_workers=1)
    assert checks_of(pool, "#### 1", "error #### 3", " error #### 3") == (RIGHT, Check(None, "crashed"), RIGHT)
    pool.close()


def test_what_a_verifier_raises_is_said_once(pool: VerifierPool) -> None:
    one = read_and_count(Group(0, 0, group(["1"]).prompt, (1,), (completion("raise"),)))
    with pytest.warns(RuntimeWarning, match="it raised RuntimeError: no. 1 of 1 submissions"):
        verification(pool)([one])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        verification(pool)([one])


SLOW_GYM = """
import time
time.sleep(2)

class Task:
    def __init__(self): time.sleep(2)
    def score_answer(self, answer, entry): return float(answer == entry)

DATASETS = {"slow": None}
def create_dataset(name, seed, size): return Task()
"""


def test_making_the_tasks_of_reasoning_gym_counts_against_no_completion(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The package takes seconds to import on a busy machine: the first check of each process would be cut off."""
    (tmp_path / "reasoning_gym").mkdir()
    (tmp_path / "reasoning_gym" / "__init__.py").touch()
    (tmp_path / "reasoning_gym" / "factory.py").write_text(SLOW_GYM)
    monkeypatch.syspath_prepend(str(tmp_path))
    entry = {"task": "slow", "level": None, "entry": base64.b64encode(pickle.dumps("1")).decode()}
    made = VerifierPool("gym", Limits(1.0, 1024), num_workers=1, tasks=[("slow", None)])
    one = read_and_count(Group(0, 0, group(["1"]).prompt, (1,), (completion("#### 1"), completion("#### 2"))))
    assert verification(made, entries={"p0": entry})([one])[0].checks == (Check(1.0, "verified"), Check(0.0, "refuted"))
    made.close()


def test_a_failure_of_reasoning_gym_names_no_option_that_nobody_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "reasoning_gym.py").write_text("raise ImportError('broken')")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ConfigError, match=r"^the verifier of reasoning-gym: it cannot be imported .*broken"):
        VerifierPool("gym", Limits(1.0, 1024), num_workers=1, tasks=[("slow", None)]).start()


@ANY_FAILURE
def test_a_process_that_hangs_is_killed_with_what_it_started(pool: VerifierPool) -> None:
    one = read_and_count(Group(0, 0, group(["1"]).prompt, (1,), (completion("hang"),)))
    pool.start()
    child = pool._workers[0]._process
    assert child is not None
    assert verification(pool)([one])[0].checks == (Check(None, "timed_out"),)
    deadline = time.monotonic() + 10
    while alive_in_group(child.pid) and time.monotonic() < deadline:
        time.sleep(0.05)  # a killed process that is nobody's child here still has to be scheduled once to die
    assert not alive_in_group(child.pid)


def alive_in_group(group_id: int) -> list[str]:
    """Processes of a group that still run; a killed one that nobody has waited for does not."""
    lines = [path.read_text().rpartition(")")[2].split() for path in Path("/proc").glob("[0-9]*/stat") if path.exists()]
    return [state for state, _, group, *_ in lines if int(group) == group_id and state not in "ZX"]


def test_long_and_strange_texts_get_through(pool: VerifierPool) -> None:
    one = read_and_count(Group(0, 0, group(["1"]).prompt, (1,), (completion("x" * 1_000_000 + " #### 1"), completion("\ud800\n\0 #### 1"))))
    assert verification(pool)([one])[0].checks == (Check(1.0, "verified"),) * 2


def test_what_it_is_told_and_what_it_is_not_asked(module: str) -> None:
    """An unread completion is submitted to a function of the user's, whose business the whole text may be; a truncated one never is."""
    pool = VerifierPool(f"{module}:told", Limits(5.0, 1024), num_workers=1)
    texts = (completion("hm"), completion("#### 1", Finish.LENGTH))
    one = read_and_count(Group(0, 0, group(["1"]).prompt, (1,), texts))
    (checked,) = Verification(pool, 1.0, Stream(0), {"p0": (Message("user", "what?"),)})([one])
    assert checked.checks == (Check(1.0, "verified"), Check(None, "truncated"))
    (checked,) = verification(pool, entries={"p0": {}})([one])
    assert checked.checks == (Check(None, "unread"), Check(None, "truncated"))
    pool.close()


def test_it_sees_a_fixed_share_of_the_prompts(pool: VerifierPool) -> None:
    stage = verification(pool, frac=0.2)
    seen = [stage.sees(voted(["1"], f"p{index}")) for index in range(2000)]
    assert sum(seen) / len(seen) == pytest.approx(0.2, abs=0.03)
    assert seen == [verification(pool, frac=0.2).sees(voted(["1"], f"p{index}")) for index in range(2000)]
    hidden = voted(["1"], next(f"p{index}" for index in range(2000) if not seen[index]))
    assert stage([hidden])[0].checks == ()
    (label,) = verified([hidden], Bounds())
    assert (label.outcome, label.uses_truth) == (Outcome.NO_VERIFIER, False)


@ANY_FAILURE
def test_a_group_without_any_score_is_undecided(pool: VerifierPool) -> None:
    one = read_and_count(Group(0, 0, group(["1"]).prompt, (1,), (completion("raise"), completion("none"))))
    (label,) = verified(verification(pool)([one]), Bounds())
    assert (label.outcome, label.uses_truth, label.values) == (Outcome.NO_VERDICT, True, ())


@ANY_FAILURE
def test_a_completion_it_was_not_asked_about_is_no_verdict(pool: VerifierPool) -> None:
    """A verifier that fails everywhere has decided nothing, also where a completion was cut off: the next source of a first_of has its turn."""
    texts = (completion("raise #### 1"), completion("raise #### 1"), completion("#### 1", Finish.LENGTH))
    one = read_and_count(Group(0, 0, group(["1"]).prompt, (1,), texts))
    checked = verification(pool)([one])
    (label,) = verified(checked, Bounds())
    assert (label.outcome, label.uses_truth) == (Outcome.NO_VERDICT, True)
    parts = {"verifier": verified, "majority": majority}
    (label,) = FirstOf({name: Labelling(source, None, Bounds()) for name, source in parts.items()})(checked, Bounds())
    assert (label.source, label.is_decided, label.uses_truth) == ("majority", True, True)
    asked = read_and_count(Group(0, 0, group(["1"]).prompt, (1,), (completion("#### 2"), completion("#### 1", Finish.LENGTH))))
    (label,) = verified(verification(pool)([asked]), Bounds())
    assert (label.values, label.notes) == ((0.0, 0.0), ("refuted", "truncated"))


FEW = {"run.num_steps": 2, "rollout.prompts_per_step": 6, "rollout.num_votes": 6}
"""a process that died costs the start of another"""


def small(module: str, function: str, **more: Any) -> dict[str, Any]:
    return {**SMALL, "labels.source": "verifier", "verifier.function": f"{module}:{function}", "run.num_steps": 6, **more}


@ANY_FAILURE
def test_a_run_is_recorded_as_what_it_is_and_replayed_without_the_verifier(tmp_path: Path, module: str) -> None:
    outcome = train_to_end(config(tmp_path, "a", small(module, "sometimes", **FEW)))
    ledger = read(outcome.folder)
    assert (ledger.header["label_free"], ledger.header["truth_channels"], ledger.header["class"]) == (False, ["labels.source=verifier"], "replayable")
    assert ledger.header["answers_hash"] is None
    assert set(ledger.header["outside_code"]) == {"verifier.function"}
    notes = set()
    for step in ledger.group_steps():
        for one in ledger.groups(step):
            assert one.label.uses_truth
            for answer, check, reward in zip(one.voted.answers.texts, one.voted.checks, one.rewards.values, strict=True):
                notes.add(check.note)
                expected = {"0": (None, "crashed"), "1": (None, "no_score")}.get(str(answer))
                right = answer == str(true_digit(one.voted.group.prompt.text))
                assert (check.score, check.note) == (expected or ((1.0, "verified") if right else (0.0, "refuted")))
                assert reward == (check.score or 0.0)
    assert notes == {"verified", "refuted", "crashed", "no_score"}
    (tmp_path / f"{module}.py").unlink()
    found = replay(ledger, read_config(outcome.folder))
    assert found.agrees, found.groups.mismatches
    assert verify(outcome.folder).status is Status.INTACT


def test_a_run_that_was_cut_off_ends_like_one_that_was_not(tmp_path: Path, module: str) -> None:
    options = small(module, "toy", **{"verifier.frac": 0.5, "run.checkpoint_every_steps": 2})
    expected = train_to_end(config(tmp_path, "whole", options))
    run = start(config(tmp_path, "cut", options))
    for event in run.events():
        if isinstance(event, StepReport) and event.metrics.step == 4:
            break
    run.ledger.close()
    outcome = finish(resume(tmp_path / "cut"))
    assert outcome.head == expected.head
    assert not list(read(outcome.folder).forks())
    shares = [one.label.outcome for step in read(outcome.folder).group_steps() for one in read(outcome.folder).groups(step)]
    assert 0.3 < shares.count(Outcome.NO_VERIFIER) / len(shares) < 0.7


def test_what_was_measured_of_records_that_are_given_up_is_measured_anew(tmp_path: Path, module: str) -> None:
    """The verifier says something else the second time, so the resumed run makes other records, and other weights, than those that were there."""
    options = small(module, "noisy", **{"run.num_steps": 10, "run.checkpoint_every_steps": 4, "run.num_checkpoints": 9, "evals.every_steps": 2})
    run = start(config(tmp_path, "a", options | {"validation.task": "toy", "validation.num_problems": 16, "guard.action": "off"}))
    for event in run.events():
        if isinstance(event, StepReport) and event.metrics.step == 8:
            break
    there = ["before", "validation-start", "step-000002", "step-000004", "validation-step-000004"]
    gone = ["step-000006", "step-000008", "validation-step-000008"]
    assert [one["name"] for one in read(run.folder).evals()] == [*there, *gone]
    (run.folder / "checkpoints" / "step-000008" / "toy.json").write_text("{}")
    *events, outcome = resume(run.folder).events()
    assert isinstance(outcome, Ended)
    measured = {event.name: event.evaluation for event in events if isinstance(event, Evaluated)}
    assert [name for name in measured if name != "after"] == [*gone, "validation-step-000010"]
    recorded = {one["name"]: Evaluation.from_json(one["evaluation"]) for one in read(run.folder).evals()}
    assert list(recorded) == [*there, *measured]
    assert {name: recorded[name] for name in measured} == measured
    avgs = {name.removeprefix("validation-"): one.avg.value for name, one in recorded.items() if name.startswith("validation-")}
    assert avgs[outcome.handed_over] == max(avgs.values())
    assert outcome.after == measured.get("after", recorded["before"])
    assert verify(run.folder, outcome.head).status is Status.INTACT


def test_changed_true_answers_do_not_reach_a_run_with_a_verifier(tmp_path: Path, module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer sheet is another channel than the verifier."""
    honest = train_to_end(config(tmp_path, "a", small(module, "toy")))
    real = compose.load_sets
    monkeypatch.setattr(
        "selftrain.run.load_sets", lambda config: compose.Problems(shuffled_truth(real(config).train), real(config).held_out, aside=real(config).aside)
    )
    assert train_to_end(config(tmp_path, "b", small(module, "toy"))).head == honest.head


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "these prompts have no verifier of their own, and verifier.function names none"),
        ({"verifier.function": "gone_module:f"}, "it cannot be imported (ModuleNotFoundError"),
        ({"verifier.function": "MODULE:gone"}, "it cannot be imported (AttributeError"),
        ({"verifier.function": "MODULE:toy", "reward.rule": "share"}, "gives the rewards itself"),
        ({"verifier.function": "MODULE:toy", "verifier.memory_mib": 64}, "it cannot be imported in its process under verifier.memory_mib = 64"),
    ],
)
def test_what_is_missing_is_said_before_the_first_sample(tmp_path: Path, module: str, options: Mapping[str, Any], words: str) -> None:
    given = {name: value.replace("MODULE", module) if isinstance(value, str) else value for name, value in options.items()}
    with pytest.raises(ConfigError) as caught:
        start(config(tmp_path, "a", {**SMALL, "labels.source": "verifier", **given}))
    assert words in caught.value.why or "ended while it was imported" in caught.value.why
    assert all((caught.value.given, caught.value.do))
    assert not (tmp_path / "a").exists()


def test_a_changed_verifier_is_refused(tmp_path: Path, module: str) -> None:
    start(config(tmp_path, "a", small(module, "toy"))).ledger.close()
    file = tmp_path / f"{module}.py"
    file.write_text(MODULE + "# changed\n")
    linecache.checkcache()
    with pytest.raises(RunFolderError, match="the functions of yours"):
        resume(tmp_path / "a")


def test_the_verifier_of_a_gym_task() -> None:
    pytest.importorskip("reasoning_gym")
    overrides = {"prompts.task": "gym:basic_arithmetic", "prompts.count": 4, "labels.source": "verifier", "policy.model": "embedded:default"}
    options = load_config(overrides=overrides)
    prompts = load_prompts(options.prompts, 0)
    assert truth_channels(options) == ["labels.source=verifier"]
    stage = compose.make_verification(options, prompts)
    assert isinstance(stage, Verification)
    assert stage.pool._workers[0]._tasks == (("basic_arithmetic", None),)
    first, second = prompts.prompts[:2]
    right = str(prompts.sheet.answer_of(first.id))
    groups = [
        Group(0, index, prompt, (1,), (completion(f"#### {right}"), completion("#### 123456"), completion("hm")))
        for index, prompt in enumerate((first, second))
    ]
    checks = [one.checks for one in stage([read_and_count(one) for one in groups])]
    assert checks[0][0] == Check(1.0, "verified")
    assert checks[0][1].score is not None
    assert checks[0][1].score < 1
    assert [check[2] for check in checks] == [Check(None, "unread")] * 2
    stage.pool.close()
