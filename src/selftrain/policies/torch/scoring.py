"""Completions as rows of token ids, in micro-batches, and which of their positions predict what."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch

from selftrain.policies.torch.forward import Forward
from selftrain.policies.torch.trees import TokenSequence

LOGITS_AT_ONCE = {"cpu": 1 << 24, "cuda": 1 << 27}
"""Logits are made for so many (position, vocabulary entry) pairs at a time: 64 and 512 MiB in float32. Each time the head's weights are read and their gradient
is added up, which a GPU should do seldom."""


class Rows(NamedTuple):
    """Sequences to run together. ids_BT: prompt, completion, padding on the right. positions_K: flat indices b * T + t of the hidden states that predict
    the K completion tokens, in the order of the sequences.
    """

    ids_BT: torch.Tensor
    positions_K: torch.Tensor


def rows_of(sequences: Sequence[TokenSequence], pad_id: int, device: torch.device) -> Rows:
    """Pad on the right to the longest."""
    width = max(sequence.length for sequence in sequences)
    ids = [[*sequence.prompt_ids, *sequence.token_ids[:-1]] for sequence in sequences]
    positions = [row * width + len(sequence.prompt_ids) - 1 + at for row, sequence in enumerate(sequences) for at in sequence.wanted]
    padded = [row + [pad_id] * (width - len(row)) for row in ids]
    return Rows(torch.tensor(padded, device=device), torch.tensor(positions, device=device))


def microbatches(lengths: Sequence[int], budget_tokens: int, least: float = 0.9) -> list[list[int]]:
    """Indices by length, longest first, cut so that padded tokens (longest x count) stay in the budget; a longer sequence goes alone.

    A batch that holds an eighth of the budget is also cut where lengths have fallen below the share `least` of its longest, and any where they have fallen
    below half of it: little padding, and still few batches.
    """
    batches: list[list[int]] = []
    for at in sorted(range(len(lengths)), key=lambda at: (-lengths[at], at)):
        longest, count = (lengths[batches[-1][0]], len(batches[-1])) if batches else (0, 0)
        is_padded = lengths[at] < least * longest and (longest * count >= budget_tokens / 8 or 2 * lengths[at] < longest)
        if batches and longest * (count + 1) <= budget_tokens and not is_padded:
            batches[-1].append(at)
        else:
            batches.append([at])
    return batches


def head_chunks(count: int, forward: Forward) -> Iterator[slice]:
    """Slices of `count` positions whose logits are made at one time."""
    size = max(1, LOGITS_AT_ONCE[forward.device.type] // forward.vocabulary)
    return (slice(begin, min(begin + size, count)) for begin in range(0, count, size))
