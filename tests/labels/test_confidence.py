"""Confidence as the reward: values by hand and against the policy's own distributions, truncated completions, what the record keeps, who pays."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from selftrain.advantage import grpo, rloo
from selftrain.config_load import load_config
from selftrain.errors import ConfigError, SamplerError
from selftrain.evals import training_accuracy
from selftrain.labels import Bounds
from selftrain.labels.confidence import self_certainty, token_entropy
from selftrain.ledger import read
from selftrain.policies.base import SampleRequest, SamplingParams
from selftrain.policies.toy import ToyPolicy, log_softmax
from selftrain.policies.toy import problems as toy_problems
from selftrain.query import open_run
from selftrain.replay import replay
from selftrain.reward import match
from selftrain.run import read_config, start, train_to_end
from selftrain.scoring import Scorer
from selftrain.seeds import Stream
from selftrain.types import AnswerSheet, Finish, Label, Outcome, ScoredGroup, VotedGroup
from tests.builders import voted
from tests.test_train import SMALL, config

QUICK = {**SMALL, "run.num_steps": 4, "policy.model": "toy:sure"}
"""the toy of which some completions are surer than others"""
STOP, LENGTH = Finish.STOP, Finish.LENGTH


def sure(*completions: tuple[Finish, tuple[float, ...]]) -> VotedGroup:
    """A group whose completions have these entropies, and these certainties, whatever was read in them."""
    one = voted(["1", None, "2", "2"][: len(completions)])
    done = tuple(
        replace(base, finish=finish, entropies=values, certainties=values) for base, (finish, values) in zip(one.group.completions, completions, strict=True)
    )
    return replace(one, group=replace(one.group, completions=done))


def test_the_reward_is_the_mean_over_tokens_and_needs_no_answer() -> None:
    """Means 2, 0.5 and 1: their mean is 7/6; the second completion has no readable answer."""
    group = sure((STOP, (1.0, 3.0)), (STOP, (0.5,)), (STOP, (0.0, 1.0, 2.0)))
    entropy, certainty = token_entropy([group], Bounds(min_read_frac=1.0))[0], self_certainty([group], Bounds())[0]
    assert (entropy.values, entropy.notes) == ((-2.0, -0.5, -1.0), ("below_mean", "above_mean", "above_mean"))
    assert (certainty.values, certainty.notes) == ((2.0, 0.5, 1.0), ("above_mean", "below_mean", "below_mean"))
    assert (entropy.source, entropy.decided_by, entropy.key, entropy.uses_truth) == ("token_entropy", "entropy 0:3", None, False)
    assert (certainty.source, certainty.decided_by, certainty.outcome) == ("self_certainty", "certainty 0:3", Outcome.DECIDED)


def test_a_truncated_completion_is_never_the_best() -> None:
    """The surest of all was cut off: it gets what the least sure of those that ended gets."""
    group = sure((LENGTH, (9.0,)), (STOP, (2.0,)), (STOP, (4.0,)), (LENGTH, (0.1,)))
    assert self_certainty([group], Bounds())[0].values == (2.0, 2.0, 4.0, 2.0)
    label = token_entropy([group], Bounds())[0]
    assert (label.values, label.notes) == ((-4.0, -2.0, -4.0, -4.0), ("truncated", "above_mean", "below_mean", "truncated"))
    none = token_entropy([sure((LENGTH, (1.0,)), (LENGTH, (2.0,)))], Bounds())[0]
    assert (none.values, none.notes) == ((0.0, 0.0), ("truncated", "truncated"))


def test_equal_completions_are_neither_above_nor_below() -> None:
    """0.1 added up three times is not 0.3 as a number."""
    label = self_certainty([sure(*[(STOP, (0.1, 0.1, 0.1))] * 3)], Bounds())[0]
    assert set(label.notes) == {"below_mean"}
    assert len(set(label.values)) == 1


def test_a_sampler_that_gives_no_statistics_is_named() -> None:
    group = sure((STOP, ()), (STOP, ()))
    for source in (token_entropy, self_certainty):
        with pytest.raises(SamplerError, match="does not give what it is made from") as caught:
            source([group], Bounds())
        assert caught.value.given == f"labels.source = {source.__name__}"
    with pytest.raises(SamplerError, match="some tokens of its vocabulary probability 0"):
        self_certainty([sure((STOP, (1.0, math.inf)))], Bounds())


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_the_toys_statistics_are_those_of_its_distributions(temperature: float) -> None:
    """-(1/V) sum_v log(V p_v), written out, of the style word and of the answer, which is the sharper the later the style word is."""
    policy, (prompt,) = ToyPolicy("toy:sure", load_config(overrides={"policy.model": "toy"}).update), toy_problems(1).prompts
    policy.weights[2:5] = 0.3, 0.0, -0.2  # other style words than equally likely ones
    params = SamplingParams(2, temperature, certainties=True)
    (group,) = policy.sample([SampleRequest(prompt, 12, 0, 0)], params, Stream(0))
    styles, answers = (logits / temperature for logits in policy.logits(policy.encode(prompt), policy.weights))
    for done in group.completions:
        tables = [np.exp(log_softmax(styles)), np.exp(log_softmax(answers * (0.5, 1.0, 2.0)[done.token_ids[0]]))]
        assert done.certainties == pytest.approx([-sum(math.log(len(table) * p) for p in table) / len(table) for table in tables], rel=1e-6)
        assert done.entropies == pytest.approx([-sum(p * math.log(p) for p in table) for table in tables], rel=1e-6)
    assert {done.token_ids[0] for done in group.completions} == {0, 1, 2}
    assert len({done.certainties for done in group.completions}) == 3
    (cut,) = policy.sample([SampleRequest(prompt, 1, 0, 0)], replace(params, max_new_tokens=1), Stream(0))
    assert len(cut.completions[0].certainties) == 1
    (plain,) = policy.sample([SampleRequest(prompt, 12, 0, 0)], replace(params, certainties=False), Stream(0))
    assert [done.certainties for done in plain.completions] == [()] * 12
    assert [replace(done, certainties=()) for done in group.completions] == list(plain.completions)


def test_the_gradient_of_the_sharpened_toy_is_that_of_its_log_probabilities() -> None:
    """Against finite differences, for each style word."""
    policy = ToyPolicy("toy:sure", load_config(overrides={"policy.model": "toy"}).update)
    weights = policy.weights + np.linspace(-0.4, 0.4, len(policy.weights))
    for style in range(3):
        ids = (style, 5)
        _, gradients = policy.token_logprobs((3,), ids, 0.7, weights)
        for index in range(len(weights)):
            up, down = (policy.token_logprobs((3,), ids, 0.7, weights + sign * 1e-5 * np.eye(len(weights))[index])[0] for sign in (1, -1))
            assert gradients[:, index] == pytest.approx((up - down) / 2e-5, abs=1e-6)


def test_only_a_run_that_asks_has_certainties_in_its_record(tmp_path: Path) -> None:
    """Its votes are the same draws; the column is in no other record, and extra samples have none."""
    asked = {**QUICK, "labels.source": "mixture", "mixture.weights": {"frozen": 1.0, "self_certainty": 1.0}}
    folders = {name: train_to_end(config(tmp_path, name, options)).folder for name, options in {"asks": asked, "not": QUICK}.items()}
    files = {name: folder / "ledger/segments/000001.completions.parquet" for name, folder in folders.items()}
    assert set(pq.read_schema(files["asks"]).names) - set(pq.read_schema(files["not"]).names) == {"certainties"}
    asks, plain = (read(folder).groups(0) for folder in folders.values())
    assert all(len(done.certainties) == len(done.token_ids) for one in asks for done in one.voted.group.completions)
    assert {done.certainties for one in asks for extra in one.voted.group.extras for done in extra.group.completions} == {()}
    assert [replace(done, certainties=()) for done in asks[0].voted.group.completions] == list(plain[0].voted.group.completions)
    metrics = [next(iter(read(folder).steps())).metrics.values for folder in folders.values()]
    assert (metrics[0]["policy/certainty_mean_nats"] > 0, "policy/certainty_mean_nats" in metrics[1]) == (True, False)
    sql = "select count(certainties), count(*) from completions where role = 'vote'"
    for name, folder in folders.items():
        with open_run(folder) as database:
            ((number, every),) = database.query(sql).rows
        assert number == (every if name == "asks" else 0)


def test_replay_finds_a_reward_that_does_not_follow_from_the_tokens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outcome = train_to_end(config(tmp_path, "a", {**QUICK, "labels.source": "self_certainty"}))
    ledger = read(outcome.folder)
    recorded = ledger.groups

    def altered(step: int, branch: int | None = None) -> list[object]:
        first, *others = recorded(step, branch)
        group = first.voted.group
        done = replace(group.completions[0], certainties=tuple(2 * value + 1 for value in group.completions[0].certainties))
        return [replace(first, voted=replace(first.voted, group=replace(group, completions=(done, *group.completions[1:])))), *others]

    assert replay(ledger, read_config(outcome.folder)).agrees
    monkeypatch.setattr(ledger, "groups", altered)
    found = replay(ledger, read_config(outcome.folder)).groups
    assert {(one.group_index, one.name) for one in found.mismatches} == {(0, "label")}


@pytest.mark.parametrize("source", ["token_entropy", "self_certainty"])
def test_a_run_becomes_surer(tmp_path: Path, source: str) -> None:
    """It learns what it is rewarded for, whatever the answers: it says the style word after which it is sure."""
    outcome = train_to_end(config(tmp_path, "a", {**QUICK, "run.num_steps": 20, "guard.action": "off", "advantage.rule": "grpo", "labels.source": source}))
    entropy = [step.metrics.values["policy/entropy_mean_nats"] for step in read(outcome.folder).steps()]
    assert entropy[-1] < entropy[0] - 0.2
    first, *_, last = (read(outcome.folder).groups(step) for step in range(20))
    spoken = [[done.token_ids[0] for one in groups for done in one.voted.group.completions] for groups in (first, last)]
    assert spoken[0].count(2) / len(spoken[0]) < 0.45
    assert spoken[1].count(2) / len(spoken[1]) > 0.8


def test_grpo_makes_the_scale_of_the_reward_irrelevant() -> None:
    """Nats or hundredths of them: divided by the group's deviation the advantages are the same, which rloo's are not."""
    values = self_certainty([sure((STOP, (1.0,)), (STOP, (2.0,)), (STOP, (4.0,)))], Bounds())[0].values
    small = [value / 100 for value in values]
    assert grpo(small) == pytest.approx(grpo(values), abs=1e-3)
    assert rloo(small) == pytest.approx([value / 100 for value in rloo(values)])


def test_proxy_accuracy_asks_who_is_above_the_mean(tmp_path: Path) -> None:
    """The true answer is 2: the third and fourth completions are right, the first and fourth are surer than the mean."""
    group = sure((STOP, (4.0,)), (STOP, (1.0,)), (STOP, (2.0,)), (STOP, (5.0,)))
    label = self_certainty([group], Bounds())[0]
    found = training_accuracy([scored(group, label)], AnswerSheet({"p0": "2"}))
    assert (found.proxy_accuracy_frac, found.label_accuracy_frac) == (0.5, None)
    mixed = replace(label, values=(0.4, 0.1, 0.2, 0.9), notes=tuple(f"majority match, self_certainty {note}" for note in label.notes))
    assert training_accuracy([scored(group, mixed)], AnswerSheet({"p0": "2"})).proxy_accuracy_frac == 0.75


def scored(group: VotedGroup, label: Label) -> ScoredGroup:
    return Scorer(match, rloo, 4, None, "k1").score([group], [label], (), Stream(0))[0]


@pytest.mark.parametrize(
    "options", [{"labels.source": "token_entropy"}, {"labels.source": "first_of", "first_of.sources": ["gate", "self_certainty"]}], ids=str
)
def test_vllm_is_refused_before_a_model_is_loaded(options: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="vLLM gives the probabilities of the tokens it drew and not of the others") as caught:
        load_config(overrides={"policy.model": "nobody/nothing", "prompts.task": "add:2", "policy.sampler": "vllm", "policy.device": "cuda", **options})
    assert str(caught.value.given).startswith("policy.sampler = vllm, ")


def test_the_rule_share_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="gives the rewards itself"):
        start(config(tmp_path, "a", {**QUICK, "labels.source": "token_entropy", "reward.rule": "share"}))
