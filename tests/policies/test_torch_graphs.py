"""The recorded decode step: what it draws is what the eager step draws, across rows that leave and enter, updates and samplings of other sizes."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch_models import PROMPTS, groups_of, policy_of, requests_for, samples_of, write_model

from selftrain.objective import Objective
from selftrain.policies.base import SamplingParams
from selftrain.policies.torch import TorchPolicy, graphs, sampler
from selftrain.policies.torch.graphs import CudaRecorder, Graphs, bucket
from selftrain.policies.torch.recording import OperationRecorder
from selftrain.seeds import Stream
from selftrain.types import Group, Message, Prompt

PARAMS = SamplingParams(40)


def with_graphs(policy: TorchPolicy, make_recorder: Any) -> Graphs:
    made = Graphs(make_recorder)
    policy.sampler = replace(policy.sampler, graphs=made)
    return made


def assert_equal(mine: list[Group], its: list[Group]) -> None:
    assert [[done.token_ids for done in group.completions] for group in mine] == [[done.token_ids for done in group.completions] for group in its]
    for group, other in zip(mine, its, strict=True):
        for done, same in zip(group.completions, other.completions, strict=True):
            assert (done.text, done.finish, done.token_ends) == (same.text, same.finish, same.token_ends)
            assert done.logprobs == pytest.approx(same.logprobs, abs=2e-5)
            assert done.entropies == pytest.approx(same.entropies, abs=2e-5)
            assert done.certainties == pytest.approx(same.certainties, abs=2e-5)


@pytest.fixture
def small_buckets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphs, "LEAST_ROWS", 2)
    monkeypatch.setattr(graphs, "LEAST_COLUMNS", 8)


@pytest.mark.usefixtures("small_buckets")
@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3", "gemma2", "gemma3"])
def test_recorded_steps_draw_what_eager_steps_draw(family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_model(tmp_path, family)
    eager, recorded = policy_of(source), policy_of(source)
    recorder = OperationRecorder()
    made = with_graphs(recorded, lambda: recorder)
    monkeypatch.setattr(sampler, "rows_within", lambda *_: 9)  # of 15: chunks wait, and enter when others leave
    requests = requests_for(count=5)
    assert_equal(recorded.sample(requests, PARAMS, Stream(5)), eager.sample(requests, PARAMS, Stream(5)))
    extents, replayed, board = set(made.replays), recorder.replayed, made.board
    assert len({extent.rows for extent in extents}) >= 2  # rows have left ...
    assert len({extent.columns for extent in extents}) >= 3  # ... and completions outgrown their buckets
    assert replayed > max(39, len(extents))
    samples = samples_of(groups_of(eager))
    for policy in (eager, recorded):
        policy.update(samples, Objective(), 1e-2)
    assert_equal(recorded.sample(requests, PARAMS, Stream(6)), eager.sample(requests, PARAMS, Stream(6)))
    assert made.board is board  # the graphs of before, with the weights of now
    assert recorder.replayed > replayed + 20


@pytest.mark.usefixtures("small_buckets")
def test_a_board_serves_as_long_as_it_is_large_enough(tmp_path: Path) -> None:
    source = write_model(tmp_path)
    eager, recorded = policy_of(source), policy_of(source)
    made = with_graphs(recorded, OperationRecorder)
    long = [Prompt("long", (Message("user", "9" * 60),))]
    certain = SamplingParams(40, certainties=True)
    greedy, short, truncated = SamplingParams(40, temperature=0), SamplingParams(20), SamplingParams(40, top_k=4, top_p=0.9, min_p=0.01)
    boards = []
    for prompts, count, params in (
        (PROMPTS, 4, PARAMS), (PROMPTS[:2], 3, PARAMS), (long, 3, PARAMS), (PROMPTS, 4, PARAMS), (PROMPTS, 6, PARAMS),
        (PROMPTS, 6, short), (PROMPTS, 6, truncated), (PROMPTS, 2, greedy), (PROMPTS, 2, certain),
    ):  # fmt: skip
        requests = requests_for(prompts, count)
        assert_equal(recorded.sample(requests, params, Stream(7)), eager.sample(requests, params, Stream(7)))
        assert made.board is not None
        boards.append(made.board)
    same = [one is other for one, other in pairwise(boards)]
    assert same == [True, False, True, False, True, False, False, False]
    assert all(done.certainties for group in recorded.sample(requests_for(PROMPTS, 2), certain, Stream(7)) for done in group.completions)
    assert boards[2].sizes.sequences == 13  # kept from the first, beside a longer prompt


def test_stop_texts_are_looked_for_between_eager_steps(tmp_path: Path) -> None:
    source = write_model(tmp_path)
    eager, recorded = policy_of(source), policy_of(source)
    made = with_graphs(recorded, OperationRecorder)
    params = replace(PARAMS, stop=("a",))
    assert_equal(recorded.sample(requests_for(), params, Stream(5)), eager.sample(requests_for(), params, Stream(5)))
    assert made.board is None


def test_a_step_that_cannot_be_recorded_is_run_as_it_is_after_one_warning(tmp_path: Path) -> None:
    source = write_model(tmp_path)
    eager, recorded = policy_of(source), policy_of(source)

    def refuse(step: Any) -> Any:
        step()  # what warming up does to the rows must not be seen
        raise RuntimeError("CUDA error: operation not permitted when stream is capturing\nmore")

    made = with_graphs(recorded, lambda: refuse)
    with pytest.warns(RuntimeWarning, match="cannot be recorded as a CUDA graph .CUDA error: operation not permitted when stream is capturing."):
        found = recorded.sample(requests_for(), PARAMS, Stream(5))
    assert_equal(found, eager.sample(requests_for(), PARAMS, Stream(5)))
    assert (made.board, made.replays) == (None, {})
    assert_equal(recorded.sample(requests_for(), PARAMS, Stream(6)), eager.sample(requests_for(), PARAMS, Stream(6)))  # warnings are errors here


def test_a_family_that_looks_at_its_input_on_the_host_is_sampled_without_graphs(tmp_path: Path) -> None:
    """GPT-2 in transformers searches the input ids for padding, to warn of a missing mask."""
    source = write_model(tmp_path, "gpt2")
    eager, recorded = policy_of(source), policy_of(source)
    made = with_graphs(recorded, OperationRecorder)
    with pytest.warns(RuntimeWarning, match="cannot be recorded as a CUDA graph"):
        found = recorded.sample(requests_for(), PARAMS, Stream(5))
    assert_equal(found, eager.sample(requests_for(), PARAMS, Stream(5)))
    assert made.broken


def test_a_recorder_ends_with_the_last_of_its_recordings() -> None:
    memory, recorder = torch.zeros(1), OperationRecorder()
    replay = recorder(lambda: memory.add_(1))
    other = recorder(lambda: memory.add_(1))
    del replay
    recorder(lambda: memory.add_(1))
    del other
    with pytest.raises(RuntimeError, match="has ended with the last of them"):
        recorder(lambda: memory.add_(1))


@pytest.mark.parametrize(
    "step",
    [
        lambda x: x.sum().item(),
        lambda x: x[x > 0],
        lambda x: x.nonzero(),
        lambda _x: torch.tensor([1.0, 2.0]),
        lambda x: bool(x[0] > 0),
    ],
)
def test_the_recorder_refuses_what_a_graph_cannot_hold(step: Any) -> None:
    numbers = torch.tensor([1.0, -1.0])
    with pytest.raises(RuntimeError, match="not permitted"):
        OperationRecorder()(lambda: step(numbers))


def test_the_recorder_repeats_operations_and_not_python() -> None:
    memory, count = torch.zeros(3), [0]

    def step() -> None:
        count[0] += 1
        twice = memory.expand(2, 3).reshape(-1)[:3]  # a copy, unlike the next line's
        memory.view(3, 1).reshape(-1)[1:].add_(twice.cumsum(0)[:2] + count[0])

    replay = OperationRecorder()(step)
    assert memory.tolist() == [0, 1, 1]
    memory.copy_(torch.tensor([1.0, 0.0, 0.0]))
    replay()
    assert memory.tolist() == [1, 2, 2]
    assert count == [1]


def test_buckets() -> None:
    assert [bucket(count, 64, 1000) for count in (1, 64, 65, 97, 129, 200, 400, 600, 990)] == [64, 64, 96, 128, 192, 256, 512, 768, 1000]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.usefixtures("small_buckets")
@pytest.mark.parametrize("family", ["llama", "qwen2", "gemma3"])
def test_cuda_graphs_draw_what_eager_steps_draw(family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_model(tmp_path, family)
    eager, recorded = (policy_of(source, {"device": "cuda", "dtype": "float32"}) for _ in range(2))
    eager.sampler = replace(eager.sampler, graphs=None)
    monkeypatch.setattr(sampler, "rows_within", lambda *_: 9)
    for seed in (5, 6):
        assert_equal(recorded.sample(requests_for(count=5), PARAMS, Stream(seed)), eager.sample(requests_for(count=5), PARAMS, Stream(seed)))
        samples = samples_of(groups_of(eager))
        for policy in (eager, recorded):
            policy.update(samples, Objective(), 1e-2)
    assert recorded.sampler.graphs is not None
    assert isinstance(recorded.sampler.graphs.recorder, CudaRecorder)
    assert len(recorded.sampler.graphs.replays) >= 2
    certain = SamplingParams(40, certainties=True)  # another board, whose graphs need another pool
    assert_equal(recorded.sample(requests_for(count=5), certain, Stream(7)), eager.sample(requests_for(count=5), certain, Stream(7)))
    assert not recorded.sampler.graphs.broken
