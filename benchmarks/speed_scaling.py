"""Row `scaling` of speed.py: seconds and peak memory of a step against the number of votes, the length and the size of the model, ours alone.

Nothing is downloaded: lengths and sizes use random models with the embedded model's tokenizer; its own architecture with a context of 4,352 tokens for lengths,
wider and deeper ones for sizes. The slope is that of a line through the logarithms of value and figure: 1 is linear, below 1 better. The slope of the last two
points is what remains when what a step costs anyway (process, libraries, small products) no longer counts.
"""

from __future__ import annotations

import json
import math
import shutil
import tempfile
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

VOTES, LENGTHS = (4, 16, 64, 256), (64, 256, 1024, 4096)
SIZES = ((128, 4), (256, 6), (512, 8), (768, 12))
"""hidden size and layers: 0.7, 4.7, 25 and 85 million weights."""
CONTEXT_TOKENS = 4352


class Point(NamedTuple):
    """value: of the axis. memory_mib: peak of the process. base_mib: what it was before the first step."""

    axis: str
    value: int
    seconds: float
    memory_mib: float
    base_mib: float
    tokens: int


def scaling(options: Namespace, base: Any, run_side: Callable[..., dict[str, Any] | None]) -> None:
    """Measure every point, each in processes of its own, and print it; then slopes, and files where they are asked for."""
    points: list[Point] = []
    with tempfile.TemporaryDirectory() as folder:
        rows = list(miniature(base, folder) if options.miniature else scaling_rows(base, folder, options))
        print(f"{'axis':<12}{'value':>12}{'seconds':>10}{'memory, MiB':>13}{'above start':>13}{'new tokens':>12}")
        for axis, value, row in rows:
            found = [one for one in (run_side("ours", row, options) for _ in range(options.rounds)) if one]
            if not found:
                continue
            memory_mib, base_mib = (median([one[name] for one in found]) for name in ("memory_mib", "base_mib"))
            numbers = (median([median(one["seconds"]) for one in found]), memory_mib, base_mib)
            points.append(Point(axis, value, *numbers, row.prompts * row.votes * row.new_tokens))
            print(f"{axis:<12}{value:>12,}{numbers[0]:>10.2f}{numbers[1]:>13.0f}{numbers[1] - numbers[2]:>13.0f}{points[-1].tokens:>12,}", flush=True)
    print(f"\n{'slope':<12}{'seconds':>10}{'last two':>10}{'above start':>13}{'last two':>10}")
    for axis in dict.fromkeys(point.axis for point in points):
        chosen = [point for point in points if point.axis == axis]
        if len(chosen) > 1:
            values, seconds, memory = zip(*((one.value, one.seconds, max(one.memory_mib - one.base_mib, 1)) for one in chosen), strict=True)
            slopes = [slope(values[-count:], figures[-count:]) for figures in (seconds, memory) for count in (len(values), 2)]
            print(f"{axis:<12}{slopes[0]:>10.2f}{slopes[1]:>10.2f}{slopes[2]:>13.2f}{slopes[3]:>10.2f}")
    if options.csv:
        lines = [",".join(Point._fields), *(",".join(f"{one:.3f}" if isinstance(one, float) else str(one) for one in point) for point in points)]
        Path(options.csv).write_text("\n".join(lines) + "\n", encoding="utf-8")
    if options.plot:
        plot(points, options.plot)


def slope(values: Sequence[float], figures: Sequence[float]) -> float:
    """Of the least-squares line through the logarithms."""
    xs, ys = [math.log(value) for value in values], [math.log(figure) for figure in figures]
    middle_x, middle_y = sum(xs) / len(xs), sum(ys) / len(ys)
    return sum((x - middle_x) * (y - middle_y) for x, y in zip(xs, ys, strict=True)) / sum((x - middle_x) ** 2 for x in xs)


def scaling_rows(base: Any, folder: str, options: Namespace) -> Iterator[tuple[str, int, Any]]:
    """(axis, value, row)"""
    for votes in VOTES:
        yield "votes", votes, replace(base, prompts=8, votes=votes)
    long = options.long or random_model(base.model, Path(folder) / "long", 128, 4)
    for length in LENGTHS:
        yield "new tokens", length, replace(base, model=str(long), prompts=1, votes=8, new_tokens=length)
    for hidden, layers in SIZES:
        source = random_model(base.model, Path(folder) / f"{hidden}", hidden, layers)
        yield "weights", weights_of(source), replace(base, model=str(source), prompts=4, votes=8, new_tokens=32)
    for given in options.sizes:
        yield "weights", weights_of(given), replace(base, model=str(given), prompts=4, votes=8, new_tokens=32)


def miniature(base: Any, folder: str) -> Iterator[tuple[str, int, Any]]:
    """Two small points of every axis: that it runs, not how it scales."""
    long = str(random_model(base.model, Path(folder) / "long", 128, 4))
    for factor in (1, 2):
        yield "votes", 2 * factor, replace(base, prompts=2, votes=2 * factor, new_tokens=4)
        yield "new tokens", 8 * factor, replace(base, model=long, prompts=1, votes=2, new_tokens=8 * factor)
        source = random_model(base.model, Path(folder) / f"{factor}", 64 * factor, 2)
        yield "weights", weights_of(source), replace(base, model=str(source), prompts=1, votes=2, new_tokens=4)


def random_model(source: str, folder: Path, hidden: int, layers: int) -> Path:
    """A random Llama of this shape, written once, with the tokenizer of `source`; heads of 32 or 64."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM
    from transformers.utils import logging

    shutil.copytree(source, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    size = 32 if hidden <= 128 else 64
    heads = hidden // size
    shape = {"num_hidden_layers": layers, "num_attention_heads": heads, "num_key_value_heads": heads, "head_dim": size}
    config |= {"hidden_size": hidden, "intermediate_size": hidden * 240 // 128, "max_position_embeddings": CONTEXT_TOKENS, **shape}
    logging.disable_progress_bar()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        LlamaForCausalLM(LlamaConfig(**config)).save_pretrained(folder)
    return folder


def weights_of(folder: Any) -> int:
    """Weights of a model folder in float32 files, or half as many again in 16 bits; counted by their files."""
    config = json.loads((Path(folder) / "config.json").read_text(encoding="utf-8"))
    size = {"float32": 4, "bfloat16": 2, "float16": 2}[config.get("dtype") or config.get("torch_dtype") or "float32"]
    return sum(file.stat().st_size for file in Path(folder).glob("*.safetensors")) // size


def plot(points: Sequence[Point], file: str) -> None:
    """Both figures of every axis, logarithmic, with a dotted line of slope 1 through the last point. PNG or whatever the name ends with."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    axes = list(dict.fromkeys(point.axis for point in points))
    figure, panels = pyplot.subplots(2, len(axes), figsize=(3.6 * len(axes), 5.4), squeeze=False)
    for at, axis in enumerate(axes):
        chosen = [point for point in points if point.axis == axis]
        values = [point.value for point in chosen]
        above = [max(point.memory_mib - point.base_mib, 1) for point in chosen]
        figures = (([point.seconds for point in chosen], "seconds a step"), (above, "memory above the start, MiB"))
        for panel, (numbers, unit) in zip(panels[:, at], figures, strict=True):
            panel.plot(values, [numbers[-1] * value / values[-1] for value in values], ":", color="0.6", label="linear")
            panel.plot(values, numbers, "o-", color="#0b6")
            panel.set(xscale="log", yscale="log", xlabel=axis, ylabel=unit if at == 0 else "")
            panel.grid(alpha=0.3)
    panels[0][0].legend()
    figure.tight_layout()
    figure.savefig(file, dpi=110)
