"""Log-probabilities of tokens with their gradient, over one buffer of logits.

With p = softmax(z / T), l = log p[y]:  dl / dz = (onehot(y) - p) / T. The buffer that holds the logits z becomes the probabilities and then the gradient,
so that one float32 value for each (position, vocabulary entry) is all there is, beside the head's own output where that is bfloat16.
"""

from __future__ import annotations

import torch

from selftrain.policies.torch.forward import Forward


class Head:
    """K positions. logprobs_K: float32, in nats, without gradient. `backward` is called once."""

    def __init__(self, forward: Forward, hidden_KH: torch.Tensor, targets_K: torch.Tensor, temperature: float) -> None:
        self.logits_KV, self.targets_K1, self.temperature = forward.head(hidden_KH), targets_K[:, None], temperature
        self.buffer_KV = self.logits_KV.detach()  # the same memory: a linear head, divided or capped, does not need its output again
        if temperature != 1:
            self.buffer_KV.div_(temperature)
        top_K1 = self.buffer_KV.amax(-1, keepdim=True)
        chosen_K1 = self.buffer_KV.gather(-1, self.targets_K1)
        self.totals_K1 = self.buffer_KV.sub_(top_K1).exp_().sum(-1, keepdim=True)
        self.logprobs_K = (chosen_K1 - top_K1 - self.totals_K1.log())[:, 0]

    def backward(self, slopes_K: torch.Tensor) -> None:
        """Add the gradient of sum(slopes * logprobs) to that of the hidden states and of the head's weights."""
        slopes_K1 = slopes_K[:, None] / self.temperature
        self.buffer_KV.mul_(-slopes_K1 / self.totals_K1).scatter_add_(-1, self.targets_K1, slopes_K1)
        torch.autograd.backward(self.logits_KV, self.buffer_KV)
