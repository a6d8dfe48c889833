"""Self-correction: the same start trained without labels, with and without a second turn; whether turn 1 suffers, and what turn 2 is worth.

    python benchmarks/correction.py                       # makes the start (once), then the runs of seeds 10-12
    python benchmarks/correction.py --quick               # does it run? minutes, no result

The start: `embedded:default` does not know the correction turn, so it is taught here for --lessons supervised steps, on additions of 1 to 4 digits that
are in no held-out set. Half of the lessons are a correction turn: a solution with slips, the user says `check`, and the clean solution is learned; the others
a first solution that slips as in the model's own lessons. The folder is written, not shipped.
The runs: `selftrain compare` with the default recipe on add:4, `majority` (one turn) against `own` (a second turn after some completions, rewarded by the
same vote); same prompts, steps and seeds. Evaluations of `own` correct each completion once. At the end every model of `majority` is evaluated with a second
turn too, which it was never trained on online. What is finished is kept: the same command goes on where it was interrupted.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from selftrain.comparing.table import StartTable, read_table
from selftrain.compose import load_sets
from selftrain.config_load import load_config
from selftrain.evals import Evaluation, resample
from selftrain.evaluate_model import evaluate
from selftrain.ledger.objects import place
from selftrain.models import folder as embedded_folder
from selftrain.prompts.tasks import task
from selftrain.report import words
from selftrain.seeds import Stream

HERE = Path(__file__).parent
RECIPE = HERE.parent / "src/selftrain/recipes/embedded.toml"
sys.path.insert(0, str(HERE.parent / "scripts"))
from make_model import ASSISTANT, END, USER, encode_batch  # noqa: E402

LEVELS, WEIGHTS = (1, 2, 3, 4), (0.1, 0.2, 0.3, 0.4)
SLIP_FRAC = 0.11
"""share of wrong steps in first solutions, as in the lessons of the start"""
SLIPS_SEEN_FRAC = 0.2
"""the same in the solutions that are corrected: about six in ten of those with four steps have a slip"""
BATCH = 64
LEARNING_RATE = 5e-4


def options(args: argparse.Namespace, seed: int) -> dict[str, object]:
    """What all runs share, over the default recipe."""
    return {
        "run.seed": seed,
        "run.num_steps": args.steps,
        "run.checkpoint_every_steps": args.steps,
        "rollout.prompts_per_step": 16,
        "rollout.num_votes": 16,
        "evals.num_problems": args.problems,
        "evals.num_samples": args.samples,
        "guard.action": "warn",
        "policy.num_threads": args.threads,
    }


def lesson(stream: Stream, barred: set[str]) -> tuple[str, str] | None:
    """(text given, text to learn) of a stream's address; None where the problem is held out."""
    choice = stream.at(prompt_id="choice").generator()
    add, level = task("add"), int(choice.choice(LEVELS, p=WEIGHTS))
    problem = add.draw(stream, level)
    if problem.text in barred:
        return None
    if choice.random() < 0.5:
        return f"{USER}{problem.text}{ASSISTANT}", f"{add.slipped(problem.text, stream.at(prompt_id='slip'), SLIP_FRAC)[0]}{END}"
    first = add.slipped(problem.text, stream.at(prompt_id="slip"), SLIPS_SEEN_FRAC)[0]
    return f"{USER}{problem.text}{ASSISTANT}{first}{END}{USER}check{ASSISTANT}", f"{problem.solution}{END}"


def make_start(folder: Path, num_steps: int, barred: set[str]) -> None:
    """`embedded:default` after the lessons, as a Hugging Face folder; written whole or not at all."""
    source = embedded_folder("default")
    model, tokenizer = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32), AutoTokenizer.from_pretrained(source)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.98), weight_decay=0.01)
    stream, drawn, begun = Stream(0).at(stream="correction lessons"), 0, time.monotonic()
    for step in range(num_steps):
        batch: list[tuple[str, str]] = []
        while len(batch) < BATCH:
            drawn += 1
            if (one := lesson(stream.at(index=drawn), barred)) is not None:
                batch.append(one)
        ids, labels = encode_batch(tokenizer, batch)
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * min(1.0, (step + 1) / 20) * (1 - 0.9 * step / num_steps)
        loss = model(input_ids=ids, labels=labels, attention_mask=(ids != tokenizer.pad_token_id).long()).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if step % 25 == 24:
            print(f"lesson {step + 1} of {num_steps}, loss {loss.item():.3f}, {time.monotonic() - begun:.0f} s", flush=True)
    unfinished = folder.with_name(f"{folder.name}.unfinished")
    unfinished.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(unfinished)
    tokenizer.save_pretrained(unfinished)
    unfinished.rename(folder)


def compare(args: argparse.Namespace, start: Path, folder: Path) -> None:
    """The runs, by `selftrain compare`."""
    own = folder.parent / "own.toml"
    own.write_text('[labels]\nsource = "majority"\n[correction]\nmode = "own"\n', "utf-8")
    given = {name: value for name, value in options(args, 0).items() if name != "run.seed"}
    words_ = ["compare", str(RECIPE), "--sources", "majority", f"own={own}", "--seeds", *map(str, args.seeds), "--models", str(start), "--folder", str(folder)]
    words_ += [word for name, value in given.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    print(shlex.join(["selftrain", *words_]), flush=True)
    done = subprocess.run([sys.executable, "-m", "selftrain", *words_])
    if done.returncode:
        sys.exit(done.returncode)


def untrained(args: argparse.Namespace, start: Path, folder: Path, run: str, seed: int) -> Evaluation:
    """A one-turn run's last model with a second turn, which it was not trained on; kept beside the runs."""
    kept = folder / f"second-turn-of-{run}.json"
    if not kept.exists():
        given = {**options(args, seed), "policy.model": str(start), "correction.mode": "own"}
        kept.write_text(json.dumps(evaluate(load_config([RECIPE], given), str(folder / run)).to_json()), "utf-8")
    return Evaluation.from_json(json.loads(kept.read_text("utf-8")))


def conclusions(table: StartTable, second_of_majority: Mapping[int, Evaluation]) -> list[str]:
    """The two claims, and what an untrained second turn is worth, over the seeds that both have."""
    rows = {row.source: row for row in table.rows}
    own, majority = rows["own"], rows["majority"]
    turn1 = own.means["avg", "end"].minus(majority.means["avg", "end"]).interval
    found = list(second_of_majority.values())
    turns = {
        "after": [[again.num_right / one.num_samples for again in one.again] for one in found],
        "before": [[result.num_right / one.num_samples for result in one.results] for one in found],
    }
    means = resample(turns, same_problems=False)
    return [
        f"start: avg {words.percent(own.at('avg', 'before'))}, turn 2 over sampling again {words.points(own.over('turn2', 'avg', 'before'))}",
        f"gain in avg of turn 1: majority {words.points(majority.gain('avg'))}, own {words.points(own.gain('avg'))}",
        f"turn 1 of own minus turn 1 of majority, at the end: {words.points(turn1)}",
        f"turn 2 of own over sampling again, at the end: {words.points(own.over('turn2', 'avg', 'end'))}",
        f"maj, half of it corrected, over plain, at the end: {words.points(own.over('maj_pairs', 'maj_again', 'end'))}",
        f"turn 2 of majority, never trained online, over sampling again: {words.points(means['after'].minus(means['before']).interval)}",
        f"turn 2 of own minus turn 1 of majority, at the end: {words.points(own.means['turn2', 'end'].minus(majority.means['avg', 'end']).interval)}",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[10, 11, 12])
    parser.add_argument("--lessons", type=int, default=300, help="supervised steps of 64 lessons that make the start")
    parser.add_argument("--steps", type=int, default=25, help="at 15 turn 1 is not there yet, at 40 there is nothing left to correct (docs/log.md)")
    parser.add_argument("--problems", type=int, default=500)
    parser.add_argument("--samples", type=int, default=16)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--folder", type=Path, default=Path("runs/correction"))
    parser.add_argument("--quick", action="store_true", help="10 lessons, 3 steps, 16 problems, seed 10")
    args = parser.parse_args()
    if args.quick:
        args.seeds, args.lessons, args.steps, args.problems, args.samples = [10], 10, 3, 16, 4
        args.folder = args.folder.with_name(f"{args.folder.name}-quick")
    torch.set_num_threads(args.threads)
    args.folder.mkdir(parents=True, exist_ok=True)
    start, folder = args.folder / f"start-{args.lessons}", args.folder / f"runs-{args.lessons}"
    held_out = [load_sets(load_config([RECIPE], options(args, seed))).held_out for seed in args.seeds]
    if not start.exists():
        make_start(start, args.lessons, {prompt.text for one in held_out if one for prompt in one})
    compare(args, start, folder)
    (table,) = read_table(place(str(folder))).starts
    print(f"\n{(folder / 'comparison.md').read_text('utf-8')}")
    runs = {run.cell.seed: run.cell.name for row in table.rows if row.source == "majority" for run in row.runs}
    print("\n".join(conclusions(table, {seed: untrained(args, start, folder, name, seed) for seed, name in runs.items()})))


if __name__ == "__main__":
    main()
