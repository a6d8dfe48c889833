"""Memory of the update: how many tokens go through the model at one time, where the gradient lies, and what is given back to the system.

What a forward pass keeps for its backward pass is the largest part that can be chosen. It is counted once, on a short sequence, so that batches follow
from the model and the config and not from free memory (design law 8).
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterable

import torch

from selftrain.policies.torch.forward import Forward
from selftrain.policies.torch.hardware import default_cache_mib, gpu_bytes

CPU_ACTIVATIONS_MIB = 256
"""Activations of an update on a CPU: those of prompts and of completions, half each, exist at one time. In float32 they also have the room of what is not
there: a bfloat16 copy of the weights and its gradient."""
CPU_SEQUENCE_MIB = 4096
"""What one sequence may keep on a CPU before its activations are recomputed instead."""
MOST_TOKENS, LEAST_TOKENS = {"cpu": 2048, "cuda": 32768}, 64
"""Larger micro-batches are no faster (docs/log.md); smaller ones spend their time on adding up gradients."""
ALIGNED_WEIGHTS = 16
"""Gradients begin at multiples of 64 bytes."""


def kept_bytes(forward: Forward, num_tokens: int) -> int:
    """Bytes of the distinct tensors that a forward pass of one sequence keeps for its backward pass, weights and buffers left out."""
    kept: dict[int, int] = {}
    model = forward.running
    known = {tensor.untyped_storage().data_ptr() for tensors in (model.parameters(), model.buffers()) for tensor in tensors}

    def count(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    ids_1T = torch.full((1, num_tokens), forward.pad_id, device=forward.device)
    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        hidden_1TH = forward.hidden(ids_1T)
    del hidden_1TH  # what it keeps lives until here, so that no address is used twice
    return sum(size for address, size in kept.items() if address not in known)


def kept_per_token(forward: Forward) -> float:
    """Bytes that a forward pass keeps for each further token."""
    longest = min(64, forward.max_positions or 64)
    return (kept_bytes(forward, longest) - kept_bytes(forward, longest // 2)) / (longest - longest // 2)


def default_microbatch_tokens(forward: Forward) -> int:
    """Tokens of one pass where none are named: what prompts and completions keep fits half of a GPU's memory beside the weights, on a CPU 256 MiB and, in
    float32, 4 bytes a trained weight.
    """
    room = gpu_room(forward) if forward.device.type == "cuda" else cpu_room(forward)
    return int(max(LEAST_TOKENS, min(MOST_TOKENS[forward.device.type], room / 2 / max(kept_per_token(forward), 1))))


def cpu_room(forward: Forward) -> int:
    """Bytes for activations on a CPU."""
    uncopied = 0 if forward.twin is not None else sum(weight.numel() for weight in forward.model.parameters() if weight.requires_grad)
    return (CPU_ACTIVATIONS_MIB << 20) + 4 * uncopied


def gpu_room(forward: Forward) -> int:
    """Bytes for activations: half of what the weights, their bfloat16 twin, gradients and moments, and the keys and values of sampling by default, leave;
    a sixteenth of the memory at least.
    """
    beside: int = (default_cache_mib(forward.device) << 20) + sum((18 if weight.requires_grad else 6) * weight.numel() for weight in forward.model.parameters())
    memory = gpu_bytes(forward.device)
    return max(memory >> 4, (memory - beside) >> 1)


def sequence_room(forward: Forward) -> int:
    """Bytes that one sequence, which cannot be split, may keep: 4 GiB on a CPU, a quarter of a GPU's memory."""
    return gpu_bytes(forward.device) >> 2 if forward.device.type == "cuda" else CPU_SEQUENCE_MIB << 20


def one_gradient(weights: Iterable[torch.nn.Parameter]) -> None:
    """Give weights without a gradient one of zeros, all in one block: made before the activations, it does not lie scattered among them, and it is given
    back as a whole.
    """
    bare = [weight for weight in weights if weight.grad is None]
    for device, dtype in dict.fromkeys((weight.device, weight.dtype) for weight in bare):
        alike = [weight for weight in bare if (weight.device, weight.dtype) == (device, dtype)]
        sizes = [-(-weight.numel() // ALIGNED_WEIGHTS) * ALIGNED_WEIGHTS for weight in alike]
        parts = torch.split(torch.zeros(sum(sizes), dtype=dtype, device=device), sizes)
        for weight, part in zip(alike, parts, strict=True):
            weight.grad = part[: weight.numel()].view(weight.shape)


def give_back() -> None:
    """Free memory that the C library keeps between allocations of different sizes goes back to the system. Nothing where the library has no such call."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)
