"""Log-probabilities of completion tokens, of the distribution sampled from: logits divided by the temperature."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from selftrain.policies.torch.behind import prompt_parts
from selftrain.policies.torch.forward import Forward
from selftrain.policies.torch.scoring import head_chunks, microbatches
from selftrain.policies.torch.trees import TokenSequence, Wanted, wanted_of


def score(forward: Forward, sequences: Sequence[TokenSequence], temperature: float, budget_tokens: int) -> list[tuple[float, ...]]:
    """Log-probabilities in nats of the wanted tokens of each sequence, without gradient. Prompts and what sequences have in common are run once."""
    results: list[tuple[float, ...]] = [()] * len(sequences)
    todo = [at for at, sequence in enumerate(sequences) if sequence.wanted]
    wanted = [sequences[at] for at in todo]
    with torch.no_grad():
        for prompts, trees in prompt_parts(forward, wanted, budget_tokens):
            for batch in microbatches([tree.length for tree in trees], budget_tokens):
                part = [trees[at] for at in batch]
                found = wanted_of(part)
                values = iter(logprobs_of(forward, prompts.hidden(part), found, temperature))
                for at in found.members:
                    results[todo[at]] = tuple(next(values) for _ in wanted[at].wanted)
    return results


def logprobs_of(forward: Forward, hidden_KH: torch.Tensor, found: Wanted, temperature: float) -> list[float]:
    """Those of all wanted tokens, in order, of which the K distinct ones come after hidden states [K, H]."""
    targets_K = torch.from_numpy(found.targets_K).to(forward.device)
    parts = [token_logprobs(forward, hidden_KH[part], targets_K[part], temperature) for part in head_chunks(len(hidden_KH), forward)]
    values: list[float] = torch.cat(parts).cpu()[torch.from_numpy(found.of_X)].tolist()
    return values


def token_logprobs(forward: Forward, hidden_KH: torch.Tensor, targets_K: torch.Tensor, temperature: float) -> torch.Tensor:
    """Log-probabilities [K] in nats, float32, of the targets after hidden states [K, H]."""
    logits_KV = forward.head(hidden_KH)
    if temperature != 1:
        logits_KV = logits_KV / temperature
    return -torch.nn.functional.cross_entropy(logits_KV, targets_K, reduction="none")
