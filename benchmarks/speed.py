"""Times whole training steps of this package against TRL, and its sampling against vLLM, side by side, and prints one table.

    python benchmarks/speed.py                                                                      # the embedded model, CPU
    python benchmarks/speed.py --rows smollm smollm-bf16 --smollm FOLDER --prompts gsm8k_train.jsonl --trl-batches 8        # CPU, the second in bfloat16
    python benchmarks/speed.py --rows scaling --csv scaling.csv --plot scaling.png                  # time and memory against votes, length, size, CPU
    python benchmarks/speed.py --rows qwen --qwen FOLDER --prompts gsm8k_train.jsonl                # one GPU; TRL with generate
    python benchmarks/speed.py --rows qwen-vllm --qwen FOLDER --prompts gsm8k_train.jsonl           # one GPU; TRL with colocated vLLM
    python benchmarks/speed.py --rows sampling sampling-long --qwen FOLDER --prompts gsm8k_train.jsonl      # one GPU; vLLM alone
    python benchmarks/speed.py --miniature --rows embedded qwen sampling scaling                    # does it run here? tiny, embedded model, CPU

| row | packages beside this one | model, a Hugging Face folder |
|---|---|---|
| embedded, embedded-bf16 | trl==1.16.0 | - |
| smollm, smollm-bf16 | trl==1.16.0 | SmolLM2-135M-Instruct |
| qwen | trl==1.16.0, a CUDA build of torch | Qwen2.5-Coder-0.5B-Instruct |
| qwen-vllm | trl==1.16.0, vllm (>= 0.22, with the torch that it pins) | the same |
| sampling, sampling-long | vllm (>= 0.22) | the same |
| scaling | matplotlib, for --plot | - (random models; others with --long, --sizes) |

A side without its packages says so and the other goes on. A number that is not finite (a loss, a time, a gap between log-probabilities) ends the run.

How it is measured: both sides run in processes of their own, in turn, `--rounds` times; each makes `--steps` steps after `--warmup` others, and the median
step of all rounds counts. Same weights, prompts, votes, threads, type. Lengths are fixed: no end token ends a completion before its limit. Rewards are fixed:
they alternate within each group, so every group trains. Ours is the whole step of `selftrain train` (sampling, reading, vote, label, ledger on the disk,
guard, update, record) with its default memory settings; TRL's is GRPOTrainer's step with a reward function that reads answers and votes, without a KL term,
without gradient checkpointing. There are no probes: one would fall into the first step, which does not count, and every twentieth after it. Its micro-batch is
the fastest of those given by --trl-batches. Neither side writes a checkpoint in a step that counts. In the rows of sampling one step is one sampling of all
completions with their log-probabilities and texts. Memory is the peak of the process (VmHWM), on a GPU that of torch's allocator (vLLM takes what it is
told).

The floor is 2 operations a weight and sampled token plus 6 a weight and trained token, each prompt counted once, at the matrix rate measured in the same run.
Every token counts there, also those that votes of a prompt have in common, which ours computes once.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import selftrain.models


@dataclass(frozen=True)
class Row:
    """One line of the table. target: times as fast as the peer; None where there is none. work: what a step is, `step` or `sample`."""

    name: str
    model: str
    peer: str
    prompts: int
    votes: int
    new_tokens: int
    device: str = "cpu"
    dtype: str = "float32"
    target: float | None = None
    work: str = "step"


EMBEDDED = str(Path(selftrain.models.__file__).parent / "default")
ROWS = {
    "embedded": Row("embedded", EMBEDDED, "generate", 32, 16, 48, target=2.0),
    "smollm": Row("smollm", "smollm", "generate", 8, 8, 64, target=2.0),
    "embedded-bf16": Row("embedded-bf16", EMBEDDED, "generate", 32, 16, 48, dtype="bfloat16", target=2.0),
    "smollm-bf16": Row("smollm-bf16", "smollm", "generate", 8, 8, 64, dtype="bfloat16", target=2.0),
    "qwen": Row("qwen", "qwen", "generate", 32, 16, 300, "cuda", "bfloat16", target=8.0),
    "qwen-vllm": Row("qwen-vllm", "qwen", "vllm", 32, 16, 300, "cuda", "bfloat16", target=1.5),
    "sampling": Row("sampling", "qwen", "vllm", 32, 16, 300, "cuda", "bfloat16", target=1.0, work="sample"),
    "sampling-long": Row("sampling-long", "qwen", "vllm", 32, 16, 1024, "cuda", "bfloat16", target=1.0, work="sample"),
}


def main() -> None:
    options = parsed()
    if options.side:
        print("RESULT " + json.dumps(SIDES[options.side](Row(**json.loads(options.row)), options)))
        return
    names = [name for name in options.rows if name != "scaling"]
    if names:
        columns = ("ours, s", "peer, s", "factor", "target", "floor, s", "over it", "sampling", "update", "rest")
        print(f"{'row':14}" + "".join(f"{name:>10}" for name in columns) + f"{'memory':>16}{'share':>7}")
    for name in names:
        row = named_row(name, options)
        ours, peer = [], []
        for _ in range(options.rounds):
            ours.append(run_side(SIDES_OF[row.work][0], row, options))
            if options.without_peer:
                continue
            tried = batches_of(row, options) if row.work == "step" else [0]
            peer.append(fastest([run_side(SIDES_OF[row.work][1], row, options, batch) for batch in tried]))
        print_row(row, [one for one in ours if one], [one for one in peer if one])
    if "scaling" in options.rows:
        from speed_scaling import scaling

        scaling(options, ROWS["embedded"], run_side)


def named_row(name: str, options: argparse.Namespace) -> Row:
    row = ROWS[name]
    folder = {"smollm": options.smollm, "qwen": options.qwen}.get(row.model, row.model)
    if options.miniature:
        peer = row.peer if row.work == "sample" else "generate"
        return replace(row, model=str(folder or EMBEDDED), prompts=2, votes=2, new_tokens=4, device="cpu", peer=peer)
    if folder is None:
        sys.exit(f"row {name} needs a model: give its Hugging Face folder with --{row.model}")
    return replace(row, model=str(folder))


def batches_of(row: Row, options: argparse.Namespace) -> list[int]:
    """Micro-batches to try for the peer, each in its own process: one that runs out of memory costs nothing else."""
    total = row.prompts * row.votes
    return [size for size in options.trl_batches if size <= total and total % size == 0] or [total]


def fastest(found: Sequence[dict[str, Any] | None]) -> dict[str, Any] | None:
    return min((one for one in found if one), key=lambda one: median(one["seconds"]), default=None)


def run_side(side: str, row: Row, options: argparse.Namespace, trl_batch: int = 0) -> dict[str, Any] | None:
    """One process; None, with how it ended on the screen, where it failed."""
    command = [
        sys.executable,
        __file__,
        "--side",
        side,
        "--row",
        json.dumps(row.__dict__),
        "--steps",
        str(options.steps),
        "--threads",
        str(options.threads),
        "--warmup",
        str(options.warmup),
    ]
    command += ["--prompts", options.prompts] if options.prompts else []
    command += ["--microbatch", str(options.microbatch)] if options.microbatch else []
    command += ["--trl-batch", str(trl_batch)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": str(options.threads)})
    for line in done.stdout.splitlines():
        if line.startswith("RESULT "):
            found: dict[str, Any] = json.loads(line.removeprefix("RESULT "))
            check_finite(row, side, found)
            return found
    last = (done.stderr or done.stdout).strip().splitlines()[-1:]
    print(f"{row.name}: {side} {trl_batch or ''} ended with status {done.returncode} (-9: killed, as a rule for memory): {last}", flush=True)
    return None


def check_finite(row: Row, side: str, found: dict[str, Any]) -> None:
    """Ends the program at the first number that is none: such a run measures nothing."""
    for name, value in found.items():
        for number in value if isinstance(value, list) else value.values() if isinstance(value, dict) else [value]:
            if isinstance(number, float) and not math.isfinite(number):
                sys.exit(f"{row.name}: {side} gave {name} = {number}; a run that is not finite measures nothing, so nothing more is run")


def print_row(row: Row, ours: Sequence[dict[str, Any]], peer: Sequence[dict[str, Any]]) -> None:
    if not ours:
        return
    mine = median([second for one in ours for second in one["seconds"]])
    floor = median([one["floor"] for one in ours])
    stages = {stage: median([one["stages"][stage] for one in ours]) for stage in ("sample", "update", "rest")}
    numbers: list[float | None] = [mine, None, None, row.target, floor, mine / floor, *stages.values()]
    last = ""
    if peer:
        its = median([second for one in peer for second in one["seconds"]])
        numbers[1:3] = its, its / mine
        memory = [median([one["memory_mib"] for one in side]) for side in (ours, peer)]
        last = f"{memory[0]:8.0f}/{memory[1]:.0f} MiB{memory[0] / memory[1]:7.0%}"
        batches = sorted({one["batch"] for one in peer if "batch" in one})
        last += f"   peer's fastest micro-batches {', '.join(map(str, batches))}" if batches else ""
    line = f"{row.name:14}" + "".join(f"{'-':>10}" if number is None else f"{number:10.2f}" for number in numbers) + last
    print(line, flush=True)


def prompt_texts(row: Row, options: argparse.Namespace) -> list[str]:
    """As many prompts as one run needs, the same for both sides."""
    count = row.prompts * 4
    if options.prompts and row.model != EMBEDDED:
        rows = [json.loads(line) for line in Path(options.prompts).read_text(encoding="utf-8").splitlines()[:count]]
        return [str(one.get("prompt") or one.get("question")) for one in rows]
    from selftrain.prompts.tasks import mixture

    return [prompt.text for prompt in mixture("add:4", count, seed=0).prompts]


def ours(row: Row, options: argparse.Namespace) -> dict[str, Any]:
    """Whole steps of a run of this package, in a temporary folder."""
    import torch

    torch.set_num_threads(options.threads)
    rate = matrix_rate(row)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "prompts.jsonl"
        file.write_text("".join(json.dumps({"prompt": text}) + "\n" for text in prompt_texts(row, options)), encoding="utf-8")
        run = selftrain.start(config_of(row, options, str(file), folder))
        fix_lengths(run.policy)
        base_mib = peak_mib(row)
        reports, times = [], [time.perf_counter()]
        events = run.events()
        for event in events:
            if isinstance(event, selftrain.StepReport):
                times.append(time.perf_counter())
                reports.append(event)
                if len(reports) == options.steps + options.warmup:
                    break
        events.close()
    assert all(one.trained for report in reports for one in report.scored), "every group has to train"
    seconds = [after - before for before, after in pairwise(times)][options.warmup :]
    stages = {stage: median([report.seconds.get(stage, 0.0) for report in reports[options.warmup :]]) for stage in ("sample", "update")}
    stages["rest"] = median(seconds) - stages["sample"] - stages["update"]
    weights = sum(weight.numel() for weight in run.policy.learner.weights.values())
    groups = [one.voted.group for one in reports[-1].scored]
    sampled = sum(len(done.token_ids) for group in groups for done in group.completions)
    prompts = sum(len(group.prompt_ids) for group in groups)
    floor = weights * (2 * (sampled + prompts) + 6 * (sampled + prompts)) / rate
    last = reports[-1].metrics.values
    numbers = {"gap": last.get("update/logprob_gap_nats"), "loss": last.get("update/loss"), "grad_norm": last.get("update/grad_norm")}
    return {"seconds": seconds, "floor": floor, "stages": stages, "memory_mib": peak_mib(row), "base_mib": base_mib, **numbers}


def config_of(row: Row, options: argparse.Namespace, file: str, folder: str) -> Any:
    overrides: dict[str, Any] = {
        "policy.model": "embedded:default" if row.model == EMBEDDED else row.model,
        "policy.device": row.device,
        "policy.dtype": row.dtype,
        "policy.num_threads": options.threads,
        "prompts.file": file,
        "prompts.template": "raw",
        "rollout.prompts_per_step": row.prompts,
        "rollout.num_votes": row.votes,
        "rollout.max_new_tokens": row.new_tokens,
        "labels.source": "speed_rules:labels",
        "advantage.rule": "speed_rules:advantages",
        "guard.action": "warn",
        "probes.num_prompts": 0,
        "update.learning_rate": 1e-9,
        **({"update.tokens_per_microbatch": options.microbatch} if options.microbatch else {}),
        "run.num_steps": options.steps + options.warmup + 1,
        "run.checkpoint_every_steps": options.steps + options.warmup + 1,
        "run.folder": folder,
    }
    sys.path.insert(0, str(Path(__file__).parent))
    return selftrain.load_config(overrides=overrides)


def fix_lengths(policy: Any) -> None:
    """No token ends a completion, and reaching the limit counts as ending: every completion has the same length and may train."""
    from selftrain.types import Finish

    policy.sampler = replace(policy.sampler, stop_ids=frozenset())
    sample = policy.sample

    def finished(*args: Any) -> Any:
        return [replace(group, completions=tuple(replace(done, finish=Finish.STOP) for done in group.completions)) for group in sample(*args)]

    policy.sample = finished


def trl(row: Row, options: argparse.Namespace) -> dict[str, Any]:
    """Steps of TRL's GRPOTrainer with micro-batches of options.trl_batch sequences."""
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    from selftrain.answers import read
    from selftrain.vote import count

    torch.set_num_threads(options.threads)
    times: list[float] = []

    class Clock(TrainerCallback):
        def on_step_end(self, *_args: Any, **_kwargs: Any) -> None:
            if row.device == "cuda":
                torch.cuda.synchronize()
            times.append(time.perf_counter())

    def reward(completions: Sequence[Any], **_: Any) -> list[float]:
        texts = [one if isinstance(one, str) else one[0]["content"] for one in completions]
        for begin in range(0, len(texts), row.votes):
            count(read(texts[begin : begin + row.votes]).keys)
        return [float(at % 2) for at in range(len(texts))]

    total, batch = row.prompts * row.votes, options.trl_batch
    no_end = {"ignore_eos": True} if row.peer == "vllm" else {"min_new_tokens": row.new_tokens}
    with tempfile.TemporaryDirectory() as folder:
        config = GRPOConfig(
            output_dir=folder, max_steps=options.steps + options.warmup, per_device_train_batch_size=batch, gradient_accumulation_steps=total // batch,
            num_generations=row.votes, max_completion_length=row.new_tokens, temperature=1.0, beta=0.0, learning_rate=1e-9, lr_scheduler_type="constant",
            use_cpu=row.device == "cpu", bf16=row.dtype == "bfloat16", gradient_checkpointing=False, logging_steps=1000, save_strategy="no", report_to="none",
            disable_tqdm=True, seed=0, use_vllm=row.peer == "vllm", generation_kwargs=no_end,
        )  # fmt: skip
        tokenizer = AutoTokenizer.from_pretrained(row.model, padding_side="left")
        model = AutoModelForCausalLM.from_pretrained(row.model, dtype=torch.float32)
        data = Dataset.from_list([{"prompt": [{"role": "user", "content": text}]} for text in prompt_texts(row, options)])
        trainer = GRPOTrainer(model=model, args=config, reward_funcs=reward, train_dataset=data, processing_class=tokenizer, callbacks=[Clock()])
        loss = float(trainer.train().training_loss)
    seconds = [after - before for before, after in pairwise(times)][options.warmup - 1 :]
    return {"seconds": seconds, "memory_mib": peak_mib(row), "batch": batch, "loss": loss}


def ours_sample(row: Row, options: argparse.Namespace) -> dict[str, Any]:
    """Samplings of the torch policy, one a step, each with numbers of its own."""
    from selftrain.policies.base import SampleRequest, SamplingParams
    from selftrain.seeds import Stream

    rate, policy, prompts = matrix_rate(row), policy_of(row, options), prompts_of(row, options)
    fix_lengths(policy)
    seconds, requests = [], [SampleRequest(prompt, row.votes, 0, at) for at, prompt in enumerate(prompts)]
    for step in range(options.warmup + options.steps):
        begin = time.perf_counter()
        groups = policy.sample(requests, SamplingParams(row.new_tokens), Stream(step, stream="sample"))
        seconds.append(time.perf_counter() - begin)  # what was drawn has come to the host
    sampled = sum(len(done.token_ids) for group in groups for done in group.completions)
    assert sampled == row.prompts * row.votes * row.new_tokens, "every completion has the same length"
    lowest = min(min(done.logprobs) for group in groups for done in group.completions)
    weights = sum(weight.numel() for weight in policy.forward.running.parameters())
    median_s = median(seconds[options.warmup :])
    stages = {"sample": median_s, "update": 0.0, "rest": 0.0}
    floor = 2 * weights * (sampled + sum(len(group.prompt_ids) for group in groups)) / rate
    return {"seconds": seconds[options.warmup :], "floor": floor, "stages": stages, "memory_mib": peak_mib(row), "lowest_logprob": lowest}


def vllm_sample(row: Row, options: argparse.Namespace) -> dict[str, Any]:
    """The same of vLLM: the same token ids, log-probabilities of the sampled tokens, texts; prompts are cached for their votes, not from step to step."""
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    from transformers import AutoTokenizer
    from vllm import LLM, SamplingParams

    from selftrain.policies.torch.encoding import Encoder

    encoder = Encoder(AutoTokenizer.from_pretrained(row.model), section_of(row, options))
    ids = [list(encoder.encode(prompt)) for prompt in prompts_of(row, options)]
    engine = LLM(
        model=row.model, dtype=row.dtype, max_model_len=max(map(len, ids)) + row.new_tokens, max_num_seqs=row.prompts * row.votes,
        gpu_memory_utilization=0.8, enable_prefix_caching=True, generation_config="vllm",
    )  # fmt: skip
    seconds = []
    for step in range(options.warmup + options.steps):
        params = SamplingParams(n=row.votes, temperature=1.0, max_tokens=row.new_tokens, ignore_eos=True, logprobs=0, seed=step)
        engine.reset_prefix_cache()
        begin = time.perf_counter()
        outputs = engine.generate([{"prompt_token_ids": one} for one in ids], params, use_tqdm=False)
        seconds.append(time.perf_counter() - begin)
    assert all(len(done.token_ids) == row.new_tokens for one in outputs for done in one.outputs), "every completion has the same length"
    lowest = min(done.cumulative_logprob for one in outputs for done in one.outputs)
    return {"seconds": seconds[options.warmup :], "memory_mib": peak_mib(row), "lowest_logprob": float(lowest)}


def section_of(row: Row, options: argparse.Namespace) -> Any:
    from selftrain.config import PolicySection

    return PolicySection(model=row.model, device=row.device, dtype=row.dtype, num_threads=options.threads)


def policy_of(row: Row, options: argparse.Namespace) -> Any:
    from selftrain.config import UpdateSection
    from selftrain.policies.torch import load_policy

    return load_policy(section_of(row, options), UpdateSection(), row.model)


def prompts_of(row: Row, options: argparse.Namespace) -> list[Any]:
    from selftrain.types import Message, Prompt

    return [Prompt(str(at), (Message("user", text),)) for at, text in enumerate(prompt_texts(row, options)[: row.prompts])]


SIDES: dict[str, Callable[[Row, argparse.Namespace], dict[str, Any]]] = {"ours": ours, "trl": trl, "ours-sample": ours_sample, "vllm-sample": vllm_sample}
SIDES_OF = {"step": ("ours", "trl"), "sample": ("ours-sample", "vllm-sample")}


def peak_mib(row: Row) -> float:
    """Peak memory of this process, or of torch's allocator on the GPU."""
    if row.device == "cuda":
        import torch

        return torch.cuda.max_memory_allocated() / 2**20
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1024
    raise SystemExit("this system does not tell the peak memory of a process")


def matrix_rate(row: Row) -> float:
    """Operations a second of a matrix product in the row's type, the best of twenty."""
    import torch

    size, dtype = 512 if row.device == "cpu" else 8192, getattr(torch, row.dtype)
    left, right = (torch.randn(shape, device=row.device, dtype=dtype) for shape in ((4096, size), (size, size)))
    best = float("inf")
    for _ in range(20):
        begin = time.perf_counter()
        left @ right
        if row.device == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - begin)
    return 2 * 4096 * size * size / best


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="+", default=["embedded"], choices=[*ROWS, "scaling"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--warmup", type=int, default=2, help="steps that do not count")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--microbatch", type=int, help="our tokens per micro-batch")
    parser.add_argument("--trl-batches", type=int, nargs="+", default=[512, 64, 8], help="micro-batch sizes to try for the peer")
    parser.add_argument("--trl-batch", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--without-peer", action="store_true", help="our side alone, where the machine's time is short")
    parser.add_argument("--prompts", help="JSON lines with a prompt or question each")
    parser.add_argument("--smollm")
    parser.add_argument("--qwen")
    parser.add_argument("--long", help="scaling: a model folder for the lengths, with a context of at least 4,352 tokens, instead of a random one")
    parser.add_argument("--miniature", action="store_true", help="every row tiny, on the CPU, with the embedded model where none is given: does it run here?")
    parser.add_argument("--sizes", nargs="*", default=[], help="scaling: more model folders, of other sizes")
    parser.add_argument("--csv")
    parser.add_argument("--plot")
    parser.add_argument("--side", choices=list(SIDES), help=argparse.SUPPRESS)
    parser.add_argument("--row", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
