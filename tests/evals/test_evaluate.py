"""From completions to results, by hand."""

from __future__ import annotations

import json
import sys
from itertools import combinations
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selftrain.config import UpdateSection
from selftrain.errors import PromptError
from selftrain.evals import Evaluation, ProblemResult, VoteResult, evaluate
from selftrain.evals.evaluate import NUM_EXAMPLES, PROBLEMS_PER_CALL
from selftrain.evals.evaluation import pass_estimate
from selftrain.policies.base import SamplingParams
from selftrain.policies.toy import ToyPolicy
from selftrain.policies.toy import problems as toy_problems
from selftrain.prompts import prompt_set_hash
from selftrain.seeds import Stream
from selftrain.types import AnswerSheet, PromptSet
from tests.evals.scripted import ScriptedSampler, evaluated, of_results, problems, result

SCRIPT = {
    "right": ["#### 1/2", "#### 0.5", "#### 0.50", "#### 3"],
    "wrong": ["#### 7", "#### 7", "#### 7", "#### 7"],
    "tie": ["#### 1", "#### 2", "#### 2", "#### 1"],
    "unread": ["hm", "well", "no idea", "#### 4..."],
}
ANSWERS = {"right": "0.5", "wrong": "8", "tie": "2", "unread": "4"}


def test_results_by_hand() -> None:
    """Equal numbers are one answer however they are written; the truncated `#### 4...` has no answer."""
    by_id = {one.prompt_id: one for one in evaluated(SCRIPT, ANSWERS).results}
    assert by_id["right"] == ProblemResult("right", 3, 4, 0, VoteResult.RIGHT, 1.0, 0.75, (8 + 8 + 9 + 6) / 4)
    assert by_id["wrong"] == ProblemResult("wrong", 0, 4, 0, VoteResult.WRONG, 0.0, 1.0, 6.0)
    assert by_id["tie"] == ProblemResult("tie", 2, 4, 0, VoteResult.TIE, 0.5, 0.5, 6.0)
    assert by_id["unread"] == ProblemResult("unread", 0, 0, 1, VoteResult.UNREAD, 0.0, 0.0, (2 + 4 + 7 + 9) / 4)


def test_estimates_by_hand() -> None:
    found = evaluated(SCRIPT, ANSWERS)
    assert found.avg.value == pytest.approx((3 + 0 + 2 + 0) / 16)
    assert found.maj.value == pytest.approx((1 + 0 + 0.5 + 0) / 4)
    assert found.any_right.value == pytest.approx(2 / 4)
    assert found.pass_at(1).value == found.avg.value
    assert found.pass_at(2).value == pytest.approx((1 + 0 + (1 - 1 / 6) + 0) / 4)
    label_accuracy = found.pseudo_label_accuracy
    assert label_accuracy is not None
    assert label_accuracy.value == pytest.approx(1 / 2)
    assert found.confident_wrong_frac.value == pytest.approx(1 / 4)
    assert found.tie_frac.value == pytest.approx(1 / 4)
    assert found.share_frac.value == pytest.approx((0.75 + 1 + 0.5 + 0) / 4)
    assert found.unread_frac.value == pytest.approx(4 / 16)
    assert found.truncated_frac.value == pytest.approx(1 / 16)
    assert found.tokens_mean == pytest.approx((31 + 24 + 24 + 22) / 16)


def test_a_tie_of_three_counts_a_third() -> None:
    assert evaluated({"a": ["#### 1", "#### 2", "#### 3", "hm"]}, {"a": "3"}).maj.value == pytest.approx(1 / 3)
    assert evaluated({"a": ["#### 1", "#### 2", "#### 3", "hm"]}, {"a": "4"}).maj.value == 0


def test_confidently_wrong_begins_at_nine_tenths() -> None:
    wrong, tie = VoteResult.WRONG, VoteResult.TIE
    found = of_results(result("a", 0, wrong, share_frac=0.9), result("b", 0, wrong, share_frac=0.89), result("c", 0, tie), result("d", 4, VoteResult.RIGHT))
    assert found.confident_wrong_frac.value == 0.25


def test_without_a_decided_vote_there_is_no_label_accuracy() -> None:
    assert of_results(result("a", 2, VoteResult.TIE), result("b", 0, VoteResult.UNREAD)).pseudo_label_accuracy is None


@pytest.mark.parametrize("num_draws", range(1, 7))
@pytest.mark.parametrize("num_right", range(7))
def test_pass_estimate_is_the_mean_over_all_choices(num_right: int, num_draws: int) -> None:
    flags = [True] * num_right + [False] * (6 - num_right)
    choices = list(combinations(flags, num_draws))
    assert pass_estimate(6, num_right, num_draws) == pytest.approx(sum(map(any, choices)) / len(choices))


@pytest.mark.parametrize("num_draws", [0, 5])
def test_pass_of_more_than_was_sampled(num_draws: int) -> None:
    with pytest.raises(ValueError, match=f"pass@{num_draws} needs 1 to 4"):
        of_results(result("a", 1)).pass_at(num_draws)


def test_what_the_sampler_is_asked_for() -> None:
    ids = [f"p{i}" for i in range(PROBLEMS_PER_CALL + 3)]
    sampler = ScriptedSampler({one: ["#### 1"] * 2 for one in ids})
    done: list[tuple[int, int]] = []
    params = SamplingParams(64, temperature=0.6, top_p=0.9)
    found = evaluate(sampler, problems(dict.fromkeys(ids, "1")), params, 2, Stream(5, step=9), lambda now, whole: done.append((now, whole)))
    assert [len(requests) for requests, _, _ in sampler.calls] == [PROBLEMS_PER_CALL, 3]
    assert [one.index for requests, _, _ in sampler.calls for one in requests] == list(range(len(ids)))
    assert {(one.count, one.step) for requests, _, _ in sampler.calls for one in requests} == {(2, 0)}
    assert {seeds for _, _, seeds in sampler.calls} == {Stream(5, stream="eval")}
    assert {asked for _, asked, _ in sampler.calls} == {params}
    assert done == [(PROBLEMS_PER_CALL, len(ids)), (len(ids), len(ids))]
    assert (found.version, found.temperature, found.top_p, found.max_new_tokens, found.num_samples) == ("0:17", 0.6, 0.9, 64, 2)
    assert found.prompts_sha256 == prompt_set_hash(problems(dict.fromkeys(ids, "1")))
    assert found.avg.value == 1


def test_problems_without_an_answer() -> None:
    some = problems({"a": "1", "b": " ", "c": "3", "d": "4", "e": "5", "f": "6"})
    sheet = AnswerSheet({"a": "1", "b": " "})
    with pytest.raises(PromptError) as caught:
        evaluate(ScriptedSampler({}), PromptSet(some.prompts, sheet, "q.jsonl"), SamplingParams(4), 4, Stream(0))
    assert caught.value.given == "problems of q.jsonl"
    assert "5 of 6 have no true answer: b, c, d and 2 more" in caught.value.why
    assert "prompts.answer_field" in caught.value.do


def test_no_problems() -> None:
    with pytest.raises(PromptError, match="there are none"):
        evaluate(ScriptedSampler({}), problems({}), SamplingParams(4), 4, Stream(0))


def test_examples_for_people(monkeypatch: pytest.MonkeyPatch) -> None:
    ids = [f"p{i}" for i in range(NUM_EXAMPLES + 4)]
    script = {one: ["x" * 3000 + "#### 1", "#### 2...", "#### 3"] for one in ids}
    for most, kept in ((200_000, NUM_EXAMPLES + 4), (0, NUM_EXAMPLES), (2_012 * (NUM_EXAMPLES + 2), NUM_EXAMPLES + 3)):
        monkeypatch.setattr(sys.modules["selftrain.evals.evaluate"], "MAX_EXAMPLES_CHARACTERS", most)
        found = evaluated(script, dict.fromkeys(ids, "1"))
        assert [one.prompt_id for one in found.examples] == ids[:kept]
    first, second = found.examples[0].completions
    assert (found.examples[0].prompt, found.examples[0].reference) == ("p0", "1")
    assert (first.text, first.answer, first.is_right, first.is_truncated) == ("x" * 2000, "1", True, False)
    assert (second.text, second.answer, second.is_right, second.is_truncated) == ("#### 2...", None, False, True)


def test_json_round_trip() -> None:
    found = evaluated(SCRIPT, ANSWERS)
    assert Evaluation.from_json(json.loads(json.dumps(found.to_json()))) == found


def test_the_toy_policy_twice() -> None:
    """Same seeds, same result; the start of `toy` is right more often by vote than by sample."""
    first, again = (evaluate(ToyPolicy("toy", UpdateSection()), toy_problems(60), SamplingParams(4), 16, Stream(0)) for _ in range(2))
    assert first == again
    assert first.maj.value > first.avg.value + 0.1
    assert first.any_right.value > 0.9


def test_permuted_answers_leave_the_sampling_alone() -> None:
    """Law 1: other true answers change what was found, not what was drawn."""
    true, other = ScriptedSampler(SCRIPT), ScriptedSampler(SCRIPT)
    evaluate(true, problems(ANSWERS), SamplingParams(8), 4, Stream(0))
    evaluate(other, problems({"right": "8", "wrong": "7", "tie": "4", "unread": "0.5"}), SamplingParams(8), 4, Stream(0))
    assert true.calls == other.calls


@given(st.lists(st.sampled_from(["#### 1", "#### 1.0", "#### 2", "#### 3", "hm", "#### 1..."]), min_size=1, max_size=8), st.randoms(use_true_random=False))
def test_what_always_holds(texts: list[str], random: Random) -> None:
    """The order of completions is nothing; a right vote or sample needs a right completion; fewer draws pass less."""
    shuffled = random.sample(texts, len(texts))
    found, again = (evaluated({"a": drawn}, {"a": "1"}) for drawn in (texts, shuffled))
    assert found.results == again.results
    one = found.results[0]
    assert one.num_right == sum(text in ("#### 1", "#### 1.0") for text in texts)
    assert 0 <= one.num_right <= one.num_read <= len(texts) - one.num_truncated
    assert found.avg.value <= found.any_right.value
    assert found.maj.value <= found.any_right.value
    passed = [found.pass_at(draws).value for draws in range(1, len(texts) + 1)]
    assert passed == sorted(passed)
