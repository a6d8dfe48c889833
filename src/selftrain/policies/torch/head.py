"""Log-probabilities of tokens with their gradient, over one buffer of logits.

With p = softmax(z / T), l = log p[y]:  dl / dz = (onehot(y) - p) / T. The buffer that holds the logits z becomes the gradient. Plain torch makes it of
float32 values, beside the head's own output where that is bfloat16; the kernels of a GPU work in the head's own output.
"""

from __future__ import annotations

import torch

from selftrain.policies.torch.forward import Forward
from selftrain.policies.torch.fused import kernels


class Head:
    """K positions. logprobs_K: float32, in nats, without gradient. `backward` is called once."""

    def __init__(self, forward: Forward, hidden_KH: torch.Tensor, targets_K: torch.Tensor, temperature: float) -> None:
        self.fast = kernels(hidden_KH.device.type)
        self.targets_K, self.temperature = targets_K, temperature
        self.logits_KV = forward.head(hidden_KH) if self.fast is None else forward.logits(hidden_KH)
        self.buffer_KV = self.logits_KV.detach()  # the same memory: a linear head, divided or capped, does not need its output again
        if self.fast is not None:
            self.logprobs_K, self.totals_K = self.fast.logprobs(self.buffer_KV, targets_K, temperature)
            return
        if temperature != 1:
            self.buffer_KV.div_(temperature)
        top_K1 = self.buffer_KV.amax(-1, keepdim=True)
        chosen_K1 = self.buffer_KV.gather(-1, targets_K[:, None])
        self.totals_K = self.buffer_KV.sub_(top_K1).exp_().sum(-1)
        self.logprobs_K = (chosen_K1 - top_K1)[:, 0] - self.totals_K.log()

    def backward(self, slopes_K: torch.Tensor) -> None:
        """Add the gradient of sum(slopes * logprobs) to that of the hidden states and of the head's weights."""
        if self.fast is not None:
            self.fast.slopes_(self.buffer_KV, self.targets_K, self.totals_K, slopes_K, self.temperature)
        else:
            slopes_K1 = slopes_K[:, None] / self.temperature
            self.buffer_KV.mul_(-slopes_K1 / self.totals_K[:, None]).scatter_add_(-1, self.targets_K[:, None], slopes_K1)
        torch.autograd.backward(self.logits_KV, self.buffer_KV)
