"""What a probe, a look at the support and a glance of the default run cost, part by part, in turn in one process, and what share of its steps that is.

    python benchmarks/probe_cost.py               # 24 rounds, about two minutes on 2 idle cores
    python benchmarks/probe_cost.py --rounds 3 policy.model=MODEL_FOLDER prompts.file=QUESTIONS.jsonl rollout.max_new_tokens=64      # any other run

`selftrain profile` takes the difference of the sampling times of different steps, which is noise of the size of what is looked for; here the votes of one step
are drawn three times in each round, alone and with what is asked beside them, in another order each time. A run without probes does one step a round, and its
median is what the cost is a share of: a probe at every `probes.every_steps`-th step, the glances between, as of a run that learns, two looks at the support a
run.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from statistics import median
from typing import TypeVar

from selftrain.compose import load_policy, load_sets
from selftrain.compose_probes import drawing, make_probes
from selftrain.config import RunConfig
from selftrain.config_load import load_config
from selftrain.policies.base import SampleRequest
from selftrain.probes import ask_base, base_of, probe
from selftrain.probes.probing import FIRST_PROMPTS, asked_of, glance, glance_every, requests_of
from selftrain.probes.support import supporting
from selftrain.run import start
from selftrain.seeds import Stream
from selftrain.train import train

T = TypeVar("T")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=24)
    parser.add_argument("options", nargs="*", metavar="OPTION=VALUE", help="of the run")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        measure(load_config((), {"run.folder": folder, **dict(one.split("=", 1) for one in given.options)}), given.rounds)


def measure(config: RunConfig, rounds: int) -> None:
    problems, policy = load_sets(config), load_policy(config)
    steps = plain_steps(config, rounds)
    probe_set, how = make_probes(config, problems.aside), drawing(config)
    base = base_of(ask_base(policy, probe_set, how))
    asked = {
        "votes alone": [],
        "with a probe": requests_of(asked_of(base, probe_set, how.num_supporting), how, base),
        "with a look at the support": requests_of(supporting(base, probe_set, how.num_supporting), how, base),
    }
    print({name: f"{sum(one.count for one in more)} completions to {len(more)} prompts" for name, more in asked.items()})
    seconds: dict[str, list[float]] = defaultdict(list)

    def timed(name: str, work: Callable[[], T]) -> T:
        begun = time.perf_counter()
        found = work()
        seconds[name].append(time.perf_counter() - begun)
        return found

    size, names, prompts = config.rollout.prompts_per_step, list(asked), problems.train.prompts
    for number in range(rounds):
        first = size * number % (len(prompts) - size)
        seeds = Stream(number)
        votes = [SampleRequest(prompt, config.rollout.num_votes, number, at) for at, prompt in enumerate(prompts[first : first + size])]
        for name in (*names[number % 3 :], *names[: number % 3]):
            requests = [*votes, *asked[name]]
            drawn = timed(name, lambda requests=requests, seeds=seeds: policy.sample(requests, how.params, seeds))  # type: ignore[misc]
            if name == "with a probe":
                own = drawn[size:]
        timed("scoring of a probe", lambda own=own: probe(policy, base, probe_set, how, drawn=own))  # type: ignore[misc]
        timed("a glance at all", lambda: glance(policy, base, how.params.temperature))
        timed("a glance at the first", lambda: glance(policy, base, how.params.temperature, end=FIRST_PROMPTS))
        timed("a step without probes", lambda: next(steps))
    longer = {name: median(one - alone for one, alone in zip(seconds[name], seconds[names[0]], strict=True)) for name in names[1:]}
    for name, found in seconds.items():
        more = f", {1000 * longer[name]:+5.0f} ms of the same round" if name in longer else ""
        print(f"{name:28} {1000 * median(found):5.0f} ms{more}")
    every, step = config.probes.every_steps, median(seconds["a step without probes"])
    glances = (-(-every // glance_every(every)) - 1) / every
    parts = {
        "probes": (longer[names[1]] + median(seconds["scoring of a probe"])) / every / step,
        "glances": median(seconds["a glance at the first"]) * glances / step,
        "looks at the support": longer[names[2]] * 2 / config.run.num_steps / step,
    }
    print(", ".join(f"{name} {100 * share:.2f} %" for name, share in parts.items()) + f" of a step; together {100 * sum(parts.values()):.2f} %")


def plain_steps(config: RunConfig, num_steps: int) -> Iterator[object]:
    """The steps of a run with these options and no probes; the first two, which compile and allocate, are done when this returns."""
    run_section = config.run.model_copy(update={"num_steps": num_steps + 2, "checkpoint_every_steps": num_steps + 2})
    plain = config.model_copy(update={"run": run_section, "probes": config.probes.model_copy(update={"num_prompts": 0})})
    steps = train(start(plain).parts(), 0)
    next(steps), next(steps)
    return steps


if __name__ == "__main__":
    main()
