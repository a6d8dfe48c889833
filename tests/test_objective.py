from __future__ import annotations

import itertools

import numpy as np
import pytest

from selftrain.config import UpdateSection
from selftrain.objective import Objective, kl_and_slope, kl_penalty
from selftrain.policies.toy import NUM_ANSWERS, STYLES, ToyPolicy, problems
from selftrain.types import PolicyVersion, TrainingSample

OBJECTIVES = [
    Objective("reinforce"),
    Objective("clipped"),
    Objective("clipped", clip_low=0.1, clip_high=0.3),
    Objective("reinforce", kl_coef=0.5, kl_estimator="k2"),
    Objective("clipped", kl_coef=0.5, kl_estimator="k3"),
    Objective("clipped", weight_max=1e9),
]


def test_clipped_loss_by_hand() -> None:
    """Ratios 1.5 and 0.5, bounds 0.8 and 1.2: a good token above the bound and a bad token below it give no gradient, the others do."""
    sampled = np.log(np.array([0.2, 0.2, 0.4, 0.4]))
    logprobs = np.log(np.array([0.3, 0.3, 0.2, 0.2]))
    advantages = np.array([1.0, -1.0, 1.0, -1.0])
    term = Objective("clipped").token_loss(np, logprobs, sampled, advantages, None)
    np.testing.assert_allclose(term.value, [-1.2, 1.5, -0.5, 0.8], atol=1e-12)
    np.testing.assert_allclose(term.slope, [0.0, 1.5, -0.5, 0.0], atol=1e-12)
    assert term.clipped.tolist() == [True, False, False, True]


def test_truncated_weights_by_hand() -> None:
    """Ratios 4, 4, 1.5 and 0.5 with C = 2: the weight of another engine's token is at most 2 and its gradient stays."""
    sampled = np.log(np.array([0.1, 0.1, 0.2, 0.4]))
    logprobs = np.log(np.array([0.4, 0.4, 0.3, 0.2]))
    advantages = np.array([1.0, -1.0, 1.0, 1.0])
    term = Objective("reinforce", weight_max=2.0).token_loss(np, logprobs, sampled, advantages, None)
    np.testing.assert_allclose(term.slope, [-2.0, 2.0, -1.5, -0.5])
    np.testing.assert_allclose(term.value, term.slope)
    np.testing.assert_allclose(term.ratio, [4.0, 4.0, 1.5, 0.5])
    clipped = Objective("clipped", weight_max=2.0).token_loss(np, logprobs, sampled, advantages, None)
    np.testing.assert_allclose(clipped.slope, [0.0, 2.0, 0.0, -0.5])
    np.testing.assert_allclose(clipped.value, [-1.2, 2.0, -1.2, -0.5])


def test_reinforce_on_policy_has_the_slope_of_minus_the_advantage() -> None:
    logprobs = np.array([-0.3, -2.0])
    term = Objective("reinforce").token_loss(np, logprobs, logprobs, np.array([0.5, -1.5]), None)
    np.testing.assert_allclose(term.slope, [-0.5, 1.5])
    assert not term.clipped.any()


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_the_slope_is_the_derivative_of_the_value(objective: Objective) -> None:
    random = np.random.default_rng(0)
    logprobs, sampled, reference = (np.log(random.uniform(0.05, 0.9, 200)) for _ in range(3))
    advantages = random.normal(size=200)
    term = objective.token_loss(np, logprobs, sampled, advantages, reference)
    ratio = np.exp(logprobs - sampled)
    edge = np.minimum(np.abs(ratio - 1 + objective.clip_low), np.abs(ratio - 1 - objective.clip_high)) < 1e-3
    step = 1e-6
    up = objective.token_loss(np, logprobs + step, sampled, advantages, reference).value
    down = objective.token_loss(np, logprobs - step, sampled, advantages, reference).value
    np.testing.assert_allclose(((up - down) / (2 * step))[~edge], term.slope[~edge], atol=1e-6, rtol=1e-6)


def test_kl_estimators_by_hand() -> None:
    """log pi = ln 0.5, log ref = ln 0.25: k1 = ln 2, k2 = (ln 2)^2 / 2, k3 = 0.5 + ln 2 - 1."""
    logprobs, reference = [np.log(0.5)], [np.log(0.25)]
    assert kl_penalty(np, "k1", logprobs, reference) == pytest.approx(np.log(2))
    assert kl_penalty(np, "k2", logprobs, reference) == pytest.approx(np.log(2) ** 2 / 2)
    assert kl_penalty(np, "k3", logprobs, reference) == pytest.approx(0.5 + np.log(2) - 1)


def every_sequence(policy: ToyPolicy, number: int) -> list[tuple[tuple[int, int], np.ndarray, np.ndarray, np.ndarray]]:
    """All two-token completions of a toy problem: ids, log-probabilities [2], their gradients [2, W], reference log-probabilities [2]."""
    found = []
    for style, answer in itertools.product(range(len(STYLES)), range(NUM_ANSWERS + 1)):
        ids = (style, len(STYLES) + answer)
        logprobs, gradients = policy.token_logprobs((number,), ids, 1.0, policy.weights)
        found.append((ids, logprobs, gradients, policy.token_logprobs((number,), ids, 1.0, policy._reference)[0]))
    return found


def moved_policy() -> ToyPolicy:
    policy = ToyPolicy("toy", UpdateSection())
    policy.weights = policy.weights + np.random.default_rng(3).normal(0, 0.4, len(policy.weights))
    return policy


def exact_kl(policy: ToyPolicy, number: int) -> float:
    return float(sum(np.exp(logprobs.sum()) * (logprobs.sum() - ref.sum()) for _, logprobs, _, ref in every_sequence(policy, number)))


def exact_kl_gradient(policy: ToyPolicy, number: int) -> np.ndarray:
    gradient = np.zeros(len(policy.weights))
    for index in range(len(gradient)):
        values = []
        for sign in (1, -1):
            policy.weights[index] += sign * 1e-5
            values.append(exact_kl(policy, number))
            policy.weights[index] -= sign * 1e-5
        gradient[index] = (values[0] - values[1]) / 2e-5
    return gradient


def expected_gradient(policy: ToyPolicy, number: int, estimator: str, place: str) -> np.ndarray:
    """The expectation, over all completions, of the KL's policy gradient: in the reward (score function of the sum) or in the loss (slope)."""
    total = np.zeros(len(policy.weights))
    for _, logprobs, gradients, ref in every_sequence(policy, number):
        value, slope = kl_and_slope(np, estimator, logprobs, ref)  # type: ignore[arg-type]
        one = value.sum() * gradients.sum(axis=0) if place == "reward" else slope @ gradients
        total += np.exp(logprobs.sum()) * one
    return total


def test_kl_gradients_against_the_exact_gradient() -> None:
    """k1 in the reward and k2 in the loss are the gradient of KL; k3 in the reward is not, and k1 in the loss is zero (method section 6)."""
    policy, number = moved_policy(), 5
    exact = exact_kl_gradient(policy, number)
    assert np.linalg.norm(exact) > 0.05
    np.testing.assert_allclose(expected_gradient(policy, number, "k1", "reward"), exact, atol=1e-8)
    np.testing.assert_allclose(expected_gradient(policy, number, "k2", "loss"), exact, atol=1e-8)
    assert np.linalg.norm(expected_gradient(policy, number, "k3", "reward") - exact) > 0.1 * np.linalg.norm(exact)
    np.testing.assert_allclose(expected_gradient(policy, number, "k1", "loss"), 0, atol=1e-8)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_the_toy_gradient_is_that_of_its_loss(objective: Objective) -> None:
    policy = moved_policy()
    random = np.random.default_rng(1)
    samples = [
        TrainingSample(
            prompt_ids=(number,),
            token_ids=(int(random.integers(len(STYLES))), len(STYLES) + int(random.integers(NUM_ANSWERS + 1))),
            advantages=tuple(random.normal(size=2).tolist()),
            mask=(True, number % 2 == 0),
            logprobs=tuple(random.uniform(-2.5, -0.5, 2).tolist()),
            ref_logprobs=tuple(random.uniform(-2.5, -0.5, 2).tolist()),
            scale=0.3,
            group_index=number,
            version=PolicyVersion(0, 0),
        )
        for number in range(6)
    ]
    _, gradient, _ = policy.gradient(samples, objective)
    numeric = np.zeros_like(gradient)
    for index in range(len(numeric)):
        values = []
        for sign in (1, -1):
            policy.weights[index] += sign * 1e-6
            values.append(policy.gradient(samples, objective)[0])
            policy.weights[index] -= sign * 1e-6
        numeric[index] = (values[0] - values[1]) / 2e-6
    np.testing.assert_allclose(gradient, numeric, atol=1e-7)


def test_toy_problems_have_answers_apart_from_the_prompts() -> None:
    made = problems(3)
    assert [prompt.text for prompt in made] == ["toy-0", "toy-1", "toy-2"]
    assert all(made.sheet.answer_of(prompt.id) in {str(digit) for digit in range(NUM_ANSWERS)} for prompt in made)
