"""Log-probabilities of completion tokens, of the distribution sampled from: logits divided by the temperature."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from selftrain.policies.torch.behind import own_length, prompt_parts
from selftrain.policies.torch.forward import Forward
from selftrain.policies.torch.scoring import TokenSequence, head_chunks, microbatches


def score(forward: Forward, sequences: Sequence[TokenSequence], temperature: float, budget_tokens: int) -> list[tuple[float, ...]]:
    """Log-probabilities in nats of the wanted tokens of each sequence, without gradient. Each prompt is run once for all its sequences."""
    results: list[tuple[float, ...]] = [()] * len(sequences)
    todo = [at for at, sequence in enumerate(sequences) if sequence.wanted]
    wanted = [sequences[at] for at in todo]
    with torch.no_grad():
        for prompts, chosen in prompt_parts(forward, wanted, budget_tokens):
            for batch in microbatches([own_length(wanted[at]) for at in chosen], budget_tokens):
                part = [chosen[at] for at in batch]
                values = iter(logprobs_of(forward, prompts.hidden([wanted[at] for at in part]), [wanted[at] for at in part], temperature))
                for at in part:
                    results[todo[at]] = tuple(next(values) for _ in wanted[at].wanted)
    return results


def logprobs_of(forward: Forward, hidden_KH: torch.Tensor, sequences: Sequence[TokenSequence], temperature: float) -> list[float]:
    """Those of the K wanted tokens after hidden states [K, H], in the order of the sequences."""
    targets_K = torch.tensor([sequence.token_ids[at] for sequence in sequences for at in sequence.wanted], device=forward.device)
    parts = [token_logprobs(forward, hidden_KH[part], targets_K[part], temperature) for part in head_chunks(len(hidden_KH), forward)]
    values: list[float] = torch.cat(parts).tolist()
    return values


def token_logprobs(forward: Forward, hidden_KH: torch.Tensor, targets_K: torch.Tensor, temperature: float) -> torch.Tensor:
    """Log-probabilities [K] in nats, float32, of the targets after hidden states [K, H]."""
    logits_KV = forward.head(hidden_KH)
    if temperature != 1:
        logits_KV = logits_KV / temperature
    return -torch.nn.functional.cross_entropy(logits_KV, targets_K, reduction="none")
