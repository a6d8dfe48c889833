"""What the machine can do and what it used: the rate of matrix products, peak memory, the weights that take part in products."""

from __future__ import annotations

import resource
import sys
import time
from statistics import median
from typing import Any

import torch

SIZE, REPEATS = 1024, 7


def matrix_rate(device: torch.device, dtype: str) -> float:
    """Operations a second of a product of square matrices in the policy's type, as linear layers multiply, median of 7; 2 operations for a product and a sum.

    In bfloat16 a CPU may be ten times slower at `left @ right`, for which nothing is laid out.
    """
    size = SIZE if device.type == "cpu" else 8 * SIZE
    left = torch.ones(size, size, dtype=getattr(torch, dtype), device=device)
    seconds = []
    for _ in range(REPEATS + 1):
        synchronize(device)
        begun = time.perf_counter()
        torch.nn.functional.linear(left, left)
        synchronize(device)
        seconds.append(time.perf_counter() - begun)
    return 2 * size**3 / median(seconds[1:])


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def multiplied_weights(model: Any) -> int:
    """Weights that a token is multiplied with: all but an input table of its own, which is only looked up."""
    table, head = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    total: int = sum(weight.numel() for weight in model.parameters())
    return total if table is head else total - int(table.numel())


def default_cache_mib(device: torch.device) -> int:
    """Memory for keys and values where none is named: 1,024 MiB on the CPU, the same on every machine (design law 8), a quarter of a GPU's."""
    return gpu_bytes(device) >> 22 if device.type == "cuda" else 1024


def gpu_bytes(device: torch.device) -> int:
    """All the memory that a GPU has, free or not."""
    return int(torch.cuda.get_device_properties(device).total_memory)


def peak_memory(device: torch.device) -> dict[str, int]:
    """Bytes: the process's largest resident size so far and, on a GPU, the most that torch had allocated."""
    unit = 1 if sys.platform == "darwin" else 1024
    found = {"process_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit}
    if device.type == "cuda":
        found["device_bytes"] = torch.cuda.max_memory_allocated(device)
    return found
