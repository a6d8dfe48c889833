"""Judges the guard on the recorded runs of its laboratory (`guard_lab.py`), without training again. What is finished in --out is kept.

    python benchmarks/guard.py judge                      # collapses found in time, healthy runs disturbed, what is handed over
    python benchmarks/guard.py judge --limits shortcut=1.2 off_base=0.8                   # the same with other limits (times these)
    python benchmarks/guard.py ablate                     # each rule and each family of signals left out, and alone
    python benchmarks/guard.py fit                        # limits against each other, on the FIT half; no JUDGE run is opened
    python benchmarks/guard.py probe --hours 1            # probes of this version at the kept checkpoints, in place of the recorded ones
    python benchmarks/guard.py probe --only-support       # the support alone, of runs recorded before it was known, beside their probes
    python benchmarks/guard.py measure --hours 1 --fresh  # evaluations that the record lacks: last weights, fresh problems
    python benchmarks/guard.py look --cells NAME          # signals, parts of the health and accuracy of a run, step by step
    python benchmarks/guard.py figure --cells NAME --way lower_rate      # the run without and with the guard (records it), and points lost when found
    python benchmarks/guard.py rollback --way lower_rate --hours 1       # records the missing pairs of runs that the guard would halt
    python benchmarks/guard.py beside --other runs/guard-lab-0           # runs of the same cells that differ in an option, paired: what is handed over

The verdicts are those of the guard of this version, made again from the recorded signals. `guard_curves.py` says what a collapse is.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path

from guard_curves import Fate, Shares, accuracy_at
from guard_figures import lost_when_found, two_runs, write
from guard_fit import ablation_page, fit_page
from guard_lab import FIT, JUDGE, Cell, done
from guard_measure import measure
from guard_pairs import WAYS, Ends, Pair, beside_page, ends_of, pair_of, pairs_page, record_pair
from guard_probes import probe_missing
from guard_runs import SECTION, LabRun, cell_of, judged, load, read_measured, with_limits
from guard_tables import handover, in_json, page
from selftrain.config import ProbesSection
from selftrain.guard_stream import verdicts

HALVES = {"all": (*FIT, *JUDGE), "FIT": FIT, "JUDGE": JUDGE}
SHOWN = {
    "share": "vote/share_mean_frac",
    "entropy": "policy/entropy_mean_nats",
    "length": "completion/length_mean_tokens",
    "coll": "vote/collision_frac",
    "read": "vote/read_mean_frac",
    "flips": "vote/flip_frac",
    "halves": "vote/split_half_frac",
    "base": "probe/base_agree_frac",
    "reword": "probe/reword_agree_frac",
    "p.len": "probe/length_mean_tokens",
    "p.share": "probe/share_mean_frac",
    "kl": "probe/kl_base_nats",
}


def runs_of(args: argparse.Namespace, half: str) -> list[LabRun]:
    """The finished runs of a half, or those that are named."""
    loaded = load(args.folder, HALVES[half], args.out / "measured", args.out / "probes")
    found = [run for run in loaded if is_asked_for(args, run.cell, half)]
    if not found:
        raise SystemExit(f"{args.folder} has no finished run {'of these names' if args.cells else f'of half {half}'}: see `guard_lab.py --list`")
    return found


def is_asked_for(args: argparse.Namespace, cell: Cell, half: str) -> bool:
    """By --cells and --seeds, and of this half."""
    return cell.task in HALVES[half] and (not args.cells or cell.name in args.cells) and (not args.seeds or cell.seed in args.seeds)


def keep(args: argparse.Namespace, name: str, text: str) -> None:
    (args.out / name).write_text(text, "utf-8")
    print(text)


def fresh_of(out: Path, cell: Cell) -> dict[int, Shares]:
    """Evaluations of a run on fresh problems, by steps done; none where `measure --fresh` was not asked."""
    return {int(step): tuple(shares) for step, shares in read_measured(out / "measured", cell).get("fresh", {}).items()}


def judge(args: argparse.Namespace) -> None:
    scales = {name: float(scale) for name, _, scale in (one.partition("=") for one in args.limits)}
    found = [judged(run, with_limits(scales)) for run in runs_of(args, args.half)]
    fresh = {one.run.cell.name: fresh_of(args.out, one.run.cell) for one in found}
    rows = [in_json(one, handover(one, fresh[one.run.cell.name])) for one in found]
    (args.out / "judgement.json").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    given = f"\nLimits times {', '.join(args.limits)}.\n" if scales else ""
    keep(args, "judgement.md", page(found, fresh) + given)


def ablate(args: argparse.Namespace) -> None:
    keep(args, "ablation.md", ablation_page(runs_of(args, args.half)))


def fit(args: argparse.Namespace) -> None:
    keep(args, "fit.md", fit_page(runs_of(args, "FIT")))


def measure_missing(args: argparse.Namespace) -> None:
    measure(args.folder, args.out / "measured", args.hours, args.fresh, lambda cell: is_asked_for(args, cell, args.half))


def probe(args: argparse.Namespace) -> None:
    found = [cell for path in sorted(args.folder.iterdir()) if (cell := cell_of(path.name)) is not None and is_asked_for(args, cell, args.half)]
    probe_missing(args.folder, args.out / "probes", args.hours, found, ProbesSection(), args.only_support)


def look(args: argparse.Namespace) -> None:
    for run in runs_of(args, args.half):
        print(f"{run.cell.name}: {run.fate}\nstep   avg health  " + " ".join(f"{name:>7}" for name in SHOWN) + "  parts")
        for step, verdict in zip(run.steps, verdicts(run.steps, SECTION), strict=True):
            values = [step.metrics.values.get(key) for key in SHOWN.values()]
            health = "     " if verdict.health is None else f"{verdict.health.value:.3f}"
            parts = {} if verdict.health is None else {name: round(bits, 2) for name, bits in verdict.health.parts.items() if bits >= 0.02}
            numbers = " ".join(" " * 7 if value is None else f"{value:7.2f}" for value in values)
            print(f"{verdict.step:4} {100 * accuracy_at(run.curve, verdict.step):5.1f} {health} {str(verdict.action)[:4]:4} {numbers}  {parts}")


def figure(args: argparse.Namespace) -> None:
    if args.cells:
        for run in runs_of(args, args.half):
            pair = record_pair(run.cell, args.out / "pairs", args.way)
            if done(pair):
                print(*write(two_runs(run, pair, args.way), args.out / f"{run.cell.name}-{args.way}.svg"))
        return
    fell = [judged(run) for run in runs_of(args, args.half) if run.fate in (Fate.COLLAPSED, Fate.FALLEN)]
    if not fell:
        raise SystemExit(f"{args.folder} has no collapse to draw yet; give --cells NAME for the figure of one run")
    print(*write(lost_when_found(fell), args.out / "lost.svg"))


def rollback(args: argparse.Namespace) -> None:
    until, folder = time.monotonic() + 3600 * args.hours, args.out / "pairs"
    pairs: list[Pair] = []
    left_out: list[str] = []
    for run in candidates(runs_of(args, args.half)):
        path = folder / args.way / run.cell.name
        if not done(path) and time.monotonic() < until:
            record_pair(run.cell, folder, args.way)
        if done(path):
            found = pair_of(run, path)
            if isinstance(found, Pair):
                pairs.append(found)
            else:
                left_out.append(f"- `{run.cell.name}`: {found}")
    keep(args, f"rollback-{args.way}.md", pairs_page(pairs, left_out, args.way))


def beside(args: argparse.Namespace) -> None:
    if args.other is None:
        raise SystemExit("give the other laboratory, whose runs were measured too: --other FOLDER")
    there = argparse.Namespace(**{**vars(args), "folder": args.other, "out": judged_folder(args.other)})
    sides: list[dict[str, Ends]] = []
    for side in (args, there):
        found = [judged(run) for run in runs_of(side, args.half)]
        sides.append({one.run.cell.name: ends for one in found if (ends := ends_of(one, fresh_of(side.out, one.run.cell))) is not None})
    both = {name: (sides[0][name], sides[1][name]) for name in sides[0] if name in sides[1]}
    if not both:
        raise SystemExit("no run was measured on fresh problems in both laboratories: see `guard.py measure --fresh`")
    keep(args, "beside.md", beside_page(both, {name: cell.source for name in both if (cell := cell_of(name)) is not None}))


def judged_folder(folder: Path) -> Path:
    """Where results of a laboratory go."""
    return folder.with_name(f"{folder.name}-judged")


def candidates(runs: Sequence[LabRun]) -> list[LabRun]:
    """The runs that the guard would halt: collapsed ones first."""
    order = list(Fate)
    return sorted((run for run in runs if judged(run).harmed is not None), key=lambda run: order.index(run.fate))


COMMANDS = {"judge": judge, "ablate": ablate, "fit": fit, "probe": probe, "measure": measure_missing, "look": look, "figure": figure}
COMMANDS |= {"rollback": rollback, "beside": beside}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=COMMANDS)
    parser.add_argument("--folder", type=Path, default=Path("runs/guard-lab"), help="the laboratory; it is only read")
    parser.add_argument("--out", type=Path, default=None, help="where results go (default: FOLDER-judged)")
    parser.add_argument("--half", choices=HALVES, default="all", help="which tasks; `fit` has the FIT half whatever is given")
    parser.add_argument("--cells", nargs="*", default=[], help="names of runs; none: all")
    parser.add_argument("--seeds", nargs="*", type=int, default=[], help="none: all")
    parser.add_argument("--limits", nargs="*", default=[], metavar="RULE=SCALE", help="judge: limits that are multiplied")
    parser.add_argument("--way", choices=WAYS, default="lower_rate", help="figure, rollback: halt, or the remedy of the run that rolls back")
    parser.add_argument("--hours", type=float, default=1.0, help="probe, measure, rollback: begin nothing new after so long")
    parser.add_argument("--other", type=Path, default=None, help="beside: a laboratory with runs of the same cells")
    parser.add_argument("--only-support", action="store_true", help="probe: how much of the start's vote the answers have, and nothing else")
    parser.add_argument("--fresh", action="store_true", help="measure: base, best and handed-over checkpoint on fresh problems, too")
    args = parser.parse_args()
    args.out = args.out or judged_folder(args.folder)
    args.out.mkdir(parents=True, exist_ok=True)
    COMMANDS[args.command](args)


if __name__ == "__main__":
    main()
