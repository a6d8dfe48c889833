"""Triton kernels for a GPU: the draw from logits, the attention of a decode step, log-probabilities with the gradient of their logits, and the
element-wise parts of a layer, forward and backward: rotary positions and the gated unit of an MLP.

Each does in one pass over its input what plain torch does in many, computes in float32 (sums of probabilities in float64) and gives what the plain version
gives up to rounding. Which of the two runs is decided in fused.py. Shape letters as in attention.py and draw.py: B rows, V vocabulary, K key-value heads, G
query heads of each, D head size, P prompts, N places of a prompt.
"""

# mypy: ignore-errors
# Kernels are Triton's language in Python's syntax; their arguments are pointers and strides. The functions around them are typed.
from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl

BLOCK_V = 4096
"""Vocabulary entries at a time."""
BLOCK_T, TILE_BYTES = 64, 16384
"""Keys at a time, and bytes of them: keys and values of two or three blocks lie in shared memory at one time, of which small cards have 100 KiB."""
LEAST_GROUP = 16
"""Least rows of a matrix product."""
BLOCK_ELEMENTS = 1024
"""Elements at a time where each is computed for itself."""


@triton.jit
def _draw(
    logits_ptr, uniforms_ptr, tokens_ptr, logprobs_ptr, entropies_ptr, means_ptr, stride, vocabulary, temperature,
    WANTS_MEAN: tl.constexpr, BLOCK: tl.constexpr, BLOCKS: tl.constexpr, BLOCKS_PADDED: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    start = logits_ptr + row * stride
    at = tl.arange(0, BLOCK)
    best = tl.full([BLOCK], float("-inf"), tl.float32)
    for block in range(BLOCKS):
        index = block * BLOCK + at
        best = tl.maximum(best, tl.load(start + index, mask=index < vocabulary, other=float("-inf")).to(tl.float32))
    top = tl.max(best, 0) / temperature
    blocks = tl.arange(0, BLOCKS_PADDED)
    sums = tl.zeros([BLOCKS_PADDED], tl.float64)
    weighted = tl.zeros([BLOCK], tl.float32)
    plain = tl.zeros([BLOCK], tl.float32)
    for block in range(BLOCKS):
        index = block * BLOCK + at
        is_in = index < vocabulary
        z = tl.load(start + index, mask=is_in, other=float("-inf")).to(tl.float32) / temperature - top
        e = tl.exp(z)
        sums = tl.where(blocks == block, tl.sum(e.to(tl.float64), 0), sums)
        weighted += e * tl.where(e > 0, z, 0.0)
        if WANTS_MEAN:
            plain += tl.where(is_in, z, 0.0)
    cumulated = tl.cumsum(sums, 0)
    total = tl.sum(sums, 0)  # not a number where a logit is none; a maximum would hide it
    target = tl.minimum(tl.load(uniforms_ptr + row) * total, total * (1 - 2.220446049250313e-16))
    chosen = tl.minimum(tl.sum((cumulated <= target).to(tl.int32), 0), BLOCKS - 1)  # sums in another order may end a rounding short of the target
    before = tl.sum(tl.where(blocks < chosen, sums, 0.0), 0)
    index = chosen * BLOCK + at
    z = tl.load(start + index, mask=index < vocabulary, other=float("-inf")).to(tl.float32) / temperature - top
    e = tl.exp(z)
    inside = tl.sum(((before + tl.cumsum(e.to(tl.float64), 0)) <= target).to(tl.int32), 0)
    inside = tl.minimum(inside, tl.max(tl.where(e > 0, at, 0), 0))
    log_total = tl.log(total)
    tl.store(tokens_ptr + row, (chosen * BLOCK + inside).to(tl.int64))
    tl.store(logprobs_ptr + row, (tl.sum(tl.where(at == inside, z, 0.0), 0) - log_total).to(tl.float32))
    tl.store(entropies_ptr + row, (log_total - tl.sum(weighted.to(tl.float64), 0) / total).to(tl.float32))
    if WANTS_MEAN:
        tl.store(means_ptr + row, (tl.sum(plain.to(tl.float64), 0) / vocabulary - log_total).to(tl.float32))


def draw(
    logits_BV: torch.Tensor, uniforms_B: torch.Tensor, temperature: float, wants_mean: bool
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """(tokens_B, logprobs_B, entropies_B, mean log-probability of all tokens or nothing [B or 0]) by inverse CDF from softmax(logits / temperature).

    logits_BV: any float type, rows contiguous; uniforms_B: float64 in [0, 1).
    """
    rows, vocabulary = logits_BV.shape
    device = logits_BV.device
    tokens_B = torch.empty(rows, dtype=torch.int64, device=device)
    logprobs_B, entropies_B = (torch.empty(rows, dtype=torch.float32, device=device) for _ in range(2))
    means_B = torch.empty(rows if wants_mean else 0, dtype=torch.float32, device=device)
    blocks = triton.cdiv(vocabulary, BLOCK_V)
    _draw[(rows,)](
        logits_BV, uniforms_B, tokens_B, logprobs_B, entropies_B, means_B, logits_BV.stride(0), vocabulary, float(temperature),
        WANTS_MEAN=wants_mean, BLOCK=BLOCK_V, BLOCKS=blocks, BLOCKS_PADDED=triton.next_power_of_2(blocks), num_warps=8,
    )  # fmt: skip
    return tokens_B, logprobs_B, entropies_B, means_B


@triton.jit
def _attend_part(
    query, keys_start, values_start, key_stride, value_stride, length, first, scores_before, sums_before, out_before, softcap,
    SIZE: tl.constexpr, BLOCK: tl.constexpr, HAS_SOFTCAP: tl.constexpr,
):  # fmt: skip
    """One more stretch of keys and values in the running softmax: those at first, first + 1, ... length - 1."""
    top, total, out = scores_before, sums_before, out_before
    at_d = tl.arange(0, SIZE)
    begin = tl.maximum(first, 0) // BLOCK * BLOCK
    for block in range(begin, length, BLOCK):
        at = block + tl.arange(0, BLOCK)
        is_seen = (at < length) & (at >= first)
        keys = tl.load(keys_start + at[:, None] * key_stride + at_d[None, :], mask=is_seen[:, None], other=0.0)
        scores = tl.dot(query, tl.trans(keys), input_precision="ieee")
        if HAS_SOFTCAP:
            scores = softcap * (2 * tl.sigmoid(2 * scores / softcap) - 1)
        scores = tl.where(is_seen[None, :], scores, float("-inf"))
        new_top = tl.maximum(top, tl.max(scores, 1))
        weights = tl.exp(scores - new_top[:, None])
        shrink = tl.exp(top - new_top)
        total = total * shrink + tl.sum(weights, 1)
        values = tl.load(values_start + at[:, None] * value_stride + at_d[None, :], mask=is_seen[:, None], other=0.0)
        out = out * shrink[:, None] + tl.dot(weights.to(values.dtype), values, input_precision="ieee")
        top = new_top
    return top, total, out


@triton.jit
def _attend(
    query_ptr, prompt_keys_ptr, prompt_values_ptr, own_keys_ptr, own_values_ptr, out_ptr, places_ptr, prompt_lengths_ptr, own_lengths_ptr,
    query_row, query_head, pk_prompt, pk_head, pk_token, pv_prompt, pv_head, pv_token, ok_row, ok_head, ok_token, ov_row, ov_head, ov_token,
    num_places, own_width, scaling, window, softcap,
    GROUP: tl.constexpr, GROUP_PADDED: tl.constexpr, SIZE: tl.constexpr, BLOCK: tl.constexpr, HAS_SOFTCAP: tl.constexpr,
):  # fmt: skip
    row, head = tl.program_id(0).to(tl.int64), tl.program_id(1)
    prompt = tl.load(places_ptr + row) // num_places
    of_prompt = tl.load(prompt_lengths_ptr + prompt)
    own = tl.minimum(tl.load(own_lengths_ptr + row), own_width)  # a row that is not in use stands at the board's last column, and is given as few as others
    first = of_prompt + own - window  # the query stands at of_prompt + own - 1 and sees `window` tokens, itself included
    at_g, at_d = tl.arange(0, GROUP_PADDED), tl.arange(0, SIZE)
    is_in = (at_g < GROUP)[:, None]
    at_query = query_ptr + row * query_row + (head * GROUP + at_g)[:, None] * query_head + at_d[None, :]
    query = tl.load(at_query, mask=is_in, other=0.0)
    query = (query.to(tl.float32) * scaling).to(query.dtype)
    top = tl.full([GROUP_PADDED], -1e30, tl.float32)
    total = tl.zeros([GROUP_PADDED], tl.float32)
    out = tl.zeros([GROUP_PADDED, SIZE], tl.float32)
    top, total, out = _attend_part(
        query, prompt_keys_ptr + prompt * pk_prompt + head * pk_head, prompt_values_ptr + prompt * pv_prompt + head * pv_head,
        pk_token, pv_token, of_prompt, first, top, total, out, softcap, SIZE, BLOCK, HAS_SOFTCAP,
    )  # fmt: skip
    top, total, out = _attend_part(
        query, own_keys_ptr + row * ok_row + head * ok_head, own_values_ptr + row * ov_row + head * ov_head,
        ok_token, ov_token, own, first - of_prompt, top, total, out, softcap, SIZE, BLOCK, HAS_SOFTCAP,
    )  # fmt: skip
    at_out = out_ptr + (row * tl.num_programs(1) * GROUP + head * GROUP + at_g)[:, None] * SIZE + at_d[None, :]
    tl.store(at_out, (out / total[:, None]).to(query.dtype), mask=is_in)


def tile(size: int, element_bytes: int) -> tuple[int, int]:
    """Keys at a time, and how many such blocks are loaded ahead, for heads of `size` numbers."""
    block = max(LEAST_GROUP, min(BLOCK_T, TILE_BYTES // (size * element_bytes)))
    return block, 3 if block * size * element_bytes <= TILE_BYTES // 2 else 2


def attend(
    query_BHQD: torch.Tensor,
    prompt: tuple[torch.Tensor, torch.Tensor],
    own: tuple[torch.Tensor, torch.Tensor],
    layout: Any,
    scaling: float,
    window: int,
    softcap: float | None,
) -> torch.Tensor:
    """Attention [B, 1, H, D] of one query a sequence over its prompt's and its own keys, as `attention.Decoding.attend`.

    prompt, own: keys and values [P, K, L, D] and [B, K, T, D]. layout: a `Decoding`. D is a power of two from 16.
    """
    batch, heads, _, size = query_BHQD.shape
    kv_heads = own[0].shape[1]
    group = heads // kv_heads
    block, stages = tile(size, query_BHQD.element_size())
    out_B1HD = torch.empty((batch, 1, heads, size), dtype=query_BHQD.dtype, device=query_BHQD.device)
    _attend[(batch, kv_heads)](
        query_BHQD, *prompt, *own, out_B1HD, layout.places_B, layout.lengths_P, layout.lengths_B, query_BHQD.stride(0), query_BHQD.stride(1),
        *(stride for part in (*prompt, *own) for stride in part.stride()[:3]), layout.num_places, own[0].shape[2],
        float(scaling), min(window, 1 << 30), float(softcap or 1.0),
        GROUP=group, GROUP_PADDED=max(LEAST_GROUP, triton.next_power_of_2(group)), SIZE=size, BLOCK=block, HAS_SOFTCAP=softcap is not None, num_stages=stages,
    )  # fmt: skip
    return out_B1HD


@triton.jit
def _logprobs(logits_ptr, targets_ptr, logprobs_ptr, totals_ptr, stride, vocabulary, temperature, BLOCK: tl.constexpr, BLOCKS: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    start = logits_ptr + row * stride
    at = tl.arange(0, BLOCK)
    best = tl.full([BLOCK], -1e30, tl.float32)
    total = tl.zeros([BLOCK], tl.float32)
    for block in range(BLOCKS):
        index = block * BLOCK + at
        z = tl.load(start + index, mask=index < vocabulary, other=float("-inf")).to(tl.float32) / temperature
        higher = tl.maximum(best, z)
        total = total * tl.exp(best - higher) + tl.exp(z - higher)
        best = higher
    top = tl.max(best, 0)
    log_sum = tl.log(tl.sum(total * tl.exp(best - top), 0))
    chosen = tl.load(start + tl.load(targets_ptr + row)).to(tl.float32) / temperature
    tl.store(totals_ptr + 2 * row, top)
    tl.store(totals_ptr + 2 * row + 1, log_sum)
    tl.store(logprobs_ptr + row, chosen - top - log_sum)


@triton.jit
def _slopes(logits_ptr, targets_ptr, totals_ptr, slopes_ptr, stride, vocabulary, temperature, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    index = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    start = logits_ptr + row * stride
    is_in = index < vocabulary
    z = tl.load(start + index, mask=is_in, other=0.0)
    p = tl.exp(z.to(tl.float32) / temperature - tl.load(totals_ptr + 2 * row) - tl.load(totals_ptr + 2 * row + 1))
    slope = tl.load(slopes_ptr + row) / temperature
    is_target = index == tl.load(targets_ptr + row)
    tl.store(start + index, (slope * (tl.where(is_target, 1.0, 0.0) - p)).to(z.dtype), mask=is_in)


def logprobs(logits_KV: torch.Tensor, targets_K: torch.Tensor, temperature: float) -> tuple[torch.Tensor, torch.Tensor]:
    """(log-probabilities of the targets [K]; the largest logit, and the log of the sum of exponentials of what the others are below it [K, 2]), float32, of
    softmax(logits / temperature). Apart, because one number for both would lose digits where logits are far from 0.
    """
    count, vocabulary = logits_KV.shape
    logprobs_K, totals_K2 = (torch.empty(shape, dtype=torch.float32, device=logits_KV.device) for shape in (count, (count, 2)))
    _logprobs[(count,)](
        logits_KV, targets_K, logprobs_K, totals_K2, logits_KV.stride(0), vocabulary, float(temperature),
        BLOCK=BLOCK_V, BLOCKS=triton.cdiv(vocabulary, BLOCK_V), num_warps=8,
    )  # fmt: skip
    return logprobs_K, totals_K2


def slopes_(logits_KV: torch.Tensor, targets_K: torch.Tensor, totals_K2: torch.Tensor, slopes_K: torch.Tensor, temperature: float) -> None:
    """Put d(sum of slopes * log-probabilities) / d(logits) in the logits' place."""
    count, vocabulary = logits_KV.shape
    grid = (count, triton.cdiv(vocabulary, BLOCK_V))
    _slopes[grid](logits_KV, targets_K, totals_K2, slopes_K, logits_KV.stride(0), vocabulary, float(temperature), BLOCK=BLOCK_V, num_warps=8)


@triton.jit
def _rotate_heads(from_ptr, to_ptr, head_stride, cos, cos_2, sin, sin_2, HEADS: tl.constexpr, HEADS_PADDED: tl.constexpr, HALF: tl.constexpr):
    at_h, at_d = tl.arange(0, HEADS_PADDED)[:, None], tl.arange(0, HALF)[None, :]
    is_in = at_h < HEADS
    first_ptr, to_first_ptr = from_ptr + at_h * head_stride + at_d, to_ptr + at_h * (2 * HALF) + at_d
    first, second = tl.load(first_ptr, mask=is_in, other=0.0), tl.load(first_ptr + HALF, mask=is_in, other=0.0)
    a, b = first.to(tl.float32), second.to(tl.float32)
    tl.store(to_first_ptr, (a * cos - b * sin).to(first.dtype), mask=is_in)
    tl.store(to_first_ptr + HALF, (b * cos_2 + a * sin_2).to(first.dtype), mask=is_in)


@triton.jit
def _rotate(
    query_ptr, key_ptr, cos_ptr, sin_ptr, query_to_ptr, key_to_ptr, length,
    query_batch, query_head, query_token, key_batch, key_head, key_token, cos_batch, cos_token, sin_batch, sin_token,
    IS_BACK: tl.constexpr, HEADS: tl.constexpr, HEADS_PADDED: tl.constexpr, KV_HEADS: tl.constexpr, KV_HEADS_PADDED: tl.constexpr, HALF: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    batch, token = row // length, row % length
    at_d = tl.arange(0, HALF)[None, :]
    at_cos, at_sin = cos_ptr + batch * cos_batch + token * cos_token + at_d, sin_ptr + batch * sin_batch + token * sin_token + at_d
    cos, cos_2 = tl.load(at_cos).to(tl.float32), tl.load(at_cos + HALF).to(tl.float32)
    sin, sin_2 = tl.load(at_sin).to(tl.float32), tl.load(at_sin + HALF).to(tl.float32)
    if IS_BACK:  # the transposed rotation
        sin, sin_2 = -sin_2, -sin
    _rotate_heads(
        query_ptr + batch * query_batch + token * query_token, query_to_ptr + row * HEADS * 2 * HALF, query_head,
        cos, cos_2, sin, sin_2, HEADS, HEADS_PADDED, HALF,
    )  # fmt: skip
    _rotate_heads(
        key_ptr + batch * key_batch + token * key_token, key_to_ptr + row * KV_HEADS * 2 * HALF, key_head,
        cos, cos_2, sin, sin_2, KV_HEADS, KV_HEADS_PADDED, HALF,
    )  # fmt: skip


def _rotated(
    query_BHTD: torch.Tensor, key_BKTD: torch.Tensor, cos_BTD: torch.Tensor, sin_BTD: torch.Tensor, is_back: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    (batch, heads, length, size), kv_heads = query_BHTD.shape, key_BKTD.shape[1]
    query_BHTD, key_BKTD, cos_BTD, sin_BTD = (one if one.stride(-1) == 1 else one.contiguous() for one in (query_BHTD, key_BKTD, cos_BTD, sin_BTD))
    cos_BTD, sin_BTD = (one.expand(batch, length, size) for one in (cos_BTD, sin_BTD))
    made = [query_BHTD.new_empty((batch, length, count, size)) for count in (heads, kv_heads)]
    _rotate[(batch * length,)](
        query_BHTD, key_BKTD, cos_BTD, sin_BTD, *made, length, *query_BHTD.stride()[:3], *key_BKTD.stride()[:3], *cos_BTD.stride()[:2], *sin_BTD.stride()[:2],
        IS_BACK=is_back, HEADS=heads, HEADS_PADDED=triton.next_power_of_2(heads), KV_HEADS=kv_heads, KV_HEADS_PADDED=triton.next_power_of_2(kv_heads),
        HALF=size // 2, num_warps=2,
    )  # fmt: skip
    return made[0].transpose(1, 2), made[1].transpose(1, 2)


class _Rotation(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, query: torch.Tensor, key: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        context.save_for_backward(cos, sin)
        return _rotated(query, key, cos, sin, False)

    @staticmethod
    def backward(context: Any, query: torch.Tensor, key: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        return (*_rotated(query, key, *context.saved_tensors, True), None, None)


def rotate(query_BHTD: torch.Tensor, key_BKTD: torch.Tensor, cos_BTD: torch.Tensor, sin_BTD: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Rotary positions by halves, with gradient: x cos + (-x2, x1) sin. cos, sin: [B or 1, T, D]; D is twice a power of two."""
    rotated: tuple[torch.Tensor, torch.Tensor] = _Rotation.apply(query_BHTD, key_BKTD, cos_BTD, sin_BTD)
    return rotated


@triton.jit
def _gate(gate_ptr, up_ptr, out_ptr, count, BLOCK: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    is_in = at < count
    gate, up = tl.load(gate_ptr + at, mask=is_in, other=0.0), tl.load(up_ptr + at, mask=is_in, other=0.0)
    g = gate.to(tl.float32)
    tl.store(out_ptr + at, (g * tl.sigmoid(g) * up.to(tl.float32)).to(gate.dtype), mask=is_in)


@triton.jit
def _gate_back(slope_ptr, gate_ptr, up_ptr, gate_slope_ptr, up_slope_ptr, count, BLOCK: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    is_in = at < count
    gate, up = tl.load(gate_ptr + at, mask=is_in, other=0.0), tl.load(up_ptr + at, mask=is_in, other=0.0)
    slope = tl.load(slope_ptr + at, mask=is_in, other=0.0).to(tl.float32)
    g = gate.to(tl.float32)
    s = tl.sigmoid(g)
    tl.store(up_slope_ptr + at, (slope * g * s).to(gate.dtype), mask=is_in)
    tl.store(gate_slope_ptr + at, (slope * up.to(tl.float32) * s * (1 + g * (1 - s))).to(gate.dtype), mask=is_in)


class _Gated(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
        gate, up = gate.contiguous(), up.contiguous()
        context.save_for_backward(gate, up)
        out = torch.empty_like(gate)
        _gate[(triton.cdiv(gate.numel(), BLOCK_ELEMENTS),)](gate, up, out, gate.numel(), BLOCK=BLOCK_ELEMENTS)
        return out

    @staticmethod
    def backward(context: Any, slope: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        gate, up = context.saved_tensors
        slopes = torch.empty_like(gate), torch.empty_like(up)
        _gate_back[(triton.cdiv(gate.numel(), BLOCK_ELEMENTS),)](slope.contiguous(), gate, up, *slopes, gate.numel(), BLOCK=BLOCK_ELEMENTS)
        return slopes


def gated(gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
    """silu(gate) * up, with gradient; of what it computes nothing is kept but the two."""
    out: torch.Tensor = _Gated.apply(gate, up)
    return out
