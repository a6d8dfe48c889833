"""What is sampled: the same as `generate` when greedy, the softmax otherwise, with log-probabilities of the distribution drawn from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch_models import FAMILIES, NEWER, PROMPTS, groups_of, policy_of, requests_for, samples_of, write_model

from selftrain.errors import PromptError, SamplerError
from selftrain.models import __file__ as models_file
from selftrain.objective import Objective
from selftrain.policies.base import Policy, SamplingParams
from selftrain.policies.torch import forward, prefixes, sampler
from selftrain.policies.torch.decoding import Chunk
from selftrain.policies.torch.draw import draw, inverse_cdf, truncated
from selftrain.policies.torch.hardware import default_cache_mib
from selftrain.policies.torch.sampler import chunks_of, most_rows, rows_within
from selftrain.seeds import Stream
from selftrain.types import Finish, Message, Prompt

EMBEDDED = Path(models_file).parent / "default"


def generated(policy: Any, prompt_ids: tuple[int, ...], max_new_tokens: int) -> tuple[int, ...]:
    ids = torch.tensor([prompt_ids])
    output = policy.forward.model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=max_new_tokens, do_sample=False, pad_token_id=0)
    return tuple(output[0, len(prompt_ids) :].tolist())


BOTH_WAYS = pytest.mark.parametrize("copied_tokens", [0, 1 << 10])
"""rows that share their prompt, and rows with copies of it"""


@BOTH_WAYS
@pytest.mark.parametrize("family", [*FAMILIES, *NEWER])
def test_greedy_equals_generate_token_by_token(family: str, copied_tokens: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(prefixes.COPIED_TOKENS, "cpu", copied_tokens)
    policy = policy_of(write_model(tmp_path, family))
    groups = policy.sample(requests_for(count=2), SamplingParams(24, temperature=0), Stream(1))
    for group in groups:
        expected = generated(policy, group.prompt_ids, 24)
        assert [done.token_ids for done in group.completions] == [expected, expected]
        assert group.completions[0].logprobs == (0.0,) * len(expected)


def test_greedy_equals_generate_on_the_embedded_model() -> None:
    policy = policy_of(str(EMBEDDED), {"prompt_format": "plain", "plain_template": "{prompt}"})
    group = policy.sample(requests_for([Prompt("a", (Message("user", "5731+4482="),))], count=1), SamplingParams(64, temperature=0), Stream(1))[0]
    assert group.completions[0].token_ids == generated(policy, group.prompt_ids, 64)


@BOTH_WAYS
@pytest.mark.parametrize("family", [*FAMILIES, *NEWER])
def test_logprobs_and_entropies_are_those_of_a_plain_forward_pass(family: str, copied_tokens: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(prefixes.COPIED_TOKENS, "cpu", copied_tokens)
    policy = policy_of(write_model(tmp_path, family))
    for group in groups_of(policy, temperature=0.7):
        for done in group.completions:
            with torch.inference_mode():
                logits_TV = policy.forward.model(torch.tensor([group.prompt_ids + done.token_ids])).logits[0, len(group.prompt_ids) - 1 : -1]
            expected_TV = (logits_TV.double() / 0.7).log_softmax(-1)
            assert done.logprobs == pytest.approx(expected_TV[range(len(done.token_ids)), done.token_ids].tolist(), abs=1e-4)
            assert done.entropies == pytest.approx(torch.distributions.Categorical(logits=expected_TV).entropy().tolist(), abs=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_certainties_are_drawn_along_where_they_are_asked_for(family: str, tmp_path: Path) -> None:
    """KL(uniform || p) of each token's distribution; the draws are the same with and without."""
    policy = policy_of(write_model(tmp_path, family))
    asked, plain = (policy.sample(requests_for(), SamplingParams(12, 0.7, certainties=one), Stream(5, stream="sample")) for one in (True, False))
    assert [[replace(done, certainties=()) for done in group.completions] for group in asked] == [list(group.completions) for group in plain]
    for group in asked:
        for done in group.completions:
            with torch.inference_mode():
                logits_TV = policy.forward.model(torch.tensor([group.prompt_ids + done.token_ids])).logits[0, len(group.prompt_ids) - 1 : -1]
            uniform_TV = torch.full_like(logits_TV, 1 / logits_TV.shape[1]).double()
            expected_T = torch.nn.functional.kl_div((logits_TV.double() / 0.7).log_softmax(-1), uniform_TV, reduction="none").sum(-1)
            assert done.certainties == pytest.approx(expected_T.tolist(), abs=1e-4)
            assert min(done.certainties) > 0
    greedy = policy.sample(requests_for(), SamplingParams(12, 0.0, certainties=True), Stream(5))
    assert {done.certainties for group in greedy for done in group.completions} == {()}


def test_certainties_are_the_same_some_rows_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    logits, uniforms = torch.randn(9, 40, generator=torch.Generator().manual_seed(0)), torch.linspace(0, 0.99, 9).double()
    whole = draw(logits, uniforms, SamplingParams(1, certainties=True))
    monkeypatch.setattr("selftrain.policies.torch.draw.ELEMENTS_AT_ONCE", 80)
    parts = draw(logits, uniforms, SamplingParams(1, certainties=True))
    assert all(torch.equal(one, other) for one, other in zip(whole, parts, strict=True))
    assert whole.certainties_B.shape == (9,)
    assert draw(logits, uniforms, SamplingParams(1)).certainties_B.shape == (0,)


@pytest.mark.parametrize("rows", [1, 3, 5, 11])
def test_a_draw_does_not_depend_on_what_is_sampled_beside_it(rows: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_model(tmp_path)
    together, apart = policy_of(source), policy_of(source)
    texts = [[done.text for done in group.completions] for group in groups_of(together, max_new_tokens=40)]
    monkeypatch.setattr(sampler, "rows_within", lambda *_: rows)  # waiting sequences enter as others leave
    assert [[done.text for done in group.completions] for group in groups_of(apart, max_new_tokens=40)] == texts
    monkeypatch.undo()
    texts = [[done.text for done in group.completions] for group in groups_of(together)]
    alone = together.sample([replace(requests_for()[1], index=0)], SamplingParams(12), Stream(5, stream="sample"))
    assert [done.text for done in alone[0].completions] == texts[1]
    assert [[done.text for done in group.completions] for group in groups_of(together, step=1)] != texts


def test_requests_with_seeds_of_their_own_are_drawn_beside_the_others_as_in_their_own_call(tmp_path: Path) -> None:
    policy, params, seeds = policy_of(write_model(tmp_path)), SamplingParams(12), Stream(5, stream="sample")
    other = Stream(5, stream="probe")
    mixed = [replace(request, seeds=other if request.index == 1 else None) for request in requests_for()]
    apart = [policy.sample([request], params, request.seeds or seeds)[0] for request in mixed]
    together = policy.sample(mixed, params, seeds)
    assert [[done.text for done in group.completions] for group in together] == [[done.text for done in group.completions] for group in apart]
    plain = policy.sample(requests_for(), params, seeds)
    texts, others = ([[done.text for done in group.completions] for group in groups] for groups in (together, plain))
    assert [one == other for one, other in zip(texts, others, strict=True)] == [True, False, True]


def test_two_prompts_with_one_id_are_two_prompts(tmp_path: Path) -> None:
    """Ids come from the user's file, and a probe drawn beside the votes names its prompt after the one that it belongs to."""
    policy, params, seeds = policy_of(write_model(tmp_path)), SamplingParams(12), Stream(5, stream="sample")
    one, other, _ = requests_for()
    same = replace(other, prompt=replace(other.prompt, id=one.prompt.id))
    groups = policy.sample([one, same], params, seeds)
    assert [group.prompt_ids for group in groups] == [policy.encode(request.prompt) for request in (one, other)]


def test_prompts_are_prefilled_some_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = policy_of(write_model(tmp_path))
    together = groups_of(policy)
    monkeypatch.setattr(forward, "PREFILL_TOKENS", 35)  # two prompts, then one
    for group, same in zip(groups_of(policy), together, strict=True):
        assert [done.token_ids for done in group.completions] == [done.token_ids for done in same.completions]
        assert group.completions[0].logprobs == pytest.approx(same.completions[0].logprobs, abs=1e-5)


def test_first_tokens_follow_the_softmax(tmp_path: Path) -> None:
    policy = policy_of(write_model(tmp_path))
    group = policy.sample(requests_for(PROMPTS[:1], count=6000), SamplingParams(1), Stream(2))[0]
    counts = np.bincount([done.token_ids[0] for done in group.completions], minlength=48)
    with torch.inference_mode():
        expected = policy.forward.model(torch.tensor([group.prompt_ids])).logits[0, -1].double().softmax(-1).numpy() * 6000
    often = expected >= 5
    observed, wanted = np.append(counts[often], counts[~often].sum()), np.append(expected[often], expected[~often].sum())
    chi_square, freedom = ((observed - wanted) ** 2 / np.maximum(wanted, 1e-9)).sum(), len(wanted) - 1
    assert freedom > 5
    assert chi_square < freedom + 4 * (2 * freedom) ** 0.5  # four deviations


def test_later_tokens_follow_the_softmax(tmp_path: Path) -> None:
    """The mean of -log p over a sampled token is the entropy of its distribution: summed over 1,500 completions both agree."""
    policy = policy_of(write_model(tmp_path))
    group = policy.sample(requests_for(PROMPTS[:1], count=1500), SamplingParams(10), Stream(2))[0]
    gaps = np.array([-sum(done.logprobs) - sum(done.entropies) for done in group.completions])
    assert abs(gaps.mean()) < 4 * gaps.std() / 1500**0.5


def test_inverse_cdf_by_hand() -> None:
    probs_BV = torch.tensor([[0.0, 0.25, 0.5, 0.25, 0.0]]).repeat(5, 1)
    uniforms_B = torch.tensor([0.0, 0.2499, 0.25, 0.7501, 1 - 2**-53], dtype=torch.float64)
    assert inverse_cdf(probs_BV, uniforms_B).tolist() == [1, 1, 2, 3, 3]


def test_truncation_by_hand() -> None:
    logits_BV = torch.tensor([[0.4, 0.1, 0.3, 0.2]]).log()
    kept = {
        "top_k": truncated(logits_BV, SamplingParams(1, top_k=2)),
        "top_p": truncated(logits_BV, SamplingParams(1, top_p=0.65)),
        "min_p": truncated(logits_BV, SamplingParams(1, min_p=0.6)),
    }
    assert {name: kept_BV.isfinite().tolist() for name, kept_BV in kept.items()} == {name: [[True, False, True, False]] for name in kept}
    assert truncated(logits_BV, SamplingParams(1, top_p=1e-9)).isfinite().tolist() == [[True, False, False, False]]
    drawn = draw(logits_BV, torch.tensor([0.9], dtype=torch.float64), SamplingParams(1, top_k=2))
    assert drawn.tokens_B.tolist() == [2]
    assert drawn.logprobs_B.tolist() == pytest.approx([np.log(3 / 7)])
    assert drawn.entropies_B.tolist() == pytest.approx([-(4 / 7 * np.log(4 / 7) + 3 / 7 * np.log(3 / 7))])


def test_a_completion_ends_with_any_end_token_or_at_the_limit(tmp_path: Path) -> None:
    source = write_model(tmp_path)
    config = tmp_path / "generation_config.json"
    config.write_text(config.read_text().replace('"eos_token_id": 2', '"eos_token_id": [2, 11]'))
    completions = [done for group in groups_of(policy_of(source), count=30) for done in group.completions]
    ended = [done for done in completions if done.finish is Finish.STOP]
    assert {done.token_ids[-1] for done in ended} == {2, 11}
    assert all(not {2, 11} & set(done.token_ids[:-1]) for done in completions)
    assert all(len(done.token_ids) == 12 for done in completions if done.finish is Finish.LENGTH)
    end = next(done for done in ended if done.token_ids[-1] == 2)
    assert len(end.text) == len(end.token_ids) - 1
    assert end.token_ends == (*range(1, len(end.text) + 1), len(end.text))


def test_a_stop_text_ends_a_completion_and_stays_in_it(tmp_path: Path) -> None:
    policy = policy_of(write_model(tmp_path))
    free = groups_of(policy, count=40, max_new_tokens=30)
    stop = next(done.text for done in free[0].completions if len(done.text) > 8)[3:5]
    stopped = policy.sample(requests_for(count=40), SamplingParams(30, stop=(stop, "zzzz")), Stream(5, stream="sample"))
    hits = 0
    for free_group, group in zip(free, stopped, strict=True):
        for before, after in zip(free_group.completions, group.completions, strict=True):
            cut = before.text.find(stop)
            expected = before.text if cut < 0 else before.text[: cut + len(stop)]
            assert after.text == expected
            assert (after.finish is Finish.STOP) == (cut >= 0 or before.finish is Finish.STOP)
            hits += cut >= 0
    assert hits >= 1


def test_the_context_window_ends_a_completion_and_refuses_a_long_prompt(tmp_path: Path) -> None:
    policy = policy_of(write_model(tmp_path), {"prompt_format": "plain", "plain_template": "{prompt}"})
    long, longer = (Prompt(str(size), (Message("user", "7" * size),)) for size in (120, 128))
    group = policy.sample(requests_for([long], count=8), SamplingParams(40), Stream(1))[0]
    assert max(len(done.token_ids) for done in group.completions) == 8
    with pytest.raises(PromptError, match="it has 128 tokens and the model takes 128"):
        policy.sample(requests_for([longer]), SamplingParams(4), Stream(1))
    assert policy.too_long([long, longer], 125) == [("128", 128)]


def test_a_stop_text_may_be_a_special_token(tmp_path: Path) -> None:
    """It adds no text, so the token itself is looked for: here the unknown one, which is no end token."""
    policy = policy_of(write_model(tmp_path))
    free = groups_of(policy, count=40, max_new_tokens=30)
    stopped = policy.sample(requests_for(count=40), SamplingParams(30, stop=("<unk>",)), Stream(5, stream="sample"))
    pairs = [pair for before, after in zip(free, stopped, strict=True) for pair in zip(before.completions, after.completions, strict=True)]
    hits = [after for before, after in pairs if 3 in before.token_ids]
    assert len(hits) > 5
    assert all(after.token_ids[-1] == 3 and after.finish is Finish.STOP for after in hits)
    assert all(after.token_ids == before.token_ids[: len(after.token_ids)] for before, after in pairs)


def test_no_completions_asked_for_are_groups_without_any(tmp_path: Path) -> None:
    policy = policy_of(write_model(tmp_path))
    groups = policy.sample(requests_for(count=0), SamplingParams(4), Stream(1))
    assert [(group.prompt, group.prompt_ids, group.completions) for group in groups] == [(prompt, policy.encode(prompt), ()) for prompt in PROMPTS]
    mixed = policy.sample([*requests_for(PROMPTS[:1], count=0), *requests_for(PROMPTS[1:], count=2)], SamplingParams(4), Stream(1))
    assert [len(group.completions) for group in mixed] == [0, 2, 2]
    assert policy.sample([], SamplingParams(4), Stream(1)) == []


def test_chunks_keep_groups_whole_where_they_fit_and_start_with_long_prompts() -> None:
    short, long, middle = (1,) * 3, (2,) * 9, (3,) * 5
    assert chunks_of([short, long, middle], [4, 4, 10], 8) == [Chunk(long, 4, 4), Chunk(middle, 8, 8), Chunk(middle, 16, 2), Chunk(short, 0, 4)]
    assert chunks_of([], [], 8) == []


def test_the_number_of_sequences_side_by_side_follows_from_the_memory(tmp_path: Path) -> None:
    assert rows_within(1, 300_000) == 3
    assert [most_rows("cpu", vocabulary) for vocabulary in (40, 10_000, 150_000)] == [2048, 1677, 512]
    assert most_rows("cuda", 150_000) == 4096


def test_the_memory_of_the_cache_where_none_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert policy_of(write_model(tmp_path), cache_mib=None).sampler.cache_mib == 1024
    card = SimpleNamespace(total_memory=80 << 30)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _device: card)
    assert default_cache_mib(torch.device("cuda")) == 20 << 10
    forward = policy_of(write_model(tmp_path, "gemma3")).forward
    assert forward.bytes_per_token == 2 * 2 * 2 * 8 * 4  # keys and values, layers, key-value heads, head size, bytes
    latent = policy_of(write_model(tmp_path, "deepseek_v3")).forward
    assert latent.bytes_per_token == (2 * (12 + 4) + 4 * (12 + 6)) * 4  # of each layer what is cached, and of one the keys and values of all heads


def test_prompts_become_tokens_by_chat_or_plain_template(tmp_path: Path) -> None:
    source = write_model(tmp_path)
    chat = policy_of(source, {"system_prompt": "be brief"})
    assert chat.sampler.text.decode(chat.encode(PROMPTS[0])) == "s:be brief\nu:12+5\na:"
    plain = policy_of(source, {"prompt_format": "plain", "plain_template": "{system} q {prompt} =", "system_prompt": "{x}"})
    assert plain.encoder.text_of(PROMPTS[0]) == "{x} q 12+5 ="
    assert isinstance(chat, Policy)


def test_rotary_factors_are_not_chosen_by_what_a_completion_is_batched_with(tmp_path: Path) -> None:
    """Longrope takes other factors for all of a batch once one sequence is longer than those of pretraining."""
    policy = policy_of(write_model(tmp_path, "phi3_long"), {"prompt_format": "plain", "plain_template": "{prompt}"})
    short, middle, long = (Prompt(text, (Message("user", text),)) for text in ("12+5", "a" * 20, "0123456789abcdefghijklmnop 01"))
    (alone,) = policy.sample(requests_for([short], count=2), SamplingParams(60), Stream(1))
    groups = policy.sample(requests_for([short, middle, long]), SamplingParams(60), Stream(1))
    assert [done.token_ids for done in groups[0].completions[:2]] == [done.token_ids for done in alone.completions]
    assert max(len(group.prompt_ids) + len(done.token_ids) for group in groups for done in group.completions) == 32
    assert policy.update(samples_of(groups), Objective(), 1e-4).logprob_gap_nats < 1e-5
    assert policy.too_long([short, middle, long]) == []
    too_long = Prompt("b", (Message("user", "a" * 32),))
    assert policy.too_long([too_long]) == [("b", 32)]
    with pytest.raises(PromptError, match="32 tokens and the model takes 32"):
        policy.sample(requests_for([too_long]), SamplingParams(4), Stream(1))


def test_positions_that_can_be_used() -> None:
    longrope: dict[str, Any] = {"rope_type": "longrope", "original_max_position_embeddings": 32}
    plain: dict[str, Any] = {"rope_type": "yarn", "original_max_position_embeddings": 32}
    given: dict[str, tuple[Any, int | None]] = {
        "one for all layers": (SimpleNamespace(max_position_embeddings=128, rope_parameters=longrope), 32),
        "each kind its own": (SimpleNamespace(max_position_embeddings=128, rope_parameters={"full": longrope, "sliding": plain}), 32),
        "beside them": (SimpleNamespace(max_position_embeddings=128, original_max_position_embeddings=64, rope_parameters={"rope_type": "longrope"}), 64),
        "others": (SimpleNamespace(max_position_embeddings=128, rope_parameters=plain), 128),
        "none": (SimpleNamespace(max_position_embeddings=128), 128),
        "no limit": (SimpleNamespace(rope_parameters=None), None),
    }
    assert {name: forward.usable_positions(config) for name, (config, _) in given.items()} == {name: expected for name, (_, expected) in given.items()}


@pytest.mark.parametrize("options", [{}, {"temperature": 0.0}, {"top_k": 5}], ids=str)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["lm_head.weight", "model.embed_tokens.weight"])
def test_a_policy_that_has_diverged_is_not_sampled_from(name: str, value: float, options: dict[str, Any], tmp_path: Path) -> None:
    """One token's row is enough: the last letter of a prompt, or what its logit is made with."""
    policy = policy_of(write_model(tmp_path))
    before = groups_of(policy)
    row = policy.forward.model.get_parameter(name).data[policy.encode(PROMPTS[0])[-1]]
    kept = row.clone()
    row.fill_(value)
    with pytest.raises(SamplerError, match="no longer finite numbers") as caught:
        policy.sample(requests_for(), SamplingParams(12, **options), Stream(1))
    assert "lower update.learning_rate" in caught.value.do
    row.copy_(kept)
    assert groups_of(policy) == before


@pytest.mark.parametrize("learning_rate", [1e10, 1e38])
def test_a_learning_rate_that_is_far_too_high(learning_rate: float, tmp_path: Path) -> None:
    policy = policy_of(write_model(tmp_path))
    policy.update(samples_of(groups_of(policy)), Objective(), learning_rate)
    with pytest.raises(SamplerError, match="no longer finite numbers"):
        groups_of(policy)
