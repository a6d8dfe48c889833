"""Learning behind shared prompts: each prompt is run once for all completions of it, forward and backward, and so is what completions begin with (trees.py).

A completion's tokens attend to the prompt's keys and values, which are leaves here: micro-batches of completions add up their gradients in them, and one
backward pass through the prompts at the end takes the sums on. The prompt's last hidden state, which predicts the first token of every completion, is
treated alike. The gradient is that of running every completion with its own copy of the prompt.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from selftrain.policies.torch.attention import Learning, learning_masks
from selftrain.policies.torch.cache import learning_cache, prompt_cache
from selftrain.policies.torch.forward import Forward
from selftrain.policies.torch.layers import sliding_layers
from selftrain.policies.torch.scoring import microbatches
from selftrain.policies.torch.trees import Packed, TokenSequence, Tree, by_prompt, trees_of

LEAST_PROMPT = 0.7
"""A prompt shorter than that share of the longest begins another part: completions are batched within parts, so there should be few."""


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

    def hidden(self, trees: Sequence[Tree]) -> torch.Tensor:
        """Hidden states [K, H] that predict the distinct wanted tokens of these trees, in their order."""
        device, packed = self.forward.device, Packed.of(trees, self.forward.pad_id, self.forward.device)
        prompts = [self.index[tree.prompt_ids] for tree in trees]
        prompts_B = torch.tensor(prompts, device=device)
        positions_BN = self.lengths_P[prompts_B][:, None] + packed.depths_BN
        masks = learning_masks(self.kinds, prompts_B, self.lengths_P, self.pairs[0][0].shape[2], packed, self.forward.window)
        cache = learning_cache(self.forward.config, self.pairs, Learning(prompts_B, masks))
        own_BNH = self.forward.after_prompts(packed.ids_BN, positions_BN, cache)
        sources_XH = torch.cat([self.leaves[0], own_BNH.flatten(0, 1)])
        firsts = len(self.lengths_P) + np.arange(len(trees)) * own_BNH.shape[1]
        rows = zip(trees, prompts, firsts, strict=True)
        sources = np.concatenate([np.where(tree.sources < 0, prompt, first + tree.sources) for tree, prompt, first in rows])
        return sources_XH.index_select(0, torch.from_numpy(sources).to(device))

    def backward(self) -> None:
        """Take the gradients that have gathered on through the prompts."""
        used = [(output, leaf.grad) for output, leaf in zip(self.outputs, self.leaves, strict=True) if leaf.grad is not None and output.requires_grad]
        if used:
            torch.autograd.backward([output for output, _ in used], [gradient for _, gradient in used])


def prompt_parts(forward: Forward, sequences: Sequence[TokenSequence], budget_tokens: int) -> Iterator[tuple[Prompts, list[Tree]]]:
    """Prompts, as many as the budget holds, run once, and their sequences as trees."""
    of_prompt = by_prompt(sequences)
    prompts = list(of_prompt)
    for batch in microbatches([len(ids) for ids in prompts], budget_tokens, LEAST_PROMPT):
        shared = Prompts(forward, [prompts[at] for at in batch])
        yield shared, [tree for at in batch for tree in trees_of(sequences, of_prompt[prompts[at]], budget_tokens, forward.token_cost)]
