"""A real model on real data, on the CPU: train 3 steps without answers, interrupt, resume, export, load with transformers, answer a problem.

    python benchmarks/real_model.py MODEL_FOLDER PROMPTS.jsonl [--folder runs] [--new-tokens 192] [extra options of `selftrain train`]

MODEL_FOLDER: a Hugging Face folder, for example SmolLM2-135M-Instruct or Qwen2.5-Coder-0.5B-Instruct. PROMPTS.jsonl: rows with a `prompt`; answers are
not needed and are not read. Prints wall time of each step and the peak memory of each process.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from selftrain.ledger import read


def command(*args: str) -> list[str]:
    return [sys.executable, "-m", "selftrain", *args]


def run(args: list[str], stop_after_step: int | None = None) -> None:
    """Run a command with JSON lines on its output; send Ctrl-C when the given step is done. Prints what it says."""
    begun = time.perf_counter()
    print("$", " ".join(["selftrain", *args[3:]]), flush=True)
    process = subprocess.Popen(args, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        event = json.loads(line) if line.startswith("{") else {"event": line.strip()}
        print("  ", line.strip()[:240], flush=True)
        if stop_after_step is not None and event.get("step") == stop_after_step and event.get("event") == "step":
            process.send_signal(signal.SIGINT)
            stop_after_step = None
    status = process.wait()
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    print(f"   exit status {status}, {time.perf_counter() - begun:.1f} s, peak memory of the processes so far {peak:.2f} GiB", flush=True)


def answer(folder: Path, question: str) -> str:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    inputs = tokenizer.apply_chat_template([{"role": "user", "content": question}], add_generation_prompt=True, return_tensors="pt", return_dict=True)
    output = model.generate(**inputs, max_new_tokens=96, do_sample=False)
    return str(tokenizer.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("prompts", type=Path)
    parser.add_argument("--folder", type=Path, default=Path("runs"))
    parser.add_argument("--name", default="real-model")
    parser.add_argument("--new-tokens", type=int, default=192)
    args, extra = parser.parse_known_args()
    for old in (args.folder / args.name, args.folder / f"{args.name}-exported"):
        shutil.rmtree(old, ignore_errors=True)
    options = {
        "policy.model": args.model,
        "prompts.file": str(args.prompts),
        "run.folder": str(args.folder),
        "run.name": args.name,
        "run.num-steps": "3",
        "run.checkpoint-every-steps": "2",
        "rollout.prompts-per-step": "4",
        "rollout.num-votes": "8",
        "rollout.max-new-tokens": str(args.new_tokens),
        "update.tokens-per-microbatch": "1024",
    }
    flags = [part for name, value in options.items() for part in (f"--{name}", value)]
    run(command("train", "--log", "json", *flags, *extra), stop_after_step=0)
    folder = args.folder / args.name
    run(command("resume", "--log", "json", str(folder)))
    run(command("verify", str(folder)))
    run(command("export", str(folder), str(args.folder / f"{args.name}-exported")))
    for row in read(folder).timings():
        print("   step", row["step"], {stage: round(seconds, 2) for stage, seconds in row["seconds"].items()})
    question = json.loads(args.prompts.read_text("utf-8").splitlines()[0])["prompt"]
    print(question, "\n->", answer(args.folder / f"{args.name}-exported", question))


if __name__ == "__main__":
    main()
