"""From logits and a uniform number to a token, its log-probability and the entropy: inverse-CDF sampling.

The k-th token of a completion is the one at which the cumulated probability first exceeds the k-th number of the completion's own stream,
so a draw depends on nothing else in the batch.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch

from selftrain.policies.base import SamplingParams
from selftrain.policies.torch.fused import kernels

ELEMENTS_AT_ONCE = 1 << 25
"""Rows are handled in chunks of at most this many float32 values: 128 MiB for each temporary."""


class Draw(NamedTuple):
    """tokens_B (int64); logprobs_B, entropies_B and certainties_B in nats of the distribution drawn from (float32), the last ones without entries where they
    are not asked for.
    """

    tokens_B: torch.Tensor
    logprobs_B: torch.Tensor
    entropies_B: torch.Tensor
    certainties_B: torch.Tensor


class Votes(NamedTuple):
    """E draws from fewer distributions: rows_E, of each its row; numbers_E, how many before it draw from the same; most: of one row."""

    rows_E: torch.Tensor
    numbers_E: torch.Tensor
    most: int


def draw(logits_BV: torch.Tensor, uniforms_B: torch.Tensor, params: SamplingParams, votes: Votes | None = None) -> Draw:
    """One token for each row, or with `votes` for each of them. uniforms_B: float64 in [0, 1), one a token. Temperature 0 takes the largest logit:
    log-probability and entropy of that distribution are 0. From logits that are infinite or no numbers any token is drawn, and its log-probability is none.
    """
    fast = kernels(logits_BV.device.type) if params.temperature > 0 and not truncates(params, logits_BV.shape[1]) else None
    if fast is not None:
        chosen_BV = logits_BV if votes is None else logits_BV[votes.rows_E]
        tokens_B, logprobs_B, entropies_B, means_B = fast.draw(chosen_BV, uniforms_B, params.temperature, params.certainties)
        return Draw(tokens_B, logprobs_B, entropies_B, -means_B - math.log(logits_BV.shape[1]))
    rows = max(1, ELEMENTS_AT_ONCE // logits_BV.shape[1])
    if len(logits_BV) <= rows:
        return draw_rows(logits_BV.float(), uniforms_B, params, votes)
    chosen_B = torch.arange(len(logits_BV), device=logits_BV.device) if votes is None else votes.rows_E
    parts = [
        draw_rows(logits_BV[some].float(), uniforms, params) for some, uniforms in zip(torch.split(chosen_B, rows), torch.split(uniforms_B, rows), strict=True)
    ]
    return Draw(*(torch.cat(part) for part in zip(*parts, strict=True)))


def draw_rows(logits_BV: torch.Tensor, uniforms_B: torch.Tensor, params: SamplingParams, votes: Votes | None = None) -> Draw:
    if params.temperature == 0:
        tokens_B1 = logits_BV.argmax(-1, keepdim=True)
        largest_B = logits_BV.gather(-1, tokens_B1)[:, 0]
        tokens_B, logprobs_B = tokens_B1[:, 0], largest_B - largest_B  # 0 where the largest logit is a finite number
        if votes is not None:
            tokens_B, logprobs_B = tokens_B[votes.rows_E], logprobs_B[votes.rows_E]
        return Draw(tokens_B, logprobs_B, torch.zeros_like(logprobs_B), logits_BV.new_empty(0))
    if params.temperature != 1:
        logits_BV = logits_BV / params.temperature
    logprobs_BV = truncated(logits_BV, params).log_softmax(-1)
    probs_BV = logprobs_BV.exp()
    tokens_B = inverse_cdf(probs_BV, uniforms_B, votes)
    certainties_B = -logprobs_BV.mean(-1) - math.log(logprobs_BV.shape[1]) if params.certainties else logprobs_BV.new_empty(0)
    entropies_B = -(probs_BV * logprobs_BV.clamp_(min=-1e30)).sum(-1)
    if votes is None:
        return Draw(tokens_B, logprobs_BV.gather(-1, tokens_B[:, None])[:, 0], entropies_B, certainties_B)
    rows_B = votes.rows_E
    return Draw(tokens_B, logprobs_BV[rows_B, tokens_B], entropies_B[rows_B], certainties_B[rows_B] if params.certainties else certainties_B)


def inverse_cdf(probs_BV: torch.Tensor, uniforms_B: torch.Tensor, votes: Votes | None = None) -> torch.Tensor:
    """The first token whose cumulated probability exceeds u times the total. Summed in float64, so that 100,000 small probabilities keep their share."""
    cumulated_BV = probs_BV.cumsum(-1, dtype=torch.float64)
    total_B1 = cumulated_BV[:, -1:]
    uniforms_BN = uniforms_B[:, None]
    if votes is not None:
        uniforms_BN = uniforms_B.new_zeros((len(probs_BV), votes.most))
        uniforms_BN[votes.rows_E, votes.numbers_E] = uniforms_B
    targets_BN = torch.minimum(uniforms_BN * total_B1, total_B1 * (1 - 2**-52))
    tokens_BN = torch.searchsorted(cumulated_BV, targets_BN, right=True).clamp_(max=probs_BV.shape[1] - 1)  # beyond the last where nothing is a number
    return tokens_BN[:, 0] if votes is None else tokens_BN[votes.rows_E, votes.numbers_E]


def truncates(params: SamplingParams, vocabulary: int) -> bool:
    return (params.top_k is not None and params.top_k < vocabulary) or params.top_p < 1 or params.min_p > 0


def truncated(logits_BV: torch.Tensor, params: SamplingParams) -> torch.Tensor:
    """Logits with -inf where top-k, top-p or min-p leave a token out; the most likely token always stays. Applied one after the other, each renormalised."""
    if params.top_k is not None and params.top_k < logits_BV.shape[1]:
        least_B1 = logits_BV.topk(params.top_k, dim=-1).values[:, -1:]
        logits_BV = logits_BV.masked_fill(logits_BV < least_B1, -torch.inf)
    if params.top_p < 1:
        probs_BV, order_BV = logits_BV.softmax(-1).sort(dim=-1, descending=True, stable=True)
        before_BV = probs_BV.cumsum(-1) - probs_BV
        outside_BV = torch.zeros_like(before_BV, dtype=torch.bool).scatter(-1, order_BV, before_BV >= params.top_p)
        logits_BV = logits_BV.masked_fill(outside_BV, -torch.inf)
    if params.min_p > 0:
        probs_BV = logits_BV.softmax(-1)
        logits_BV = logits_BV.masked_fill(probs_BV < params.min_p * probs_BV.amax(-1, keepdim=True), -torch.inf)
    return logits_BV
