"""Table and figure of a climb, from its run folders only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path
from statistics import fmean

from climb_lessons import Climb
from selftrain.evals import Evaluation, Means, gained_and_lost, problem_values, resample
from selftrain.ledger import read
from selftrain.measured import recorded_evaluations
from selftrain.prompts import load_problems
from selftrain.report import charts
from selftrain.report.charts import Chart, Series
from selftrain.run import read_config

POINTS = ("the start", "k + 1", "k + 2")
COLOURS = ("#1f6fb2", "#b5541c", "#3c7d3f", "#7a4fa3")
CHART_HEIGHT = charts.HEIGHT + 24


@dataclass(frozen=True)
class Arm:
    """Evaluations of all three levels together: (seed, what had been trained on by then), and how far in steps. sizes: by prompt id, of the seed's problems."""

    name: str
    points: Mapping[tuple[int, str], Evaluation]
    steps: int
    sizes: Mapping[str, int]

    @property
    def seeds(self) -> tuple[int, ...]:
        return tuple(dict.fromkeys(seed for seed, _ in self.points))


def write_report(folder: Path, climb: Climb, names: Sequence[str], seeds: Sequence[int]) -> Path:
    """climb.md and climb.svg in the folder; the path of the first. ValueError where no seed has finished both rungs in all arms."""
    done = [seed for seed in seeds if all(is_done(folder / f"{name}-seed-{seed}-rung-{rung}") for name in names for rung in (1, 2))]
    if not done:
        raise ValueError(f"{folder}: no seed of {list(seeds)} has finished both rungs of {', '.join(names)}")
    arms = [arm_of(folder, climb, name, done) for name in names]
    (folder / "climb.svg").write_text(figure(arms, climb), "utf-8")
    target = folder / "climb.md"
    target.write_text("\n".join(page(arms, climb, done)) + "\n", "utf-8")
    return target


def is_done(run: Path) -> bool:
    return run.exists() and read(run).finished


def arm_of(folder: Path, climb: Climb, name: str, seeds: Sequence[int]) -> Arm:
    points: dict[tuple[int, str], Evaluation] = {}
    sizes: dict[str, int] = {}
    steps = 0
    for seed in seeds:
        rungs = [folder / f"{name}-seed-{seed}-rung-{rung}" for rung in (1, 2)]
        first, second = (recorded_evaluations(run) for run in rungs)
        points |= {(seed, POINTS[0]): first["before"], (seed, POINTS[1]): first["after"], (seed, POINTS[2]): second["after"]}
        config = read_config(rungs[0])
        steps = config.run.num_steps
        problems = load_problems(config.evals, config.prompts, seed)
        sizes |= {prompt.id: climb.size(prompt.text) for prompt in problems or ()}
    return Arm(name, points, steps, sizes)


def part(evaluation: Evaluation, climb: Climb, level: int, sizes: Mapping[str, int] | None = None, above: int = 0) -> Evaluation:
    """The problems of a level; where sizes are given, those that are larger than `above`."""
    kept = [one for one in evaluation.results if one.prompt_id.startswith(f"gym-{climb.task}-{level}/") and (not sizes or sizes[one.prompt_id] > above)]
    return replace(evaluation, results=tuple(kept), examples=())


def means(arms: Sequence[Arm], climb: Climb, level: int, measure: str, above: int | None = None) -> dict[tuple[str, str], Means]:
    """(arm, point) -> its mean over seeds and problems of a level, all resampled together."""
    values = {
        (arm.name, point): [
            problem_values(part(arm.points[seed, point], climb, level, arm.sizes if above is not None else None, above or 0), measure) for seed in arm.seeds
        ]
        for arm in arms
        for point in POINTS
    }
    return resample(values, same_problems=False)


def page(arms: Sequence[Arm], climb: Climb, seeds: Sequence[int]) -> list[str]:
    taught = max(size for prompt_id, size in arms[0].sizes.items() if prompt_id.startswith(f"gym-{climb.task}-{climb.level}/"))
    num_problems = len(part(arms[0].points[seeds[0], POINTS[0]], climb, climb.level).results)
    lines = [
        f"# {climb.task}: levels {climb.levels[0]} (supervised), {climb.levels[1]} and {climb.levels[2]} (label-free)",
        "",
        f"Seeds {', '.join(map(str, seeds))}; {num_problems} held-out problems of each level and seed; {arms[0].steps} steps a rung; T = 1; 95 % intervals.",
        f"*New*: the problems of level {climb.levels[2]} with more than {taught} {climb.what_size_is}, which the start was never taught.",
        "",
        "| arm | trained on | " + " | ".join(f"level {level}: avg@16 | maj@16" for level in climb.levels) + " | new: avg@16 | maj@16 |",
        "|---|---|" + "---|" * 8,
    ]
    columns = [means(arms, climb, level, measure) for level in climb.levels for measure in ("avg", "maj")]
    columns += [means(arms, climb, climb.levels[2], measure, taught) for measure in ("avg", "maj")]
    for arm in arms:
        for point in POINTS if arm is arms[0] else POINTS[1:]:
            name, trained = ("the start", f"{climb.level}, supervised") if point == POINTS[0] else (arm.name, f"{climb.levels[POINTS.index(point)]}")
            lines.append(f"| {name} | level {trained} | " + " | ".join(in_points(column[arm.name, point]) for column in columns) + " |")
    return [*lines, "", *gains(arms, climb, columns[4]), "", "![avg@16 of each level](climb.svg)"]


def gains(arms: Sequence[Arm], climb: Climb, avg: Mapping[tuple[str, str], Means]) -> list[str]:
    """What each arm won on level k + 2, against the fixed teacher and true answers."""
    top = climb.levels[2]
    lines = [
        f"Gain in avg@16 on level {top} from the start to the end, paired; problems whose vote turned right or wrong, mean of the seeds:",
        "",
        "| arm | gain, points | over frozen | share of true answers' gain | gained / lost |",
        "|---|---|---|---|---|",
    ]
    gained = {arm.name: avg[arm.name, POINTS[2]].minus(avg[arm.name, POINTS[0]]) for arm in arms}
    for arm in arms:
        over = in_points(gained[arm.name].minus(gained["frozen"]), sign="+") if "frozen" in gained and arm.name != "frozen" else ""
        share = gained[arm.name].share_of(gained["reference"]) if "reference" in gained and arm.name != "reference" else None
        written = "" if share is None else f"{100 * share.value:.0f} % [{100 * share.low:.0f}, {100 * share.high:.0f}]"
        moved = [gained_and_lost(part(arm.points[seed, POINTS[0]], climb, top), part(arm.points[seed, POINTS[2]], climb, top)) for seed in arm.seeds]
        count = f"{fmean(len(one.gained) for one in moved):.0f} / {fmean(len(one.lost) for one in moved):.0f}"
        lines.append(f"| {arm.name} | {in_points(gained[arm.name], sign='+')} | {over} | {written} | {count} |")
    return lines


def in_points(found: Means, sign: str = "") -> str:
    interval = found.interval
    return f"{100 * interval.value:{sign}.1f} [{100 * interval.low:{sign}.1f}, {100 * interval.high:{sign}.1f}]"


def figure(arms: Sequence[Arm], climb: Climb) -> str:
    """A chart for each level: held-out avg@16 over the steps of both rungs, a line per arm."""
    width = charts.WIDTH
    style = "text{font:10.5px sans-serif;fill:#555}.grid{stroke:#ddd}.line{fill:none;stroke-width:1.8}.bar{stroke-width:1.4;opacity:.55}"
    style += "".join(f".line{at}{{stroke:{colour}}}.dot.line{at}{{fill:{colour}}}" for at, colour in enumerate(COLOURS))
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {3 * width} {CHART_HEIGHT + 20}"><style>{style}</style>']
    parts.append(f'<rect width="{3 * width}" height="{CHART_HEIGHT + 20}" fill="#fff"/>')
    for at, level in enumerate(climb.levels):
        found = means(arms, climb, level, "avg")
        lines = []
        for arm in arms:
            steps = [arm.steps * place for place in range(3)]
            shown = [found[arm.name, point].interval for point in POINTS]
            bars = tuple((float(step), one.low, one.high) for step, one in zip(steps, shown, strict=True))
            lines.append(Series(arm.name, tuple((float(step), one.value) for step, one in zip(steps, shown, strict=True)), bars))
        title = f"{climb.task} level {level}: held-out avg@16 over steps"
        chart = charts.svg(Chart(title, "fraction", tuple(lines), (0.0, 1.0)), 2 * arms[0].steps)
        parts.append(f'<text x="{at * width + charts.LEFT}" y="14">{escape(title)}</text>')
        parts.append(chart.replace("<svg ", f'<svg x="{at * width}" y="20" width="{width}" height="{charts.HEIGHT}" ', 1))
    for at, arm in enumerate(arms):
        parts.append(f'<rect x="{charts.LEFT + 110 * at}" y="{CHART_HEIGHT}" width="10" height="10" fill="{COLOURS[at]}"/>')
        parts.append(f'<text x="{charts.LEFT + 110 * at + 14}" y="{CHART_HEIGHT + 9}">{escape(arm.name)}</text>')
    return "".join(parts) + "</svg>\n"
