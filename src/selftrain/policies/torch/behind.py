"""Learning behind shared prompts: each prompt is run once for all completions of it, forward and backward.

A completion's tokens attend to the prompt's keys and values, which are leaves here: micro-batches of completions add up their gradients in them, and one
backward pass through the prompts at the end takes the sums on. The prompt's last hidden state, which predicts the first token of every completion, is
treated alike. The gradient is that of running every completion with its own copy of the prompt.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from selftrain.policies.torch.attention import Learning, learning_masks
from selftrain.policies.torch.cache import learning_cache, prompt_cache, sliding_layers
from selftrain.policies.torch.forward import Forward
from selftrain.policies.torch.scoring import TokenSequence, microbatches


class Prompts:
    """Distinct prompts, run once. Use: `hidden` and a backward pass for each micro-batch, then `backward`."""

    def __init__(self, forward: Forward, prompts: Sequence[tuple[int, ...]]) -> None:
        self.forward = forward
        self.index = {ids: at for at, ids in enumerate(prompts)}
        self.lengths_P = torch.tensor([len(ids) for ids in prompts], device=forward.device)
        cache = prompt_cache(forward.config)
        hidden_PH = forward.prompts(prompts, cache)
        self.outputs = [hidden_PH, *(states for layer in cache.layers for states in (layer.keys, layer.values))]
        self.leaves = [output.detach().requires_grad_() for output in self.outputs]
        self.pairs = list(zip(self.leaves[1::2], self.leaves[2::2], strict=True))
        self.kinds = sorted(set(sliding_layers(forward.config)))

    def hidden(self, sequences: Sequence[TokenSequence]) -> torch.Tensor:
        """Hidden states [K, H] that predict the wanted tokens of these sequences, in their order."""
        device, width = self.forward.device, max(map(own_length, sequences))
        prompts = [self.index[sequence.prompt_ids] for sequence in sequences]
        prompts_B = torch.tensor(prompts, device=device)
        ids = [[*sequence.token_ids[:-1], *[self.forward.pad_id] * (width + 1 - len(sequence.token_ids))] for sequence in sequences]
        positions_BT = self.lengths_P[prompts_B][:, None] + torch.arange(width, device=device)
        widths = self.pairs[0][0].shape[2], width
        masks = learning_masks(self.kinds, prompts_B, self.lengths_P, widths, self.forward.window)
        cache = learning_cache(self.forward.config, self.pairs, Learning(prompts_B, masks))
        own_BTH = self.forward.after_prompts(torch.tensor(ids, device=device), positions_BT, cache)
        sources_XH = torch.cat([self.leaves[0], own_BTH.flatten(0, 1)])
        first = len(self.lengths_P) - 1  # token t > 0 is predicted by own hidden state t - 1
        wanted = [prompts[row] if at == 0 else first + row * width + at for row, sequence in enumerate(sequences) for at in sequence.wanted]
        return sources_XH.index_select(0, torch.tensor(wanted, device=device))

    def backward(self) -> None:
        """Take the gradients that have gathered on through the prompts."""
        used = [(output, leaf.grad) for output, leaf in zip(self.outputs, self.leaves, strict=True) if leaf.grad is not None and output.requires_grad]
        if used:
            torch.autograd.backward([output for output, _ in used], [gradient for _, gradient in used])


def prompt_parts(forward: Forward, sequences: Sequence[TokenSequence], budget_tokens: int) -> Iterator[tuple[Prompts, list[int]]]:
    """Prompts, as many as the budget holds, run once, and the indices of their sequences."""
    of_prompt: dict[tuple[int, ...], list[int]] = {}
    for at, sequence in enumerate(sequences):
        of_prompt.setdefault(sequence.prompt_ids, []).append(at)
    prompts = sorted(of_prompt, key=len, reverse=True)
    for batch in microbatches([len(ids) for ids in prompts], budget_tokens, cut_padding=False):
        shared = Prompts(forward, [prompts[at] for at in batch])
        yield shared, [at for prompt in batch for at in of_prompt[prompts[prompt]]]


def own_length(sequence: TokenSequence) -> int:
    """Tokens that are run behind the prompt: the last one predicts nothing that is wanted."""
    return max(1, len(sequence.token_ids) - 1)
