"""Prefixes that votes have in common are run once: the same draws, and no more rows than there are distinct prefixes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch_models import FAMILIES, PROMPTS, groups_of, policy_of, requests_for, write_model

from selftrain.policies.base import SamplingParams
from selftrain.policies.torch import prefixes, sampler
from selftrain.policies.torch.board import Extent
from selftrain.policies.torch.cache import zeros
from selftrain.policies.torch.draw import Votes, draw
from selftrain.policies.torch.prefixes import numbers_within, parted
from selftrain.seeds import Stream
from selftrain.types import Group, Message, Prompt

COLD = 0.3
"""The temperature at which votes agree for some tokens and then part."""


def extents_of(monkeypatch: pytest.MonkeyPatch) -> list[Extent]:
    seen: list[Extent] = []
    advance = prefixes.advance

    def counted(board: Any, forward: Any, params: Any, extent: Extent, standing: Any) -> None:
        seen.append(extent)
        advance(board, forward, params, extent, standing)

    monkeypatch.setattr(prefixes, "advance", counted)
    return seen


def prefixes_that_went_on(groups: list[Group]) -> int:
    return len({(group.index, done.token_ids[:length]) for group in groups for done in group.completions for length in range(1, len(done.token_ids))})


@pytest.mark.parametrize("family", FAMILIES)
def test_a_row_is_run_for_every_distinct_prefix_and_no_other(family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    policy, seen = policy_of(write_model(tmp_path, family)), extents_of(monkeypatch)
    groups = groups_of(policy, count=12, max_new_tokens=20, temperature=COLD)
    rows, tokens = sum(extent.rows for extent in seen), sum(len(done.token_ids) - 1 for group in groups for done in group.completions)
    assert rows == prefixes_that_went_on(groups)
    assert rows < 0.9 * tokens


@pytest.mark.parametrize("copied_tokens", [0, 1 << 10])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_draws_and_log_probabilities_are_those_of_votes_drawn_alone(
    family: str, copied_tokens: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where prompts enter and leave while others are being drawn, whether rows share their prompt or have copies of it."""
    source = write_model(tmp_path, family)
    alone, seen = policy_of(source), extents_of(monkeypatch)
    monkeypatch.setattr(sampler, "rows_within", lambda *_: 1)
    monkeypatch.setitem(prefixes.COPIED_TOKENS, "cpu", 0)
    expected = groups_of(alone, count=6, max_new_tokens=20, temperature=COLD)
    monkeypatch.setitem(prefixes.COPIED_TOKENS, "cpu", copied_tokens)
    seen.clear()
    for rows in (5, 8, 18):
        monkeypatch.setattr(sampler, "rows_within", lambda *_, rows=rows: rows)
        for group, same in zip(groups_of(policy_of(source), count=6, max_new_tokens=20, temperature=COLD), expected, strict=True):
            assert [done.token_ids for done in group.completions] == [done.token_ids for done in same.completions]
            for done, other in zip(group.completions, same.completions, strict=True):
                assert done.logprobs == pytest.approx(other.logprobs, abs=1e-4)
                assert done.entropies == pytest.approx(other.entropies, abs=1e-4)
    assert {extent.is_copied for extent in seen} == {copied_tokens > 0}


@pytest.mark.parametrize(("count", "steps"), [(16, 1.35), (48, 1.45)])
def test_long_votes_do_not_keep_others_waiting(count: int, steps: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """steps: at most so many times those that full rows would take; 2.1 and 2.7 where prompts enter whole and their place is free with the last vote."""
    policy, seen = policy_of(write_model(tmp_path)), extents_of(monkeypatch)
    prompts = [Prompt(f"q{at}", (Message("user", f"{at}+5"),)) for at in range(384 // count)]
    monkeypatch.setattr(sampler, "rows_within", lambda *_: 64)
    groups = policy.sample(requests_for(prompts, count), SamplingParams(110), Stream(5, stream="sample"))
    assert len(seen) <= steps * sum(len(done.token_ids) for group in groups for done in group.completions) / 64


@pytest.mark.parametrize("copied_tokens", [0, 1 << 10])
def test_prompts_and_their_copies_stay_in_the_memory_that_is_given(copied_tokens: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One vote a prompt and short completions: a prompt's columns are half of what there is, or two thirds."""
    given, policy, held = 1 << 16, policy_of(write_model(tmp_path)), list[int]()
    advance = prefixes.advance

    def weighed(board: Any, *rest: Any) -> None:
        advance(board, *rest)
        held.append(sum(buffer.numel() * buffer.element_size() for layer in board.cache.layers for buffer in (*layer.prompt, *layer.own)))

    monkeypatch.setattr(prefixes, "advance", weighed)
    monkeypatch.setitem(prefixes.COPIED_TOKENS, "cpu", copied_tokens)
    monkeypatch.setattr(sampler, "rows_within", lambda _, bytes_each: given // bytes_each)
    prompts = [Prompt(f"p{at}", (Message("user", f"{at:02d}+{at:02d}"),)) for at in range(60)]
    policy.sample(requests_for(prompts, count=1), SamplingParams(8, 1.0), Stream(1))
    assert given / 2 < max(held) <= given


def test_votes_that_never_part_take_one_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    policy, seen = policy_of(write_model(tmp_path)), extents_of(monkeypatch)
    policy.sample(requests_for(count=8), SamplingParams(10, temperature=0), Stream(1))
    assert {extent.rows for extent in seen} <= {1, 2, 3}
    assert len(seen) >= 1


def test_a_stop_text_ends_votes_of_one_row_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = policy_of(write_model(tmp_path))
    free = policy.sample(requests_for(PROMPTS[:1], count=5), SamplingParams(12, temperature=0), Stream(1))[0].completions[0]
    stop, seen = free.text[4], extents_of(monkeypatch)
    stopped = policy.sample(requests_for(PROMPTS[:1], count=5), SamplingParams(12, temperature=0, stop=(stop,)), Stream(1))[0]
    assert {done.text for done in stopped.completions} == {free.text[: free.text.index(stop) + 1]}
    assert sum(extent.rows for extent in seen) == free.text.index(stop)


def test_sequences_part_by_hand() -> None:
    """Row 0 goes on as it is, row 1 in two, of which one takes row 2, which is empty; where rows become fewer, those behind them move."""
    parting = parted(np.array([0, 0, 1, 1, 1, 3, 4]), np.array([7, 7, 5, 9, 5, 2, 2]))
    assert parting.num_rows == 5
    assert parting.rows_E.tolist() == [0, 0, 1, 2, 1, 3, 4]
    assert (parting.sources.tolist(), parting.targets.tolist()) == ([1], [2])
    fewer = parted(np.array([5, 2, 5]), np.array([1, 1, 4]))
    assert (fewer.num_rows, fewer.rows_E.tolist()) == (3, [0, 2, 1])
    assert (fewer.sources.tolist(), fewer.targets.tolist()) == ([5, 5], [0, 1])
    assert parted(np.zeros(0, np.int64), np.zeros(0, np.int64)).num_rows == 0


def test_parting_keeps_who_stands_together_whatever_the_rows() -> None:
    generator = np.random.default_rng(3)
    for _ in range(200):
        count = int(generator.integers(1, 30))
        rows, tokens = generator.integers(0, 12, count), generator.integers(0, 4, count)
        parting = parted(rows, tokens)
        keys = list(zip(rows.tolist(), tokens.tolist(), strict=True))
        assert len(set(keys)) == parting.num_rows == len(set(parting.rows_E.tolist()))
        assert len({(key, row) for key, row in zip(keys, parting.rows_E.tolist(), strict=True)}) == parting.num_rows
        came_from = dict(zip(parting.targets.tolist(), parting.sources.tolist(), strict=True))
        assert not set(came_from) & set(came_from.values())
        assert [came_from.get(row, row) for row in parting.rows_E.tolist()] == rows.tolist()


def test_numbers_within_groups() -> None:
    assert numbers_within(np.array([3, 1, 3, 3, 1])).tolist() == [0, 0, 1, 2, 1]
    assert numbers_within(np.zeros(0, np.int64)).tolist() == []


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_room_is_zero_and_of_the_type_asked_for(dtype: torch.dtype) -> None:
    room = zeros((3, 2, 5), torch.empty(0, dtype=dtype))
    assert (room.shape, room.dtype, float(room.abs().sum())) == ((3, 2, 5), dtype, 0)
    room[1] = 2
    assert float(room.float().sum()) == 20
    assert zeros((0, 2), torch.empty(0)).shape == (0, 2)


@pytest.mark.parametrize("params", [SamplingParams(1, 0.7, certainties=True), SamplingParams(1, top_k=3), SamplingParams(1, temperature=0)])
@pytest.mark.parametrize("at_once", [1 << 25, 80])
def test_votes_draw_from_one_distribution_what_they_draw_from_copies_of_it(params: SamplingParams, at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("selftrain.policies.torch.draw.ELEMENTS_AT_ONCE", at_once)
    generator = torch.Generator().manual_seed(4)
    logits, rows = torch.empty(5, 40).normal_(generator=generator), np.array([3, 0, 3, 1, 4, 3, 0, 2])
    uniforms, numbers = torch.empty(8, dtype=torch.float64).uniform_(generator=generator), numbers_within(rows)
    shared = draw(logits, uniforms, params, Votes(torch.from_numpy(rows), torch.from_numpy(numbers), int(numbers.max()) + 1))
    copies = draw(logits[rows], uniforms, params)
    assert all(torch.equal(one, other) for one, other in zip(shared, copies, strict=True))
    assert len(set(shared.tokens_B.tolist())) > 2
