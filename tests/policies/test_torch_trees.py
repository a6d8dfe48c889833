"""Completions as trees of their tokens: every prefix once, the same log-probabilities and gradient."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_torch_learning import CLIPPED_KL, REINFORCE, gradient_of, largest_gap, naive_gradient
from torch_models import FAMILIES, groups_of, policy_of, samples_of, write_model

from selftrain.policies.torch.behind import Prompts
from selftrain.policies.torch.logprobs import score
from selftrain.policies.torch.trees import Packed, TokenSequence, Tree, alone, trees_of, wanted_of
from selftrain.types import TrainingSample

ALWAYS = 1e12


def sequences_of(*completions: Sequence[int], prompt: tuple[int, ...] = (1, 2)) -> list[TokenSequence]:
    return [TokenSequence(prompt, tuple(tokens), range(len(tokens))) for tokens in completions]


def paths_of(tree: Tree) -> list[tuple[int, ...]]:
    """For each node the tokens from the prompt to it."""
    return [tuple(int(tree.tokens[above]) for above in range(node + 1) if above <= node < tree.ends[above]) for node in range(len(tree.tokens))]


def test_a_tree_by_hand() -> None:
    """5 6 7, 5 6 8, 5 6 and 5 9 8: what is run is 5 and 6 and 9; the last token of a completion predicts nothing."""
    (tree,) = trees_of(sequences_of((5, 6, 7), (5, 9, 8), (5, 6, 8), (5, 6)), [0, 1, 2, 3], 100, ALWAYS)
    assert tree.members == [3, 0, 2, 1]
    assert (tree.tokens.tolist(), tree.depths.tolist(), tree.ends.tolist()) == ([5, 6, 9], [0, 1, 1], [3, 2, 3])
    assert (tree.targets.tolist(), tree.sources.tolist()) == ([5, 6, 7, 8, 9, 8], [-1, 0, 1, 1, 0, 2])
    assert tree.wanted.tolist() == [0, 1, 0, 1, 2, 0, 1, 3, 0, 4, 5]
    packed = Packed.of([tree], 0, torch.device("cpu"))
    assert packed.sees()[0].tolist() == [[True, False, False], [True, True, False], [True, False, True]]
    assert packed.sees(1)[0].tolist() == [[True, False, False], [False, True, False], [False, False, True]]


def test_only_wanted_tokens_have_targets_and_nothing_is_run_behind_the_last() -> None:
    sequence = TokenSequence((1,), (5, 6, 7, 8), [0, 2])
    tree = alone(4, sequence)
    assert (tree.tokens.tolist(), tree.targets.tolist(), tree.sources.tolist()) == ([5, 6], [5, 7], [-1, 1])
    (both,) = trees_of([sequence, TokenSequence((1,), (5, 6), [1])], [0, 1], 100, ALWAYS)
    assert (both.tokens.tolist(), both.targets.tolist(), both.wanted.tolist()) == ([5, 6], [5, 6, 7], [1, 0, 2])
    (first,) = trees_of([TokenSequence((1,), (5,), [0]), TokenSequence((1,), (5,), [0])], [0, 1], 100, ALWAYS)
    assert (len(first.tokens), first.targets.tolist(), first.wanted.tolist()) == (0, [5], [0, 0])


def test_completions_that_soon_part_have_trees_of_their_own() -> None:
    long, other, same = [5, *[6] * 60], [5, *[7] * 60], [5, *[6] * 59, 8]
    trees = trees_of(sequences_of(long, other, same), [0, 1, 2], 1000, 20.0)
    assert [sorted(tree.members) for tree in trees] == [[0, 2], [1]]
    assert len(trees_of(sequences_of(long, other, same), [0, 1, 2], 1000, ALWAYS)) == 1
    assert [len(tree.tokens) for tree in trees_of(sequences_of(long, long, other), [0, 1, 2], 61, ALWAYS)] == [60, 60]


def test_every_prefix_is_one_node_whatever_the_completions() -> None:
    generator = np.random.default_rng(5)
    for _ in range(60):
        drawn = [tuple(generator.integers(3, 6, generator.integers(1, 9)).tolist()) for _ in range(generator.integers(1, 12))]
        sequences = [TokenSequence((1, 2), tokens, sorted({*generator.integers(0, len(tokens), 3).tolist()})) for tokens in drawn]
        cost = float(generator.choice([0.5, 5.0, 50.0, ALWAYS]))
        trees = trees_of(sequences, range(len(sequences)), 40, cost)
        assert sorted(at for tree in trees for at in tree.members) == list(range(len(sequences)))
        for tree in trees:
            paths, wanted = paths_of(tree), iter(tree.wanted.tolist())
            assert len(set(paths)) == len(paths)
            assert [len(path) - 1 for path in paths] == tree.depths.tolist()
            for at in tree.members:
                for place in sequences[at].wanted:
                    number = next(wanted)
                    source = tree.sources[number]
                    assert (paths[source] if source >= 0 else ()) == sequences[at].token_ids[:place]
                    assert tree.targets[number] == sequences[at].token_ids[place]
            assert next(wanted, None) is None
            needed = {sequences[at].token_ids[:length] for at in tree.members for length in range(1, sequences[at].wanted[-1] + 1)}
            assert set(paths) == needed
        found = wanted_of(trees)
        assert len(found.of_X) == sum(len(sequences[at].wanted) for at in found.members)


def alike_samples(policy: Any) -> list[TrainingSample]:
    """Votes drawn where the model is surest: some alike, some alike for a while; log-probabilities beside the learner's, which differ for equal tokens."""
    groups = groups_of(policy, count=5, temperature=0.2)
    samples = samples_of(groups, policy.reference_logprobs(groups, 1.0))
    return [replace(sample, logprobs=tuple(value + 0.1 * (number % 3 - 1) for value in sample.logprobs)) for number, sample in enumerate(samples)]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("objective", [REINFORCE, CLIPPED_KL], ids=["reinforce", "clipped_kl"])
@pytest.mark.parametrize("token_cost", [1.0, ALWAYS])
def test_the_gradient_equals_the_naive_one_where_prefixes_are_shared(family: str, objective: Any, token_cost: float, tmp_path: Path) -> None:
    policy = policy_of(write_model(tmp_path, family))
    samples = alike_samples(policy)
    policy.forward.token_cost = token_cost
    assert largest_gap(gradient_of(policy, samples, objective), naive_gradient(policy, samples, objective)) < 1e-5


def test_tokens_that_are_run_are_those_of_distinct_prefixes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    policy, run = policy_of(write_model(tmp_path)), list[int]()
    hidden = Prompts.hidden

    def counted(prompts: Prompts, trees: Sequence[Tree]) -> torch.Tensor:
        run.extend(len(tree.tokens) for tree in trees)
        return hidden(prompts, trees)

    monkeypatch.setattr(Prompts, "hidden", counted)
    samples = [replace(sample, mask=(True,) * len(sample.token_ids)) for sample in alike_samples(policy)]
    run.clear()
    policy.forward.token_cost = ALWAYS
    stats = policy.learner.accumulate(samples, REINFORCE)
    assert sum(run) == len({(sample.prompt_ids, sample.token_ids[:length]) for sample in samples for length in range(1, len(sample.token_ids))})
    assert stats.tokens == sum(len(sample.token_ids) for sample in samples)
    assert sum(run) < 0.8 * stats.tokens


@pytest.mark.parametrize("family", FAMILIES)
def test_scores_are_the_same_where_prefixes_are_shared(family: str, tmp_path: Path) -> None:
    policy = policy_of(write_model(tmp_path, family))
    sequences = [TokenSequence(one.prompt_ids, one.token_ids, range(len(one.token_ids))) for one in alike_samples(policy)]
    policy.forward.token_cost = ALWAYS
    together = score(policy.forward, sequences, 0.9, 4096)
    for sequence, found in zip(sequences, together, strict=True):
        assert found == pytest.approx(score(policy.forward, [sequence], 0.9, 4096)[0], abs=1e-5)


def test_passes_keep_the_budget_where_no_token_is_run_and_where_activations_are_recomputed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = policy_of(write_model(tmp_path), update={"tokens_per_microbatch": 30})
    assert policy.learner.kept_per_token > 0  # counted once, by passes that are not the update's
    sizes: list[tuple[int, int]] = []
    after, hidden = policy.forward.after_prompts, policy.forward.hidden
    monkeypatch.setattr(policy.forward, "after_prompts", lambda ids, *more: (sizes.append(tuple(ids.shape)), after(ids, *more))[1])
    monkeypatch.setattr(policy.forward, "hidden", lambda ids: (sizes.append(tuple(ids.shape)), hidden(ids))[1])
    one = groups_of(policy, count=1, max_new_tokens=1)[0].completions[0].version
    short = [TrainingSample((4, 5 + at), (6,), (1.0,), (True,), (-1.0,), (), 1.0, at, one) for at in range(40)]
    policy.learner.accumulate(short, REINFORCE)
    assert sum(rows for rows, _ in sizes) == 40
    assert max(rows * width for rows, width in sizes) <= 30
    sizes.clear()
    policy.learner.checkpointing = True
    long = [TrainingSample((4, 5), (6 + at % 3,) * 12, (1.0,) * 12, (True, *[False] * 11), (-1.0,) * 12, (), 1.0, 0, one) for at in range(9)]
    policy.learner.accumulate(long, REINFORCE)
    assert max(rows * width for rows, width in sizes) <= 30
    assert sum(rows for rows, _ in sizes) == 9


def test_trees_of_soft_capped_scores_have_no_more_pairs_than_their_completions(tmp_path: Path) -> None:
    policy = policy_of(write_model(tmp_path, "gemma2"))
    assert policy.forward.token_cost == 0
    assert policy_of(write_model(tmp_path / "llama")).forward.token_cost > 0
    (same,) = trees_of(sequences_of((5, 6, 7), (5, 6, 7)), [0, 1], 100, 0.0)
    assert same.members == [0, 1]
    assert len(trees_of(sequences_of((5, 6, 7, 8), (5, 9, 9, 9)), [0, 1], 100, 0.0)) == 2
