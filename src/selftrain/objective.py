r"""The loss of one token as a function of its log-probability, and its slope: the same code for every policy.

With l = log pi(token) of the learner, l0 of the sampler, lr of the reference policy, A the advantage and rho = exp(l - l0):

    reinforce  L = -A l                                          Williams 1992; on-policy, or rho-weighted: L = -A rho off-policy
    clipped    L = -min(rho A, clip(rho, 1 - low, 1 + high) A)   PPO, arXiv 1707.06347; asymmetric as in DAPO, arXiv 2503.14476
    both       samples of another engine: rho as a weight is truncated, min(rho, C), its gradient kept      Ionides 2008
    + c k(l)   KL to the reference policy in the loss: k2 = (l - lr)^2 / 2, k3 = exp(lr - l) - (lr - l) - 1  (Schulman 2020)

A learner needs nothing but the slope dL/dl: it backpropagates sum(slope * l). k1 in the loss has a gradient of zero mean and is refused by the
config. The arrays may be NumPy arrays or torch tensors; `xp` is the module they come from.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

KLEstimator = Literal["k1", "k2", "k3"]


class TokenLoss(NamedTuple):
    """Per token, all of the shape of the inputs: value, slope dL/dl, the importance ratio, whether clipping removed the gradient, the KL estimate."""

    value: Any
    slope: Any
    ratio: Any
    clipped: Any
    kl: Any


@dataclass(frozen=True, slots=True)
class Objective:
    """Which loss. clip_low, clip_high: >= 0, used by `clipped`. kl_coef: weight of the KL in the loss, 0 for none.
    temperature: of the sampler; log-probabilities are taken at it. weight_max: C >= 1, the largest weight of a token; infinite for the learner's own sampler.
    """

    name: Literal["reinforce", "clipped"] = "reinforce"
    clip_low: float = 0.2
    clip_high: float = 0.2
    kl_coef: float = 0.0
    kl_estimator: KLEstimator = "k2"
    temperature: float = 1.0
    weight_max: float = math.inf

    def token_loss(self, xp: Any, logprobs: Any, sampled: Any, advantages: Any, reference: Any | None) -> TokenLoss:
        """Loss and slope for arrays of any one shape. `reference` is needed only where kl_coef is not 0."""
        ratio = xp.exp(logprobs - sampled)
        weight = ratio if self.weight_max == math.inf else xp.clip(ratio, 0.0, self.weight_max)
        if self.name == "reinforce":
            # The value is that of the rho-weighted surrogate; on-policy (rho = 1) its slope is REINFORCE's -A.
            value, slope, clipped = -weight * advantages, -weight * advantages, ratio != ratio
        else:
            bounded = xp.clip(ratio, 1 - self.clip_low, 1 + self.clip_high)
            clipped = bounded * advantages < ratio * advantages
            value = -xp.where(clipped, bounded, weight) * advantages
            slope = -xp.where(clipped, xp.zeros_like(ratio), weight) * advantages
        kl = xp.zeros_like(ratio)
        if self.kl_coef:
            kl, kl_slope = kl_and_slope(xp, self.kl_estimator, logprobs, reference)
            value, slope = value + self.kl_coef * kl, slope + self.kl_coef * kl_slope
        return TokenLoss(value, slope, ratio, clipped, kl)


def kl_and_slope(xp: Any, estimator: KLEstimator, logprobs: Any, reference: Any) -> tuple[Any, Any]:
    """Estimate of KL(policy || reference) of tokens sampled from the policy, in nats, and its slope in the policy's log-probability."""
    gap = logprobs - reference
    if estimator == "k1":
        return gap, xp.ones_like(gap)
    if estimator == "k2":
        return gap * gap / 2, gap
    return xp.exp(-gap) + gap - 1, 1 - xp.exp(-gap)


def kl_penalty(xp: Any, estimator: KLEstimator, logprobs: Sequence[float], reference: Sequence[float]) -> float:
    """Sum over the T tokens of a completion of the KL estimate in nats, for KL in the reward."""
    if not logprobs:
        return 0.0
    return float(kl_and_slope(xp, estimator, xp.asarray(logprobs), xp.asarray(reference))[0].sum())
