"""Does the forecast of `selftrain calibrate` tell gain from loss? Runs whose end is known, split by task into a half to fit on and a half to judge.

    python benchmarks/guard_lab.py --folder runs/guard-lab --hours 8      # a laboratory, or any folders of `selftrain train` with held-out problems
    python benchmarks/guard.py measure --folder runs/guard-lab --out runs/guard-judged       # evaluates the newest weights of those that handed over others
    python benchmarks/calibrate.py runs/guard-lab --measured runs/guard-judged/measured      # fits on the first half of the tasks, judges on the other

What became of a run is the paired difference in avg@k on its held-out problems, from the start to its newest weights: a gain or a loss where the 95 % interval
excludes 0, else left out. The evidence is what `selftrain calibrate --no-answers` measures of the run's config; runs that differ in their seed share it. It
is kept in a file, so the command goes on where it was. AUROC over the judging half is that of coefficients fitted on the other half, beside those that
ship and beside single numbers. Its interval is by bootstrap over cells (all seeds of a cell together); runs without label-free labels are counted apart.
"""

from __future__ import annotations

import argparse
import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from selftrain.calibration.evidence import Evidence
from selftrain.calibration.forecast import COEFFICIENTS, INTERCEPT, TERMS, forecast, logistic
from selftrain.calibration.measuring import calibrate
from selftrain.comparing.measuring import end_of
from selftrain.compose import deciding
from selftrain.config import RunConfig
from selftrain.evals import Interval, paired_difference
from selftrain.evals.bootstrap import mean_interval
from selftrain.evals.compare import problem_values
from selftrain.evals.proxy import auc
from selftrain.report import RunRecord, read_record
from selftrain.run_folder import relocated

JUDGE = ("sub:2", "mul:2", "tall:1", "truth:2")
"""tasks of the judging half; all others are fitted on. Those of benchmarks/guard_lab.py"""
PROXIES = "label-free sources that are no control"
CONTROLS = ("random", "format_only", "inverted")
RIDGE = 1.0
RESAMPLES = 2000


@dataclass(frozen=True)
class Row:
    """A run: cell (its config without the seed), task, source, how avg@k changed, its evidence."""

    name: str
    cell: str
    task: str
    source: str
    is_label_free: bool
    change: Interval
    evidence: Evidence

    @property
    def gained(self) -> bool:
        return self.change.value > 0

    @property
    def is_proxy(self) -> bool:
        return self.is_label_free and self.source not in CONTROLS


def runs_in(folders: Sequence[Path]) -> list[Path]:
    return sorted({file.parent for folder in folders for file in folder.rglob("run.json")})


def change_of(record: RunRecord) -> Interval | None:
    """From the start to the newest weights; None where either was not evaluated or the run has no end yet."""
    before, end = record.evaluation("before"), end_of(record)
    return None if before is None or end is None or end is before or record.end_reason is None else paired_difference(before, end)


def measured_change(record: RunRecord, folder: Path, measured: Path | None) -> Interval | None:
    """The same where the newest weights were evaluated after the run (`guard.py measure`)."""
    file = None if measured is None else measured / f"{folder.name}.json"
    shares = {} if file is None or not file.exists() else json.loads(file.read_text())["held_out"]
    end = shares.get(str(record.config.run.num_steps))
    before = record.evaluation("before")
    if end is None or before is None or record.end_reason is None:
        return None
    return mean_interval([late - early for early, late in zip(problem_values(before, "avg"), end, strict=True)])


def cell_of(config: RunConfig, header: Mapping[str, Any]) -> str:
    """What decides a run but for its seed, as a short hash."""
    values = {name: section for name, section in deciding(config).items() if name not in ("evals", "guard", "vllm")}
    values["run"] = {"num_steps": config.run.num_steps}
    values["policy"] = {"model": header["model_hash"], "temperature": config.rollout.temperature}
    return json.dumps(values, sort_keys=True)


def rows_of(folders: Sequence[Path], cache: Path, count: int, measured: Path | None = None) -> list[Row]:
    known: dict[str, Evidence] = json.loads(cache.read_text()) if cache.exists() else {}
    rows = []
    for folder in runs_in(folders):
        record = read_record(folder)
        change = change_of(record) or measured_change(record, folder, measured)
        if change is None:
            print(f"{folder.name}: not finished, or not evaluated; left out", flush=True)
            continue
        config = relocated(record.config, Path(record.environment["cwd"]))
        cell = cell_of(config, record.header)
        name = f"{count} {cell}"
        if name not in known:
            known[name] = calibrate(config, count, False, lambda done, whole: None).evidence
            cache.write_text(json.dumps(known))
        task = config.prompts.task or config.prompts.file or config.policy.model
        rows.append(Row(folder.name, cell, task, config.labels.source, bool(record.header["label_free"]), change, known[name]))
        print(f"{folder.name:48} {100 * change.value:+6.1f} points, forecast {100 * forecast(known[name]).gain_chance:3.0f} %", flush=True)
    return rows


def terms_of(evidence: Evidence) -> list[float]:
    return [term.of(evidence) or 0.0 for term in TERMS.values()]


def fit(rows: Sequence[Row], ridge: float = RIDGE) -> list[float]:
    """Intercept and coefficients by penalised maximum likelihood (Newton); the intercept is not penalised. A cell's runs weigh 1 together."""
    sizes = Counter(row.cell for row in rows)
    terms = np.array([[1.0, *terms_of(row.evidence)] for row in rows])
    gained = np.array([float(row.gained) for row in rows])
    weights = np.array([1 / sizes[row.cell] for row in rows])
    penalty = np.diag([1e-6] + [ridge] * (terms.shape[1] - 1))
    found = np.zeros(terms.shape[1])
    for _ in range(100):
        chances = np.array([logistic(score) for score in terms @ found])
        slope = terms.T @ (weights * (gained - chances)) - penalty @ found
        curve = (terms * (weights * chances * (1 - chances))[:, None]).T @ terms + penalty
        step = np.linalg.solve(curve, slope)
        found = found + step * min(1.0, 5.0 / max(1e-9, float(np.abs(step).max())))
        if float(np.abs(step).max()) < 1e-9:
            break
    return [float(value) for value in found]


def scores(rows: Sequence[Row], coefficients: Sequence[float]) -> list[float]:
    return [coefficients[0] + math.fsum(c * value for c, value in zip(coefficients[1:], terms_of(row.evidence), strict=True)) for row in rows]


def auroc(rows: Sequence[Row], found: Sequence[float]) -> Interval | None:
    """With the interval over cells; None unless there are gains and losses."""
    flags = [row.gained for row in rows]
    value = auc(found, flags)
    if value is None:
        return None
    names = sorted({row.cell for row in rows})
    places = [[at for at, row in enumerate(rows) if row.cell == name] for name in names]
    generator = np.random.Generator(np.random.Philox(key=0))
    drawn = []
    for _ in range(RESAMPLES):
        picked = [at for cell in generator.integers(len(names), size=len(names)) for at in places[cell]]
        one = auc([found[at] for at in picked], [flags[at] for at in picked])
        if one is not None:
            drawn.append(one)
    low, high = np.percentile(drawn, [2.5, 97.5])
    return Interval(value, float(low), float(high))


def words(rows: Sequence[Row], found: Sequence[float]) -> str:
    one = auroc(rows, found)
    return "-" if one is None else str(one)


def table(judged: Sequence[Row], fitted: Sequence[Row], coefficients: Sequence[float] | None) -> list[str]:
    """One line per score: AUROC on all judged runs, on the proxies among them, and on the half that was fitted on."""
    shipped = [INTERCEPT, *(COEFFICIENTS[name] for name in TERMS)]
    ways = {
        **({"fitted on the other half": lambda rows: scores(rows, coefficients)} if coefficients is not None else {}),
        "shipped coefficients": lambda rows: scores(rows, shipped),
        "mean vote share alone": lambda rows: [row.evidence["share_mean_frac"] or 0.0 for row in rows],
        "least travel alone": lambda rows: [-(row.evidence["travel_nats"] or 0.0) for row in rows],
    }
    proxies = [row for row in judged if row.is_proxy]
    lines = [f"| score | AUROC, judging half ({len(judged)} runs) | {PROXIES} ({len(proxies)}) | fitting half ({len(fitted)}) |", "|---|---|---|---|"]
    return lines + [f"| {name} | {words(judged, way(judged))} | {words(proxies, way(proxies))} | {words(fitted, way(fitted))} |" for name, way in ways.items()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path, help="run folders, or folders that hold them")
    parser.add_argument("--judge", nargs="*", default=list(JUDGE), help="tasks that are judged on; the others are fitted on")
    parser.add_argument("--count", type=int, default=64, help="prompts that the evidence is measured on")
    parser.add_argument("--measured", type=Path, help="folder of later evaluations of the newest weights, for runs that handed over others")
    parser.add_argument("--cache", type=Path, default=Path("runs/calibrate-evidence.json"), help="file that keeps the evidence")
    args = parser.parse_args()
    args.cache.parent.mkdir(parents=True, exist_ok=True)
    rows = rows_of(args.folders, args.cache, args.count, args.measured)
    clear = [row for row in rows if row.change.excludes_zero]
    judged, fitted = ([row for row in clear if (row.task in args.judge) is wanted] for wanted in (True, False))
    print(f"\n{len(rows)} runs; {len(rows) - len(clear)} neither gained nor lost and are left out")
    for half, name in ((fitted, "fitting"), (judged, "judging")):
        print(f"{name} half: {sum(row.gained for row in half)} gains, {sum(not row.gained for row in half)} losses; tasks {sorted({row.task for row in half})}")
    coefficients = fit(fitted) if len({row.gained for row in fitted}) == 2 else None
    if coefficients is None:
        print("no fit: the fitting half needs gains and losses")
    else:
        print("fitted: intercept", f"{coefficients[0]:+.2f}", *(f"{name} {value:+.2f}" for name, value in zip(TERMS, coefficients[1:], strict=True)))
    print("\n" + "\n".join(table(judged, fitted, coefficients)))


if __name__ == "__main__":
    main()
